//! The statements that write rows, and what the server's errors say of them.
//!
//! Most rows of a flush replace older ones. One statement for each row, filtered by `{_id, version}`,
//! costs the server twice the CPU of one statement for many rows, mostly for planning. So many rows
//! share a statement, whose pipeline looks up the new row and compares the version (`cargo bench
//! --bench rows`, benches/README.md).

use bson::{Bson, Document, RawArrayBuf, RawBson, RawDocumentBuf, raw::cstr, rawdoc};

use super::update_statement;
use crate::{
    database::{
        Error, Result,
        code::{DUPLICATE_KEY, is_passing},
    },
    model::shown::shown,
    store::{NO_VERSION, RowOutcome, RowWrite},
};

/// Matches the stored row, if it still has the version that was read.
pub(super) fn as_read(write: &RowWrite) -> RawDocumentBuf {
    let mut filter = rawdoc! {};
    filter.append(cstr!("_id"), write.id.as_raw());
    match write.expected {
        NO_VERSION => filter.append(cstr!("$expr"), rawdoc! { "$not": [has_version()] }),
        expected => filter.append(cstr!("version"), expected),
    }
    filter
}

/// Whether a row has a usable version, as an expression.
fn has_version() -> RawDocumentBuf {
    let is_number = rawdoc! { "$in": [{ "$type": "$version" }, ["int", "long", "double"]] };
    let is_positive = rawdoc! { "$gte": ["$version", 1] };
    let is_whole = rawdoc! { "$eq": ["$version", { "$trunc": "$version" }] };
    rawdoc! { "$cond": [is_number, { "$and": [is_positive, is_whole] }, false] }
}

/// The statement that replaces one row, if it still has the version that was read.
pub(super) fn replacement(write: &RowWrite) -> RawDocumentBuf {
    update_statement(as_read(write), write.row.clone(), false)
}

/// The statement that replaces many rows, each only if it still has the version that was read. The new
/// rows are constants (`c`), so that the server evaluates nothing in them.
pub(super) fn replacement_of_many(writes: &[&RowWrite]) -> RawDocumentBuf {
    let mut ids = RawArrayBuf::new();
    let mut expected = RawArrayBuf::new();
    let mut rows = RawArrayBuf::new();
    for write in writes {
        ids.push(RawBson::from(write.id.as_raw()));
        expected.push(write.expected);
        rows.push(write.row.clone());
    }
    rawdoc! {
        "q": { "_id": { "$in": ids.clone() } },
        "u": [{ "$replaceWith": { "$let": {
            "vars": { "at": { "$indexOfArray": ["$$ids", "$_id"] } },
            "in": { "$cond": [
                { "$eq": ["$version", { "$arrayElemAt": ["$$expected", "$$at"] }] },
                { "$arrayElemAt": ["$$rows", "$$at"] },
                "$$ROOT",
            ] },
        } } }],
        "c": { "ids": ids, "expected": expected, "rows": rows },
        "multi": true,
    }
}

/// The write errors of a reply, each with the index of its statement.
pub(super) fn write_errors(reply: &Document) -> impl Iterator<Item = (usize, &Document)> {
    let errors = reply.get_array("writeErrors").map(Vec::as_slice).unwrap_or_default();
    errors.iter().filter_map(Bson::as_document).filter_map(|error| {
        let at = error.get_i32("index").ok()?;
        Some((usize::try_from(at).ok()?, error))
    })
}

/// Whether a write error says that a row of that `_id` is there, and not that some other index has its value.
pub(super) fn is_there_already(error: &Document) -> bool {
    let key = error.get_document("keyPattern");
    error.get_i32("code").is_ok_and(|code| code == DUPLICATE_KEY)
        && key.is_ok_and(|key| key.len() == 1 && key.contains_key("_id"))
}

/// What a write error says of its row; `None` when the row was merely there already. Whatever does not pass by itself
/// refuses the row: nobody can list what the indexes and validators of users, and those of later servers, say.
///
/// # Errors
/// When it says nothing about the row: the server was stepping down, say.
pub(super) fn judge(error: &Document) -> Result<Option<RowOutcome>> {
    let code = error.get_i32("code").unwrap_or_default();
    let said = error.get_str("errmsg").unwrap_or("the server refused the row");
    if is_there_already(error) {
        Ok(None)
    } else if is_passing(code) {
        Err(Error::server(code, said))
    } else {
        Ok(Some(rejected(&Error::server(code, said))))
    }
}

/// A row that makes a command fail as a whole.
pub(super) fn rejected(error: &Error) -> RowOutcome {
    let (code, reason) = (error.code().unwrap_or_default(), shown(error.message().as_bytes()));
    RowOutcome::Rejected { code, reason }
}
