//! The table of operators: what each takes, and whether it makes something out of nothing.

use std::rc::Rc;

use crate::model::state::raw::{RawValue, tag};

use crate::model::shown::shown;

use super::error::type_name;
use super::number::Number;
use super::push::Push;
use super::query::{Patterns, Pull, Sorted};
use super::{check_comparable, unreadable};

/// An operator with its argument. Every element that `$[]` reaches gets a copy, so what may be large is
/// shared.
#[derive(Clone, Debug)]
pub(crate) enum Operator<'p> {
    Set(RawValue<'p>),
    Unset,
    /// The number to add, and as it was written, for a field that does not exist.
    Inc(Number, RawValue<'p>),
    Mul(Number),
    Min(RawValue<'p>),
    Max(RawValue<'p>),
    Bit(Rc<Vec<(Bitwise, Number)>>),
    CurrentDate {
        timestamp: bool,
    },
    /// Stands at the old path, for conflicts.
    Rename {
        to: &'p [u8],
    },
    /// Stands at the new path, and does the renaming.
    RenameInto {
        from: &'p [u8],
    },
    SetOnInsert,
    Push(Rc<Push<'p>>),
    AddToSet(Rc<Vec<RawValue<'p>>>),
    Pop {
        first: bool,
    },
    Pull(Rc<Pull<'p>>),
    PullAll(Rc<Sorted<'p>>),
}

/// An operation of `$bit`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bitwise {
    And,
    Or,
    Xor,
}

impl<'p> Operator<'p> {
    /// Every operator that a patch may contain, the commonest first.
    pub(crate) const NAMES: [&'static str; 15] = [
        "$set",
        "$inc",
        "$push",
        "$unset",
        "$mul",
        "$min",
        "$max",
        "$rename",
        "$setOnInsert",
        "$currentDate",
        "$bit",
        "$addToSet",
        "$pop",
        "$pull",
        "$pullAll",
    ];

    /// Checks an operator's argument. An error says what is wrong with it and what to write.
    pub(crate) fn parse(
        name: &str,
        value: RawValue<'p>,
        patterns: &Patterns,
    ) -> Result<Self, String> {
        Ok(match name {
            "$set" => Self::Set(value),
            "$unset" => Self::Unset,
            "$setOnInsert" => Self::SetOnInsert,
            "$inc" => Self::Inc(number(value)?, value),
            "$mul" => Self::Mul(number(value)?),
            "$min" => Self::Min(value),
            "$max" => Self::Max(value),
            "$bit" => Self::Bit(Rc::new(bitwise(value)?)),
            "$currentDate" => Self::CurrentDate { timestamp: wants_timestamp(value)? },
            "$rename" => Self::Rename { to: new_name(value)? },
            "$push" => Self::Push(Rc::new(Push::parse(value)?)),
            "$addToSet" => Self::AddToSet(Rc::new(set_elements(value)?)),
            "$pop" => Self::Pop { first: pops_first(value)? },
            "$pull" => Self::Pull(Rc::new(Pull::parse(value, patterns)?)),
            "$pullAll" => Self::PullAll(Rc::new(Sorted::new(elements(value)?))),
            _ => return Err("is not an update operator".to_owned()),
        })
    }

    /// Whether the operator gives a value to a path that does not exist. Renaming does when its
    /// source exists, which only the state can tell.
    pub(crate) fn creates(&self) -> bool {
        match self {
            Self::Unset
            | Self::Rename { .. }
            | Self::RenameInto { .. }
            | Self::SetOnInsert
            | Self::Pop { .. }
            | Self::Pull(_)
            | Self::PullAll(_) => false,
            Self::Set(_)
            | Self::Inc(..)
            | Self::Mul(_)
            | Self::Min(_)
            | Self::Max(_)
            | Self::Bit(_)
            | Self::CurrentDate { .. }
            | Self::Push(_)
            | Self::AddToSet(_) => true,
        }
    }

    /// Whether the operator does nothing at a path that could not exist, such as a field of a
    /// number, where others refuse.
    pub(crate) fn ignores_unreachable(&self) -> bool {
        matches!(self, Self::Unset | Self::Rename { .. } | Self::SetOnInsert)
    }
}

fn number(value: RawValue<'_>) -> Result<Number, String> {
    Number::read(value).ok_or_else(|| format!("takes a number, not {}", type_name(value.tag)))
}

fn new_name(value: RawValue<'_>) -> Result<&[u8], String> {
    if value.tag != tag::STRING {
        return Err(format!("takes the new path as a string, not {}", type_name(value.tag)));
    }
    if value.text().contains(&0) {
        return Err("takes a new path without zero bytes".to_owned());
    }
    Ok(value.text())
}

/// The elements of an array argument.
fn elements(value: RawValue<'_>) -> Result<Vec<RawValue<'_>>, String> {
    if value.tag != tag::ARRAY {
        return Err(format!("takes an array, not {}", type_name(value.tag)));
    }
    check_comparable(value)?;
    let mut values = Vec::new();
    let mut elements = value.elements().map_err(unreadable)?;
    while let Some(element) = elements.next().map_err(unreadable)? {
        values.push(element.value);
    }
    Ok(values)
}

fn bitwise(value: RawValue<'_>) -> Result<Vec<(Bitwise, Number)>, String> {
    let wrong = || "takes a document of and, or, xor with int or long values".to_owned();
    if value.tag != tag::DOCUMENT {
        return Err(wrong());
    }
    let mut operations = Vec::new();
    let mut fields = value.elements().map_err(unreadable)?;
    while let Some(field) = fields.next().map_err(unreadable)? {
        let operation = match field.name {
            b"and" => Bitwise::And,
            b"or" => Bitwise::Or,
            b"xor" => Bitwise::Xor,
            _ => return Err(wrong()),
        };
        let number = Number::read(field.value).filter(|number| number.as_i64().is_some());
        operations.push((operation, number.ok_or_else(wrong)?));
    }
    if operations.is_empty() { Err(wrong()) } else { Ok(operations) }
}

fn wants_timestamp(value: RawValue<'_>) -> Result<bool, String> {
    let wrong = || r#"takes true, {$type: "date"} or {$type: "timestamp"}"#.to_owned();
    if value.tag == tag::BOOLEAN {
        return Ok(false);
    }
    if value.tag != tag::DOCUMENT {
        return Err(wrong());
    }
    let mut wanted = None;
    let mut fields = value.elements().map_err(unreadable)?;
    while let Some(field) = fields.next().map_err(unreadable)? {
        wanted = match (field.name, field.value.tag, field.value.text()) {
            (b"$type", tag::STRING, b"date") => Some(false),
            (b"$type", tag::STRING, b"timestamp") => Some(true),
            _ => return Err(wrong()),
        };
    }
    wanted.ok_or_else(wrong)
}

/// The elements to add to a set, each once.
fn set_elements(value: RawValue<'_>) -> Result<Vec<RawValue<'_>>, String> {
    let first = match value.tag {
        tag::DOCUMENT => {
            value.elements().and_then(|mut fields| fields.next()).map_err(unreadable)?
        }
        _ => None,
    };
    let Some(each) = first.filter(|field| field.name == b"$each") else { return Ok(vec![value]) };
    let mut fields = value.elements().map_err(unreadable)?;
    fields.next().map_err(unreadable)?;
    if let Some(field) = fields.next().map_err(unreadable)? {
        return Err(format!("takes nothing beside $each, but {:?} is there", shown(field.name)));
    }
    elements(each.value).map_err(|reason| format!("$each {reason}"))
}

fn pops_first(value: RawValue<'_>) -> Result<bool, String> {
    match Number::read(value).and_then(Number::to_integer) {
        Some(-1) => Ok(true),
        Some(1) => Ok(false),
        _ => Err("takes 1 for the last element or -1 for the first".to_owned()),
    }
}
