//! What each operator does once its path has been found, or found missing.

use std::cmp::Ordering;

use crate::model::state::Value;
use crate::model::state::raw::{RawValue, tag};

use super::compare::compare;
use super::error::PatchError;
use super::number::{Number, Stored};
use super::operator::{Bitwise, Operator};
use super::plan::Entry;
use super::walk::{Place, Walk};

impl Walk<'_> {
    /// Applies an operator to a field that exists.
    pub(crate) fn update(
        &mut self,
        place: Place<'_>,
        found: usize,
        entry: &Entry<'_>,
    ) -> Result<(), PatchError> {
        if place.is_reserved() {
            return self.update_reserved(place, found, entry);
        }
        self.change(place, found, entry)
    }

    /// Applies an operator to a field that exists, whatever its name.
    pub(crate) fn change(
        &mut self,
        place: Place<'_>,
        found: usize,
        entry: &Entry<'_>,
    ) -> Result<(), PatchError> {
        match &entry.operator {
            Operator::Set(value) => {
                let value = self.state.intern(*value);
                self.put(place, found, entry, value)
            }
            Operator::Unset => {
                self.unset(place, found);
                Ok(())
            }
            Operator::Inc(by, _) => self.calculate(place, found, entry, |old| by.add(old)),
            Operator::Mul(by) => self.calculate(place, found, entry, |by_old| by.multiply(by_old)),
            Operator::Min(value) => self.keep_extreme(place, found, entry, *value, Ordering::Less),
            Operator::Max(value) => {
                self.keep_extreme(place, found, entry, *value, Ordering::Greater)
            }
            Operator::Bit(operations) => self.bit(place, found, entry, operations),
            Operator::CurrentDate { timestamp } => {
                let value = self.now(entry, *timestamp)?;
                self.put(place, found, entry, value)
            }
            Operator::Push(push) => self.push(place, found, entry, push),
            Operator::AddToSet(values) => self.add_to_set(place, found, entry, values),
            Operator::Pop { first } => self.pop(place, found, entry, *first),
            Operator::Pull(pull) => {
                self.cull(place, found, entry, &mut |element, steps| pull.takes(element, steps))
            }
            Operator::PullAll(values) => self
                .cull(place, found, entry, &mut |element, steps| values.contains(element, steps)),
            Operator::RenameInto { from } => self.rename(place, Some(found), entry, from),
            Operator::Rename { .. } | Operator::SetOnInsert => Ok(()),
        }
    }

    /// Gives a value to a field that does not exist, by an operator that creates.
    pub(crate) fn create(&mut self, place: Place<'_>, entry: &Entry<'_>) -> Result<(), PatchError> {
        let value = match &entry.operator {
            Operator::Set(value)
            | Operator::Min(value)
            | Operator::Max(value)
            | Operator::Inc(_, value) => self.state.intern(*value),
            Operator::Mul(by) => match by.multiply(Number::Int(0)) {
                Some(zero) => self.stored(zero),
                None => return Ok(()),
            },
            Operator::Bit(operations) => {
                let number = operate(Number::Int(0), operations);
                self.stored(number.unwrap_or(Number::Int(0)))
            }
            Operator::CurrentDate { timestamp } => self.now(entry, *timestamp)?,
            Operator::Push(push) => {
                let at = self.add_array(place, entry)?;
                return self.push(place, at, entry, push);
            }
            Operator::AddToSet(values) => {
                let at = self.add_array(place, entry)?;
                return self.add_to_set(place, at, entry, values);
            }
            Operator::RenameInto { from } => return self.rename(place, None, entry, from),
            Operator::Unset
            | Operator::Rename { .. }
            | Operator::SetOnInsert
            | Operator::Pop { .. }
            | Operator::Pull(_)
            | Operator::PullAll(_) => return Ok(()),
        };
        self.add(place, entry, value).map(drop)
    }

    fn add_array(&mut self, place: Place<'_>, entry: &Entry<'_>) -> Result<usize, PatchError> {
        let (value, _) = self.state.new_container(tag::ARRAY);
        self.add(place, entry, value)
    }

    fn stored(&mut self, number: Number) -> Value {
        match number.store() {
            Stored::Inline(value) => value,
            Stored::Decimal(bytes) => self.state.intern(RawValue::new(tag::DECIMAL128, &bytes)),
        }
    }

    fn unset(&mut self, place: Place<'_>, found: usize) {
        if self.state.node(place.node).is_array {
            // Elements keep their indexes.
            self.state.set(place.node, found, Value::null());
        } else {
            self.state.remove(place.node, found);
        }
    }

    fn calculate(
        &mut self,
        place: Place<'_>,
        found: usize,
        entry: &Entry<'_>,
        calculate: impl Fn(Number) -> Option<Number>,
    ) -> Result<(), PatchError> {
        let old = self.state.value(place.node, found);
        let Some(number) = self.state.with_raw(&old, Number::read) else {
            return Err(entry.mismatch(old.tag, "it needs a number"));
        };
        let Some(result) = calculate(number) else {
            return Err(entry.mismatch(old.tag, "the result does not fit 64 bits; use a double"));
        };
        self.replace_number(place, found, number, result);
        Ok(())
    }

    /// Writes a result, unless it is what was there.
    fn replace_number(&mut self, place: Place<'_>, found: usize, old: Number, new: Number) {
        if !old.is_same(new) {
            let value = self.stored(new);
            self.state.set(place.node, found, value);
        }
    }

    fn keep_extreme(
        &mut self,
        place: Place<'_>,
        found: usize,
        entry: &Entry<'_>,
        value: RawValue<'_>,
        wanted: Ordering,
    ) -> Result<(), PatchError> {
        let old = self.state.value(place.node, found);
        if self.state.with_raw(&old, |old| compare(value, old))? != wanted {
            return Ok(());
        }
        let value = self.state.intern(value);
        self.put(place, found, entry, value)
    }

    fn bit(
        &mut self,
        place: Place<'_>,
        found: usize,
        entry: &Entry<'_>,
        operations: &[(Bitwise, Number)],
    ) -> Result<(), PatchError> {
        let old = self.state.value(place.node, found);
        let number = self.state.with_raw(&old, Number::read);
        let result = number.and_then(|number| operate(number, operations));
        let (Some(number), Some(result)) = (number, result) else {
            return Err(entry.mismatch(old.tag, "it needs an int or a long"));
        };
        self.replace_number(place, found, number, result);
        Ok(())
    }

    /// The event's own time.
    fn now(&self, entry: &Entry<'_>, timestamp: bool) -> Result<Value, PatchError> {
        let millis = self.at.timestamp_millis();
        if !timestamp {
            return Ok(Value::inline(tag::DATE, millis.to_le_bytes()));
        }
        let Ok(seconds) = u32::try_from(millis.div_euclid(1_000)) else {
            return Err(entry.bad_path("the event's time does not fit a timestamp; use a date"));
        };
        Ok(Value::inline(tag::TIMESTAMP, (u64::from(seconds) << 32).to_le_bytes()))
    }
}

/// Applies bitwise operations one after the other; nothing when the number is not an integer.
fn operate(number: Number, operations: &[(Bitwise, Number)]) -> Option<Number> {
    operations.iter().try_fold(number, |number, (operation, operand)| {
        number.bits(*operand, |left, right| match operation {
            Bitwise::And => left & right,
            Bitwise::Or => left | right,
            Bitwise::Xor => left ^ right,
        })
    })
}
