//! Random documents as bytes, with everything that BSON lets stand in them: names that are repeated, empty or not UTF-8,
//! arrays whose elements have any name, every type. And successors of such documents, changed a little.

use fastrand::Rng;

use crate::generate::{chance, pick};

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// Its type and its bytes.
    Scalar(u8, Vec<u8>),
    Document(Vec<(Vec<u8>, Value)>),
    Array(Vec<(Vec<u8>, Value)>),
}

/// Names: plain, odd, and those by which the server writes down what differs.
const NAMES: [&[u8]; 36] = [
    b"a",
    b"b",
    b"c",
    b"d",
    b"e",
    b"f",
    b"x",
    b"y",
    b"0",
    b"1",
    b"2",
    b"10",
    b"01",
    b"-1",
    b"",
    b"$",
    b"$x",
    b"$ref",
    b"$id",
    b"$db",
    b"$set",
    b"x.y",
    b"a.",
    b".",
    b"_id",
    b"i",
    b"u",
    b"s",
    b"sa",
    b"u0",
    b"s0",
    b"l",
    b"diff",
    b"$v",
    "é".as_bytes(),
    b"a name that is much longer than any of the others",
];

pub(crate) fn long(number: i64) -> Value {
    Value::Scalar(0x12, number.to_le_bytes().to_vec())
}

impl Value {
    fn tag(&self) -> u8 {
        match self {
            Self::Scalar(tag, _) => *tag,
            Self::Document(_) => 0x03,
            Self::Array(_) => 0x04,
        }
    }

    /// Without its type and its name.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let (Self::Document(fields) | Self::Array(fields)) = self else {
            let Self::Scalar(_, bytes) = self else { unreachable!() };
            return bytes.clone();
        };
        let mut bytes = vec![0; 4];
        for (name, value) in fields {
            bytes.push(value.tag());
            bytes.extend_from_slice(name);
            bytes.push(0);
            bytes.extend_from_slice(&value.bytes());
        }
        bytes.push(0);
        let length = bytes.len() as u32;
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        bytes
    }
}

fn string(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u32 + 1).to_le_bytes(), text, &[0]].concat()
}

fn text(rng: &mut Rng) -> Vec<u8> {
    match rng.u8(..250) {
        0 => b"\xff\xfe\xfd".to_vec(),
        1 => b"\xed\xa0\x80".to_vec(),
        2..10 => "é日😀".as_bytes().to_vec(),
        10..20 => b"a\0b".to_vec(),
        20..24 => vec![b'x'; rng.usize(..300)],
        _ => pick(rng, &NAMES).to_vec(),
    }
}

fn name(rng: &mut Rng, fields: &[(Vec<u8>, Value)]) -> Vec<u8> {
    if rng.u16(..500) == 0 {
        return b"\xff\xfe".to_vec();
    }
    let mut name = pick(rng, &NAMES).to_vec();
    // Mostly a new one, so that most documents are sound.
    while fields.iter().any(|(other, _)| *other == name) && !chance(rng, 1) {
        name = format!("{}{}", String::from_utf8_lossy(&name), rng.u8(..10)).into_bytes();
    }
    name
}

fn scalar(rng: &mut Rng) -> Value {
    let number = rng.i64(-2..3);
    let (tag, bytes) = match rng.u8(..22) {
        0 => (0x01, (number as f64 / 2.0).to_le_bytes().to_vec()),
        1 => (0x01, rng.u64(..).to_le_bytes().to_vec()),
        2..5 => (0x02, string(&text(rng))),
        5 => {
            let subtype = *pick(rng, &[0, 3, 4, 5, 7, 128]);
            let data =
                if subtype == 4 || subtype == 3 { vec![1; 16] } else { vec![2; rng.usize(..20)] };
            (0x05, [&(data.len() as u32).to_le_bytes()[..], &[subtype], &data].concat())
        }
        6 => (0x06, Vec::new()),
        7 => (0x07, vec![rng.u8(..3); 12]),
        8 => (0x08, vec![rng.u8(..2)]),
        9 => (0x09, rng.i64(..).to_le_bytes().to_vec()),
        10 => (0x0A, Vec::new()),
        11 => (0x0B, b"^a\0im\0".to_vec()),
        12 => (0x0C, [&string(&text(rng))[..], &[7; 12]].concat()),
        13 => (0x0D, string(&text(rng))),
        14 => (0x0E, string(&text(rng))),
        15 => {
            let inner = [string(&text(rng)), document(rng, 0).bytes()].concat();
            (0x0F, [&(inner.len() as u32 + 4).to_le_bytes(), &inner[..]].concat())
        }
        16..18 => (0x10, (number as i32).to_le_bytes().to_vec()),
        18 => (0x11, [rng.u8(..3), 0, 0, 0, 1, 0, 0, 0].to_vec()),
        19 => (0x12, number.to_le_bytes().to_vec()),
        20 => (0x13, std::array::from_fn::<u8, 16, _>(|_| rng.u8(..)).to_vec()),
        _ => (*pick(rng, &[0x7F, 0xFF]), Vec::new()),
    };
    Value::Scalar(tag, bytes)
}

fn value(rng: &mut Rng, depth: usize) -> Value {
    match rng.u8(..10) {
        0..3 if depth > 0 => document(rng, depth - 1),
        3..6 if depth > 0 => array(rng, depth - 1),
        _ => scalar(rng),
    }
}

pub(crate) fn document(rng: &mut Rng, depth: usize) -> Value {
    let mut fields = Vec::new();
    let size = if chance(rng, 4) { rng.usize(..60) } else { rng.usize(..6) };
    for _ in 0..size {
        let name = name(rng, &fields);
        fields.push((name, value(rng, depth)));
    }
    Value::Document(fields)
}

fn array(rng: &mut Rng, depth: usize) -> Value {
    let size = if chance(rng, 4) { rng.usize(..60) } else { rng.usize(..6) };
    let odd = chance(rng, 6);
    let element = |rng: &mut Rng, at: usize| {
        let name = if odd { pick(rng, &NAMES).to_vec() } else { at.to_string().into_bytes() };
        (name, value(rng, depth))
    };
    Value::Array((0..size).map(|at| element(rng, at)).collect())
}

/// What a change makes of a document: mostly a little of it is different.
pub(crate) fn successor(rng: &mut Rng, before: &Value) -> Value {
    if chance(rng, 10) {
        return document(rng, 4);
    }
    let mut after = before.clone();
    for _ in 0..rng.usize(1..4) {
        change(rng, &mut after, 4);
    }
    after
}

fn change(rng: &mut Rng, value: &mut Value, depth: usize) {
    let is_array = matches!(value, Value::Array(_));
    let (Value::Document(fields) | Value::Array(fields)) = value else {
        *value = scalar(rng);
        return;
    };
    if fields.is_empty() || chance(rng, 20) {
        let name = if is_array { fields.len().to_string().into_bytes() } else { name(rng, fields) };
        let at = if is_array { fields.len() } else { rng.usize(..=fields.len()) };
        fields.insert(at, (name, self::value(rng, depth.min(2))));
        return;
    }
    let at = rng.usize(..fields.len());
    match rng.u8(..10) {
        0 => drop(fields.remove(at)),
        1 if !is_array => rng.shuffle(fields),
        2 if !is_array => fields[at].0 = name(rng, &[]),
        3 => fields.truncate(at),
        4 => fields[at].1 = self::value(rng, depth.min(2)),
        _ => change(rng, &mut fields[at].1, depth.saturating_sub(1)),
    }
}
