//! BSON out of arbitrary bytes. A fuzzer that flips bits of BSON mostly breaks its lengths and learns
//! nothing behind them; here its bytes choose what is built, and what is built is well-formed.

use bson::raw::CString;
use bson::{Bson, DateTime, Decimal128, Document, Regex};

/// Bytes that choices are made with; zeros when there are no more.
pub(crate) struct Choices<'a>(pub(crate) &'a [u8]);

const NAMES: [&str; 20] = [
    "a",
    "b",
    "c",
    "0",
    "1",
    "10",
    "a.b",
    "a.0",
    "a.$[]",
    "a.$[i]",
    "b.$[i].c",
    "a.b.c.d",
    "2000000000",
    "a.1500001",
    "",
    "$x",
    "i",
    "i.a",
    "_id",
    "a.1",
];

const OPERATORS: [&str; 17] = [
    "$set",
    "$unset",
    "$inc",
    "$mul",
    "$min",
    "$max",
    "$rename",
    "$setOnInsert",
    "$currentDate",
    "$bit",
    "$push",
    "$addToSet",
    "$pop",
    "$pull",
    "$pullAll",
    "$foo",
    "a",
];

const CLAUSES: [&str; 26] = [
    "$each",
    "$position",
    "$slice",
    "$sort",
    "$eq",
    "$ne",
    "$gt",
    "$lte",
    "$in",
    "$nin",
    "$not",
    "$exists",
    "$type",
    "$size",
    "$all",
    "$elemMatch",
    "$mod",
    "$regex",
    "$options",
    "$bitsAnySet",
    "$and",
    "$or",
    "and",
    "or",
    "xor",
    "$bitsAllClear",
];

const TEXTS: [&str; 12] =
    ["", "a", "b", "a.b", "^a", "(a+)+$", "[^b]*", "int", "date", "timestamp", "im", "\\w{1,9}"];

const NUMBERS: [i64; 12] =
    [0, 1, -1, 2, 7, 100, 255, 2_147_483_647, -2_147_483_648, 1 << 40, i64::MAX, i64::MIN];

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn one<'t>(&mut self, from: &[&'t str]) -> &'t str {
        from[usize::from(self.byte()) % from.len()]
    }

    fn number(&mut self) -> i64 {
        let number = NUMBERS[usize::from(self.byte()) % NUMBERS.len()];
        if self.byte() < 200 { number } else { number.wrapping_add(i64::from(self.byte())) }
    }

    pub(crate) fn value(&mut self, depth: usize) -> Bson {
        match self.byte() % 16 {
            0..3 if depth > 0 => Bson::Document(self.document(depth - 1)),
            3..5 if depth > 0 => self.array(depth - 1),
            5 if depth > 0 => Bson::Document(self.clauses(depth - 1)),
            6 => Bson::Int32(self.number() as i32),
            7 => Bson::Int64(self.number()),
            8 => Bson::Double(self.number() as f64 / 8.0),
            9 => Bson::Decimal128(Decimal128::from_bytes(std::array::from_fn(|_| self.byte()))),
            10 => Bson::Null,
            11 => Bson::Boolean(self.byte().is_multiple_of(2)),
            12 => Bson::DateTime(DateTime::from_millis(self.number())),
            13 => {
                let text = |text: &str| CString::try_from(text.to_owned()).ok();
                match (text(self.one(&TEXTS)), text("")) {
                    (Some(pattern), Some(options)) => {
                        Bson::RegularExpression(Regex { pattern, options })
                    }
                    _ => Bson::Null,
                }
            }
            14 => {
                Bson::Double(f64::from_bits(u64::from(self.byte()) << 52 | u64::from(self.byte())))
            }
            _ => Bson::String(self.one(&TEXTS).to_owned()),
        }
    }

    fn size(&mut self) -> usize {
        usize::from(self.byte() % 6)
    }

    pub(crate) fn document(&mut self, depth: usize) -> Document {
        (0..self.size()).map(|_| (self.one(&NAMES).to_owned(), self.value(depth))).collect()
    }

    pub(crate) fn array(&mut self, depth: usize) -> Bson {
        let size = if self.byte() == 255 { usize::from(self.byte()) } else { self.size() };
        (0..size).map(|_| self.value(depth)).collect()
    }

    fn clauses(&mut self, depth: usize) -> Document {
        (0..self.size()).map(|_| (self.one(&CLAUSES).to_owned(), self.value(depth))).collect()
    }

    pub(crate) fn patch(&mut self) -> Document {
        let mut patch = Document::new();
        for _ in 0..1 + self.size() {
            let fields = self.document(4);
            patch.insert(self.one(&OPERATORS), fields);
        }
        patch
    }

    pub(crate) fn filters(&mut self) -> Vec<Document> {
        (0..self.size() % 3).map(|_| self.document(4)).collect()
    }
}
