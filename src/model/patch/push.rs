//! `$push`: adding elements at a position, then sorting, then slicing.

use crate::model::state::raw::{RawValue, tag};

use crate::model::shown::shown;

use super::error::type_name;
use super::number::Number;
use super::sort::Sort;
use super::unreadable;

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
