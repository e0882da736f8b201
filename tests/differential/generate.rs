//! Random states and patches. A patch is made for its state: most of its paths exist there and most
//! of its operators fit what they find, because a refusal proves little. The rest is nasty.

use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{
    Binary, Bson, DateTime, Decimal128, Document, JavaScriptCodeWithScope, Regex, Timestamp, doc,
};
use fastrand::Rng;

use crate::{
    condition,
    nasty::{DECIMALS, DOUBLES, INTS, LONGS, NAMES, PATH_NAMES, STRINGS},
};

/// One question to both sides.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Case {
    pub(crate) state: Document,
    pub(crate) patch: Document,
    pub(crate) filters: Vec<Document>,
}

pub(crate) fn pick<'a, T>(rng: &mut Rng, from: &'a [T]) -> &'a T {
    &from[rng.usize(..from.len())]
}

/// Whether something of that probability, in percent, happens.
pub(crate) fn chance(rng: &mut Rng, percent: u8) -> bool {
    rng.u8(..100) < percent
}

impl Case {
    /// The case of that seed, always the same.
    pub(crate) fn from_seed(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let state = state(&mut rng);
        let mut patcher =
            Patcher { rng: &mut rng, state: &state, filters: Vec::new(), used: Vec::new() };
        let patch = patcher.patch();
        let filters = patcher.filters;
        Self { state, patch, filters }
    }
}

fn state(rng: &mut Rng) -> Document {
    let mut document = document(rng, 3);
    document.remove("_id");
    // Names that no path reaches and the server refuses to see at the root of an update.
    if !chance(rng, 8) {
        document = document.into_iter().filter(|(name, _)| !name.starts_with('$')).collect();
    }
    document
}

fn document(rng: &mut Rng, depth: usize) -> Document {
    let size = rng.usize(..6);
    (0..size).map(|_| (pick(rng, &NAMES).to_string(), value(rng, depth))).collect()
}

pub(crate) fn number(rng: &mut Rng) -> Bson {
    match rng.u8(..10) {
        0..4 => Bson::Int32(*pick(rng, &INTS)),
        4..6 => Bson::Int64(*pick(rng, &LONGS)),
        6..8 => Bson::Double(*pick(rng, &DOUBLES)),
        8 => Bson::Decimal128(decimal(rng)),
        _ => match rng.u8(..4) {
            0 => Bson::Int32(rng.i32(..)),
            1 => Bson::Int64(rng.i64(..)),
            2 => Bson::Double(f64::from_bits(rng.u64(..))),
            _ => Bson::Double(f64::from(rng.i32(-1000..1000)) / 10.0),
        },
    }
}

fn decimal(rng: &mut Rng) -> Decimal128 {
    match rng.u8(..4) {
        0 => Decimal128::from_bytes(std::array::from_fn(|_| rng.u8(..))),
        1 => {
            let digits = rng.u64(..) >> rng.u8(..64);
            let exponent = rng.i32(-40..40);
            let sign = if rng.bool() { "-" } else { "" };
            format!("{sign}{digits}E{exponent}").parse().unwrap()
        }
        _ => pick(rng, &DECIMALS).parse().unwrap(),
    }
}

pub(crate) fn scalar(rng: &mut Rng) -> Bson {
    match rng.u8(..28) {
        0..12 => number(rng),
        12..17 => Bson::String(pick(rng, &STRINGS).to_string()),
        17 => Bson::Null,
        18 => Bson::Boolean(rng.bool()),
        19 => Bson::DateTime(DateTime::from_millis(rng.i64(-5..5) * 1000)),
        20 => Bson::ObjectId(ObjectId::from_bytes([rng.u8(..3); 12])),
        21 => {
            let subtype = *pick(rng, &[BinarySubtype::Generic, BinarySubtype::Uuid]);
            let length = if subtype == BinarySubtype::Uuid { 16 } else { rng.usize(..4) };
            Bson::Binary(Binary { subtype, bytes: vec![rng.u8(..3); length] })
        }
        22 => Bson::Timestamp(Timestamp { time: rng.u32(..3), increment: rng.u32(1..4) }),
        23 => {
            let pattern = pick(rng, &["a", "^a", "b$", ""]).to_string().try_into().unwrap();
            let options = pick(rng, &["", "i"]).to_string().try_into().unwrap();
            Bson::RegularExpression(Regex { pattern, options })
        }
        24 => pick(rng, &[Bson::MinKey, Bson::MaxKey, Bson::Undefined]).clone(),
        25 => Bson::JavaScriptCode(pick(rng, &STRINGS).to_string()),
        26 => Bson::Symbol(pick(rng, &STRINGS).to_string()),
        _ => Bson::JavaScriptCodeWithScope(JavaScriptCodeWithScope {
            code: pick(rng, &STRINGS).to_string(),
            scope: doc! {"a": rng.i32(..2)},
        }),
    }
}

pub(crate) fn value(rng: &mut Rng, depth: usize) -> Bson {
    match rng.u8(..10) {
        0..2 if depth > 0 => Bson::Document(document(rng, depth - 1)),
        2..5 if depth > 0 => array(rng, depth - 1),
        _ => scalar(rng),
    }
}

fn array(rng: &mut Rng, depth: usize) -> Bson {
    let size = if chance(rng, 5) { rng.usize(..30) } else { rng.usize(..6) };
    // Arrays of one kind are what $sort, $pull and arithmetic on every element bite on.
    let item: fn(&mut Rng, usize) -> Bson = match rng.u8(..6) {
        0 => |rng, _| number(rng),
        1 => |rng, _| Bson::Int32(rng.i32(..5)),
        2 => |rng, depth| Bson::Document(document(rng, depth)),
        3 => |rng, _| {
            let small = doc! {"a": rng.i32(..3), "b": rng.i32(..3)};
            Bson::Document(small)
        },
        4 => |rng, _| Bson::String(pick(rng, &STRINGS).to_string()),
        _ => value,
    };
    Bson::Array((0..size).map(|_| item(rng, depth)).collect())
}

/// Makes a patch for a state.
struct Patcher<'a> {
    rng: &'a mut Rng,
    state: &'a Document,
    filters: Vec<Document>,
    /// Paths so far. Most new ones stay clear of them.
    used: Vec<String>,
}

impl Patcher<'_> {
    fn patch(&mut self) -> Document {
        let mut patch = Document::new();
        let operators = if chance(self.rng, 60) { 1 } else { self.rng.usize(1..5) };
        for _ in 0..operators {
            let fields = if chance(self.rng, 70) { 1 } else { self.rng.usize(1..4) };
            for _ in 0..fields {
                let (path, found) = self.free_path();
                self.used.push(path.clone());
                let (operator, argument) = self.operator(found.as_ref());
                let entry = patch.entry(operator).or_insert_with(|| doc! {}.into());
                if let Bson::Document(fields) = entry {
                    fields.insert(path, argument);
                }
            }
        }
        if chance(self.rng, 1) {
            let name = *pick(self.rng, &["$foo", "$", "$pushAll", "a", "$set"]);
            patch.insert(name, scalar(self.rng));
        }
        patch
    }

    /// A path that does not conflict with those before it, usually.
    fn free_path(&mut self) -> (String, Option<Bson>) {
        let mut path = self.path();
        for _ in 0..8 {
            let contains = |outer: &str, inner: &str| {
                inner
                    .strip_prefix(outer)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            let clash =
                self.used.iter().any(|used| contains(used, &path.0) || contains(&path.0, used));
            if !clash || chance(self.rng, 5) {
                break;
            }
            path = self.path();
        }
        path
    }

    /// A new name for what was found: mostly one without elements of arrays in it.
    fn new_name(&mut self) -> String {
        let mut path = self.free_path().0;
        for _ in 0..4 {
            if !path.contains("$[") {
                break;
            }
            path = self.free_path().0;
        }
        self.used.push(path.clone());
        path
    }

    /// A dotted path, and what is there.
    fn path(&mut self) -> (String, Option<Bson>) {
        let mut path: Vec<String> = Vec::new();
        let mut here = Some(Bson::Document(self.state.clone()));
        loop {
            let next = match &here {
                Some(Bson::Document(document)) => self.name_in(document, path.is_empty()),
                Some(Bson::Array(array)) => self.index_in(array),
                _ => pick(self.rng, &PATH_NAMES).to_string(),
            };
            here = self.step(here.as_ref(), &next);
            path.push(next);
            let inside = matches!(&here, Some(Bson::Document(_) | Bson::Array(_)));
            let on = if inside { 55 } else { 8 };
            if path.len() > 6 || !chance(self.rng, on) {
                break;
            }
        }
        (path.join("."), here)
    }

    fn name_in(&mut self, document: &Document, at_root: bool) -> String {
        let names: Vec<_> = document
            .keys()
            .filter(|name| !name.is_empty() && !name.contains('.') && (!at_root || *name != "_id"))
            .collect();
        if names.is_empty() || chance(self.rng, 25) {
            let name = *pick(self.rng, &PATH_NAMES);
            // The server lets an update set _id to what it is; here there is none.
            // Reserved names are refused there, mostly.
            let odd = name == "_id" || name.starts_with('$') && !chance(self.rng, 5);
            return if at_root && odd { "a".to_owned() } else { name.to_owned() };
        }
        pick(self.rng, &names).to_string()
    }

    fn index_in(&mut self, array: &[Bson]) -> String {
        match self.rng.u8(..20) {
            0..9 if !array.is_empty() => self.rng.usize(..array.len()).to_string(),
            9..12 => "$[]".to_owned(),
            12..16 => self.filter(array),
            16 => {
                // Two spellings of one index in one patch make the server abort.
                let padded = |name: &str| name.len() > 1 && name.starts_with('0');
                let name = *pick(self.rng, &PATH_NAMES);
                if padded(name) { "a".to_owned() } else { name.to_owned() }
            }
            17 if chance(self.rng, 10) => pick(
                self.rng,
                &["1500007", "2000000000", "99999999999999999999", "$", "$[", "$[zz]"],
            )
            .to_string(),
            _ => (array.len() + self.rng.usize(..3)).to_string(),
        }
    }

    fn filter(&mut self, array: &[Bson]) -> String {
        let name = *pick(self.rng, &["i", "j", "k1"]);
        let known = |filter: &Document| {
            filter.keys().any(|key| key == name || key.starts_with(&format!("{name}.")))
        };
        if !self.filters.iter().any(known) {
            let filter = condition::filter(self.rng, name, array);
            self.filters.push(filter);
        }
        format!("$[{name}]")
    }

    fn step(&mut self, here: Option<&Bson>, next: &str) -> Option<Bson> {
        match here? {
            Bson::Document(document) => document.get(next).cloned(),
            Bson::Array(array) if next.starts_with('$') => {
                (!array.is_empty()).then(|| pick(self.rng, array).clone())
            }
            Bson::Array(array) => next.parse::<usize>().ok().and_then(|at| array.get(at).cloned()),
            _ => None,
        }
    }

    /// An operator that does something to what was found, usually.
    fn operator(&mut self, found: Option<&Bson>) -> (&'static str, Bson) {
        let rng = &mut *self.rng;
        let fitting: &[&str] = match found {
            _ if chance(rng, 12) => &[
                "$set",
                "$unset",
                "$inc",
                "$mul",
                "$min",
                "$max",
                "$rename",
                "$setOnInsert",
                "$bit",
                "$currentDate",
                "$push",
                "$addToSet",
                "$pop",
                "$pull",
                "$pullAll",
            ],
            Some(Bson::Int32(_) | Bson::Int64(_)) => {
                &["$inc", "$inc", "$mul", "$mul", "$min", "$max", "$bit", "$bit", "$set", "$rename"]
            }
            Some(Bson::Double(_) | Bson::Decimal128(_)) => {
                &["$inc", "$inc", "$mul", "$mul", "$min", "$max", "$set"]
            }
            Some(Bson::Array(_)) => &[
                "$push",
                "$push",
                "$push",
                "$addToSet",
                "$addToSet",
                "$pop",
                "$pull",
                "$pull",
                "$pull",
                "$pullAll",
                "$set",
                "$rename",
                "$min",
                "$max",
            ],
            Some(_) => &["$set", "$unset", "$min", "$max", "$rename", "$set"],
            None => &[
                "$set",
                "$set",
                "$inc",
                "$mul",
                "$min",
                "$push",
                "$addToSet",
                "$bit",
                "$rename",
                "$currentDate",
                "$unset",
                "$pull",
                "$pop",
            ],
        };
        let operator = *pick(rng, fitting);
        (operator, self.argument(operator, found))
    }

    fn argument(&mut self, operator: &str, found: Option<&Bson>) -> Bson {
        if chance(self.rng, 1) {
            return value(self.rng, 1);
        }
        let items = match found {
            Some(Bson::Array(items)) => items.clone(),
            _ => Vec::new(),
        };
        match operator {
            "$inc" | "$mul" => number(self.rng),
            "$unset" => Bson::from(""),
            "$rename" => self.new_name().into(),
            "$bit" => self.bits(),
            "$currentDate" => pick(
                self.rng,
                &[
                    Bson::from(true),
                    doc! {"$type": "date"}.into(),
                    doc! {"$type": "timestamp"}.into(),
                ],
            )
            .clone(),
            "$push" => self.push(&items),
            "$addToSet" if chance(self.rng, 50) => {
                let each = self.similar_items(&items);
                doc! {"$each": each}.into()
            }
            "$addToSet" => self.similar(&items),
            "$pop" => pick(
                self.rng,
                &[Bson::from(1), (-1).into(), 1.0.into(), 1_i64.into(), (-1.0).into()],
            )
            .clone(),
            "$pullAll" => self.similar_items(&items).into(),
            "$pull" => condition::pull(self.rng, &items),
            _ => match found {
                Some(found) if chance(self.rng, 10) => found.clone(),
                Some(found) if chance(self.rng, 30) => condition::near(self.rng, found),
                _ => value(self.rng, 2),
            },
        }
    }

    fn bits(&mut self) -> Bson {
        let mut operations = Document::new();
        for _ in 0..self.rng.usize(1..3) {
            let name = *pick(self.rng, &["and", "or", "xor"]);
            let number = if chance(self.rng, 90) {
                pick(
                    self.rng,
                    &[Bson::Int32(5), Bson::Int32(-1), Bson::Int64(1 << 40), Bson::Int64(3)],
                )
                .clone()
            } else {
                number(self.rng)
            };
            operations.insert(name, number);
        }
        operations.into()
    }

    fn push(&mut self, items: &[Bson]) -> Bson {
        if chance(self.rng, 25) {
            return self.similar(items);
        }
        let mut clauses = doc! {"$each": self.similar_items(items)};
        if chance(self.rng, 40) {
            clauses.insert("$position", self.offset());
        }
        if chance(self.rng, 40) {
            clauses.insert("$slice", self.offset());
        }
        if chance(self.rng, 40) {
            let direction =
                |rng: &mut Rng| pick(rng, &[1.into(), (-1).into(), Bson::from(1.0)]).clone();
            let sort = match self.rng.u8(..3) {
                0 => direction(self.rng),
                1 => doc! {*pick(self.rng, &["a", "b", "a.b", "x.0", "0"]): direction(self.rng)}
                    .into(),
                _ => doc! {"a": direction(self.rng), "b": direction(self.rng)}.into(),
            };
            clauses.insert("$sort", sort);
        }
        if chance(self.rng, 1) {
            clauses.insert(*pick(self.rng, &["$foo", "x"]), 1);
        }
        let mut entries: Vec<_> = clauses.into_iter().collect();
        self.rng.shuffle(&mut entries);
        entries.into_iter().collect::<Document>().into()
    }

    fn offset(&mut self) -> Bson {
        match self.rng.u8(..12) {
            0 => number(self.rng),
            1 => Bson::Int64(*pick(self.rng, &[i64::MAX, i64::MIN, 1 << 40])),
            2 => Bson::Double(f64::from(self.rng.i32(-3..4))),
            _ => Bson::Int32(self.rng.i32(-6..7)),
        }
    }

    /// A value like those in the array.
    fn similar(&mut self, items: &[Bson]) -> Bson {
        if items.is_empty() || chance(self.rng, 35) {
            return value(self.rng, 1);
        }
        let item = pick(self.rng, items).clone();
        if chance(self.rng, 60) { item } else { condition::near(self.rng, &item) }
    }

    fn similar_items(&mut self, items: &[Bson]) -> Vec<Bson> {
        (0..self.rng.usize(..4)).map(|_| self.similar(items)).collect()
    }
}
