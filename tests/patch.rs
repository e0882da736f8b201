//! What patches, merges and differences do, read as a table. The proof that it is what the server
//! does lies in the differential test; this one says what that is.

use alluvium::model::diff::{Order, diff};
use alluvium::model::patch::{apply, merge};
use alluvium::model::state::{Limits, State};
use bson::{Bson, DateTime, Document, RawArrayBuf, RawDocumentBuf, doc};

/// The moment that every event of these tests carries.
const AT: DateTime = DateTime::from_millis(1_700_000_000_123);

fn raw(document: &Document) -> RawDocumentBuf {
    RawDocumentBuf::try_from(document).unwrap()
}

fn patched(before: &Document, patch: &Document, filters: &[Document]) -> Result<Document, String> {
    let mut state = State::from_raw(&raw(before)).unwrap();
    let array: Vec<_> = filters.iter().map(raw).collect();
    let array = RawArrayBuf::from_iter(array);
    let filters = if filters.is_empty() { None } else { Some(&*array) };
    let result = apply(&mut state, &raw(patch), filters, AT, &Limits::default());
    let after = state.to_raw();
    assert_eq!(after.as_bytes().len(), state.bytes(), "the size is kept up to date");
    match result {
        Ok(()) => Ok(Document::try_from(after).unwrap()),
        Err(error) => {
            assert_eq!(after, raw(before), "a refused patch leaves the state alone");
            Err(error.to_string())
        }
    }
}

#[track_caller]
fn check(before: Document, patch: Document, after: Document) {
    assert_eq!(patched(&before, &patch, &[]).unwrap(), after);
}

#[track_caller]
fn refuses(before: Document, patch: Document, message: &str) {
    assert_eq!(patched(&before, &patch, &[]).unwrap_err(), message);
}

#[test]
fn set_replaces_adds_and_creates_what_lies_between() {
    check(doc! {"a": 1}, doc! {"$set": {"a": "x"}}, doc! {"a": "x"});
    check(
        doc! {},
        doc! {"$set": {"z": 1, "b.c": 2, "b.a": 3}},
        doc! {"b": {"a": 3, "c": 2}, "z": 1},
    );
    check(doc! {"a": [1]}, doc! {"$set": {"a.3": 4}}, doc! {"a": [1, null, null, 4]});
    check(doc! {"a": []}, doc! {"$set": {"a.1.b": 4}}, doc! {"a": [null, {"b": 4}]});
    check(doc! {"a": {}}, doc! {"$set": {"a.10": 1, "a.9": 2}}, doc! {"a": {"9": 2, "10": 1}});
}

#[test]
fn unset_removes_fields_and_empties_elements() {
    check(doc! {"a": 1, "b": 2}, doc! {"$unset": {"a": ""}}, doc! {"b": 2});
    check(doc! {"a": [1, 2]}, doc! {"$unset": {"a.0": "", "b.c": ""}}, doc! {"a": [null, 2]});
}

#[test]
fn inc_adds_and_widens() {
    check(doc! {"a": 1}, doc! {"$inc": {"a": 2, "b": 3_i64}}, doc! {"a": 3, "b": 3_i64});
    check(doc! {"a": i32::MAX}, doc! {"$inc": {"a": 1}}, doc! {"a": 2_147_483_648_i64});
    check(doc! {"a": 1}, doc! {"$inc": {"a": 0.5}}, doc! {"a": 1.5});
}

#[test]
fn push_appends() {
    check(doc! {"a": [1]}, doc! {"$push": {"a": 2, "b": 3}}, doc! {"a": [1, 2], "b": [3]});
    check(doc! {"a": [1]}, doc! {"$push": {"a": {"$each": [2, [3]]}}}, doc! {"a": [1, 2, [3]]});
}

#[test]
fn all_elements_are_reached() {
    check(doc! {"a": [1, 2]}, doc! {"$inc": {"a.$[]": 1}}, doc! {"a": [2, 3]});
}

#[test]
fn a_refusal_says_what_and_where_and_leaves_no_trace() {
    refuses(
        doc! {"a": 1, "b": "x"},
        doc! {"$inc": {"a": 1, "b": 1}},
        r#"$inc "b": the state has a string there; it needs a number"#,
    );
    refuses(
        doc! {"a": [1], "b": {"c": [1]}},
        doc! {"$push": {"a": 1, "b.c": 2}, "$set": {"b": 1}},
        "$push \"b.c\" conflicts with \"b\" in the same patch; \
         write them as two events, or as one operator on the longer path's parent",
    );
}

#[test]
fn merge_follows_rfc_7396() {
    // The cases of the RFC's appendix whose two sides are documents.
    let table = [
        (doc! {"a": "b"}, doc! {"a": "c"}, doc! {"a": "c"}),
        (doc! {"a": "b"}, doc! {"b": "c"}, doc! {"a": "b", "b": "c"}),
        (doc! {"a": "b"}, doc! {"a": null}, doc! {}),
        (doc! {"a": "b", "b": "c"}, doc! {"a": null}, doc! {"b": "c"}),
        (doc! {"a": ["b"]}, doc! {"a": "c"}, doc! {"a": "c"}),
        (doc! {"a": "c"}, doc! {"a": ["b"]}, doc! {"a": ["b"]}),
        (doc! {"a": {"b": "c"}}, doc! {"a": {"b": "d", "c": null}}, doc! {"a": {"b": "d"}}),
        (doc! {"a": [{"b": "c"}]}, doc! {"a": [1]}, doc! {"a": [1]}),
        (doc! {"e": null}, doc! {"a": 1}, doc! {"e": null, "a": 1}),
        (doc! {}, doc! {"a": {"bb": {"ccc": null}}}, doc! {"a": {"bb": {}}}),
    ];
    for (before, patch, after) in table {
        let mut state = State::from_raw(&raw(&before)).unwrap();
        merge(&mut state, &raw(&patch), &Limits::default()).unwrap();
        assert_eq!(Document::try_from(state.to_raw()).unwrap(), after, "{before} with {patch}");
        assert_eq!(state.to_raw().as_bytes().len(), state.bytes());
    }
}

#[track_caller]
fn check_diff(before: Document, after: Document, patch: Document, order: Order) {
    let found = diff(&raw(&before), &raw(&after));
    assert_eq!((Document::try_from(&*found.patch).unwrap(), found.order), (patch.clone(), order));
    if order == Order::Exact && !found.is_empty() {
        check(before, patch, after);
    }
}

#[test]
fn differences_are_small() {
    check_diff(doc! {"a": 1}, doc! {"a": 1}, doc! {}, Order::Exact);
    check_diff(doc! {"a": 1}, doc! {"a": 2}, doc! {"$set": {"a": 2}}, Order::Exact);
    check_diff(doc! {"a": 1}, doc! {"a": 1.0}, doc! {"$set": {"a": 1.0}}, Order::Exact);
    check_diff(doc! {"a": 1, "b": 2}, doc! {"b": 2}, doc! {"$unset": {"a": ""}}, Order::Exact);
    check_diff(
        doc! {"a": [1, 2]},
        doc! {"a": [1, 2, 3]},
        doc! {"$push": {"a": {"$each": [3]}}},
        Order::Exact,
    );
    let long = "x".repeat(100);
    check_diff(
        doc! {"a": {"long": &long, "b": [1, {"c": 2, "d": &long}]}},
        doc! {"a": {"long": &long, "b": [1, {"c": 3, "d": &long}, 4]}},
        doc! {"$set": {"a.b.1.c": 3, "a.b.2": 4}},
        Order::Exact,
    );
    check_diff(
        doc! {"a": {"b.c": 1}},
        doc! {"a": {"b.c": 2}},
        doc! {"$set": {"a": {"b.c": 2}}},
        Order::Exact,
    );
}

#[test]
fn a_difference_says_when_the_root_cannot_be_reached() {
    let set = |field: &str, value: Bson| doc! {"$set": {field: value}};
    check_diff(doc! {"b": 1}, doc! {"a": 1, "b": 1}, set("a", 1.into()), Order::UpToRootOrder);
    check_diff(doc! {"": 1}, doc! {"": 2}, doc! {}, Order::RootFieldsLeft);
    check_diff(doc! {"a.b": 1, "c": 1}, doc! {"c": 2}, set("c", 2.into()), Order::RootFieldsLeft);
    check_diff(doc! {"a.b": 1, "c": 1}, doc! {"a.b": 1, "c": 2}, set("c", 2.into()), Order::Exact);
}
