//! What a message repeats of a name, a path or an id that may be hostile: enough to find it, never enough to make the
//! message, and the row that it is written into, too large. Values are never repeated: they are users' data.

use bson::{Bson, RawDocument};

/// Longest part of a value that is worth repeating in a message, in bytes.
const SHOWN_BYTES_MAX: usize = 200;

/// Text for a message, shortened.
pub(crate) fn shown(bytes: &[u8]) -> String {
    if bytes.len() <= SHOWN_BYTES_MAX {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    format!("{}…", String::from_utf8_lossy(&bytes[..SHOWN_BYTES_MAX]))
}

/// Which row a message is about. Never the row itself: its bytes are of no use to anybody, and may be a user's data.
pub(crate) fn id_of(row: &RawDocument) -> String {
    let id = row.get("_id").ok().flatten().and_then(|id| Bson::try_from(id).ok());
    id.map_or_else(|| "without a usable `_id`".to_owned(), |id| shown(id.to_string().as_bytes()))
}
