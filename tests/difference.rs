//! The law of differences: applying the difference of two states to the first gives the second. It is
//! byte for byte wherever the difference says so, and it says so wherever it is.
//!
//! The suite tries a few thousand pairs. To try any number:
//!
//! ```text
//! PROPTEST_CASES=2000000 cargo test --release --test difference
//! ```

use alluvium::model::diff::{Order, diff};
use alluvium::model::patch::apply;
use alluvium::model::state::{Limits, State};
use bson::{Bson, DateTime, Document, RawDocumentBuf};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

const NAMES: [&str; 22] = [
    "a", "b", "c", "d", "e", "a", "b", "c", "f", "g", "0", "1", "10", "9", "é", "01", "1a", "",
    "x.y", "$x", "_id", "-",
];

fn name() -> impl Strategy<Value = String> {
    select(&NAMES[..]).prop_map(str::to_owned)
}

fn scalar() -> impl Strategy<Value = Bson> {
    prop_oneof![
        4 => (-3..3_i32).prop_map(Bson::Int32),
        1 => (-3..3_i64).prop_map(Bson::Int64),
        1 => select(&[0.0, -0.0, 1.0, f64::NAN][..]).prop_map(Bson::Double),
        2 => "[a-c]{0,3}".prop_map(Bson::String),
        1 => "[a-c]{20,60}".prop_map(Bson::String),
        1 => Just(Bson::Null),
        1 => any::<bool>().prop_map(Bson::Boolean),
        1 => (0..3_i64).prop_map(|at| Bson::DateTime(DateTime::from_millis(at))),
    ]
}

fn value() -> impl Strategy<Value = Bson> {
    scalar().prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            3 => vec((name(), inner.clone()), 0..6).prop_map(|fields| Bson::from(document(fields))),
            2 => vec(inner, 0..6).prop_map(Bson::Array),
        ]
    })
}

fn document(fields: Vec<(String, Bson)>) -> Document {
    fields.into_iter().collect()
}

/// One change to a state, at a place that is found by walking down.
#[derive(Debug, Clone)]
enum Edit {
    Replace(Bson),
    Remove,
    Add(String, Bson),
    Append(Vec<Bson>),
    Rotate,
}

fn edit() -> impl Strategy<Value = (Vec<Index>, Edit)> {
    let edit = prop_oneof![
        4 => value().prop_map(Edit::Replace),
        3 => Just(Edit::Remove),
        3 => (name(), value()).prop_map(|(name, value)| Edit::Add(name, value)),
        3 => vec(value(), 1..3).prop_map(Edit::Append),
        1 => Just(Edit::Rotate),
    ];
    (vec(any::<Index>(), 1..5), edit)
}

fn edited(value: Bson, path: &[Index], edit: &Edit) -> Bson {
    match (value, path) {
        (Bson::Document(fields), [index, rest @ ..]) if !fields.is_empty() => {
            let at = index.index(fields.len());
            let mut fields: Vec<_> = fields.into_iter().collect();
            if rest.is_empty() && matches!(edit, Edit::Remove) {
                fields.remove(at);
            } else {
                fields[at].1 = edited(fields[at].1.clone(), rest, edit);
            }
            document(fields).into()
        }
        (Bson::Array(mut items), [index, rest @ ..]) if !items.is_empty() => {
            let at = index.index(items.len());
            items[at] = edited(items[at].clone(), rest, edit);
            items.into()
        }
        (value, _) => changed(value, edit),
    }
}

fn changed(value: Bson, edit: &Edit) -> Bson {
    match (value, edit) {
        (_, Edit::Replace(new)) => new.clone(),
        (Bson::Document(mut fields), Edit::Add(name, new)) => {
            fields.insert(name, new.clone());
            fields.into()
        }
        (Bson::Array(mut items), Edit::Append(new)) => {
            items.extend(new.clone());
            items.into()
        }
        (Bson::Array(mut items), Edit::Remove) => {
            items.pop();
            items.into()
        }
        (Bson::Document(fields), Edit::Rotate) => {
            let mut fields: Vec<_> = fields.into_iter().collect();
            let by = usize::from(!fields.is_empty());
            fields.rotate_left(by);
            document(fields).into()
        }
        (value, _) => value,
    }
}

fn pair() -> impl Strategy<Value = (Document, Document)> {
    let state = || vec((name(), value()), 0..8).prop_map(document);
    let related = (state(), vec(edit(), 0..4)).prop_map(|(before, edits)| {
        let apply = |value, (path, edit): &(Vec<Index>, Edit)| edited(value, path, edit);
        let after = edits.iter().fold(Bson::Document(before.clone()), apply);
        (before, after.as_document().cloned().unwrap_or_default())
    });
    prop_oneof![9 => related, 1 => (state(), state())]
}

fn raw(document: &Document) -> RawDocumentBuf {
    RawDocumentBuf::try_from(document).unwrap()
}

fn sorted(document: &Document) -> Vec<(String, RawDocumentBuf)> {
    let mut fields: Vec<_> =
        document.iter().map(|(name, value)| (name.clone(), raw(&document_of(value)))).collect();
    fields.sort_by(|left, right| left.0.cmp(&right.0));
    fields
}

fn document_of(value: &Bson) -> Document {
    bson::doc! {"": value.clone()}
}

/// Whether a path can name the root field.
fn reachable(name: &str) -> bool {
    !name.is_empty() && !name.contains('.') && !name.starts_with('$') && name != "_id"
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_difference_leads_from_one_state_to_the_other((before, after) in pair()) {
        let (before_raw, after_raw) = (raw(&before), raw(&after));
        let difference = diff(&before_raw, &after_raw);
        let mut state = State::from_raw(&before_raw).unwrap();
        let at = DateTime::from_millis(0);
        apply(&mut state, &difference.patch, None, at, &Limits::default()).unwrap();
        let result = state.to_raw();
        prop_assert_eq!(difference.order == Order::Exact, result == after_raw, "{:?}", difference.patch);
        prop_assert_eq!(difference.is_empty() && difference.order == Order::Exact, before_raw == after_raw);
        let result = Document::try_from(&*result).unwrap();
        match difference.order {
            Order::Exact => {}
            Order::UpToRootOrder => prop_assert_eq!(sorted(&result), sorted(&after)),
            Order::RootFieldsLeft => {
                let named = |document: &Document| -> Document {
                    document.clone().into_iter().filter(|(name, _)| reachable(name)).collect()
                };
                prop_assert_eq!(sorted(&named(&result)), sorted(&named(&after)));
            }
        }
    }

    #[test]
    fn a_difference_is_no_longer_than_setting_what_changed((before, after) in pair()) {
        let difference = diff(&raw(&before), &raw(&after));
        let mut changed = Document::new();
        let mut removed = Document::new();
        for (name, value) in &after {
            if before.get(name).map(|old| raw(&document_of(old))) != Some(raw(&document_of(value))) {
                changed.insert(name, value.clone());
            }
        }
        for name in before.keys().filter(|name| !after.contains_key(*name)) {
            removed.insert(name, "");
        }
        let plain = raw(&bson::doc! {"$set": changed, "$unset": removed});
        // The names of other operators may take a little more.
        prop_assert!(difference.patch.as_bytes().len() <= plain.as_bytes().len() + 12, "{:?}", difference.patch);
    }
}
