//! Query conditions, as `$pull` and array filters use them: the part of the server's query language
//! that asks about one value. What asks about anything else (other documents, positions on a globe,
//! scripts) is refused.

mod filter;
mod leaf;
mod parse;
mod pattern;
mod visit;

use std::cmp::Ordering;

use crate::model::state::raw::{RawValue, is_container, tag};

use super::compare::compare;
use super::steps::{Halt, Steps};
pub(crate) use filter::Filters;
use leaf::Test;
pub(crate) use pattern::Patterns;
use visit::{Leaf, Subject, Visit};

/// A parsed condition.
#[derive(Clone, Debug)]
pub(crate) enum Condition<'p> {
    And(Vec<Condition<'p>>),
    Or(Vec<Condition<'p>>),
    Nor(Vec<Condition<'p>>),
    Not(Box<Condition<'p>>),
    Constant(bool),
    /// Some value that the path leads to passes the test.
    Field {
        path: &'p [u8],
        test: Test<'p>,
    },
    /// Some array that the path leads to passes the test as a whole.
    Array {
        path: &'p [u8],
        test: ArrayTest<'p>,
    },
}

/// A test of an array as a whole.
#[derive(Clone, Debug)]
pub(crate) enum ArrayTest<'p> {
    Size(i64),
    /// One element passes all the tests.
    ElementIs(Vec<Condition<'p>>),
    /// One element is a document that meets the condition.
    ElementMatches(Box<Condition<'p>>),
}

/// What `$pull` was given.
#[derive(Clone, Debug)]
pub(crate) enum Pull<'p> {
    /// Elements equal to the value.
    Equal(RawValue<'p>),
    /// Elements that are documents and meet the condition.
    Documents(Condition<'p>),
    /// Elements that meet the condition themselves.
    Elements(Condition<'p>),
}

impl<'p> Pull<'p> {
    pub(crate) fn parse(value: RawValue<'p>, patterns: &Patterns) -> Result<Self, String> {
        let reading = parse::Reading::new(patterns);
        if value.tag == tag::REGEX {
            return parse::named(b"", value, reading).map(Self::Elements);
        }
        if value.tag != tag::DOCUMENT {
            return Ok(Self::Equal(value));
        }
        if parse::begins_with_operator(value)? {
            return parse::operators(b"", value, reading).map(Self::Elements);
        }
        parse::document(value, reading).map(Self::Documents)
    }

    /// Whether the element is to be removed.
    pub(crate) fn takes(&self, element: RawValue<'_>, steps: &Steps) -> Result<bool, Halt> {
        match self {
            Self::Equal(value) => {
                steps.look(element)?;
                Ok(super::compare::equal(element, *value)?)
            }
            Self::Documents(condition) => Ok(element.tag == tag::DOCUMENT
                && condition.matches(Subject::Document(element), steps)?),
            Self::Elements(condition) => condition.matches(Subject::Element(element), steps),
        }
    }
}

impl Condition<'_> {
    /// Whether the subject meets the condition.
    pub(crate) fn matches(&self, subject: Subject<'_>, steps: &Steps) -> Result<bool, Halt> {
        steps.take(1)?;
        match self {
            Self::Field { path, test } => {
                let mut offer = |value: Option<RawValue<'_>>| test.passes(value, steps);
                Visit { leaf: Leaf::Traverse, steps, offer: &mut offer }.from(subject, path)
            }
            Self::Array { path, test } => {
                let mut offer = |value: Option<RawValue<'_>>| test.passes(value, steps);
                Visit { leaf: Leaf::Whole, steps, offer: &mut offer }.from(subject, path)
            }
            _ => self.combine(&mut |condition| condition.matches(subject, steps)),
        }
    }

    /// Whether a value alone passes, without looking at the elements of an array.
    fn passes(&self, value: RawValue<'_>, steps: &Steps) -> Result<bool, Halt> {
        steps.take(1)?;
        match self {
            Self::Field { test, .. } => test.passes(Some(value), steps),
            Self::Array { test, .. } => test.passes(Some(value), steps),
            _ => self.combine(&mut |condition| condition.passes(value, steps)),
        }
    }

    fn combine(
        &self,
        ask: &mut dyn FnMut(&Condition<'_>) -> Result<bool, Halt>,
    ) -> Result<bool, Halt> {
        match self {
            Self::And(all) => Ok(!any(all, &mut |condition| Ok(!ask(condition)?))?),
            Self::Or(some) => any(some, ask),
            Self::Nor(none) => Ok(!any(none, ask)?),
            Self::Not(condition) => Ok(!ask(condition)?),
            Self::Constant(value) => Ok(*value),
            Self::Field { .. } | Self::Array { .. } => Ok(false),
        }
    }
}

fn any(
    conditions: &[Condition<'_>],
    ask: &mut dyn FnMut(&Condition<'_>) -> Result<bool, Halt>,
) -> Result<bool, Halt> {
    for condition in conditions {
        if ask(condition)? {
            return Ok(true);
        }
    }
    Ok(false)
}

impl ArrayTest<'_> {
    fn passes(&self, value: Option<RawValue<'_>>, steps: &Steps) -> Result<bool, Halt> {
        let Some(array) = value.filter(|value| value.tag == tag::ARRAY) else { return Ok(false) };
        let mut elements = array.elements()?;
        let mut size = 0;
        while let Some(element) = elements.next()? {
            size += 1;
            steps.take(1)?;
            let found = match self {
                Self::Size(_) => false,
                Self::ElementIs(tests) => {
                    !any(tests, &mut |test| Ok(!test.passes(element.value, steps)?))?
                }
                Self::ElementMatches(condition) => {
                    is_container(element.value.tag)
                        && condition.matches(Subject::Document(element.value), steps)?
                }
            };
            if found {
                return Ok(true);
            }
        }
        Ok(matches!(self, Self::Size(wanted) if *wanted == size))
    }
}

/// Values ordered for searching.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sorted<'p>(Vec<RawValue<'p>>);

impl<'p> Sorted<'p> {
    /// Orders values that have been checked to be well-formed.
    pub(crate) fn new(mut values: Vec<RawValue<'p>>) -> Self {
        values.sort_by(|left, right| compare(*left, *right).unwrap_or(Ordering::Equal));
        Self(values)
    }

    /// Whether an equal value is among them.
    pub(crate) fn contains(&self, value: RawValue<'_>, steps: &Steps) -> Result<bool, Halt> {
        // As many comparisons as a search among many takes.
        steps.take(16 + value.bytes.len())?;
        let mut malformed = None;
        let found = self.0.binary_search_by(|known| {
            compare(*known, value).unwrap_or_else(|error| {
                malformed = Some(error);
                Ordering::Equal
            })
        });
        malformed.map_or(Ok(found.is_ok()), |malformed| Err(malformed.into()))
    }
}
