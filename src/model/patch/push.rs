//! `$push` and its clauses.

use crate::model::state::raw::{RawValue, tag};

use super::error::{shown, type_name};

/// The elements to add, and what else to do with the array.
#[derive(Clone, Debug)]
pub(crate) struct Push<'p> {
    pub(crate) values: Vec<RawValue<'p>>,
}

impl<'p> Push<'p> {
    pub(crate) fn parse(value: RawValue<'p>) -> Result<Self, String> {
        let broken = |error| format!("cannot be read: {error}");
        let mut clauses = value.elements().map_err(broken)?;
        let each = clauses.clone().find(b"$each").map_err(broken)?;
        let Some(each) = each.filter(|_| value.tag == tag::DOCUMENT) else {
            return Ok(Self { values: vec![value] });
        };
        while let Some(clause) = clauses.next().map_err(broken)? {
            if clause.name != b"$each" {
                return Err(format!("clause {:?} is not supported yet", shown(clause.name)));
            }
        }
        if each.tag != tag::ARRAY {
            return Err(format!("$each takes an array, not {}", type_name(each.tag)));
        }
        let mut values = Vec::new();
        let mut elements = each.elements().map_err(broken)?;
        while let Some(element) = elements.next().map_err(broken)? {
            values.push(element.value);
        }
        Ok(Self { values })
    }
}
