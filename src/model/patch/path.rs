//! Dotted paths: their components, the order in which the server visits them, and which component
//! means an index or an array filter.

use std::cmp::Ordering;

/// The component that begins at `at`, and where the next one begins, if there is one.
pub(crate) fn component(path: &[u8], at: usize) -> (&[u8], Option<usize>) {
    let rest = &path[at..];
    match rest.iter().position(|byte| *byte == b'.') {
        Some(end) => (&rest[..end], Some(at + end + 1)),
        None => (rest, None),
    }
}

/// The order of siblings in one update, which is the order in which new fields are created: names
/// that look like an index by length and then by bytes, so numerically; all others by bytes.
pub(crate) fn compare_siblings(left: &[u8], right: &[u8]) -> Ordering {
    let by_bytes = left.cmp(right);
    if looks_numeric(left) && looks_numeric(right) {
        left.len().cmp(&right.len()).then(by_bytes)
    } else {
        by_bytes
    }
}

/// Whether the server orders the name by its length first: it begins with a digit, without a
/// leading zero.
fn looks_numeric(name: &[u8]) -> bool {
    match name {
        [b'0'] => true,
        [first, ..] => (b'1'..=b'9').contains(first),
        [] => false,
    }
}

/// Compares whole paths component by component, a path before its extensions.
pub(crate) fn compare(left: &[u8], right: &[u8]) -> Ordering {
    let mut left = left.split(|byte| *byte == b'.');
    let mut right = right.split(|byte| *byte == b'.');
    loop {
        match (left.next(), right.next()) {
            (Some(left), Some(right)) => match compare_siblings(left, right) {
                Ordering::Equal => {}
                unequal => return unequal,
            },
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
        }
    }
}

/// Whether `prefix` is the path itself or one of its ancestors.
pub(crate) fn is_prefix(prefix: &[u8], path: &[u8]) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| matches!(rest, [] | [b'.', ..]))
}

/// The array index that a component names: digits only, and at most 32 bits.
pub(crate) fn index(component: &[u8]) -> Option<usize> {
    if component.is_empty() {
        return None;
    }
    let index = component.iter().try_fold(0_u32, |index, byte| {
        let digit = byte.is_ascii_digit().then(|| u32::from(byte - b'0'))?;
        index.checked_mul(10)?.checked_add(digit)
    });
    usize::try_from(index?).ok()
}

/// The identifier within `$[identifier]`; empty for `$[]`.
pub(crate) fn array_filter(component: &[u8]) -> Option<&[u8]> {
    component.strip_prefix(b"$[")?.strip_suffix(b"]")
}
