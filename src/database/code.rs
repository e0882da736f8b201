//! The server's numbers of errors that this program acts on by name:
//! <https://www.mongodb.com/docs/manual/reference/error-codes/>.

/// `NamespaceExists`: a collection of that name is there already.
pub const NAMESPACE_EXISTS: i32 = 48;
/// `CollectionUUIDMismatch`: the collection of that name is not the one that the command means, or there is none.
pub const LOG_MISMATCH: i32 = 361;
/// `DuplicateKey`: something with that key is there already.
pub const DUPLICATE_KEY: i32 = 11_000;
/// `DocumentValidationFailure`: a validator refuses the document.
pub const VALIDATION_FAILED: i32 = 121;
/// `NoQueryExecutionPlans`: what a server with `notablescan` says of a query that no index serves.
pub const NO_INDEX: i32 = 291;
