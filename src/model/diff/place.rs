//! Where two documents begin to differ, as a path for people.

use bson::{RawBsonRef, RawDocument};

use crate::model::shown::shown;

/// The path of the first field at which `found` is not what was `expected`, such as `units.3.name`; `None` where both
/// have the same fields of the same bytes, in the same order.
#[must_use]
pub fn first_difference(found: &RawDocument, expected: &RawDocument) -> Option<String> {
    let (mut ours, mut theirs) = (found.iter(), expected.iter());
    loop {
        let (a, b) = match (ours.next(), theirs.next()) {
            (None, None) => return None,
            (Some(Ok(a)), Some(Ok(b))) => (a, b),
            // One of the two has more.
            (Some(Ok((name, _))), None) | (None, Some(Ok((name, _)))) => {
                return Some(shown(name.as_str().as_bytes()));
            }
            _ => return Some("?".into()),
        };
        let name = || shown(b.0.as_str().as_bytes());
        if a.0 != b.0 {
            return Some(name());
        }
        let inner = match (a.1, b.1) {
            (RawBsonRef::Document(a), RawBsonRef::Document(b)) => first_difference(a, b),
            (RawBsonRef::Array(a), RawBsonRef::Array(b)) => {
                match (elements(a.as_bytes()), elements(b.as_bytes())) {
                    (Some(a), Some(b)) => first_difference(a, b),
                    _ => Some("?".into()),
                }
            }
            (RawBsonRef::Double(a), RawBsonRef::Double(b)) if a.to_bits() == b.to_bits() => None,
            (a, b) if a == b => None,
            _ => return Some(name()),
        };
        if let Some(inner) = inner {
            return Some(format!("{}.{inner}", name()));
        }
    }
}

/// An array is a document whose names are numbers.
fn elements(array: &[u8]) -> Option<&RawDocument> {
    RawDocument::from_bytes(array).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{Document, RawDocumentBuf, doc};

    fn place(found: Document, expected: Document) -> Option<String> {
        let raw = |document: &Document| RawDocumentBuf::try_from(document).unwrap();
        first_difference(&raw(&found), &raw(&expected))
    }

    #[test]
    fn the_first_place_is_named_however_deep_it_is() {
        let state = || doc! { "n": 1, "units": [{ "name": "a" }, { "name": "b" }], "x": f64::NAN };
        assert_eq!(place(state(), state()), None);
        let changed = |change: fn(&mut Document)| {
            let mut found = state();
            change(&mut found);
            place(found, state()).unwrap()
        };
        assert_eq!(changed(|found| drop(found.insert("n", 1_i64))), "n");
        let units = |found: &mut Document| drop(found.insert("units", [doc! { "name": "a" }]));
        assert_eq!(changed(units), "units.1");
        let renamed = doc! { "name": "c" };
        assert_eq!(
            place(doc! { "units": [{ "name": "a" }, renamed] }, {
                let mut expected = state();
                expected.remove("n");
                expected
            }),
            Some("units.1.name".into())
        );
        assert_eq!(changed(|found| drop(found.insert("more", 1))), "more");
        assert_eq!(changed(|found| drop(found.remove("units"))), "units");
        assert_eq!(place(doc! { "a": 1, "b": 2 }, doc! { "b": 2, "a": 1 }), Some("b".into()));
    }
}
