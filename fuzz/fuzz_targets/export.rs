//! Lines of exports.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| rocket_monitor::fuzzing::export(input));
