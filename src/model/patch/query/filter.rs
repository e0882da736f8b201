//! Array filters: conditions with an identifier, which `$[identifier]` in a path refers to.

use crate::model::patch::error::{PatchError, shown};
use crate::model::patch::path::component;
use crate::model::state::raw::{Elements, Malformed, RawValue, tag};

use super::{Condition, Subject, parse};

/// The array filters of one patch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filters<'p>(Vec<(&'p [u8], Condition<'p>)>);

impl<'p> Filters<'p> {
    /// Reads filters. Each must be about one identifier of its own.
    pub(crate) fn parse(array: &'p [u8]) -> Result<Self, PatchError> {
        let mut filters: Vec<(&[u8], Condition<'_>)> = Vec::new();
        let mut elements = Elements::new(array)?;
        while let Some(element) = elements.next()? {
            let (name, condition) = filter(element.value)
                .map_err(|(name, reason)| PatchError::ArrayFilter { name: shown(name), reason })?;
            if filters.iter().any(|(known, _)| *known == name) {
                let reason = "there are two filters for it; combine them with $and".to_owned();
                return Err(PatchError::ArrayFilter { name: shown(name), reason });
            }
            filters.push((name, condition));
        }
        Ok(Self(filters))
    }

    /// Refuses a filter that no path refers to, and an identifier without a filter.
    pub(crate) fn check_use<'a>(
        &self,
        identifiers: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(), PatchError> {
        let mut unused: Vec<_> = self.0.iter().map(|(name, _)| *name).collect();
        for identifier in identifiers.filter(|identifier| !identifier.is_empty()) {
            if !self.0.iter().any(|(name, _)| *name == identifier) {
                let reason = "no filter in array_filters has that name; add one".to_owned();
                return Err(PatchError::ArrayFilter { name: shown(identifier), reason });
            }
            unused.retain(|name| *name != identifier);
        }
        match unused.first() {
            None => Ok(()),
            Some(name) => {
                let reason = "no path refers to it; remove it, or use $[name] in a path".to_owned();
                Err(PatchError::ArrayFilter { name: shown(name), reason })
            }
        }
    }

    /// How many tests all the filters consist of.
    pub(crate) fn weight(&self) -> usize {
        self.0.iter().map(|(_, condition)| condition.weight()).sum()
    }

    /// Whether the identifier's filter lets the element through. `$[]` has no filter and takes all.
    pub(crate) fn admits(
        &self,
        identifier: &[u8],
        element: RawValue<'_>,
    ) -> Result<bool, Malformed> {
        match self.0.iter().find(|(name, _)| *name == identifier) {
            Some((_, condition)) => condition.matches(Subject::Element(element)),
            None => Ok(true),
        }
    }
}

/// A filter's name, as far as it is known, and what is wrong with it.
type Refusal<'p> = (&'p [u8], String);

fn filter(value: RawValue<'_>) -> Result<(&[u8], Condition<'_>), Refusal<'_>> {
    if value.tag != tag::DOCUMENT {
        return Err((b"", "is not a document; write {name: condition}".to_owned()));
    }
    let condition = parse::document(value).map_err(|reason| (&b""[..], reason))?;
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
