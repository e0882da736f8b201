//! Query conditions, as `$pull` and array filters use them: the part of the server's query language
//! that asks about one value. What asks about anything else (other documents, positions on a globe,
//! scripts) is refused.

mod filter;
mod leaf;
mod parse;
mod pattern;
mod visit;

use std::cmp::Ordering;

use crate::model::state::raw::{Malformed, RawValue, is_container, tag};

use super::compare::compare;
pub(crate) use filter::Filters;
use leaf::Test;
use visit::{Leaf, Subject, visit};

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
    pub(crate) fn parse(value: RawValue<'p>) -> Result<Self, String> {
        if value.tag == tag::REGEX {
            return parse::named(b"", value).map(Self::Elements);
        }
        if value.tag != tag::DOCUMENT {
            return Ok(Self::Equal(value));
        }
        if parse::begins_with_operator(value)? {
            return parse::operators(b"", value).map(Self::Elements);
        }
        parse::document(value).map(Self::Documents)
    }

    /// How many tests there are.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Equal(_) => 1,
            Self::Documents(condition) | Self::Elements(condition) => condition.weight(),
        }
    }

    /// Whether the element is to be removed.
    pub(crate) fn takes(&self, element: RawValue<'_>) -> Result<bool, Malformed> {
        match self {
            Self::Equal(value) => super::compare::equal(element, *value),
            Self::Documents(condition) => {
                Ok(element.tag == tag::DOCUMENT && condition.matches(Subject::Document(element))?)
            }
            Self::Elements(condition) => condition.matches(Subject::Element(element)),
        }
    }
}

impl Condition<'_> {
    /// How many tests the condition consists of.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::And(all) | Self::Or(all) | Self::Nor(all) => {
                1 + all.iter().map(Self::weight).sum::<usize>()
            }
            Self::Not(inner) => 1 + inner.weight(),
            Self::Array { test: ArrayTest::ElementIs(all), .. } => {
                1 + all.iter().map(Self::weight).sum::<usize>()
            }
            Self::Array { test: ArrayTest::ElementMatches(inner), .. } => 1 + inner.weight(),
            Self::Field { test, .. } => test.weight(),
            Self::Constant(_) | Self::Array { .. } => 1,
        }
    }

    /// Whether the subject meets the condition.
    pub(crate) fn matches(&self, subject: Subject<'_>) -> Result<bool, Malformed> {
        match self {
            Self::Field { path, test } => {
                visit(subject, path, Leaf::Traverse, &mut |value| test.passes(value))
            }
            Self::Array { path, test } => {
                visit(subject, path, Leaf::Whole, &mut |value| test.passes(value))
            }
            _ => self.combine(&mut |condition| condition.matches(subject)),
        }
    }

    /// Whether a value alone passes, without looking at the elements of an array.
    fn passes(&self, value: RawValue<'_>) -> Result<bool, Malformed> {
        match self {
            Self::Field { test, .. } => test.passes(Some(value)),
            Self::Array { test, .. } => test.passes(Some(value)),
            _ => self.combine(&mut |condition| condition.passes(value)),
        }
    }

    fn combine(
        &self,
        ask: &mut dyn FnMut(&Condition<'_>) -> Result<bool, Malformed>,
    ) -> Result<bool, Malformed> {
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
    ask: &mut dyn FnMut(&Condition<'_>) -> Result<bool, Malformed>,
) -> Result<bool, Malformed> {
    for condition in conditions {
        if ask(condition)? {
            return Ok(true);
        }
    }
    Ok(false)
}

impl ArrayTest<'_> {
    fn passes(&self, value: Option<RawValue<'_>>) -> Result<bool, Malformed> {
        let Some(array) = value.filter(|value| value.tag == tag::ARRAY) else { return Ok(false) };
        let mut elements = array.elements()?;
        let mut size = 0;
        while let Some(element) = elements.next()? {
            size += 1;
            let found = match self {
                Self::Size(_) => false,
                Self::ElementIs(tests) => {
                    !any(tests, &mut |test| Ok(!test.passes(element.value)?))?
                }
                Self::ElementMatches(condition) => {
                    is_container(element.value.tag)
                        && condition.matches(Subject::Document(element.value))?
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
    pub(crate) fn contains(&self, value: RawValue<'_>) -> Result<bool, Malformed> {
        let mut malformed = None;
        let found = self.0.binary_search_by(|known| {
            compare(*known, value).unwrap_or_else(|error| {
                malformed = Some(error);
                Ordering::Equal
            })
        });
        malformed.map_or(Ok(found.is_ok()), Err)
    }
}
