//! Regular expressions. Placeholder.

use crate::model::state::raw::{RawValue, tag};

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(crate) struct Pattern<'p> {
    source: &'p [u8],
    options: &'p [u8],
}

impl<'p> Pattern<'p> {
    pub(crate) fn new(source: &'p [u8], options: &'p [u8]) -> Result<Self, String> {
        Ok(Self { source, options })
    }

    pub(crate) fn matches(&self, value: RawValue<'_>) -> bool {
        value.tag == tag::REGEX && value.regex() == (self.source, self.options)
    }
}
