//! Where a query path leads: through documents by name, through arrays both by index and into every
//! element, and at its end into the elements of an array and the array itself.

use crate::model::patch::path::component;
use crate::model::patch::steps::{Halt, Steps};
use crate::model::state::raw::{RawValue, tag};

/// What a path starts from.
#[derive(Clone, Copy)]
pub(crate) enum Subject<'a> {
    /// A document: the path begins with one of its fields.
    Document(RawValue<'a>),
    /// A value that the path's first component stands for.
    Element(RawValue<'a>),
}

/// What happens at an array at the path's end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaf {
    /// Its elements are offered, then the array.
    Traverse,
    /// Only the array is offered.
    Whole,
}

/// A walk along a path, which offers everything that the path leads to until one is taken.
pub(super) struct Visit<'v> {
    pub(super) leaf: Leaf,
    pub(super) steps: &'v Steps,
    /// Is offered a value, or nothing where the path leads nowhere, and says whether that was it.
    pub(super) offer: &'v mut dyn FnMut(Option<RawValue<'_>>) -> Result<bool, Halt>,
}

impl Visit<'_> {
    /// Walks the path from there. Returns whether something was taken.
    pub(super) fn from(&mut self, subject: Subject<'_>, path: &[u8]) -> Result<bool, Halt> {
        match subject {
            Subject::Document(document) => self.in_document(document, path),
            Subject::Element(value) => match component(path, 0).1.map(|next| &path[next..]) {
                Some(rest) if value.tag == tag::DOCUMENT => self.in_document(value, rest),
                rest if value.tag == tag::ARRAY => self.in_array(value, rest),
                Some(_) => (self.offer)(None),
                None => (self.offer)(Some(value)),
            },
        }
    }

    fn in_document(&mut self, mut document: RawValue<'_>, mut path: &[u8]) -> Result<bool, Halt> {
        loop {
            self.steps.look(document)?;
            let (name, next) = component(path, 0);
            let rest = next.map(|next| &path[next..]);
            let Some(value) = document.elements()?.find(name)? else { return (self.offer)(None) };
            match (value.tag, rest) {
                (tag::ARRAY, rest) => return self.in_array(value, rest),
                (tag::DOCUMENT, Some(rest)) => (document, path) = (value, rest),
                (_, None) => return (self.offer)(Some(value)),
                (_, Some(_)) => return (self.offer)(None),
            }
        }
    }

    fn in_array(&mut self, array: RawValue<'_>, path: Option<&[u8]>) -> Result<bool, Halt> {
        let mut elements = array.elements()?;
        let Some(path) = path else {
            while self.leaf == Leaf::Traverse
                && let Some(element) = elements.next()?
            {
                if (self.offer)(Some(element.value))? {
                    return Ok(true);
                }
            }
            return (self.offer)(Some(array));
        };
        let (name, next) = component(path, 0);
        let is_index = name.iter().all(u8::is_ascii_digit);
        while let Some(element) = elements.next()? {
            self.steps.take(1)?;
            let value = element.value;
            if value.tag == tag::DOCUMENT && self.in_document(value, path)? {
                return Ok(true);
            }
            if !is_index || element.name != name {
                continue;
            }
            let taken = match (next.map(|next| &path[next..]), value.tag) {
                (None, _) => (self.offer)(Some(value))?,
                (Some(rest), tag::DOCUMENT) => self.in_document(value, rest)?,
                (Some(rest), tag::ARRAY) => self.in_array(value, Some(rest))?,
                (Some(_), _) => false,
            };
            if taken {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
