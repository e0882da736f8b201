//! Arithmetic with the server's rules for types: the wider type wins, an int that overflows becomes
//! a long, and a long that overflows is refused.

use std::cmp::Ordering;

use crate::model::state::Value;
use crate::model::state::raw::{RawValue, tag};

use super::decimal::Decimal;

/// A number of any BSON type.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Number {
    Int(i32),
    Long(i64),
    Double(f64),
    Decimal(Decimal),
}

/// A result: small enough to be stored in a node, or the bytes of a decimal.
pub(crate) enum Stored {
    Inline(Value),
    Decimal([u8; 16]),
}

/// 2^63, the smallest double that no long can hold.
const LONG_END: f64 = 9_223_372_036_854_775_808.0;

impl Number {
    /// The number in a value; nothing when the value is of another type.
    pub(crate) fn read(value: RawValue<'_>) -> Option<Self> {
        match value.tag {
            tag::INT32 => Some(Self::Int(value.as_i32())),
            tag::INT64 => Some(Self::Long(value.as_i64())),
            tag::DOUBLE => Some(Self::Double(value.as_f64())),
            tag::DECIMAL128 => Some(Self::Decimal(Decimal::from_bytes(value.fixed()))),
            _ => None,
        }
    }

    /// The sum; nothing when it does not fit a long.
    pub(crate) fn add(self, other: Self) -> Option<Self> {
        match (self.as_i64(), other.as_i64()) {
            (Some(left), Some(right)) => {
                Some(narrow(left.checked_add(right)?, self.is_int() && other.is_int()))
            }
            _ if self.is_decimal() || other.is_decimal() => {
                Some(Self::Decimal(self.to_decimal().add(other.to_decimal())))
            }
            _ => Some(Self::Double(self.to_f64() + other.to_f64())),
        }
    }

    /// The product; nothing when it does not fit a long.
    pub(crate) fn multiply(self, other: Self) -> Option<Self> {
        match (self.as_i64(), other.as_i64()) {
            (Some(left), Some(right)) => {
                Some(narrow(left.checked_mul(right)?, self.is_int() && other.is_int()))
            }
            _ if self.is_decimal() || other.is_decimal() => {
                Some(Self::Decimal(self.to_decimal().multiply(other.to_decimal())))
            }
            _ => Some(Self::Double(self.to_f64() * other.to_f64())),
        }
    }

    /// A bitwise operation; nothing when one side is not an integer.
    pub(crate) fn bits(self, other: Self, operate: impl Fn(i64, i64) -> i64) -> Option<Self> {
        let bits = operate(self.as_i64()?, other.as_i64()?);
        Some(narrow(bits, self.is_int() && other.is_int()))
    }

    fn is_int(self) -> bool {
        matches!(self, Self::Int(_))
    }

    fn is_decimal(self) -> bool {
        matches!(self, Self::Decimal(_))
    }

    /// The value of an int or a long.
    pub(crate) fn as_i64(self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(i64::from(value)),
            Self::Long(value) => Some(value),
            Self::Double(_) | Self::Decimal(_) => None,
        }
    }

    /// The number as an integer, of whatever type it is; nothing when it has a fraction or does not
    /// fit.
    pub(crate) fn to_integer(self) -> Option<i64> {
        match self {
            Self::Double(value) => {
                let fits = (-LONG_END..LONG_END).contains(&value) && value.fract() == 0.0;
                fits.then_some(value as i64)
            }
            Self::Decimal(value) => value.as_i64(),
            _ => self.as_i64(),
        }
    }

    /// The number without its fraction; nothing when it does not fit a long.
    pub(crate) fn truncated(self) -> Option<i64> {
        match self {
            Self::Double(value) => {
                (-LONG_END..LONG_END).contains(&value.trunc()).then_some(value as i64)
            }
            Self::Decimal(value) => value.as_i64_truncated(),
            _ => self.as_i64(),
        }
    }

    /// The integer whose bits are tested: nothing for a double with a fraction, but the nearest one
    /// for a decimal.
    pub(crate) fn to_bits(self) -> Option<i64> {
        match self {
            Self::Decimal(value) => Some(value.to_i64_rounded()),
            _ => self.to_integer(),
        }
    }

    fn to_f64(self) -> f64 {
        match self {
            Self::Int(value) => f64::from(value),
            Self::Long(value) => value as f64,
            Self::Double(value) => value,
            // Doubles and decimals only meet as decimals.
            Self::Decimal(_) => f64::NAN,
        }
    }

    fn to_decimal(self) -> Decimal {
        match self {
            Self::Int(value) => Decimal::from(i64::from(value)),
            Self::Long(value) => Decimal::from(value),
            Self::Double(value) => Decimal::from_f64(value),
            Self::Decimal(value) => value,
        }
    }

    pub(crate) fn is_nan(self) -> bool {
        match self {
            Self::Double(value) => value.is_nan(),
            Self::Decimal(value) => value.is_nan(),
            Self::Int(_) | Self::Long(_) => false,
        }
    }

    /// Whether the number counts as true where a flag is wanted.
    pub(crate) fn is_zero(self) -> bool {
        match self {
            Self::Int(value) => value == 0,
            Self::Long(value) => value == 0,
            Self::Double(value) => value == 0.0,
            Self::Decimal(value) => value.is_zero(),
        }
    }

    /// The order of values across types: exact, and not-a-number before everything.
    pub(crate) fn compare(self, other: Self) -> Ordering {
        match (self, other) {
            (Self::Double(left), Self::Double(right)) => compare_f64(left, right),
            (Self::Decimal(left), Self::Double(right)) => left.compare_f64(right),
            (Self::Double(left), Self::Decimal(right)) => right.compare_f64(left).reverse(),
            (Self::Decimal(left), _) => left.compare(other.to_decimal()),
            (_, Self::Decimal(right)) => self.to_decimal().compare(right),
            (Self::Double(left), _) => compare_long(other.as_i64().unwrap_or(0), left).reverse(),
            (_, Self::Double(right)) => compare_long(self.as_i64().unwrap_or(0), right),
            _ => self.as_i64().cmp(&other.as_i64()),
        }
    }

    /// Whether writing `other` over this number would change nothing that the server looks at: it
    /// then leaves the old bytes, and with them the sign of a zero or the digits of a decimal.
    pub(crate) fn is_same(self, other: Self) -> bool {
        match (self, other) {
            (Self::Int(left), Self::Int(right)) => left == right,
            (Self::Long(left), Self::Long(right)) => left == right,
            (Self::Double(left), Self::Double(right)) => left == right,
            (Self::Decimal(left), Self::Decimal(right)) => {
                !left.is_nan() && left.compare(right).is_eq()
            }
            _ => false,
        }
    }

    /// The number as a value of its type.
    pub(crate) fn store(self) -> Stored {
        match self {
            Self::Int(value) => Stored::Inline(Value::inline(tag::INT32, value.to_le_bytes())),
            Self::Long(value) => Stored::Inline(Value::inline(tag::INT64, value.to_le_bytes())),
            Self::Double(value) => Stored::Inline(Value::inline(tag::DOUBLE, value.to_le_bytes())),
            Self::Decimal(value) => Stored::Decimal(value.to_bytes()),
        }
    }
}

/// An integer result: an int if both sides were and it fits, or else a long.
fn narrow(value: i64, ints: bool) -> Number {
    match i32::try_from(value) {
        Ok(value) if ints => Number::Int(value),
        _ => Number::Long(value),
    }
}

fn compare_f64(left: f64, right: f64) -> Ordering {
    left.partial_cmp(&right).unwrap_or_else(|| right.is_nan().cmp(&left.is_nan()))
}

/// Compares without rounding the long to a double.
fn compare_long(left: i64, right: f64) -> Ordering {
    if right.is_nan() || right < -LONG_END {
        return Ordering::Greater;
    }
    if right >= LONG_END {
        return Ordering::Less;
    }
    left.cmp(&(right as i64)).then(compare_f64(0.0, right.fract()))
}
