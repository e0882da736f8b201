//! The table of operators: what each takes, and what it does to a path that exists and to one that
//! does not.

use crate::model::state::raw::{RawValue, tag};

use super::error::type_name;
use super::number::Number;
use super::push::Push;

/// An operator with its argument.
#[derive(Clone, Debug)]
pub(crate) enum Operator<'p> {
    Set(RawValue<'p>),
    Unset,
    Inc(Number),
    Rename { to: &'p [u8] },
    RenameInto { from: &'p [u8] },
    SetOnInsert,
    Push(Box<Push<'p>>),
}

impl<'p> Operator<'p> {
    /// Every operator that a patch may contain.
    pub(crate) const NAMES: [&'static str; 15] = [
        "$set",
        "$unset",
        "$inc",
        "$push",
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
    pub(crate) fn parse(name: &str, value: RawValue<'p>) -> Result<Self, String> {
        Ok(match name {
            "$set" => Self::Set(value),
            "$unset" => Self::Unset,
            "$setOnInsert" => Self::SetOnInsert,
            "$inc" => Self::Inc(number(value)?),
            "$push" => Self::Push(Box::new(Push::parse(value)?)),
            "$rename" => Self::Rename { to: new_name(value)? },
            _ => return Err("is not supported yet".to_owned()),
        })
    }

    /// Whether the operator gives a value to a path that does not exist. Renaming does when its
    /// source exists, which only the state can tell.
    pub(crate) fn creates(&self) -> bool {
        match self {
            Self::Unset | Self::Rename { .. } | Self::RenameInto { .. } | Self::SetOnInsert => {
                false
            }
            Self::Set(_) | Self::Inc(_) | Self::Push(_) => true,
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
