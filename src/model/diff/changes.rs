//! Finding what differs. Documents are compared field by field and arrays element by element, as
//! deep as a path can express the difference and as long as that stays shorter than the whole.

use std::collections::HashMap;

use crate::model::patch::path;
use crate::model::state::raw::{Element, Elements, RawValue, tag};
use crate::model::state::{Index, digits};

use super::Order;

/// Differences by operator, each with its dotted path.
#[derive(Default)]
pub(super) struct Changes<'a> {
    pub(super) set: Vec<(Vec<u8>, RawValue<'a>)>,
    pub(super) unset: Vec<Vec<u8>>,
    pub(super) push: Vec<(Vec<u8>, Vec<RawValue<'a>>)>,
    /// About how many bytes the patch takes.
    cost: usize,
}

/// How many changes there were at some moment, to go back to.
struct Mark {
    set: usize,
    unset: usize,
    push: usize,
    cost: usize,
}

/// Deepest path, in levels, below which a field is set as a whole.
const LEVELS_MAX: usize = 150;

/// What an element of a patch takes beside its path and its value.
const ELEMENT_BYTES: usize = 2;

/// What an empty text takes, the argument of `$unset`.
const EMPTY_TEXT_BYTES: usize = 5;

/// What `$each` takes around the elements.
const EACH_BYTES: usize = 17;

impl<'a> Changes<'a> {
    /// Compares two roots.
    pub(super) fn root(&mut self, before: &'a [u8], after: &'a [u8]) -> Order {
        let (Some(before), Some(after)) = (fields(before), fields(after)) else {
            return Order::RootFieldsLeft;
        };
        let mut path = Vec::new();
        if self.fields(&before, &after, &mut path) {
            Order::Exact
        } else {
            self.left(&before, &after)
        }
    }

    /// What the changes found at the root leave over.
    fn left(&mut self, before: &[Element<'a>], after: &[Element<'a>]) -> Order {
        let twice = |fields: &[Element<'a>]| by_name(fields).len() < fields.len();
        if twice(before) || twice(after) {
            return Order::RootFieldsLeft;
        }
        let (old, new) = (by_name(before), by_name(after));
        let same = |name| match (old.get(name), new.get(name)) {
            (Some(old), Some(new)) => old == new,
            _ => false,
        };
        let unreachable = |field: &Element<'a>| !at_root(field.name) && !same(field.name);
        if before.iter().chain(after).any(unreachable) {
            return Order::RootFieldsLeft;
        }
        Order::UpToRootOrder
    }

    /// Compares the fields of two documents. Returns whether applying the changes gives exactly the
    /// second one.
    fn fields(
        &mut self,
        before: &[Element<'a>],
        after: &[Element<'a>],
        path: &mut Vec<u8>,
    ) -> bool {
        let (old, new) = (by_name(before), by_name(after));
        let mut exact = old.len() == before.len() && new.len() == after.len();
        let is_root = path.is_empty();
        let expressible = |name: &[u8]| if is_root { at_root(name) } else { in_path(name) };
        for field in before {
            if !new.contains_key(field.name) {
                if expressible(field.name) {
                    self.remove(joined(path, field.name));
                } else {
                    exact = false;
                }
            }
        }
        for field in after {
            let was = old.get(field.name);
            if was == Some(&field.value) {
                continue;
            }
            if !expressible(field.name) {
                exact = false;
                continue;
            }
            let length = path.len();
            extend(path, field.name);
            self.value(was.copied(), field.value, path);
            path.truncate(length);
        }
        exact && in_order(before, after, &old, &new)
    }

    /// Describes how one value becomes another.
    fn value(&mut self, before: Option<RawValue<'a>>, after: RawValue<'a>, path: &mut Vec<u8>) {
        let whole = ELEMENT_BYTES + path.len() + after.bytes.len();
        let mark = self.mark();
        let inside = before
            .is_some_and(|before| levels(path) < LEVELS_MAX && self.inside(before, after, path));
        if !inside || self.cost - mark.cost > whole {
            self.back_to(&mark);
            self.cost += whole;
            self.set.push((path.clone(), after));
        }
    }

    /// Describes a change inside a document or array; false when operators cannot.
    fn inside(&mut self, before: RawValue<'a>, after: RawValue<'a>, path: &mut Vec<u8>) -> bool {
        if before.tag != after.tag {
            return false;
        }
        let (Some(old), Some(new)) = (fields(before.bytes), fields(after.bytes)) else {
            return false;
        };
        match after.tag {
            tag::DOCUMENT => self.fields(&old, &new, path),
            tag::ARRAY => self.array(&old, &new, path),
            _ => false,
        }
    }

    fn array(&mut self, old: &[Element<'a>], new: &[Element<'a>], path: &mut Vec<u8>) -> bool {
        if new.len() < old.len() || !are_indexes(old) || !are_indexes(new) {
            return false;
        }
        let (kept, added) = new.split_at(old.len());
        if old.iter().zip(kept).all(|(old, new)| old.value == new.value) {
            let added: Vec<_> = added.iter().map(|element| element.value).collect();
            let size = |(at, value): (usize, &RawValue<'_>)| {
                ELEMENT_BYTES + digits(at) + value.bytes.len()
            };
            let bytes: usize = added.iter().enumerate().map(size).sum();
            self.cost += ELEMENT_BYTES + EACH_BYTES + path.len() + bytes;
            self.push.push((path.clone(), added));
            return true;
        }
        // An element that changed rules out $push on the same array, but the next index appends too.
        for (at, element) in new.iter().enumerate() {
            let was = old.get(at).map(|element| element.value);
            if was != Some(element.value) {
                let length = path.len();
                extend(path, element.name);
                self.value(was, element.value, path);
                path.truncate(length);
            }
        }
        true
    }

    fn remove(&mut self, path: Vec<u8>) {
        self.cost += ELEMENT_BYTES + path.len() + EMPTY_TEXT_BYTES;
        self.unset.push(path);
    }

    fn mark(&self) -> Mark {
        let (set, unset, push) = (self.set.len(), self.unset.len(), self.push.len());
        Mark { set, unset, push, cost: self.cost }
    }

    fn back_to(&mut self, mark: &Mark) {
        self.set.truncate(mark.set);
        self.unset.truncate(mark.unset);
        self.push.truncate(mark.push);
        self.cost = mark.cost;
    }
}

fn fields(document: &[u8]) -> Option<Vec<Element<'_>>> {
    let mut elements = Elements::new(document).ok()?;
    let mut fields = Vec::new();
    while let Some(element) = elements.next().ok()? {
        fields.push(element);
    }
    Some(fields)
}

fn by_name<'a>(fields: &[Element<'a>]) -> HashMap<&'a [u8], RawValue<'a>> {
    fields.iter().map(|field| (field.name, field.value)).collect()
}

fn are_indexes(elements: &[Element<'_>]) -> bool {
    let mut index = Index::new();
    elements.iter().all(|element| {
        let same = index.text() == element.name;
        index.step();
        same
    })
}

/// Whether the wanted order is the one that update operators leave: what stays in its old order,
/// then what is new in the order of siblings.
fn in_order<'a>(
    before: &[Element<'a>],
    after: &[Element<'a>],
    old: &HashMap<&'a [u8], RawValue<'a>>,
    new: &HashMap<&'a [u8], RawValue<'a>>,
) -> bool {
    let stays = before.iter().map(|field| field.name).filter(|name| new.contains_key(name));
    let mut added: Vec<_> =
        after.iter().map(|field| field.name).filter(|name| !old.contains_key(name)).collect();
    added.sort_by(|left, right| path::compare_siblings(left, right));
    stays.chain(added).eq(after.iter().map(|field| field.name))
}

fn in_path(name: &[u8]) -> bool {
    !name.is_empty() && !name.contains(&b'.') && !name.starts_with(b"$")
}

fn at_root(name: &[u8]) -> bool {
    in_path(name) && name != b"_id"
}

fn levels(path: &[u8]) -> usize {
    path.iter().filter(|byte| **byte == b'.').count()
}

fn extend(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'.');
    }
    path.extend_from_slice(name);
}

fn joined(path: &[u8], name: &[u8]) -> Vec<u8> {
    let mut joined = path.to_vec();
    extend(&mut joined, name);
    joined
}
