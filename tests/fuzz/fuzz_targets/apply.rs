//! See `checks::apply`.

#![no_main]

#[path = "../src/checks.rs"]
mod checks;
#[allow(dead_code, reason = "a target uses a part of the model")]
#[path = "../../../src/model/mod.rs"]
mod model;
#[path = "../src/shape.rs"]
mod shape;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::apply(data));
