//! The order of BSON values across and within types: what `$min`, `$max` and `$sort` go by, and what
//! makes two values equal for `$addToSet`, `$pull` and `$pullAll`.

use std::cmp::Ordering;

use crate::model::state::raw::{Elements, Malformed, RawValue, tag};

use super::number::Number;

/// Types that are compared by value have the same rank.
pub(crate) fn rank(tag: u8) -> i32 {
    match tag {
        tag::MIN_KEY => -1,
        tag::UNDEFINED => 0,
        tag::NULL => 5,
        tag::DOUBLE | tag::INT32 | tag::INT64 | tag::DECIMAL128 => 10,
        tag::STRING | tag::SYMBOL => 15,
        tag::DOCUMENT => 20,
        tag::ARRAY => 25,
        tag::BINARY => 30,
        tag::OBJECT_ID => 35,
        tag::BOOLEAN => 40,
        tag::DATE => 45,
        tag::TIMESTAMP => 47,
        tag::REGEX => 50,
        tag::DB_POINTER => 55,
        tag::CODE => 60,
        tag::CODE_WITH_SCOPE => 65,
        _ => 127,
    }
}

/// Compares two values, without their names.
pub(crate) fn compare(left: RawValue<'_>, right: RawValue<'_>) -> Result<Ordering, Malformed> {
    let by_rank = rank(left.tag).cmp(&rank(right.tag));
    if by_rank.is_ne() {
        return Ok(by_rank);
    }
    if let (Some(left), Some(right)) = (Number::read(left), Number::read(right)) {
        return Ok(left.compare(right));
    }
    Ok(match left.tag {
        tag::DOCUMENT | tag::ARRAY => return compare_elements(left.elements()?, right.elements()?),
        tag::STRING | tag::SYMBOL | tag::CODE => left.text().cmp(right.text()),
        tag::DATE => left.as_i64().cmp(&right.as_i64()),
        tag::TIMESTAMP => left.as_i64().cast_unsigned().cmp(&right.as_i64().cast_unsigned()),
        // The length comes first, then the subtype and the data.
        tag::BINARY => {
            let length = |value: RawValue<'_>| value.bytes.len();
            length(left).cmp(&length(right)).then_with(|| left.bytes[4..].cmp(&right.bytes[4..]))
        }
        tag::DB_POINTER => {
            let (left, right) = (left.bytes, right.bytes);
            left.len().cmp(&right.len()).then_with(|| left.cmp(right))
        }
        tag::REGEX => left.regex().cmp(&right.regex()),
        tag::CODE_WITH_SCOPE => return compare_scoped(left, right),
        _ => left.bytes.cmp(right.bytes),
    })
}

/// Whether two values are equal in that order.
pub(crate) fn equal(left: RawValue<'_>, right: RawValue<'_>) -> Result<bool, Malformed> {
    Ok(compare(left, right)?.is_eq())
}

/// Element by element: first the types, then the names, then the values.
fn compare_elements(
    mut left: Elements<'_>,
    mut right: Elements<'_>,
) -> Result<Ordering, Malformed> {
    loop {
        let (left, right) = match (left.next()?, right.next()?) {
            (Some(left), Some(right)) => (left, right),
            (left, right) => return Ok(left.is_some().cmp(&right.is_some())),
        };
        let by_rank = rank(left.value.tag).cmp(&rank(right.value.tag));
        let unequal = by_rank.then_with(|| left.name.cmp(right.name));
        if unequal.is_ne() {
            return Ok(unequal);
        }
        let by_value = compare(left.value, right.value)?;
        if by_value.is_ne() {
            return Ok(by_value);
        }
    }
}

/// Code first, then its scope.
fn compare_scoped(left: RawValue<'_>, right: RawValue<'_>) -> Result<Ordering, Malformed> {
    let ((left_code, left_scope), (right_code, right_scope)) = (scoped(left), scoped(right));
    let by_code = left_code.cmp(right_code);
    if by_code.is_ne() {
        return Ok(by_code);
    }
    compare_elements(Elements::new(left_scope)?, Elements::new(right_scope)?)
}

/// The text and the scope of code with scope.
fn scoped(value: RawValue<'_>) -> (&[u8], &[u8]) {
    let after_length = value.bytes.get(4..).unwrap_or_default();
    let code_len = RawValue::new(tag::CODE, after_length).as_i32();
    let code_end = 8 + usize::try_from(code_len).unwrap_or(0);
    let code = value.bytes.get(8..code_end.saturating_sub(1)).unwrap_or_default();
    (code, value.bytes.get(code_end..).unwrap_or_default())
}
