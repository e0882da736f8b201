//! The server's numbers of errors that this program acts on by name:
//! <https://www.mongodb.com/docs/manual/reference/error-codes/>.

/// `Unauthorized`: the user has no right to it.
pub const UNAUTHORIZED: i32 = 13;
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

/// Whether an error is about the server, the connection or the moment, whatever was sent. A closed list: every other error
/// may be about the very row that was written. It is that of the drivers' specifications (retryable reads and writes,
/// transactions, change streams, discovery), with what the server itself says of locks, time limits and its disk.
pub const fn is_passing(code: i32) -> bool {
    matches!(
        code,
        // HostUnreachable, HostNotFound, LockTimeout, LockBusy, MaxTimeMSExpired, StaleShardVersion, WriteConcernFailed,
        // UnsatisfiableWriteConcern.
        6 | 7 | 24 | 46 | 50 | 63 | 64 | 100
        // NetworkTimeout, ShutdownInProgress, WriteConflict, FailedToSatisfyReadPreference,
        // ReadConcernMajorityNotAvailableYet, StaleEpoch, PrimarySteppedDown.
        | 89 | 91 | 112 | 133 | 134 | 150 | 189
        // NetworkInterfaceExceededTimeLimit, TransactionTooOld, SnapshotTooOld, SnapshotUnavailable, NoSuchTransaction,
        // ExceededTimeLimit, TransactionExceededLifetimeLimitSeconds.
        | 202 | 225 | 239 | 246 | 251 | 262 | 290
        // InterruptedDueToStorageChange, TemporarilyUnavailable, ReauthenticationRequired,
        // IngressRequestRateLimitExceeded.
        | 355 | 365 | 391 | 462
        // SocketException, LegacyNotPrimary, NotWritablePrimary, InterruptedAtShutdown, Interrupted,
        // InterruptedDueToReplStateChange, StaleConfig, NotPrimaryNoSecondaryOk, NotPrimaryOrSecondary, OutOfDiskSpace.
        | 9001 | 10058 | 10107 | 11600 | 11601 | 11602 | 13388 | 13435 | 13436 | 14031
    )
}

/// The labels by which the server and the driver say the same of an error.
pub const PASSING_LABELS: [&str; 5] = [
    "RetryableWriteError",
    "TransientTransactionError",
    "NoWritesPerformed",
    "SystemOverloadedError",
    "RetryableError",
];
