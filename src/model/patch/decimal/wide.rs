//! Unsigned 256-bit integers, as far as decimal arithmetic needs them: a product of two 34-digit
//! coefficients has 68 digits, where 128 bits hold 38.

use std::cmp::Ordering;

/// An unsigned integer below 2^256, least significant limb first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wide([u64; 4]);

/// The largest power of ten in one limb, and its exponent.
const LIMB_TEN: u64 = 10_000_000_000_000_000_000;
const LIMB_DIGITS: u32 = 19;

impl Wide {
    pub(super) fn new(value: u128) -> Self {
        Self([value as u64, (value >> 64) as u64, 0, 0])
    }

    pub(super) fn product(left: u128, right: u128) -> Self {
        let low = Self::new(left).times(right as u64);
        let high = Self::new(left).times((right >> 64) as u64);
        low.plus(Self([0, high.0[0], high.0[1], high.0[2]]))
    }

    /// The low 128 bits.
    pub(super) fn low(self) -> u128 {
        u128::from(self.0[0]) | u128::from(self.0[1]) << 64
    }

    pub(super) fn is_zero(self) -> bool {
        self.0 == [0; 4]
    }

    pub(super) fn is_odd(self) -> bool {
        self.0[0] & 1 == 1
    }

    pub(super) fn times(self, factor: u64) -> Self {
        let mut carry = 0_u128;
        Self(self.0.map(|limb| {
            carry += u128::from(limb) * u128::from(factor);
            let low = carry as u64;
            carry >>= 64;
            low
        }))
    }

    pub(super) fn plus(self, other: Self) -> Self {
        let mut carry = false;
        let mut sum = self.0;
        for (left, right) in sum.iter_mut().zip(other.0) {
            let (partial, first) = left.overflowing_add(right);
            let (total, second) = partial.overflowing_add(u64::from(carry));
            (*left, carry) = (total, first || second);
        }
        Self(sum)
    }

    /// The difference; `other` must not be larger.
    pub(super) fn minus(self, other: Self) -> Self {
        let negated = Self(other.0.map(|limb| !limb)).plus(Self::new(1));
        self.plus(negated)
    }

    /// Times ten to the power of `digits`.
    pub(super) fn shifted(mut self, mut digits: u32) -> Self {
        while digits > 0 {
            let step = digits.min(LIMB_DIGITS);
            self = self.times(10_u64.pow(step));
            digits -= step;
        }
        self
    }

    /// Quotient and remainder.
    fn divided(self, divisor: u64) -> (Self, u64) {
        let mut quotient = [0; 4];
        let mut rest = 0_u128;
        for (limb, out) in self.0.iter().zip(&mut quotient).rev() {
            let value = rest << 64 | u128::from(*limb);
            *out = (value / u128::from(divisor)) as u64;
            rest = value % u128::from(divisor);
        }
        (Self(quotient), rest as u64)
    }

    /// How many decimal digits there are; none for zero.
    pub(super) fn digits(mut self) -> u32 {
        let mut digits = 0;
        while self.0[1..] != [0; 3] {
            self = self.divided(LIMB_TEN).0;
            digits += LIMB_DIGITS;
        }
        digits + self.0[0].checked_ilog10().map_or(0, |log| log + 1)
    }

    /// Without its last `digits` digits, and whether any of them was not zero.
    pub(super) fn truncated(mut self, mut digits: u32) -> (Self, bool) {
        let mut lost = false;
        while digits > 0 && !self.is_zero() {
            let step = digits.min(LIMB_DIGITS);
            let (quotient, rest) = self.divided(10_u64.pow(step));
            lost |= rest != 0;
            self = quotient;
            digits -= step;
        }
        (self, lost)
    }

    /// Without its last `digits` digits, rounded half to even. `lost` says that there is something
    /// more behind them.
    pub(super) fn rounded(self, digits: u32, lost: bool) -> Self {
        let Some(before) = digits.checked_sub(1) else { return self };
        let (kept, sticky) = self.truncated(before);
        let (quotient, last) = kept.divided(10);
        let up = match last.cmp(&5) {
            Ordering::Greater => true,
            Ordering::Equal => sticky || lost || quotient.is_odd(),
            Ordering::Less => false,
        };
        if up { quotient.plus(Self::new(1)) } else { quotient }
    }
}

impl Ord for Wide {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.iter().rev().cmp(other.0.iter().rev())
    }
}

impl PartialOrd for Wide {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
