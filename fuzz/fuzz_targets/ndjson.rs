//! Streams of lines.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| rocket_monitor::fuzzing::ndjson(input));
