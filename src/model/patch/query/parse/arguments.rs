//! The arguments of single operators.

use crate::model::patch::error::type_name;
use crate::model::patch::number::Number;
use crate::model::shown::shown;
use crate::model::state::raw::{RawValue, tag};

use super::super::leaf::{Bits, Mask, Relation, Test};
use super::super::pattern::{Pattern, Patterns};
use super::each;

/// Operators on values: a document that begins with one is not a value to compare with. The
/// geographic ones are known here so that they are refused and not compared with.
pub(super) const OPERATORS: [&[u8]; 26] = [
    b"$eq",
    b"$ne",
    b"$lt",
    b"$lte",
    b"$gt",
    b"$gte",
    b"$in",
    b"$nin",
    b"$exists",
    b"$type",
    b"$mod",
    b"$bitsAllSet",
    b"$bitsAllClear",
    b"$bitsAnySet",
    b"$bitsAnyClear",
    b"$regex",
    b"$options",
    b"$size",
    b"$elemMatch",
    b"$all",
    b"$geoIntersects",
    b"$geoNear",
    b"$geoWithin",
    b"$near",
    b"$nearSphere",
    b"$within",
];

/// Operators that take conditions on fields.
pub(super) const LOGICAL: [&[u8]; 11] = [
    b"$and",
    b"$or",
    b"$nor",
    b"$expr",
    b"$where",
    b"$text",
    b"$comment",
    b"$jsonSchema",
    b"$alwaysTrue",
    b"$alwaysFalse",
    b"$sampleRate",
];

/// Types by the names that `$type` knows.
const TYPES: [(&[u8], u8); 21] = [
    (b"double", tag::DOUBLE),
    (b"string", tag::STRING),
    (b"object", tag::DOCUMENT),
    (b"array", tag::ARRAY),
    (b"binData", tag::BINARY),
    (b"undefined", tag::UNDEFINED),
    (b"objectId", tag::OBJECT_ID),
    (b"bool", tag::BOOLEAN),
    (b"date", tag::DATE),
    (b"null", tag::NULL),
    (b"regex", tag::REGEX),
    (b"dbPointer", tag::DB_POINTER),
    (b"javascript", tag::CODE),
    (b"symbol", tag::SYMBOL),
    (b"javascriptWithScope", tag::CODE_WITH_SCOPE),
    (b"int", tag::INT32),
    (b"timestamp", tag::TIMESTAMP),
    (b"long", tag::INT64),
    (b"decimal", tag::DECIMAL128),
    (b"minKey", tag::MIN_KEY),
    (b"maxKey", tag::MAX_KEY),
];

pub(super) fn relation(name: &[u8]) -> Relation {
    match name {
        b"$lt" => Relation::Less,
        b"$lte" => Relation::LessOrEqual,
        b"$gt" => Relation::Greater,
        _ => Relation::GreaterOrEqual,
    }
}

/// Whether a value counts as true where a flag is wanted.
pub(super) fn is_true(value: RawValue<'_>) -> bool {
    match value.tag {
        tag::BOOLEAN => value.bytes != [0],
        tag::NULL | tag::UNDEFINED => false,
        _ => Number::read(value).is_none_or(|number| !number.is_zero()),
    }
}

pub(super) fn types<'p>(value: RawValue<'p>) -> Result<Test<'p>, String> {
    let (mut tags, mut number) = (Vec::new(), false);
    let mut add = |value: RawValue<'_>| {
        if value.tag == tag::STRING && value.text() == b"number" {
            number = true;
        } else {
            tags.push(one_type(value)?);
        }
        Ok(())
    };
    if value.tag == tag::ARRAY {
        each(value, |element| add(element.value))?;
    } else {
        add(value)?;
    }
    if tags.is_empty() && !number {
        return Err("$type takes at least one type".to_owned());
    }
    Ok(Test::Type { tags, number })
}

fn one_type(value: RawValue<'_>) -> Result<u8, String> {
    let known = match value.tag {
        tag::STRING => TYPES.iter().find(|(name, _)| *name == value.text()).map(|(_, tag)| *tag),
        _ => match Number::read(value).and_then(Number::to_integer) {
            Some(-1) => Some(tag::MIN_KEY),
            Some(code @ (1..=19 | 127)) => u8::try_from(code).ok(),
            _ => None,
        },
    };
    known.ok_or_else(|| "$type takes the name or the number of a BSON type".to_owned())
}

pub(super) fn modulo<'p>(value: RawValue<'p>) -> Result<Test<'p>, String> {
    let wrong = || "$mod takes [divisor, remainder], two numbers, the first not zero".to_owned();
    if value.tag != tag::ARRAY {
        return Err(wrong());
    }
    let mut numbers = Vec::new();
    each(value, |element| {
        let number = Number::read(element.value).and_then(Number::truncated);
        numbers.push(number.ok_or_else(wrong)?);
        Ok(())
    })?;
    match numbers[..] {
        [divisor, remainder] if divisor != 0 => Ok(Test::Mod { divisor, remainder }),
        _ => Err(wrong()),
    }
}

pub(super) fn bits<'p>(name: &[u8], value: RawValue<'p>) -> Result<Bits<'p>, String> {
    let wrong = || {
        format!(
            "{} takes a mask of at least 0, an array of bit positions or binary data",
            shown(name)
        )
    };
    let (set, all) = (name.ends_with(b"Set"), name.starts_with(b"$bitsAll"));
    let mut positions = Vec::new();
    match value.tag {
        tag::ARRAY => each(value, |element| {
            let position = Number::read(element.value).and_then(Number::to_integer);
            let position = position.and_then(|position| i32::try_from(position).ok());
            positions.push(
                position.and_then(|position| u32::try_from(position).ok()).ok_or_else(wrong)?,
            );
            Ok(())
        })?,
        tag::BINARY => {
            let mask = Mask::Bytes(value.bytes.get(5..).unwrap_or_default());
            return Ok(Bits { mask, set, all });
        }
        _ => {
            let mask = Number::read(value).and_then(Number::to_integer).filter(|mask| *mask >= 0);
            let mask = mask.ok_or_else(wrong)?;
            positions.extend((0..64).filter(|at| mask >> at & 1 == 1));
        }
    }
    Ok(Bits { mask: Mask::Positions(positions), set, all })
}

pub(super) fn size(value: RawValue<'_>) -> Result<i64, String> {
    let size = Number::read(value).and_then(Number::to_integer);
    size.filter(|size| (0..=i64::from(i32::MAX)).contains(size)).ok_or_else(|| {
        format!("$size takes a whole number of at least 0, not {}", type_name(value.tag))
    })
}

/// The pattern of `$regex` and its options, which may stand in either of the two operators.
pub(super) fn pattern<'p>(
    siblings: RawValue<'p>,
    patterns: &Patterns,
) -> Result<Pattern<'p>, String> {
    let (mut pattern, mut options): (&[u8], &[u8]) = (b"", b"");
    let twice = || "$regex has its options twice; give them once".to_owned();
    each(siblings, |element| {
        let value = element.value;
        match (element.name, value.tag) {
            (b"$regex", tag::STRING) => pattern = value.text(),
            (b"$regex", tag::REGEX) => {
                let (text, flags) = value.regex();
                pattern = text;
                if !flags.is_empty() {
                    if !options.is_empty() {
                        return Err(twice());
                    }
                    options = flags;
                }
            }
            (b"$options", tag::STRING) if options.is_empty() => options = value.text(),
            (b"$options", tag::STRING) => return Err(twice()),
            (b"$regex" | b"$options", _) => {
                return Err(format!("{} takes a string", shown(element.name)));
            }
            _ => {}
        }
        Ok(())
    })?;
    Pattern::new(pattern, options, patterns)
}
