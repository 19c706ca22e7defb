//! The sums of the blocks of a range.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| rocket_monitor::fuzzing::speed_blocks(input));
