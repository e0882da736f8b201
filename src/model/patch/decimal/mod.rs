//! Decimal128 arithmetic as IEEE 754-2008 has it and the server's library does it: 34 digits,
//! rounded half to even, with the preferred exponents and the not-a-number payloads carried along.
//! The `bson` crate only carries these values as bytes.

mod convert;
mod wide;

use std::cmp::Ordering;

use wide::Wide;

/// A decimal number, decoded.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Decimal {
    Finite {
        negative: bool,
        coefficient: u128,
        exponent: i32,
    },
    Infinite {
        negative: bool,
    },
    /// Not a number. The bits travel through arithmetic.
    Nan(u128),
}

/// Digits of a coefficient.
const DIGITS: u32 = 34;
const COEFFICIENT_MAX: u128 = 10_u128.pow(DIGITS) - 1;
const EXPONENT_MIN: i32 = -6176;
const EXPONENT_MAX: i32 = 6111;
/// What is left of a NaN when it has been through an operation: its sign, its kind without the
/// signal, and its payload.
const QUIET_NAN: u128 = 0xfc00_3fff_ffff_ffff_ffff_ffff_ffff_ffff;
const NAN: u128 = 0x7c << 120;
/// Digits by which the larger operand of a sum is extended, so that what the smaller one loses
/// cannot reach the digits that stay.
const GUARD_DIGITS: u32 = 38;

impl Decimal {
    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Self {
        let bits = u128::from_le_bytes(bytes);
        let negative = bits >> 127 == 1;
        match bits >> 122 & 0b11111 {
            0b11111 => Self::Nan(bits),
            0b11110 => Self::Infinite { negative },
            combination if combination >> 3 == 0b11 => {
                // A coefficient beyond 34 digits, which stands for zero.
                let exponent = (bits >> 111 & 0x3fff) as i32 + EXPONENT_MIN;
                Self::Finite { negative, coefficient: 0, exponent }
            }
            _ => {
                let exponent = (bits >> 113 & 0x3fff) as i32 + EXPONENT_MIN;
                let coefficient = bits & ((1 << 113) - 1);
                let coefficient = if coefficient > COEFFICIENT_MAX { 0 } else { coefficient };
                Self::Finite { negative, coefficient, exponent }
            }
        }
    }

    pub(crate) fn to_bytes(self) -> [u8; 16] {
        let bits = match self {
            Self::Finite { negative, coefficient, exponent } => {
                let biased = u128::from((exponent - EXPONENT_MIN).cast_unsigned());
                u128::from(negative) << 127 | biased << 113 | coefficient
            }
            Self::Infinite { negative } => u128::from(negative) << 127 | 0x78 << 120,
            Self::Nan(bits) => bits,
        };
        bits.to_le_bytes()
    }

    pub(crate) fn is_nan(self) -> bool {
        matches!(self, Self::Nan(_))
    }

    fn quiet(bits: u128) -> Self {
        let payload = bits & ((1 << 110) - 1);
        let quiet = bits & QUIET_NAN;
        Self::Nan(if payload < 10_u128.pow(33) { quiet } else { quiet >> 110 << 110 })
    }

    pub(crate) fn add(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nan(bits), _) | (_, Self::Nan(bits)) => Self::quiet(bits),
            (Self::Infinite { negative: left }, Self::Infinite { negative: right }) => {
                if left == right { self } else { Self::Nan(NAN) }
            }
            (Self::Infinite { .. }, _) => self,
            (_, Self::Infinite { .. }) => other,
            (
                Self::Finite { negative: n1, coefficient: c1, exponent: e1 },
                Self::Finite { negative: n2, coefficient: c2, exponent: e2 },
            ) => {
                if e1 >= e2 {
                    add_finite((n1, c1, e1), (n2, c2, e2))
                } else {
                    add_finite((n2, c2, e2), (n1, c1, e1))
                }
            }
        }
    }

    pub(crate) fn multiply(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nan(bits), _) | (_, Self::Nan(bits)) => Self::quiet(bits),
            (
                Self::Finite { negative: n1, coefficient: c1, exponent: e1 },
                Self::Finite { negative: n2, coefficient: c2, exponent: e2 },
            ) => round(n1 != n2, Wide::product(c1, c2), e1 + e2, false),
            _ if self.is_zero() || other.is_zero() => Self::Nan(NAN),
            _ => Self::Infinite { negative: self.is_negative() != other.is_negative() },
        }
    }

    pub(crate) fn is_zero(self) -> bool {
        matches!(self, Self::Finite { coefficient: 0, .. })
    }

    pub(crate) fn is_negative(self) -> bool {
        match self {
            Self::Finite { negative, .. } | Self::Infinite { negative } => negative,
            Self::Nan(_) => false,
        }
    }

    /// The order of values: not-a-number before all numbers, and equal to itself.
    pub(crate) fn compare(self, other: Self) -> Ordering {
        match (self, other) {
            (Self::Nan(_), Self::Nan(_)) => return Ordering::Equal,
            (Self::Nan(_), _) => return Ordering::Less,
            (_, Self::Nan(_)) => return Ordering::Greater,
            _ => {}
        }
        if self.is_zero() && other.is_zero() {
            return Ordering::Equal;
        }
        let sign = |value: Self| match value.is_zero() {
            true => 0,
            false if value.is_negative() => -1,
            false => 1,
        };
        let by_sign = sign(self).cmp(&sign(other));
        if by_sign.is_ne() {
            return by_sign;
        }
        let by_size = self.compare_size(other);
        if self.is_negative() { by_size.reverse() } else { by_size }
    }

    /// Compares the sizes of two numbers of the same sign, neither of them zero.
    fn compare_size(self, other: Self) -> Ordering {
        let (
            Self::Finite { coefficient: c1, exponent: e1, .. },
            Self::Finite { coefficient: c2, exponent: e2, .. },
        ) = (self, other)
        else {
            let infinite = |value: Self| matches!(value, Self::Infinite { .. });
            return infinite(self).cmp(&infinite(other));
        };
        let (w1, w2) = (Wide::new(c1), Wide::new(c2));
        let magnitude = |wide: Wide, exponent: i32| exponent + wide.digits().cast_signed();
        magnitude(w1, e1).cmp(&magnitude(w2, e2)).then_with(|| {
            // Equally many digits before the point, so the exponents are at most 33 apart.
            let least = e1.min(e2);
            w1.shifted((e1 - least).cast_unsigned()).cmp(&w2.shifted((e2 - least).cast_unsigned()))
        })
    }
}

/// The sum of two finite numbers, of which the first has the larger exponent.
fn add_finite(large: (bool, u128, i32), small: (bool, u128, i32)) -> Decimal {
    let ((n1, c1, e1), (n2, c2, e2)) = (large, small);
    let gap = (e1 - e2).cast_unsigned();
    if c1 == 0 || gap <= GUARD_DIGITS {
        let first = if c1 == 0 { Wide::new(0) } else { Wide::new(c1).shifted(gap) };
        return add_aligned((n1, first), (n2, Wide::new(c2)), e2, false);
    }
    let (second, lost) = Wide::new(c2).truncated(gap - GUARD_DIGITS);
    let first = Wide::new(c1).shifted(GUARD_DIGITS);
    if c2 == 0 {
        return extend(n1, c1, e1, e2);
    }
    add_aligned((n1, first), (n2, second), e1 - GUARD_DIGITS.cast_signed(), lost)
}

/// Adds numbers of the same exponent. `lost` says that the second one, the smaller by far, is a bit
/// larger than stated.
fn add_aligned(left: (bool, Wide), right: (bool, Wide), exponent: i32, lost: bool) -> Decimal {
    let ((n1, c1), (n2, c2)) = (left, right);
    if n1 == n2 {
        return round(n1, c1.plus(c2), exponent, lost);
    }
    match c1.cmp(&c2) {
        Ordering::Equal => round(false, Wide::new(0), exponent, false),
        Ordering::Less => round(n2, c2.minus(c1), exponent, false),
        Ordering::Greater => {
            let borrow = if lost { Wide::new(1) } else { Wide::new(0) };
            round(n1, c1.minus(c2).minus(borrow), exponent, lost)
        }
    }
}

/// A number plus a zero of a much smaller exponent: as many digits as there are, down to that one.
fn extend(negative: bool, coefficient: u128, exponent: i32, least: i32) -> Decimal {
    let wide = Wide::new(coefficient);
    let room = (DIGITS - wide.digits()).min((exponent - least).cast_unsigned());
    let coefficient = wide.shifted(room).low();
    Decimal::Finite { negative, coefficient, exponent: exponent - room.cast_signed() }
}

/// Fits a result into 34 digits and the range of exponents.
fn round(negative: bool, wide: Wide, exponent: i32, lost: bool) -> Decimal {
    let digits = wide.digits();
    if digits == 0 && !lost {
        let exponent = exponent.clamp(EXPONENT_MIN, EXPONENT_MAX);
        return Decimal::Finite { negative, coefficient: 0, exponent };
    }
    let too_long = digits.saturating_sub(DIGITS);
    let too_small = u32::try_from(EXPONENT_MIN - exponent).unwrap_or(0);
    let drop = too_long.max(too_small);
    let mut coefficient = wide.rounded(drop, lost).low();
    let mut exponent = exponent + drop.cast_signed();
    if coefficient > COEFFICIENT_MAX {
        coefficient /= 10;
        exponent += 1;
    }
    if exponent > EXPONENT_MAX {
        let excess = (exponent - EXPONENT_MAX).cast_unsigned();
        if Wide::new(coefficient).digits() + excess > DIGITS {
            return Decimal::Infinite { negative };
        }
        coefficient *= 10_u128.pow(excess);
        exponent = EXPONENT_MAX;
    }
    Decimal::Finite { negative, coefficient, exponent }
}
