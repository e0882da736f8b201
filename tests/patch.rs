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
fn the_other_numeric_operators() {
    check(
        doc! {"a": 3, "b": 1.5},
        doc! {"$mul": {"a": 2, "b": 2, "c": 5}},
        doc! {"a": 6, "b": 3.0, "c": 0},
    );
    check(doc! {"a": 3, "b": "x"}, doc! {"$min": {"a": 2.5, "b": 9}}, doc! {"a": 2.5, "b": 9});
    check(doc! {"a": 3, "b": "x"}, doc! {"$max": {"a": 2.5, "b": 9}}, doc! {"a": 3, "b": "x"});
    check(doc! {"a": 13}, doc! {"$bit": {"a": {"and": 10}}}, doc! {"a": 8});
}

#[test]
fn rename_moves_a_value_to_the_end() {
    check(doc! {"a": 1, "b": 2}, doc! {"$rename": {"a": "c.d"}}, doc! {"b": 2, "c": {"d": 1}});
    check(doc! {"a": 1}, doc! {"$rename": {"x": "y"}}, doc! {"a": 1});
}

#[test]
fn the_event_has_the_time() {
    let timestamp = bson::Timestamp { time: 1_700_000_000, increment: 0 };
    check(
        doc! {},
        doc! {"$currentDate": {"a": true, "b": {"$type": "timestamp"}}},
        doc! {"a": AT, "b": timestamp},
    );
    check(doc! {"a": 1}, doc! {"$setOnInsert": {"b": 1}}, doc! {"a": 1});
}

#[test]
fn push_inserts_sorts_and_slices() {
    let push = |clauses: Document| doc! {"$push": {"a": clauses}};
    let before = || doc! {"a": [3, 1]};
    check(before(), push(doc! {"$each": [2], "$position": 0}), doc! {"a": [2, 3, 1]});
    check(before(), push(doc! {"$each": [2], "$position": -1}), doc! {"a": [3, 2, 1]});
    check(before(), push(doc! {"$each": [2], "$sort": 1}), doc! {"a": [1, 2, 3]});
    check(before(), push(doc! {"$each": [2], "$sort": -1, "$slice": 2}), doc! {"a": [3, 2]});
    check(before(), push(doc! {"$each": [2], "$slice": -2}), doc! {"a": [1, 2]});
}

#[test]
fn sets_and_removals() {
    check(doc! {"a": [1]}, doc! {"$addToSet": {"a": {"$each": [1.0, 2, 2]}}}, doc! {"a": [1, 2]});
    check(doc! {"a": [1, 2, 3]}, doc! {"$pop": {"a": -1}}, doc! {"a": [2, 3]});
    check(doc! {"a": [1, 2, 1.0]}, doc! {"$pull": {"a": 1}}, doc! {"a": [2]});
    check(doc! {"a": [1, 5, 9]}, doc! {"$pull": {"a": {"$gte": 5}}}, doc! {"a": [1]});
    check(
        doc! {"a": [{"b": 1, "c": 2}, {"b": 2}]},
        doc! {"$pull": {"a": {"b": {"$in": [1, 3]}}}},
        doc! {"a": [{"b": 2}]},
    );
    check(
        doc! {"a": ["x", "yy"]},
        doc! {"$pull": {"a": {"$regex": "^Y", "$options": "i"}}},
        doc! {"a": ["x"]},
    );
    check(doc! {"a": [1, 2, 3]}, doc! {"$pullAll": {"a": [1, 3]}}, doc! {"a": [2]});
}

#[test]
fn filters_choose_elements() {
    let after = patched(
        &doc! {"a": [{"b": 1, "c": [1, 5]}, {"b": 2, "c": [5]}]},
        &doc! {"$set": {"a.$[i].c.$[j]": 0, "a.$[].d": true}},
        &[doc! {"i.b": 1}, doc! {"j": {"$gt": 3}}],
    );
    let expected = doc! {"a": [{"b": 1, "c": [1, 0], "d": true}, {"b": 2, "c": [5], "d": true}]};
    assert_eq!(after.unwrap(), expected);
    let unused = patched(&doc! {}, &doc! {"$set": {"a": 1}}, &[doc! {"i": 1}]).unwrap_err();
    assert_eq!(
        unused,
        r#"array filter "i": no path refers to it; remove it, or use $[name] in a path"#
    );
}

#[test]
fn limits_hold_and_are_told_from_mistakes() {
    let limits = Limits { state_bytes_max: 200, depth_max: 5, padding_max: 10, steps_max: 1_000 };
    let check = |patch: Document, too_large: bool, message: &str| {
        let mut state = State::from_raw(&raw(&doc! {"a": [1], "b": "x"})).unwrap();
        let before = state.to_raw();
        let error = apply(&mut state, &raw(&patch), None, AT, &limits).unwrap_err();
        assert_eq!((error.too_large(), error.to_string().as_str()), (too_large, message));
        assert_eq!(state.to_raw(), before);
    };
    check(
        doc! {"$set": {"b": "x".repeat(200)}},
        true,
        "the state would take 228 bytes, more than the 200 that are allowed; \
         split the document, or raise the limit",
    );
    check(
        doc! {"$set": {"c.c.c.c.c.c": 1}},
        true,
        r#"$set "c.c.c.c.c.c": the state would nest deeper than 5 levels; flatten it"#,
    );
    check(
        doc! {"$set": {"a.2000000000": 1}},
        true,
        "$set \"a.2000000000\": reaching that index needs more than 10 nulls before it; \
         append with $push, or use a document with the numbers as names",
    );
    check(
        doc! {"$pushAll": {"a": [1]}},
        false,
        "\"$pushAll\" cannot be used in a patch: it is not an update operator; use $set, $unset, \
         $inc, $mul, $min, $max, $rename, $setOnInsert, $currentDate, $bit, $push, $addToSet, $pop, \
         $pull or $pullAll",
    );
    check(
        doc! {"$set": {"a.$": 1}},
        false,
        "$set \"a.$\": the positional $ needs a query, and an event has none: \
         use an index, $[] or $[name]",
    );
    check(
        doc! {"$set": {"_id.x": 1}},
        false,
        r#"$set "_id.x": _id identifies the document and is not part of its state"#,
    );
}

#[test]
fn a_state_is_compacted_and_stays_what_it_is() {
    let mut state = State::from_raw(&raw(&doc! {"a": "", "n": 0, "list": []})).unwrap();
    let long = "x".repeat(5_000);
    for round in 0..200 {
        let patch = doc! {"$set": {"a": &long, "d": {"e": {"f": round}}}, "$inc": {"n": 1}};
        apply(&mut state, &raw(&patch), None, AT, &Limits::default()).unwrap();
        let patch =
            doc! {"$set": {"d.e.g": round}, "$push": {"list": {"$each": [round], "$slice": -3}}};
        apply(&mut state, &raw(&patch), None, AT, &Limits::default()).unwrap();
    }
    assert!(state.memory_bytes() < 100_000, "{} bytes", state.memory_bytes());
    let expected =
        doc! {"a": long, "n": 200, "list": [197, 198, 199], "d": {"e": {"f": 199, "g": 199}}};
    assert_eq!(Document::try_from(state.to_raw()).unwrap(), expected);
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
