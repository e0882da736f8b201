//! What a patch asks for: its operators, checked without looking at any state, and sorted by path,
//! because the server visits fields in path order whatever operator they came from.

use crate::model::state::raw::{Element, Elements, tag};

use crate::model::shown::shown;

use super::error::{PatchError, type_name};
use super::operator::Operator;
use super::path;
use super::query::Patterns;

/// One operator on one path.
#[derive(Clone, Debug)]
pub(crate) struct Entry<'p> {
    /// The operator's name, for messages.
    pub(crate) name: &'static str,
    /// The whole path as written.
    pub(crate) full: &'p [u8],
    /// The part of the path that is still ahead.
    pub(crate) path: &'p [u8],
    pub(crate) operator: Operator<'p>,
}

impl Entry<'_> {
    pub(crate) fn bad_path(&self, reason: &'static str) -> PatchError {
        PatchError::Path { operator: self.name, path: shown(self.full), reason }
    }

    pub(crate) fn mismatch(&self, tag: u8, reason: &'static str) -> PatchError {
        let path = shown(self.full);
        PatchError::Mismatch { operator: self.name, path, found: type_name(tag), reason }
    }
}

/// Reads the operators of a patch, in path order and free of conflicts.
pub(crate) fn parse<'p>(
    patch: &'p [u8],
    patterns: &Patterns,
) -> Result<Vec<Entry<'p>>, PatchError> {
    let mut entries = Vec::with_capacity(8);
    let mut operators = Elements::new(patch)?;
    while let Some(element) = operators.next()? {
        let name = operator_name(element.name)?;
        if element.value.tag != tag::DOCUMENT {
            return Err(PatchError::Argument {
                operator: name,
                path: String::new(),
                reason: format!(
                    "takes a document of paths and values, not {}: write {{{name}: {{field: value}}}}",
                    type_name(element.value.tag)
                ),
            });
        }
        let mut fields = element.value.elements()?;
        while let Some(field) = fields.next()? {
            check_path(name, field.name)?;
            parse_field(name, field, patterns, &mut entries)?;
        }
    }
    if entries.len() > 1 {
        entries.sort_by(|left, right| path::compare(left.path, right.path));
        check_conflicts(&entries)?;
    }
    Ok(entries)
}

fn operator_name(name: &[u8]) -> Result<&'static str, PatchError> {
    let reason = match Operator::NAMES.iter().find(|known| known.as_bytes() == name) {
        Some(known) => return Ok(known),
        None if !name.starts_with(b"$") => {
            "a patch consists of update operators; to set a field write {$set: {field: value}}, \
             to replace fields use merge"
        }
        None => {
            "it is not an update operator; use $set, $unset, $inc, $mul, $min, $max, $rename, \
             $setOnInsert, $currentDate, $bit, $push, $addToSet, $pop, $pull or $pullAll"
        }
    };
    Err(PatchError::Operator { operator: shown(name), reason })
}

fn parse_field<'p>(
    name: &'static str,
    field: Element<'p>,
    patterns: &Patterns,
    entries: &mut Vec<Entry<'p>>,
) -> Result<(), PatchError> {
    let path = field.name;
    let operator = Operator::parse(name, field.value, patterns);
    let operator = operator.map_err(|reason| PatchError::Argument {
        operator: name,
        path: shown(path),
        reason,
    })?;
    if let Operator::Rename { to } = operator {
        check_path(name, to)?;
        check_rename(path, to)?;
        entries.push(Entry {
            name,
            full: to,
            path: to,
            operator: Operator::RenameInto { from: path },
        });
    }
    entries.push(Entry { name, full: path, path, operator });
    Ok(())
}

fn check_path(operator: &'static str, path: &[u8]) -> Result<(), PatchError> {
    let refuse = |reason| Err(PatchError::Path { operator, path: shown(path), reason });
    if path.is_empty() {
        return refuse("the path is empty: name a field");
    }
    for (at, component) in path.split(|byte| *byte == b'.').enumerate() {
        if component.is_empty() {
            return refuse("the path has an empty component: remove the extra dot");
        }
        if component == b"$" {
            return refuse(
                "the positional $ needs a query, and an event has none: use an index, $[] or $[name]",
            );
        }
        if at == 0 && component == b"_id" {
            return refuse("_id identifies the document and is not part of its state");
        }
        if at == 0 && path::array_filter(component).is_some() {
            return refuse("the state itself is not an array: name an array before $[]");
        }
    }
    Ok(())
}

fn check_rename(from: &[u8], to: &[u8]) -> Result<(), PatchError> {
    let refuse = |reason| Err(PatchError::Path { operator: "$rename", path: shown(from), reason });
    if path::is_prefix(from, to) || path::is_prefix(to, from) {
        return refuse("the old and the new path must not contain one another");
    }
    let dynamic = |path: &[u8]| {
        path.split(|byte| *byte == b'.').any(|component| path::array_filter(component).is_some())
    };
    if dynamic(from) || dynamic(to) {
        return refuse("$[] and $[name] cannot be renamed: elements of an array have no names");
    }
    Ok(())
}

/// The identifiers of array filters that paths refer to; empty for `$[]`.
pub(crate) fn identifiers<'a>(entries: &'a [Entry<'_>]) -> impl Iterator<Item = &'a [u8]> {
    let components = entries.iter().flat_map(|entry| entry.path.split(|byte| *byte == b'.'));
    components.filter_map(path::array_filter)
}

/// Refuses entries of which one contains the other, or that treat one field both as an array and as
/// something else. Entries are sorted, so that such neighbours are adjacent.
pub(crate) fn check_conflicts(entries: &[Entry<'_>]) -> Result<(), PatchError> {
    for pair in entries.windows(2) {
        let [left, right] = pair else { continue };
        let contains = left.path.is_empty() || path::is_prefix(left.path, right.path);
        if contains || mixed(left.path, right.path) {
            return Err(PatchError::Conflict {
                operator: right.name,
                path: shown(right.full),
                other: shown(left.full),
            });
        }
    }
    Ok(())
}

/// Whether two paths part where one goes on with an array filter and the other does not.
fn mixed(left: &[u8], right: &[u8]) -> bool {
    let mut left = left.split(|byte| *byte == b'.');
    let mut right = right.split(|byte| *byte == b'.');
    while let (Some(left), Some(right)) = (left.next(), right.next()) {
        if left != right {
            return path::array_filter(left).is_some() != path::array_filter(right).is_some();
        }
    }
    false
}
