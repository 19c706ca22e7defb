//! Questions about missing messages.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| rocket_monitor::fuzzing::question(input));
