//! See `checks::apply`.

#![no_main]

#[allow(dead_code, reason = "a target uses a part of it")]
#[path = "../src/checks.rs"]
mod checks;
#[allow(dead_code, reason = "a target uses a part of it")]
#[path = "../../../src/model/mod.rs"]
mod model;
#[allow(dead_code, reason = "a target uses a part of it")]
#[path = "../src/shape.rs"]
mod shape;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::apply(data));
