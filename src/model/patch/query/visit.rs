//! Where a query path leads: through documents by name, through arrays both by index and into every
//! element, and at its end into the elements of an array and the array itself.

use crate::model::patch::path::component;
use crate::model::state::raw::{Malformed, RawValue, tag};

/// What a path starts from.
#[derive(Clone, Copy)]
pub(crate) enum Subject<'a> {
    /// A document: the path begins with one of its fields.
    Document(RawValue<'a>),
    /// A value that the path's first component stands for.
    Element(RawValue<'a>),
}

/// What happens at an array at the path's end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaf {
    /// Its elements are offered, then the array.
    Traverse,
    /// Only the array is offered.
    Whole,
}

/// Is offered what the path leads to, nothing where it leads nowhere, and says whether that was it.
type Offer<'o> = dyn FnMut(Option<RawValue<'_>>) -> Result<bool, Malformed> + 'o;

/// Offers everything that the path leads to, until one is taken. Returns whether one was.
pub(super) fn visit(
    subject: Subject<'_>,
    path: &[u8],
    leaf: Leaf,
    offer: &mut Offer<'_>,
) -> Result<bool, Malformed> {
    match subject {
        Subject::Document(document) => in_document(document, path, leaf, offer),
        Subject::Element(value) => match component(path, 0).1.map(|next| &path[next..]) {
            Some(rest) if value.tag == tag::DOCUMENT => in_document(value, rest, leaf, offer),
            rest if value.tag == tag::ARRAY => in_array(value, rest, leaf, offer),
            Some(_) => offer(None),
            None => offer(Some(value)),
        },
    }
}

fn in_document(
    mut document: RawValue<'_>,
    mut path: &[u8],
    leaf: Leaf,
    offer: &mut Offer<'_>,
) -> Result<bool, Malformed> {
    loop {
        let (name, next) = component(path, 0);
        let rest = next.map(|next| &path[next..]);
        let Some(value) = document.elements()?.find(name)? else { return offer(None) };
        match (value.tag, rest) {
            (tag::ARRAY, rest) => return in_array(value, rest, leaf, offer),
            (tag::DOCUMENT, Some(rest)) => (document, path) = (value, rest),
            (_, None) => return offer(Some(value)),
            (_, Some(_)) => return offer(None),
        }
    }
}

fn in_array(
    array: RawValue<'_>,
    path: Option<&[u8]>,
    leaf: Leaf,
    offer: &mut Offer<'_>,
) -> Result<bool, Malformed> {
    let mut elements = array.elements()?;
    let Some(path) = path else {
        while leaf == Leaf::Traverse
            && let Some(element) = elements.next()?
        {
            if offer(Some(element.value))? {
                return Ok(true);
            }
        }
        return offer(Some(array));
    };
    let (name, next) = component(path, 0);
    let is_index = name.iter().all(u8::is_ascii_digit);
    while let Some(element) = elements.next()? {
        let value = element.value;
        if value.tag == tag::DOCUMENT && in_document(value, path, leaf, offer)? {
            return Ok(true);
        }
        if !is_index || element.name != name {
            continue;
        }
        let taken = match (next.map(|next| &path[next..]), value.tag) {
            (None, _) => offer(Some(value))?,
            (Some(rest), tag::DOCUMENT) => in_document(value, rest, leaf, offer)?,
            (Some(rest), tag::ARRAY) => in_array(value, Some(rest), leaf, offer)?,
            (Some(_), _) => false,
        };
        if taken {
            return Ok(true);
        }
    }
    Ok(false)
}
