//! The law of differences: applying the difference of two states to the first gives the second. It is
//! byte for byte wherever the difference says so, and it says so wherever it is.
//!
//! The suite tries some thousands of pairs: a few that shrink when they fail, which makes them
//! expensive, and many that are made from a seed. To try any number of these, from any seed:
//!
//! ```text
//! ALLUVIUM_CASES=2000000 ALLUVIUM_SEED=7 cargo test --release --test difference many -- --nocapture
//! ```

use alluvium::model::diff::{Order, diff};
use alluvium::model::patch::apply;
use alluvium::model::state::{Limits, State};
use bson::{Bson, DateTime, Document, RawDocumentBuf};
use fastrand::Rng;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

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

/// Which way to go at a document or an array: that part of its length, in 65,536ths.
type Turn = u16;

fn at(turn: Turn, length: usize) -> usize {
    (usize::from(turn) * length) >> 16
}

fn edit() -> impl Strategy<Value = (Vec<Turn>, Edit)> {
    let edit = prop_oneof![
        4 => value().prop_map(Edit::Replace),
        3 => Just(Edit::Remove),
        3 => (name(), value()).prop_map(|(name, value)| Edit::Add(name, value)),
        3 => vec(value(), 1..3).prop_map(Edit::Append),
        1 => Just(Edit::Rotate),
    ];
    (vec(any::<Turn>(), 1..5), edit)
}

fn edited(value: Bson, path: &[Turn], edit: &Edit) -> Bson {
    match (value, path) {
        (Bson::Document(fields), [turn, rest @ ..]) if !fields.is_empty() => {
            let at = at(*turn, fields.len());
            let mut fields: Vec<_> = fields.into_iter().collect();
            if rest.is_empty() && matches!(edit, Edit::Remove) {
                fields.remove(at);
            } else {
                fields[at].1 = edited(fields[at].1.clone(), rest, edit);
            }
            document(fields).into()
        }
        (Bson::Array(mut items), [turn, rest @ ..]) if !items.is_empty() => {
            let at = at(*turn, items.len());
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
        let apply = |value, (path, edit): &(Vec<Turn>, Edit)| edited(value, path, edit);
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

/// What applying the difference must give.
fn check_law(before: &Document, after: &Document) -> Result<Order, TestCaseError> {
    let (before_raw, after_raw) = (raw(before), raw(after));
    let difference = diff(&before_raw, &after_raw);
    let mut state = State::from_raw(&before_raw).unwrap();
    let at = DateTime::from_millis(0);
    let applied = apply(&mut state, &difference.patch, None, at, &Limits::default());
    prop_assert!(applied.is_ok(), "{:?}: {:?}", applied, difference.patch);
    let result = state.to_raw();
    prop_assert_eq!(
        difference.order == Order::Exact,
        result == after_raw,
        "{:?}",
        difference.patch
    );
    prop_assert_eq!(
        difference.is_empty() && difference.order == Order::Exact,
        before_raw == after_raw
    );
    let result = Document::try_from(&*result).unwrap();
    match difference.order {
        Order::Exact => {}
        Order::UpToRootOrder => prop_assert_eq!(sorted(&result), sorted(after)),
        Order::RootFieldsLeft => {
            let named = |document: &Document| -> Document {
                document.clone().into_iter().filter(|(name, _)| reachable(name)).collect()
            };
            prop_assert_eq!(sorted(&named(&result)), sorted(&named(after)));
        }
    }
    Ok(difference.order)
}

/// A difference is no longer than setting every root field that changed.
fn check_length(before: &Document, after: &Document) -> Result<(), TestCaseError> {
    let difference = diff(&raw(before), &raw(after));
    let mut changed = Document::new();
    let mut removed = Document::new();
    for (name, value) in after {
        if before.get(name).map(|old| raw(&document_of(old))) != Some(raw(&document_of(value))) {
            changed.insert(name, value.clone());
        }
    }
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        removed.insert(name, "");
    }
    let plain = raw(&bson::doc! {"$set": changed, "$unset": removed});
    // The names of other operators may take a little more.
    let (length, most) = (difference.patch.as_bytes().len(), plain.as_bytes().len() + 12);
    prop_assert!(length <= most, "{:?}", difference.patch);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_difference_leads_from_one_state_to_the_other((before, after) in pair()) {
        check_law(&before, &after)?;
    }

    #[test]
    fn a_difference_is_no_longer_than_setting_what_changed((before, after) in pair()) {
        check_length(&before, &after)?;
    }
}

/// The same pairs, hundreds of times as fast, without shrinking.
mod seeded {
    use super::*;

    fn pick<T: Clone>(rng: &mut Rng, from: &[T]) -> T {
        from[rng.usize(..from.len())].clone()
    }

    fn scalar(rng: &mut Rng) -> Bson {
        match rng.u8(..12) {
            0..4 => Bson::Int32(rng.i32(-3..3)),
            4 => Bson::Int64(rng.i64(-3..3)),
            5 => Bson::Double(pick(rng, &[0.0, -0.0, 1.0, f64::NAN])),
            6..8 => Bson::String(pick(rng, &["", "a", "b", "ab", "abc"]).to_owned()),
            8 => Bson::String(pick(rng, &["a", "b", "c"]).repeat(rng.usize(20..60))),
            9 => Bson::Null,
            10 => Bson::Boolean(rng.bool()),
            _ => Bson::DateTime(DateTime::from_millis(rng.i64(..3))),
        }
    }

    fn value(rng: &mut Rng, depth: usize) -> Bson {
        match rng.u8(..10) {
            0..3 if depth > 0 => fields(rng, 6, depth - 1).into(),
            3..5 if depth > 0 => (0..rng.usize(..6)).map(|_| value(rng, depth - 1)).collect(),
            _ => scalar(rng),
        }
    }

    fn fields(rng: &mut Rng, most: usize, depth: usize) -> Document {
        (0..rng.usize(..most)).map(|_| (pick(rng, &NAMES).to_owned(), value(rng, depth))).collect()
    }

    fn edit(rng: &mut Rng) -> Edit {
        match rng.u8(..14) {
            0..4 => Edit::Replace(value(rng, 3)),
            4..7 => Edit::Remove,
            7..10 => Edit::Add(pick(rng, &NAMES).to_owned(), value(rng, 3)),
            10..13 => Edit::Append((0..rng.usize(1..3)).map(|_| value(rng, 3)).collect()),
            _ => Edit::Rotate,
        }
    }

    /// The pair of that seed: mostly a state and what became of it.
    pub(super) fn pair(seed: u64) -> (Document, Document) {
        let mut rng = Rng::with_seed(seed);
        let before = fields(&mut rng, 9, 4);
        if rng.u8(..10) == 0 {
            return (before, fields(&mut rng, 9, 4));
        }
        let mut after = Bson::Document(before.clone());
        for _ in 0..rng.usize(1..5) {
            let path: Vec<Turn> = (0..rng.usize(1..5)).map(|_| rng.u16(..)).collect();
            after = edited(after, &path, &edit(&mut rng));
        }
        (before, after.as_document().cloned().unwrap_or_default())
    }
}

#[test]
fn many_differences_lead_from_one_state_to_the_other() {
    let setting = |name: &str, default: u64| {
        std::env::var(name).ok().map_or(default, |text| text.parse().expect(name))
    };
    let first = setting("ALLUVIUM_SEED", 1);
    let cases = setting("ALLUVIUM_CASES", 20_000);
    let (mut exact, mut up_to_order, mut left, mut equal) = (0_u64, 0_u64, 0_u64, 0_u64);
    for seed in first..first + cases {
        let (before, after) = seeded::pair(seed);
        let order = check_law(&before, &after);
        let failed = order.as_ref().err().cloned().or(check_length(&before, &after).err());
        if let Some(error) = failed {
            panic!("ALLUVIUM_CASES=1 ALLUVIUM_SEED={seed}: {error}\n  {before:?}\n  {after:?}");
        }
        equal += u64::from(before == after);
        match order.unwrap() {
            Order::Exact => exact += 1,
            Order::UpToRootOrder => up_to_order += 1,
            Order::RootFieldsLeft => left += 1,
        }
    }
    println!(
        "{cases} pairs: {exact} exact ({equal} equal), {up_to_order} up to order, {left} left"
    );
    assert!(exact > cases / 2 && equal < cases / 2, "too few pairs say something");
}
