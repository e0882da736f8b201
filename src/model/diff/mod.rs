//! The patch that leads from one state to another. It exists so that a caller who only holds two
//! documents (a writer with a typed value, a flush, a repair) can still send a small change.

mod changes;
mod place;
mod write;

use bson::{RawDocument, RawDocumentBuf};

use changes::Changes;
pub use place::first_difference;

/// A patch and how exactly it leads to the wanted state.
#[derive(Debug, Clone, PartialEq)]
pub struct Diff {
    /// Update operators. Empty when the two states are equal.
    pub patch: RawDocumentBuf,
    /// What applying the patch gives.
    pub order: Order,
}

/// How the result of applying a [`Diff`] compares with the wanted state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Equal, byte for byte.
    Exact,
    /// Equal up to the order of the root's fields. Update operators add new fields in an order of
    /// their own and move none; below the root the parent is set as a whole, the root has none.
    UpToRootOrder,
    /// Some field of the root differs and has a name that no path can express: it is empty, has a
    /// dot in it, begins with `$`, is `_id`, or occurs twice. The patch leaves those fields alone.
    /// A merge can express all but `_id` and repeated names.
    RootFieldsLeft,
}

impl Diff {
    /// Whether the patch changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.patch.is_empty()
    }
}

/// The smallest sensible patch that turns `before` into `after`: changed paths as `$set`, removed
/// fields as `$unset`, elements appended to an array as `$push` with `$each`. Where setting a whole
/// field is shorter than naming what changed inside it, that is done instead.
#[must_use]
pub fn diff(before: &RawDocument, after: &RawDocument) -> Diff {
    if before.as_bytes() == after.as_bytes() {
        return Diff { patch: RawDocumentBuf::new(), order: Order::Exact };
    }
    let mut changes = Changes::default();
    let order = changes.root(before.as_bytes(), after.as_bytes());
    Diff { patch: write::patch(&changes), order }
}
