//! `$push`: adding elements at a position, then sorting, then slicing.

use std::cmp::Ordering;

use crate::model::state::raw::{self, Malformed, RawValue, tag};

use super::compare::compare;
use super::error::{shown, type_name};
use super::number::Number;

/// The elements to add, and what else to do with the array.
#[derive(Clone, Debug)]
pub(crate) struct Push<'p> {
    pub(crate) values: Vec<RawValue<'p>>,
    /// Where to insert: from the front, or from the back when negative.
    pub(crate) position: Option<i64>,
    /// How many elements stay: the first ones, or the last ones when negative.
    pub(crate) slice: Option<i64>,
    pub(crate) sort: Option<Sort<'p>>,
}

/// How to order the elements of an array.
#[derive(Clone, Debug)]
pub(crate) enum Sort<'p> {
    Whole {
        descending: bool,
    },
    /// By fields of the elements, each with whether it is descending.
    Fields(Vec<(&'p [u8], bool)>),
}

fn unreadable(error: Malformed) -> String {
    format!("cannot be read: {error}")
}

impl<'p> Push<'p> {
    pub(crate) fn parse(value: RawValue<'p>) -> Result<Self, String> {
        let mut push = Self { values: Vec::new(), position: None, slice: None, sort: None };
        let mut clauses = value.elements().map_err(unreadable)?;
        let each = match value.tag {
            tag::DOCUMENT => clauses.clone().find(b"$each").map_err(unreadable)?,
            _ => None,
        };
        let Some(each) = each else {
            push.values.push(value);
            return Ok(push);
        };
        let mut seen = Vec::new();
        while let Some(clause) = clauses.next().map_err(unreadable)? {
            if seen.contains(&clause.name) {
                return Err(format!("has {} twice; give it once", shown(clause.name)));
            }
            seen.push(clause.name);
            match clause.name {
                b"$each" => {}
                b"$position" => push.position = Some(integer(clause.name, clause.value)?),
                b"$slice" => push.slice = Some(integer(clause.name, clause.value)?),
                b"$sort" => push.sort = Some(Sort::parse(clause.value)?),
                name => {
                    let name = shown(name);
                    return Err(format!(
                        "takes $each, $position, $slice and $sort, but {name:?} is there"
                    ));
                }
            }
        }
        if each.tag != tag::ARRAY {
            return Err(format!("$each takes an array, not {}", type_name(each.tag)));
        }
        let mut elements = each.elements().map_err(unreadable)?;
        while let Some(element) = elements.next().map_err(unreadable)? {
            push.values.push(element.value);
        }
        Ok(push)
    }

    /// Where in an array of that length the elements go.
    pub(crate) fn index(&self, length: usize) -> usize {
        match self.position {
            None => length,
            Some(position) => match usize::try_from(position) {
                Ok(position) => position.min(length),
                Err(_) => {
                    let back = usize::try_from(position.unsigned_abs()).unwrap_or(usize::MAX);
                    length.saturating_sub(back)
                }
            },
        }
    }

    /// Which elements of an array of that length stay.
    pub(crate) fn kept(&self, length: usize) -> std::ops::Range<usize> {
        let Some(slice) = self.slice else { return 0..length };
        let size = usize::try_from(slice.unsigned_abs()).unwrap_or(usize::MAX).min(length);
        if slice < 0 { length - size..length } else { 0..size }
    }
}

fn integer(name: &[u8], value: RawValue<'_>) -> Result<i64, String> {
    let number = Number::read(value).and_then(Number::to_integer);
    number.ok_or_else(|| {
        format!("{} takes a whole number of 64 bits, not {}", shown(name), type_name(value.tag))
    })
}

impl<'p> Sort<'p> {
    fn parse(value: RawValue<'p>) -> Result<Self, String> {
        let wrong = || {
            "$sort takes 1 or -1, or a document of fields with 1 or -1, none of them empty"
                .to_owned()
        };
        if value.tag != tag::DOCUMENT {
            return Ok(Self::Whole { descending: descends(value).ok_or_else(wrong)? });
        }
        let mut fields = Vec::new();
        let mut elements = value.elements().map_err(unreadable)?;
        while let Some(element) = elements.next().map_err(unreadable)? {
            if element.name.split(|byte| *byte == b'.').any(<[u8]>::is_empty) {
                return Err(wrong());
            }
            fields.push((element.name, descends(element.value).ok_or_else(wrong)?));
        }
        if fields.is_empty() { Err(wrong()) } else { Ok(Self::Fields(fields)) }
    }

    /// Compares two elements. They must have been checked to be well-formed.
    pub(crate) fn compare(&self, left: RawValue<'_>, right: RawValue<'_>) -> Ordering {
        let by_value = |left, right, descending: bool| {
            let order = compare(left, right).unwrap_or(Ordering::Equal);
            if descending { order.reverse() } else { order }
        };
        match self {
            Self::Whole { descending } => by_value(left, right, *descending),
            Self::Fields(fields) => fields
                .iter()
                .map(|(path, descending)| by_value(key(left, path), key(right, path), *descending))
                .find(|order| order.is_ne())
                .unwrap_or(Ordering::Equal),
        }
    }
}

fn descends(value: RawValue<'_>) -> Option<bool> {
    let direction = Number::read(value)?.to_integer()?;
    matches!(direction, -1 | 1).then_some(direction < 0)
}

/// The value that an element is sorted by; null when it has none.
fn key<'a>(element: RawValue<'a>, path: &[u8]) -> RawValue<'a> {
    let found = if element.tag == tag::DOCUMENT { field(element, path) } else { None };
    found.unwrap_or(RawValue::new(tag::NULL, &[]))
}

/// The field of that name, dots and all, or else the one that the dotted path leads to.
fn field<'a>(mut document: RawValue<'a>, mut path: &[u8]) -> Option<RawValue<'a>> {
    loop {
        let find = |name: &[u8]| document.elements().ok()?.find(name).ok()?;
        if let Some(value) = find(path) {
            return Some(value);
        }
        let dot = path.iter().position(|byte| *byte == b'.')?;
        document = find(&path[..dot]).filter(|value| raw::is_container(value.tag))?;
        path = &path[dot + 1..];
    }
}
