//! Reading conditions. Every refusal says which operator, and what it takes.

use crate::model::patch::error::type_name;
use crate::model::patch::number::Number;
use crate::model::patch::{check_comparable, unreadable};
use crate::model::shown::shown;
use crate::model::state::raw::{Element, Elements, RawValue, tag};

use super::leaf::{Relation, Test};
use super::pattern::{Pattern, Patterns};
use super::{ArrayTest, Condition, Sorted};

mod arguments;

type Parsed<'p> = Result<Condition<'p>, String>;

/// Deepest nesting of conditions.
const DEPTH_MAX: usize = 100;

/// What reading a condition goes by.
#[derive(Clone, Copy)]
pub(super) struct Reading<'b> {
    depth: usize,
    patterns: &'b Patterns,
}

impl<'b> Reading<'b> {
    pub(super) fn new(patterns: &'b Patterns) -> Self {
        Self { depth: 0, patterns }
    }

    fn deeper(self) -> Self {
        Self { depth: self.depth + 1, ..self }
    }
}

/// Whether the document's first field is an operator on values.
pub(super) fn begins_with_operator(value: RawValue<'_>) -> Result<bool, String> {
    Ok(first_name(value)?.is_some_and(|name| arguments::OPERATORS.contains(&name)))
}

fn first_name(value: RawValue<'_>) -> Result<Option<&[u8]>, String> {
    let mut elements = value.elements().map_err(unreadable)?;
    Ok(elements.next().map_err(unreadable)?.map(|element| element.name))
}

fn each<'p>(
    value: RawValue<'p>,
    mut take: impl FnMut(Element<'p>) -> Result<(), String>,
) -> Result<(), String> {
    let mut elements: Elements<'p> = value.elements().map_err(unreadable)?;
    while let Some(element) = elements.next().map_err(unreadable)? {
        take(element)?;
    }
    Ok(())
}

/// A condition on the fields of a document.
pub(super) fn document<'p>(value: RawValue<'p>, reading: Reading<'_>) -> Parsed<'p> {
    if reading.depth > DEPTH_MAX {
        return Err(format!("nests conditions deeper than {DEPTH_MAX} levels; flatten them"));
    }
    let mut all = Vec::new();
    each(value, |element| {
        match element.name {
            b"$comment" => {}
            b"$ref" | b"$id" | b"$db" => {
                all.push(compare(element.name, Relation::Equal, element.value)?);
            }
            name if name.starts_with(b"$") => all.push(logical(name, element.value, reading)?),
            name => all.push(named(name, element.value, reading)?),
        }
        Ok(())
    })?;
    Ok(single_or(all, Condition::And))
}

fn single_or<'p>(
    mut conditions: Vec<Condition<'p>>,
    many: fn(Vec<Condition<'p>>) -> Condition<'p>,
) -> Condition<'p> {
    match conditions.pop() {
        Some(only) if conditions.is_empty() => only,
        last => {
            conditions.extend(last);
            many(conditions)
        }
    }
}

fn logical<'p>(name: &'p [u8], value: RawValue<'p>, reading: Reading<'_>) -> Parsed<'p> {
    let combine: fn(Vec<Condition<'p>>) -> Condition<'p> = match name {
        b"$and" => Condition::And,
        b"$or" => Condition::Or,
        b"$nor" => Condition::Nor,
        b"$alwaysTrue" | b"$alwaysFalse" => {
            return match Number::read(value).and_then(Number::to_integer) {
                Some(1) => Ok(Condition::Constant(name == b"$alwaysTrue")),
                _ => Err(format!("{} takes the number 1", shown(name))),
            };
        }
        _ => {
            return Err(format!(
                "{:?} cannot be used in a condition on an element: use comparisons, $in, $nin, $not, \
                 $exists, $type, $size, $all, $elemMatch, $mod, $regex, $bits…, $and, $or and $nor",
                shown(name)
            ));
        }
    };
    let wrong = || format!("{} takes an array of conditions that is not empty", shown(name));
    if value.tag != tag::ARRAY {
        return Err(wrong());
    }
    let mut conditions = Vec::new();
    each(value, |element| {
        if element.value.tag != tag::DOCUMENT {
            return Err(wrong());
        }
        conditions.push(document(element.value, reading.deeper())?);
        Ok(())
    })?;
    if conditions.is_empty() { Err(wrong()) } else { Ok(combine(conditions)) }
}

/// A value that the field of that name must be equal to, a pattern, or operators.
pub(super) fn named<'p>(path: &'p [u8], value: RawValue<'p>, reading: Reading<'_>) -> Parsed<'p> {
    if is_expression(value, false)? {
        return operators(path, value, reading);
    }
    if value.tag == tag::REGEX {
        let (pattern, options) = value.regex();
        let test = Test::Matches(Pattern::new(pattern, options, reading.patterns)?);
        return Ok(Condition::Field { path, test });
    }
    compare(path, Relation::Equal, value)
}

/// Whether a document consists of operators, and is not a reference to another document.
fn is_expression(value: RawValue<'_>, or_part_of_reference: bool) -> Result<bool, String> {
    let has_operator = first_name(value)?.is_some_and(|name| name.starts_with(b"$"));
    if value.tag != tag::DOCUMENT || !has_operator {
        return Ok(false);
    }
    let (mut has_ref, mut has_id, mut has_db) = (false, false, false);
    each(value, |element| {
        has_ref |= element.name == b"$ref";
        has_id |= element.name == b"$id";
        has_db |= element.name == b"$db";
        Ok(())
    })?;
    let reference =
        if or_part_of_reference { has_ref || has_id || has_db } else { has_ref && has_id };
    Ok(!reference)
}

/// Operators on the value of that name.
pub(super) fn operators<'p>(
    path: &'p [u8],
    value: RawValue<'p>,
    reading: Reading<'_>,
) -> Parsed<'p> {
    let mut all = Vec::new();
    let is_pattern = value.elements().and_then(|all| all.find(b"$regex")).map_err(unreadable)?;
    each(value, |element| {
        if element.name == b"$options" && is_pattern.is_some() {
            return Ok(());
        }
        all.push(operator(path, value, element, reading)?);
        Ok(())
    })?;
    Ok(single_or(all, Condition::And))
}

fn operator<'p>(
    path: &'p [u8],
    siblings: RawValue<'p>,
    element: Element<'p>,
    reading: Reading<'_>,
) -> Parsed<'p> {
    let (name, value) = (element.name, element.value);
    let field = |test| Condition::Field { path, test };
    Ok(match name {
        b"$eq" => compare(path, Relation::Equal, value)?,
        b"$ne" => {
            not(no_pattern(name, value).and_then(|()| compare(path, Relation::Equal, value))?)
        }
        b"$lt" | b"$lte" | b"$gt" | b"$gte" => {
            no_pattern(name, value)?;
            compare(path, arguments::relation(name), value)?
        }
        b"$in" => field(contained(name, value, reading)?),
        b"$nin" => not(field(contained(name, value, reading)?)),
        b"$not" => not(negated(path, value, reading)?),
        b"$exists" if arguments::is_true(value) => field(Test::Exists),
        b"$exists" => not(field(Test::Exists)),
        b"$type" => field(arguments::types(value)?),
        b"$mod" => field(arguments::modulo(value)?),
        b"$bitsAllSet" | b"$bitsAllClear" | b"$bitsAnySet" | b"$bitsAnyClear" => {
            field(Test::Bits(arguments::bits(name, value)?))
        }
        b"$regex" => field(Test::Matches(arguments::pattern(siblings, reading.patterns)?)),
        b"$size" => Condition::Array { path, test: ArrayTest::Size(arguments::size(value)?) },
        b"$elemMatch" => elem_match(path, value, reading)?,
        b"$all" => all_of(path, value, reading)?,
        _ => return Err(format!("{:?} is not an operator on values here", shown(name))),
    })
}

fn not(condition: Condition<'_>) -> Condition<'_> {
    Condition::Not(Box::new(condition))
}

fn no_pattern(name: &[u8], value: RawValue<'_>) -> Result<(), String> {
    if value.tag == tag::REGEX {
        return Err(format!(
            "{} cannot compare with a regular expression; use $regex",
            shown(name)
        ));
    }
    Ok(())
}

fn compare<'p>(path: &'p [u8], relation: Relation, value: RawValue<'p>) -> Parsed<'p> {
    if value.tag == tag::UNDEFINED {
        return Err("undefined cannot be compared with; use null or $exists".to_owned());
    }
    Ok(Condition::Field { path, test: Test::Compare(relation, value) })
}

fn contained<'p>(
    name: &[u8],
    value: RawValue<'p>,
    reading: Reading<'_>,
) -> Result<Test<'p>, String> {
    if value.tag != tag::ARRAY {
        return Err(format!("{} takes an array, not {}", shown(name), type_name(value.tag)));
    }
    let (mut values, mut patterns, mut null) = (Vec::new(), Vec::new(), false);
    each(value, |element| {
        let value = element.value;
        if is_expression(value, false)? || value.tag == tag::UNDEFINED {
            return Err(format!("{} takes values, without operators or undefined", shown(name)));
        }
        if value.tag == tag::REGEX {
            let (pattern, options) = value.regex();
            patterns.push(Pattern::new(pattern, options, reading.patterns)?);
        } else {
            check_comparable(value)?;
            null |= value.tag == tag::NULL;
            values.push(value);
        }
        Ok(())
    })?;
    Ok(Test::In { values: Sorted::new(values), patterns, null })
}

fn negated<'p>(path: &'p [u8], value: RawValue<'p>, reading: Reading<'_>) -> Parsed<'p> {
    if reading.depth > DEPTH_MAX {
        return Err(format!("nests conditions deeper than {DEPTH_MAX} levels; flatten them"));
    }
    if value.tag == tag::REGEX {
        return named(path, value, reading.deeper());
    }
    if value.tag != tag::DOCUMENT || first_name(value)?.is_none() {
        return Err("$not takes a regular expression or a document of operators".to_owned());
    }
    operators(path, value, reading.deeper())
}

fn elem_match<'p>(path: &'p [u8], value: RawValue<'p>, reading: Reading<'_>) -> Parsed<'p> {
    if value.tag != tag::DOCUMENT || reading.depth > DEPTH_MAX {
        return Err("$elemMatch takes a document, nested at most 100 levels deep".to_owned());
    }
    let first = first_name(value)?.unwrap_or_default();
    let test = if is_expression(value, true)? && !arguments::LOGICAL.contains(&first) {
        let condition = operators(b"", value, reading.deeper())?;
        ArrayTest::ElementIs(vec![condition])
    } else {
        ArrayTest::ElementMatches(Box::new(document(value, reading.deeper())?))
    };
    Ok(Condition::Array { path, test })
}

fn all_of<'p>(path: &'p [u8], value: RawValue<'p>, reading: Reading<'_>) -> Parsed<'p> {
    if value.tag != tag::ARRAY {
        return Err(format!("$all takes an array, not {}", type_name(value.tag)));
    }
    let mut all = Vec::new();
    let mut elem_matches = None;
    each(value, |element| {
        let value = element.value;
        let first = if value.tag == tag::DOCUMENT { first_name(value)? } else { None };
        let is_elem_match = first == Some(b"$elemMatch");
        if *elem_matches.get_or_insert(is_elem_match) != is_elem_match && elem_matches == Some(true)
        {
            return Err("$all takes either values or only $elemMatch".to_owned());
        }
        if is_elem_match && elem_matches == Some(true) {
            let inner = value.elements().and_then(|fields| fields.find(b"$elemMatch"));
            let inner = inner.map_err(unreadable)?.unwrap_or(value);
            all.push(elem_match(path, inner, reading.deeper())?);
        } else if first.is_some_and(|name| arguments::OPERATORS.contains(&name)) {
            return Err("$all takes values, without operators but $elemMatch".to_owned());
        } else if value.tag == tag::REGEX {
            all.push(named(path, value, reading)?);
        } else {
            all.push(compare(path, Relation::Equal, value)?);
        }
        Ok(())
    })?;
    if all.is_empty() { Ok(Condition::Constant(false)) } else { Ok(Condition::And(all)) }
}
