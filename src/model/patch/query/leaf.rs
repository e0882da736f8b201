//! The tests of a single value.

use crate::model::patch::compare::{compare, rank};
use crate::model::patch::number::Number;
use crate::model::patch::steps::{Halt, Steps};
use crate::model::state::raw::{Malformed, RawValue, tag};

use super::Sorted;
use super::pattern::Pattern;

/// A test of one value, or of its absence.
#[derive(Clone, Debug)]
pub(crate) enum Test<'p> {
    Compare(Relation, RawValue<'p>),
    In { values: Sorted<'p>, patterns: Vec<Pattern<'p>>, null: bool },
    Matches(Pattern<'p>),
    Exists,
    Type { tags: Vec<u8>, number: bool },
    Mod { divisor: i64, remainder: i64 },
    Bits(Bits<'p>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A test of bits.
#[derive(Clone, Debug)]
pub(crate) struct Bits<'p> {
    pub(crate) mask: Mask<'p>,
    /// The value that the bits should have.
    pub(crate) set: bool,
    /// Whether all of them should, or any.
    pub(crate) all: bool,
}

/// Which bits are tested.
#[derive(Clone, Debug)]
pub(crate) enum Mask<'p> {
    Positions(Vec<u32>),
    /// Those that are set here. Their positions would take 32 times the memory.
    Bytes(&'p [u8]),
}

/// The rank of a missing value, which it shares with undefined.
const MISSING_RANK: i32 = 0;
const NULL_RANK: i32 = 5;

impl Test<'_> {
    /// Whether the value passes; nothing stands for a missing one.
    pub(super) fn passes(&self, value: Option<RawValue<'_>>, steps: &Steps) -> Result<bool, Halt> {
        if let Some(value) = value {
            steps.look(value)?;
        }
        if let Self::Compare(relation, operand) = self {
            return Ok(relation.holds(value, *operand)?);
        }
        let Some(value) = value else {
            return Ok(matches!(self, Self::In { null: true, .. }));
        };
        Ok(match self {
            Self::In { values, patterns, null } => {
                *null && value.tag == tag::UNDEFINED
                    || values.contains(value, steps)?
                    || any_matches(patterns, value, steps)?
            }
            Self::Matches(pattern) => pattern.matches(value, steps)?,
            Self::Exists => true,
            Self::Type { tags, number } => {
                tags.contains(&value.tag) || *number && Number::read(value).is_some()
            }
            Self::Mod { divisor, remainder } => {
                let dividend = Number::read(value).and_then(Number::truncated);
                dividend.is_some_and(|dividend| dividend.wrapping_rem(*divisor) == *remainder)
            }
            Self::Bits(bits) => {
                steps.take(bits.mask.len())?;
                bits.test(value)
            }
            Self::Compare(..) => false,
        })
    }
}

fn any_matches(patterns: &[Pattern<'_>], value: RawValue<'_>, steps: &Steps) -> Result<bool, Halt> {
    for pattern in patterns {
        if pattern.matches(value, steps)? {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Relation {
    fn holds(self, value: Option<RawValue<'_>>, operand: RawValue<'_>) -> Result<bool, Malformed> {
        let ranks = (value.map_or(MISSING_RANK, |value| rank(value.tag)), rank(operand.tag));
        let Some(value) = value.filter(|_| ranks.0 == ranks.1) else {
            return Ok(self.holds_across(ranks, operand.tag));
        };
        if self != Self::Equal {
            let is_nan = |value| Number::read(value).is_some_and(Number::is_nan);
            match (is_nan(value), is_nan(operand)) {
                (true, true) => return Ok(self.includes_equal()),
                (false, false) => {}
                _ => return Ok(false),
            }
        }
        let order = compare(value, operand)?;
        Ok(match self {
            Self::Equal => order.is_eq(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        })
    }

    /// Values of different types do not compare, but for null with nothing, and for the ends.
    fn holds_across(self, ranks: (i32, i32), operand: u8) -> bool {
        if matches!(ranks, (MISSING_RANK, NULL_RANK) | (NULL_RANK, MISSING_RANK)) {
            return self.includes_equal();
        }
        match operand {
            tag::MAX_KEY => matches!(self, Self::Less | Self::LessOrEqual),
            tag::MIN_KEY => matches!(self, Self::Greater | Self::GreaterOrEqual),
            _ => false,
        }
    }

    fn includes_equal(self) -> bool {
        matches!(self, Self::Equal | Self::LessOrEqual | Self::GreaterOrEqual)
    }
}

impl Mask<'_> {
    /// How many bits there are to look at.
    fn len(&self) -> usize {
        match self {
            Self::Positions(positions) => positions.len(),
            Self::Bytes(bytes) => 8 * bytes.len(),
        }
    }
}

impl Bits<'_> {
    fn test(&self, value: RawValue<'_>) -> bool {
        if value.tag == tag::BINARY {
            let data = value.bytes.get(5..).unwrap_or_default();
            return self.holds(|position| {
                data.get(position as usize / 8).is_some_and(|byte| byte >> (position % 8) & 1 == 1)
            });
        }
        let Some(number) = Number::read(value).and_then(Number::to_bits) else { return false };
        // Numbers extend their sign.
        self.holds(|position| number >> position.min(63) & 1 == 1)
    }

    fn holds(&self, bit: impl Fn(u32) -> bool) -> bool {
        let as_wanted = |position| bit(position) == self.set;
        match &self.mask {
            Mask::Positions(positions) => self.holds_for(positions.iter().copied(), as_wanted),
            Mask::Bytes(bytes) => {
                let is_set = |at: &u32| bytes[*at as usize / 8] >> (at % 8) & 1 == 1;
                self.holds_for((0..8 * bytes.len() as u32).filter(is_set), as_wanted)
            }
        }
    }

    fn holds_for(
        &self,
        mut positions: impl Iterator<Item = u32>,
        as_wanted: impl Fn(u32) -> bool,
    ) -> bool {
        if self.all { positions.all(as_wanted) } else { positions.any(as_wanted) }
    }
}
