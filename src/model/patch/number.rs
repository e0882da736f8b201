//! Arithmetic with the server's rules for types: the wider type wins, an int that overflows becomes
//! a long, and a long that overflows is refused.

use crate::model::state::Value;
use crate::model::state::raw::{RawValue, tag};

/// A number of any BSON type.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Number {
    Int(i32),
    Long(i64),
    Double(f64),
}

impl Number {
    /// The number in a value; nothing when the value is of another type.
    pub(crate) fn read(value: RawValue<'_>) -> Option<Self> {
        match value.tag {
            tag::INT32 => Some(Self::Int(value.as_i32())),
            tag::INT64 => Some(Self::Long(value.as_i64())),
            tag::DOUBLE => Some(Self::Double(value.as_f64())),
            _ => None,
        }
    }

    /// The sum; nothing when it does not fit a long.
    pub(crate) fn add(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::Int(left), Self::Int(right)) => Some(match left.checked_add(right) {
                Some(sum) => Self::Int(sum),
                None => Self::Long(i64::from(left) + i64::from(right)),
            }),
            (Self::Double(_), _) | (_, Self::Double(_)) => {
                Some(Self::Double(self.as_f64() + other.as_f64()))
            }
            _ => self.as_i64().checked_add(other.as_i64()).map(Self::Long),
        }
    }

    fn as_i64(self) -> i64 {
        match self {
            Self::Int(value) => i64::from(value),
            Self::Long(value) => value,
            Self::Double(value) => value as i64,
        }
    }

    fn as_f64(self) -> f64 {
        match self {
            Self::Int(value) => f64::from(value),
            Self::Long(value) => value as f64,
            Self::Double(value) => value,
        }
    }

    /// Whether writing `other` over this number would change nothing that the server looks at: it
    /// then leaves the old bytes, and with them the sign of a zero.
    pub(crate) fn is_same(self, other: Self) -> bool {
        match (self, other) {
            (Self::Int(left), Self::Int(right)) => left == right,
            (Self::Long(left), Self::Long(right)) => left == right,
            (Self::Double(left), Self::Double(right)) => {
                left == right || (left.is_nan() && right.is_nan())
            }
            _ => false,
        }
    }

    /// The number as a value of its type.
    pub(crate) fn to_value(self) -> Value {
        match self {
            Self::Int(value) => Value::inline(tag::INT32, value.to_le_bytes()),
            Self::Long(value) => Value::inline(tag::INT64, value.to_le_bytes()),
            Self::Double(value) => Value::inline(tag::DOUBLE, value.to_le_bytes()),
        }
    }
}
