//! The order of `$push` with `$sort`. Which of two equal elements comes first is not up to the
//! comparison but to the algorithm, and the server's (introspective sort, as its C++ library has it)
//! keeps their order only in arrays of up to sixteen elements. To end up with the server's bytes,
//! the same steps are taken here.

use std::cmp::Ordering;

use crate::model::state::raw::{self, RawValue, tag};

use super::compare::compare;
use super::number::Number;
use super::steps::{Halt, Steps};

/// How to order the elements of an array.
#[derive(Clone, Debug)]
pub(crate) enum Sort<'p> {
    Whole {
        descending: bool,
    },
    /// By fields of the elements, each with whether it is descending.
    Fields(Vec<(&'p [u8], bool)>),
}

impl<'p> Sort<'p> {
    pub(super) fn parse(value: RawValue<'p>) -> Result<Self, String> {
        let wrong = || {
            "$sort takes 1 or -1, or a document of fields with 1 or -1, none of them empty"
                .to_owned()
        };
        if value.tag != tag::DOCUMENT {
            return Ok(Self::Whole { descending: descends(value).ok_or_else(wrong)? });
        }
        let mut fields = Vec::new();
        let mut elements = value.elements().map_err(super::unreadable)?;
        while let Some(element) = elements.next().map_err(super::unreadable)? {
            if element.name.split(|byte| *byte == b'.').any(<[u8]>::is_empty) {
                return Err(wrong());
            }
            fields.push((element.name, descends(element.value).ok_or_else(wrong)?));
        }
        if fields.is_empty() { Err(wrong()) } else { Ok(Self::Fields(fields)) }
    }

    /// Compares two elements. They must have been checked to be well-formed.
    pub(crate) fn compare(
        &self,
        left: RawValue<'_>,
        right: RawValue<'_>,
        steps: &Steps,
    ) -> Result<Ordering, Halt> {
        let by_value = |left, right, descending: bool| {
            let order = compare(left, right).unwrap_or(Ordering::Equal);
            if descending { order.reverse() } else { order }
        };
        let fields = match self {
            Self::Whole { descending } => {
                steps.look(left)?;
                return Ok(by_value(left, right, *descending));
            }
            Self::Fields(fields) => fields,
        };
        for (path, descending) in fields {
            steps.look(left)?;
            steps.look(right)?;
            let order = by_value(key(left, path), key(right, path), *descending);
            if order.is_ne() {
                return Ok(order);
            }
        }
        Ok(Ordering::Equal)
    }
}

fn descends(value: RawValue<'_>) -> Option<bool> {
    let direction = Number::read(value)?.to_integer()?;
    matches!(direction, -1 | 1).then_some(direction < 0)
}

/// The value that an element is sorted by; null when it has none.
fn key<'a>(element: RawValue<'a>, path: &[u8]) -> RawValue<'a> {
    let found = if element.tag == tag::DOCUMENT { field(element, path) } else { None };
    found.unwrap_or(RawValue::new(tag::NULL, &[]))
}

/// The field of that name, dots and all, or else the one that the dotted path leads to.
fn field<'a>(mut document: RawValue<'a>, mut path: &[u8]) -> Option<RawValue<'a>> {
    loop {
        let find = |name: &[u8]| document.elements().ok()?.find(name).ok()?;
        if let Some(value) = find(path) {
            return Some(value);
        }
        let dot = path.iter().position(|byte| *byte == b'.')?;
        document = find(&path[..dot]).filter(|value| raw::is_container(value.tag))?;
        path = &path[dot + 1..];
    }
}

/// Ranges up to this size are left to insertion, which keeps the order of equals.
const INSERTION_MAX: usize = 16;

/// Sorts as the server does. `less` must be a strict order.
pub(crate) fn sort<T: Copy>(items: &mut [T], less: &dyn Fn(T, T) -> bool) {
    let Some(log) = items.len().checked_ilog2() else { return };
    partition(items, 2 * log, less);
    for at in 1..items.len() {
        // The first sixteen check against the first item; the others are known not to go there.
        let front = at < INSERTION_MAX && less(items[at], items[0]);
        let place = if front { 0 } else { place_for(items, at, less) };
        items[place..=at].rotate_right(1);
    }
}

/// Where the item at `at` goes among those before it.
fn place_for<T: Copy>(items: &[T], at: usize, less: &dyn Fn(T, T) -> bool) -> usize {
    let mut place = at;
    while place > 0 && less(items[at], items[place - 1]) {
        place -= 1;
    }
    place
}

/// Splits until every range is small. `depth` bounds the bad splits, after which a heap takes over.
fn partition<T: Copy>(mut items: &mut [T], mut depth: u32, less: &dyn Fn(T, T) -> bool) {
    while items.len() > INSERTION_MAX {
        if depth == 0 {
            return heap_sort(items, less);
        }
        depth -= 1;
        let cut = split(items, less);
        let (left, right) = items.split_at_mut(cut);
        partition(right, depth, less);
        items = left;
    }
}

fn split<T: Copy>(items: &mut [T], less: &dyn Fn(T, T) -> bool) -> usize {
    let (middle, last) = (items.len() / 2, items.len() - 1);
    let median = median(items, [1, middle, last], less);
    items.swap(0, median);
    let pivot = items[0];
    let (mut from, mut to) = (1, items.len());
    loop {
        while from < items.len() && less(items[from], pivot) {
            from += 1;
        }
        to -= 1;
        while to > 0 && less(pivot, items[to]) {
            to -= 1;
        }
        if from >= to {
            return from;
        }
        items.swap(from, to);
        from += 1;
    }
}

fn median<T: Copy>(items: &[T], [a, b, c]: [usize; 3], less: &dyn Fn(T, T) -> bool) -> usize {
    let less = |left: usize, right: usize| less(items[left], items[right]);
    match (less(a, b), less(b, c), less(a, c)) {
        (true, true, _) => b,
        (true, false, true) => c,
        (true, false, false) => a,
        (false, _, true) => a,
        (false, true, false) => c,
        (false, false, false) => b,
    }
}

fn heap_sort<T: Copy>(items: &mut [T], less: &dyn Fn(T, T) -> bool) {
    for parent in (0..items.len() / 2).rev() {
        sift(items, parent, items[parent], less);
    }
    for end in (1..items.len()).rev() {
        let value = items[end];
        items[end] = items[0];
        sift(&mut items[..end], 0, value, less);
    }
}

/// Puts a value into a heap that has a hole at `top`: the hole first sinks to the bottom, then the
/// value rises from there.
fn sift<T: Copy>(items: &mut [T], top: usize, value: T, less: &dyn Fn(T, T) -> bool) {
    let mut hole = top;
    while 2 * hole + 2 < items.len() {
        let right = 2 * hole + 2;
        let child = if less(items[right], items[right - 1]) { right - 1 } else { right };
        items[hole] = items[child];
        hole = child;
    }
    if 2 * hole + 2 == items.len() {
        items[hole] = items[2 * hole + 1];
        hole = 2 * hole + 1;
    }
    while hole > top && less(items[(hole - 1) / 2], value) {
        items[hole] = items[(hole - 1) / 2];
        hole = (hole - 1) / 2;
    }
    items[hole] = value;
}
