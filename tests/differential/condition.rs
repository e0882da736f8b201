//! Random query conditions, for `$pull` and for array filters.

use bson::{Bson, Document, Regex, doc};
use fastrand::Rng;

use crate::generate::{chance, number, pick, scalar, value};

const PATHS: [&str; 12] = ["a", "b", "c", "a.b", "x", "0", "a.0", "1", "b.a", "a.a", "é", "x.0.y"];

/// Regular expressions that both engines know, and some that mean different things to them.
const PATTERNS: [&str; 24] = [
    "^a",
    "b$",
    "a.b",
    "",
    "[a-c]+",
    "^(a|b)$",
    "A",
    "\\bb",
    "\\W",
    "^\\w+$",
    "\\d",
    "[^\\s]",
    "^.$",
    "a\\nb$",
    "[]a]",
    "[a-]",
    "[&&b]",
    "é",
    "É",
    "^\\S{2,3}$",
    "(?:a|b)+?",
    "a b",
    "[[a]",
    "x*\\z",
];

/// An array filter for that identifier, made for those elements.
pub(crate) fn filter(rng: &mut Rng, name: &str, items: &[Bson]) -> Document {
    let inside = |item: &Bson| matches!(item, Bson::Document(_));
    let mut filter = Document::new();
    if items.iter().any(inside) && chance(rng, 70) {
        let path = format!("{name}.{}", pick(rng, &PATHS));
        filter.insert(path, predicate(rng, items, true, 1));
        if chance(rng, 20) {
            filter.insert(format!("{name}.b"), predicate(rng, items, true, 1));
        }
    } else {
        filter.insert(name, predicate(rng, items, false, 1));
    }
    if chance(rng, 10) {
        let operator = *pick(rng, &["$and", "$or", "$nor"]);
        return doc! {operator: [filter]};
    }
    filter
}

/// What `$pull` is given, made for those elements.
pub(crate) fn pull(rng: &mut Rng, items: &[Bson]) -> Bson {
    let documents = items.iter().any(|item| matches!(item, Bson::Document(_)));
    match rng.u8(..10) {
        0..3 if !items.is_empty() => near_or_same(rng, items),
        0..4 => value(rng, 1),
        _ if documents && chance(rng, 75) => Bson::Document(query(rng, items, 2)),
        _ => predicate(rng, items, false, 2),
    }
}

fn query(rng: &mut Rng, items: &[Bson], depth: usize) -> Document {
    let mut query = Document::new();
    for _ in 0..if chance(rng, 75) { 1 } else { rng.usize(..3) } {
        if depth > 0 && chance(rng, 12) {
            let operator = *pick(rng, &["$and", "$or", "$nor"]);
            let children = (0..rng.usize(1..3)).map(|_| query_value(rng, items, depth - 1));
            let children: Vec<_> = children.collect();
            query.insert(operator, children);
        } else {
            query.insert(*pick(rng, &PATHS), predicate(rng, items, true, depth));
        }
    }
    query
}

fn query_value(rng: &mut Rng, items: &[Bson], depth: usize) -> Bson {
    Bson::Document(query(rng, items, depth))
}

/// A value or a document of operators, about the elements or about their fields.
fn predicate(rng: &mut Rng, items: &[Bson], of_field: bool, depth: usize) -> Bson {
    if of_field && chance(rng, 35) {
        return operand(rng, items, true);
    }
    let mut operators = Document::new();
    for _ in 0..if chance(rng, 80) { 1 } else { 2 } {
        let (name, argument) = operator(rng, items, of_field, depth);
        operators.insert(name, argument);
    }
    Bson::Document(operators)
}

fn operator(rng: &mut Rng, items: &[Bson], of_field: bool, depth: usize) -> (&'static str, Bson) {
    match rng.u8(..24) {
        0..8 => {
            let name = *pick(rng, &["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]);
            (name, operand(rng, items, of_field))
        }
        8..12 => {
            let name = *pick(rng, &["$in", "$nin", "$in", "$all"]);
            (name, operands(rng, items, of_field).into())
        }
        12 => ("$exists", pick(rng, &[true.into(), false.into(), 0.into(), Bson::Null]).clone()),
        13 => {
            let types = [
                Bson::from("int"),
                "number".into(),
                "string".into(),
                "object".into(),
                "array".into(),
                2.into(),
                16.into(),
                Bson::from(vec![Bson::from("null"), "double".into()]),
                (-1).into(),
                "nonsense".into(),
                3.0.into(),
            ];
            ("$type", pick(rng, &types).clone())
        }
        14 => (
            "$size",
            pick(rng, &[Bson::from(0), 1.into(), 2.into(), 2.0.into(), (-1).into()]).clone(),
        ),
        15 => {
            let pairs: [[Bson; 2]; 5] = [
                [2.into(), 0.into()],
                [2.into(), 1.into()],
                [3.0.into(), 1_i64.into()],
                [0.into(), 1.into()],
                [(-2).into(), (-1).into()],
            ];
            ("$mod", pick(rng, &pairs).to_vec().into())
        }
        16..18 => ("$regex", regex(rng)),
        18 => {
            let name =
                *pick(rng, &["$bitsAllSet", "$bitsAnySet", "$bitsAllClear", "$bitsAnyClear"]);
            let mask =
                [1.into(), 5.into(), Bson::from(vec![Bson::from(0), 2.into()]), 7_i64.into()];
            (name, pick(rng, &mask).clone())
        }
        19..21 if depth > 0 => ("$not", predicate_document(rng, items, of_field, depth - 1)),
        21..23 if depth > 0 => {
            if rng.bool() {
                ("$elemMatch", predicate_document(rng, items, of_field, depth - 1))
            } else {
                ("$elemMatch", Bson::Document(query(rng, items, depth - 1)))
            }
        }
        _ => ("$gte", number(rng)),
    }
}

fn predicate_document(rng: &mut Rng, items: &[Bson], of_field: bool, depth: usize) -> Bson {
    let (name, argument) = operator(rng, items, of_field, depth);
    doc! {name: argument}.into()
}

fn regex(rng: &mut Rng) -> Bson {
    let pattern = *pick(rng, &PATTERNS);
    if rng.bool() {
        return pattern.into();
    }
    let options = *pick(rng, &["", "i", "s", "m", "im"]);
    Bson::RegularExpression(Regex {
        pattern: pattern.to_owned().try_into().unwrap(),
        options: options.to_owned().try_into().unwrap(),
    })
}

fn operands(rng: &mut Rng, items: &[Bson], of_field: bool) -> Vec<Bson> {
    (0..rng.usize(..4)).map(|_| operand(rng, items, of_field)).collect()
}

/// Something to compare with.
fn operand(rng: &mut Rng, items: &[Bson], of_field: bool) -> Bson {
    if items.is_empty() || chance(rng, 20) {
        return value(rng, 1);
    }
    let item = pick(rng, items);
    match item {
        Bson::Document(fields) if of_field && !fields.is_empty() => {
            let values: Vec<_> = fields.values().cloned().collect();
            near_or_same(rng, &values)
        }
        _ => near_or_same(rng, items),
    }
}

fn near_or_same(rng: &mut Rng, items: &[Bson]) -> Bson {
    let item = pick(rng, items).clone();
    if chance(rng, 60) { item } else { near(rng, &item) }
}

/// A value that is almost that one, or equal to it in another type.
pub(crate) fn near(rng: &mut Rng, value: &Bson) -> Bson {
    match value {
        Bson::Int32(number) => match rng.u8(..5) {
            0 => Bson::Int64(i64::from(*number)),
            1 => Bson::Double(f64::from(*number)),
            2 => number.to_string().parse().map_or(Bson::Null, Bson::Decimal128),
            3 => Bson::Int32(number.wrapping_add(1)),
            _ => Bson::Double(f64::from(*number) + 0.5),
        },
        Bson::Int64(number) => match rng.u8(..4) {
            0 => Bson::Double(*number as f64),
            1 => number.to_string().parse().map_or(Bson::Null, Bson::Decimal128),
            2 => Bson::Int64(number.wrapping_add(1)),
            _ => Bson::Int32(*number as i32),
        },
        Bson::Double(number) => match rng.u8(..4) {
            0 => Bson::Double(-number),
            1 => Bson::Int64(*number as i64),
            2 => Bson::Double(number + 1.0),
            _ => format!("{number:e}").parse().map_or(Bson::Null, Bson::Decimal128),
        },
        Bson::String(text) => match rng.u8(..3) {
            0 => Bson::Symbol(text.clone()),
            1 => Bson::String(format!("{text}a")),
            _ => Bson::String(text.to_uppercase()),
        },
        Bson::Document(fields) => {
            let mut entries: Vec<_> = fields.clone().into_iter().collect();
            match rng.u8(..3) {
                0 => rng.shuffle(&mut entries),
                1 => drop(entries.pop()),
                _ => {
                    if let Some((_, value)) = entries.last_mut() {
                        *value = near(rng, value);
                    }
                }
            }
            entries.into_iter().collect::<Document>().into()
        }
        Bson::Array(items) => {
            let mut items = items.clone();
            match (rng.u8(..3), items.last_mut()) {
                (0, Some(last)) => *last = near(rng, last),
                (1, Some(_)) => drop(items.pop()),
                _ => items.push(scalar(rng)),
            }
            items.into()
        }
        Bson::Null => Bson::Undefined,
        _ => scalar(rng),
    }
}
