#![no_main]

#[path = "parsers.rs"]
mod all;

libfuzzer_sys::fuzz_target!(|data: &[u8]| all::parsers::inventory(data));
