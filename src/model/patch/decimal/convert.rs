//! Conversions between decimals, doubles and integers.

use std::cmp::Ordering;

use super::wide::Wide;
use super::{DIGITS, Decimal, NAN};

/// Digits of a double that the server carries into decimal arithmetic.
const DOUBLE_DIGITS: i32 = 15;

impl From<i64> for Decimal {
    fn from(value: i64) -> Self {
        let coefficient = u128::from(value.unsigned_abs());
        Self::Finite { negative: value < 0, coefficient, exponent: 0 }
    }
}

impl Decimal {
    /// The double as the server takes it into a sum or a product: 15 significant digits.
    pub(crate) fn from_f64(value: f64) -> Self {
        let negative = value.is_sign_negative();
        if value.is_nan() {
            // What a NaN carries along stands to the left in both formats.
            let payload = u128::from(value.to_bits() << 13) << 64 >> 18;
            return Self::Nan(u128::from(negative) << 127 | NAN | payload);
        }
        if value.is_infinite() {
            return Self::Infinite { negative };
        }
        if value == 0.0 {
            return Self::Finite { negative, coefficient: 0, exponent: 0 };
        }
        let (coefficient, exponent) = significant_digits(value.abs());
        let wide = Wide::new(coefficient);
        let least = exponent + wide.digits().cast_signed() - DOUBLE_DIGITS;
        let coefficient = if exponent < least {
            wide.rounded((least - exponent).cast_unsigned(), false).low()
        } else {
            wide.shifted((exponent - least).cast_unsigned()).low()
        };
        // Rounding may have carried into a sixteenth digit.
        if coefficient == 10_u128.pow(DOUBLE_DIGITS.cast_unsigned()) {
            return Self::Finite { negative, coefficient: coefficient / 10, exponent: least + 1 };
        }
        Self::Finite { negative, coefficient, exponent: least }
    }

    /// Compares with a double, exactly.
    pub(crate) fn compare_f64(self, other: f64) -> Ordering {
        if other.is_nan() {
            return if self.is_nan() { Ordering::Equal } else { Ordering::Greater };
        }
        let (negative, coefficient, exponent) = match self {
            Self::Nan(_) => return Ordering::Less,
            Self::Infinite { negative: true } if other == f64::NEG_INFINITY => {
                return Ordering::Equal;
            }
            Self::Infinite { negative: false } if other == f64::INFINITY => return Ordering::Equal,
            Self::Infinite { negative } => {
                return if negative { Ordering::Less } else { Ordering::Greater };
            }
            Self::Finite { negative, coefficient, exponent } => (negative, coefficient, exponent),
        };
        let sign = if negative { "-" } else { "" };
        // Rust reads and writes decimal digits of doubles exactly, rounding to nearest, which keeps
        // the order: only where the nearest double is the other side do the digits decide.
        let nearest = format!("{sign}{coefficient}e{exponent}").parse().unwrap_or(f64::NAN);
        if nearest < other {
            return Ordering::Less;
        }
        if nearest > other {
            return Ordering::Greater;
        }
        if other.is_infinite() {
            return if negative { Ordering::Greater } else { Ordering::Less };
        }
        let by_size = compare_digits(coefficient, exponent, other.abs());
        if negative { by_size.reverse() } else { by_size }
    }

    /// The number as an integer; nothing when it has a fraction or does not fit.
    pub(crate) fn as_i64(self) -> Option<i64> {
        self.truncate(true)
    }

    /// The number without its fraction; nothing when it does not fit.
    pub(crate) fn as_i64_truncated(self) -> Option<i64> {
        self.truncate(false)
    }

    /// The nearest integer, and the smallest one for what no integer is near to.
    pub(crate) fn to_i64_rounded(self) -> i64 {
        let Self::Finite { negative, coefficient, exponent } = self else { return i64::MIN };
        let rounded = match u32::try_from(-exponent) {
            Ok(digits) => Wide::new(coefficient).rounded(digits, false).low(),
            Err(_) => return self.as_i64().unwrap_or(i64::MIN),
        };
        let Ok(size) = i128::try_from(rounded) else { return i64::MIN };
        i64::try_from(if negative { -size } else { size }).unwrap_or(i64::MIN)
    }

    fn truncate(self, exactly: bool) -> Option<i64> {
        let Self::Finite { negative, coefficient, exponent } = self else { return None };
        let wide = Wide::new(coefficient);
        let (wide, lost) = match u32::try_from(exponent) {
            Ok(exponent) if coefficient == 0 || exponent > DIGITS => {
                return (coefficient == 0).then_some(0);
            }
            Ok(exponent) => (wide.shifted(exponent), false),
            Err(_) => wide.truncated(exponent.unsigned_abs()),
        };
        if exactly && lost || wide.digits() > 19 {
            return None;
        }
        let size = i128::try_from(wide.low()).ok()?;
        i64::try_from(if negative { -size } else { size }).ok()
    }
}

/// The double's digits, 34 of them or fewer if that is exact.
fn significant_digits(value: f64) -> (u128, i32) {
    let text = format!("{value:.33e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let digits: String = digits.chars().filter(char::is_ascii_digit).collect();
    let kept = digits.trim_end_matches('0');
    let exponent: i32 = exponent.parse().unwrap_or(0);
    (kept.parse().unwrap_or(0), exponent + 1 - length(kept))
}

/// Compares a decimal with a double by all its digits, neither of them negative.
fn compare_digits(coefficient: u128, exponent: i32, double: f64) -> Ordering {
    if coefficient == 0 || double == 0.0 {
        return (coefficient != 0).cmp(&(double != 0.0));
    }
    // No double has more than 767 significant digits.
    let text = format!("{double:.766e}");
    let (digits, point) = text.split_once('e').unwrap_or((&text, "0"));
    let theirs: String = digits.chars().filter(char::is_ascii_digit).collect();
    let ours = coefficient.to_string();
    let point: i32 = point.parse().unwrap_or(0);
    let magnitude = exponent + length(&ours) - 1;
    magnitude.cmp(&point).then_with(|| ours.trim_end_matches('0').cmp(theirs.trim_end_matches('0')))
}

fn length(digits: &str) -> i32 {
    i32::try_from(digits.len()).unwrap_or(i32::MAX)
}
