//! Array filters: conditions with an identifier, which `$[identifier]` in a path refers to.

use crate::model::patch::error::PatchError;
use crate::model::patch::path::component;
use crate::model::patch::steps::{Halt, Steps};
use crate::model::shown::shown;
use crate::model::state::raw::{Elements, RawValue, tag};

use super::parse::{self, Reading};
use super::pattern::Patterns;
use super::{Condition, Subject};

/// The array filters of one patch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filters<'p>(Vec<(&'p [u8], Condition<'p>)>);

impl<'p> Filters<'p> {
    /// Reads filters. Each must be about one identifier of its own.
    pub(crate) fn parse(array: &'p [u8], patterns: &Patterns) -> Result<Self, PatchError> {
        let mut filters: Vec<(&[u8], Condition<'_>)> = Vec::new();
        let mut elements = Elements::new(array)?;
        while let Some(element) = elements.next()? {
            let filter = filter(element.value, Reading::new(patterns))
                .map_err(|(name, reason)| PatchError::ArrayFilter { name: shown(name), reason })?;
            filters.push(filter);
        }
        filters.sort_by_key(|(name, _)| *name);
        match filters.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            None => Ok(Self(filters)),
            Some(pair) => {
                let reason = "there are two filters for it; combine them with $and".to_owned();
                Err(PatchError::ArrayFilter { name: shown(pair[0].0), reason })
            }
        }
    }

    fn find(&self, identifier: &[u8]) -> Option<usize> {
        self.0.binary_search_by(|(name, _)| (*name).cmp(identifier)).ok()
    }

    /// Refuses a filter that no path refers to, and an identifier without a filter.
    pub(crate) fn check_use<'a>(
        &self,
        identifiers: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(), PatchError> {
        let mut used = vec![false; self.0.len()];
        for identifier in identifiers.filter(|identifier| !identifier.is_empty()) {
            let Some(at) = self.find(identifier) else {
                let reason = "no filter in array_filters has that name; add one".to_owned();
                return Err(PatchError::ArrayFilter { name: shown(identifier), reason });
            };
            used[at] = true;
        }
        match self.0.iter().zip(used).find(|(_, used)| !used) {
            None => Ok(()),
            Some(((name, _), _)) => {
                let reason = "no path refers to it; remove it, or use $[name] in a path".to_owned();
                Err(PatchError::ArrayFilter { name: shown(name), reason })
            }
        }
    }

    /// Whether the identifier's filter lets the element through. `$[]` has no filter and takes all.
    pub(crate) fn admits(
        &self,
        identifier: &[u8],
        element: RawValue<'_>,
        steps: &Steps,
    ) -> Result<bool, Halt> {
        match self.find(identifier) {
            Some(at) => self.0[at].1.matches(Subject::Element(element), steps),
            None => Ok(true),
        }
    }
}

/// A filter's name, as far as it is known, and what is wrong with it.
type Refusal<'p> = (&'p [u8], String);

fn filter<'p>(
    value: RawValue<'p>,
    reading: Reading<'_>,
) -> Result<(&'p [u8], Condition<'p>), Refusal<'p>> {
    if value.tag != tag::DOCUMENT {
        return Err((b"", "is not a document; write {name: condition}".to_owned()));
    }
    let condition = parse::document(value, reading).map_err(|reason| (&b""[..], reason))?;
    let mut name = None;
    identifier(&condition, &mut name)?;
    let Some(name) = name else {
        return Err((b"", "names no identifier; write {name: condition}".to_owned()));
    };
    let plain = |byte: &u8| byte.is_ascii_alphanumeric();
    if !name.first().is_some_and(u8::is_ascii_lowercase) || !name.iter().all(plain) {
        let reason = "an identifier begins with a lowercase letter and has only letters and digits";
        return Err((name, reason.to_owned()));
    }
    Ok((name, condition))
}

/// Finds the identifier that all paths of the condition begin with.
fn identifier<'p>(
    condition: &Condition<'p>,
    found: &mut Option<&'p [u8]>,
) -> Result<(), Refusal<'p>> {
    let path = match condition {
        Condition::And(all) | Condition::Or(all) | Condition::Nor(all) => {
            return all.iter().try_for_each(|condition| identifier(condition, found));
        }
        Condition::Not(inner) => return identifier(inner, found),
        Condition::Constant(_) => return Ok(()),
        Condition::Field { path, .. } | Condition::Array { path, .. } => *path,
    };
    let name = component(path, 0).0;
    if found.is_some_and(|found| found != name) {
        let reason = "a filter must be about one identifier only; split it into two".to_owned();
        return Err((name, reason));
    }
    *found = Some(name);
    Ok(())
}
