//! What fuzzing found interesting, as tests: every line of the files beside this one is an input,
//! in hexadecimal digits, and goes through the check of its fuzz target.

#[path = "../fuzz/src/checks.rs"]
mod checks;
#[path = "../fuzz/src/shape.rs"]
mod shape;

use alluvium::model;

fn inputs(lines: &str) -> impl Iterator<Item = Vec<u8>> + '_ {
    lines.lines().map(|line| {
        let digit = |at: usize| u8::from_str_radix(&line[at..at + 2], 16).unwrap();
        (0..line.len()).step_by(2).map(digit).collect()
    })
}

#[test]
fn events_are_decoded_or_refused() {
    let mut count = 0;
    for input in inputs(include_str!("event.hex")) {
        checks::event(&input);
        count += 1;
    }
    assert!(count > 10, "the corpus is gone");
}

#[test]
fn patches_are_applied_or_refused() {
    let mut count = 0;
    for input in inputs(include_str!("apply.hex")) {
        checks::apply(&input);
        count += 1;
    }
    assert!(count > 10, "the corpus is gone");
}
