//! The one place that decides what a database error means: try again, catch up from the log, or stop
//! with advice. Everything that talks to MongoDB returns this error, and nothing decides by the text of one.

use std::fmt;

use mongodb::error::{ErrorKind, WriteFailure};

use super::{code, reply, words};
use crate::model::position::LogId;

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may pass by itself: back off and try again.
    Retry,
    /// The stream cannot be resumed where it was: scan the log against the documents, then tail again.
    CatchUp,
    /// The saved token belongs to another set of collections: resume by cluster time.
    Reposition,
    /// One entry of the stream is larger than the server can send: leave bodies out and fetch them by key.
    Oversized,
    /// Trying again cannot help. The sentence says what an operator can do.
    Stop(&'static str),
}

/// An error of the database, or on the way to it.
#[derive(Clone, Debug)]
pub struct Error {
    code: Option<i32>,
    verdict: Verdict,
    blames: Blames,
    message: String,
}

/// What an error may be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blames {
    /// The server, the connection or the moment, whatever was sent.
    Moment,
    /// What was sent, for all that is known.
    Sent,
    /// The collection, which takes no write, whatever is sent.
    Collection,
}

/// What a database call gives.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The class of an error that trying again cannot help.
    pub const REFUSED: &'static str = "refused";

    /// The classes of errors that pass by themselves.
    pub const PASSING: [&'static str; 5] =
        ["unavailable", "history_lost", "token_mismatch", "oversized", Self::UNWRITABLE];

    /// All classes.
    pub const CLASSES: [&'static str; 6] = [
        Self::PASSING[0],
        Self::PASSING[1],
        Self::PASSING[2],
        Self::PASSING[3],
        Self::UNWRITABLE,
        Self::REFUSED,
    ];

    /// The class of an error with which a collection refuses every write.
    pub const UNWRITABLE: &'static str = "unwritable";

    /// An error that the server reported under `code`. What its message repeats of commands and documents is left out.
    pub fn server(code: i32, message: impl Into<String>) -> Self {
        let is_of_moment = code::is_passing(code) || NOT_OF_A_ROW.contains(&code);
        let blames = if is_of_moment { Blames::Moment } else { Blames::Sent };
        let message = words::brief(&message.into());
        Self { code: Some(code), verdict: verdict_of(code), blames, message }
    }

    /// The server could not be reached, or the connection broke: the outcome is unknown.
    pub fn unreachable(message: impl Into<String>) -> Self {
        let (verdict, blames) = (Verdict::Retry, Blames::Moment);
        Self { code: None, verdict, blames, message: message.into() }
    }

    /// The server answered something that this program cannot read.
    pub fn damaged(message: impl Into<String>) -> Self {
        let advice =
            "the data was not written by this program or is damaged; see the message for the place";
        Self::stop(message, advice)
    }

    /// Going on would be wrong: `message` says why, `advice` what an operator can do.
    pub fn stop(message: impl Into<String>, advice: &'static str) -> Self {
        let (verdict, blames) = (Verdict::Stop(advice), Blames::Moment);
        Self { code: None, verdict, blames, message: message.into() }
    }

    /// The log `events` with this identity is not there under its name.
    pub fn log_mismatch(events: &str, id: LogId) -> Self {
        let message = format!("the log `{events}` (UUID {id}) was dropped, renamed or replaced");
        Self::server(code::LOG_MISMATCH, message)
    }

    /// The same error, when it comes from opening a stream at a saved token. A token that the server
    /// cannot read is treated like one that the oplog no longer holds: the log is scanned. So a damaged
    /// token never stops a collection.
    #[must_use]
    pub fn of_token(mut self) -> Self {
        if self.code.is_some_and(|code| UNREADABLE_TOKEN.contains(&code)) {
            self.verdict = Verdict::CatchUp;
        }
        self
    }

    /// The same error, of which it is known that it would come whatever was sent.
    #[must_use]
    pub fn whatever_was_sent(self) -> Self {
        Self { blames: Blames::Moment, ..self }
    }

    /// The same error, when the collection refuses every other write as well: nothing that was sent is at fault, and it is
    /// tried again, unless the server says that this cannot help.
    #[must_use]
    pub fn of_collection(self) -> Self {
        match self.verdict {
            Verdict::Stop(_) => self,
            _ => Self { verdict: Verdict::Retry, blames: Blames::Collection, ..self },
        }
    }

    /// Whether what was sent may be the reason.
    pub fn may_be_of_what_was_sent(&self) -> bool {
        self.blames == Blames::Sent
    }

    /// The server's number of the error, if it came from there.
    pub fn code(&self) -> Option<i32> {
        self.code
    }

    /// What it says.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// A short name of the kind of error, for logs and status.
    pub fn class(&self) -> &'static str {
        match self.verdict {
            Verdict::Retry if self.blames == Blames::Collection => Self::UNWRITABLE,
            Verdict::Retry => Self::PASSING[0],
            Verdict::CatchUp => Self::PASSING[1],
            Verdict::Reposition => Self::PASSING[2],
            Verdict::Oversized => Self::PASSING[3],
            Verdict::Stop(_) => Self::REFUSED,
        }
    }

    /// What an operator can do, in one sentence.
    pub fn advice(&self) -> &'static str {
        match self.verdict {
            Verdict::Retry if self.code == Some(code::NO_INDEX) => {
                "start the server without `notablescan`, or turn that parameter off: small collections are read without an index"
            }
            Verdict::Retry if self.blames == Blames::Collection => {
                "the server refuses every write to this collection, so no document is parked for it: see the message, and put right what it names; it is tried again with growing pauses"
            }
            Verdict::Retry => {
                "nothing to do if it passes: it is tried again with growing pauses; otherwise check that MongoDB is up, has a primary and takes further connections (`--maxConns`)"
            }
            Verdict::CatchUp => {
                "nothing to do: the log is scanned against the documents; if this repeats, enlarge the oplog"
            }
            Verdict::Reposition => "nothing to do: the stream is resumed by cluster time",
            Verdict::Oversized => {
                "nothing to do: bodies are fetched by key; keep events well below 16 MB"
            }
            Verdict::Stop(advice) => advice,
        }
    }
}

/// Unauthorized, AuthenticationFailed, AtlasError and a log that is away: whatever is sent, it is refused.
const NOT_OF_A_ROW: [i32; 4] = [code::UNAUTHORIZED, 18, 8000, code::LOG_MISMATCH];

/// FailedToParse, TypeMismatch, Overflow and what the parsers of tokens and of key strings report
/// (measured on 6.0.5 with tokens cut off, replaced and emptied).
const UNREADABLE_TOKEN: [i32; 7] = [9, 14, 15, 40647, 40648, 40649, 50811];

/// Codes of MongoDB: <https://www.mongodb.com/docs/manual/reference/error-codes/>.
fn verdict_of(code: i32) -> Verdict {
    match code {
        // ChangeStreamHistoryLost, CappedPositionLost, InvalidResumeToken, a resume point that is gone.
        286 | 136 | 260 | 40576 | 40615 => Verdict::CatchUp,
        // ChangeStreamFatalError: a token taken under another pipeline.
        280 => Verdict::Reposition,
        // BSONObjectTooLarge
        10334 => Verdict::Oversized,
        code::UNAUTHORIZED => Verdict::Stop(
            "grant the user of mongodb.uri the role that `alluvium init --roles` prints for it; if it has that role, update it: a later version may need more",
        ),
        18 => Verdict::Stop("check user name, password and authSource of the connection string"),
        8000 => Verdict::Stop("check user name and password of the connection string"),
        // CommandNotSupportedOnView, InvalidOptions, BadValue, FailedToParse, TypeMismatch, IllegalOperation,
        // UnauthorizedForResource, DocumentValidationFailure, NamespaceExists.
        166 | 72 | 2 | 9 | 14 | 20 | 121 | 48 | 40573 => {
            Verdict::Stop("the server refuses the request itself; the message says why")
        }
        code::LOG_MISMATCH => Verdict::Stop(
            "the documents stay as they are; bring the log back under its name, and the projection goes on by itself",
        ),
        _ => Verdict::Retry,
    }
}

/// Whether a read that failed like this is worth sending again at once: the connection broke, or the server is no longer
/// the primary. The same list as the driver's own, from the specification of retryable reads.
pub fn is_retryable_read(error: &mongodb::error::Error) -> bool {
    match *error.kind {
        ErrorKind::Io(_) | ErrorKind::ConnectionPoolCleared { .. } => true,
        // HostUnreachable, HostNotFound, NetworkTimeout, ShutdownInProgress, ReadConcernMajorityNotAvailableYet,
        // PrimarySteppedDown, SocketException, NotWritablePrimary, InterruptedAtShutdown, InterruptedDueToReplStateChange,
        // NotPrimaryNoSecondaryOk, NotPrimaryOrSecondary.
        ErrorKind::Command(ref command) => matches!(
            command.code,
            6 | 7 | 89 | 91 | 134 | 189 | 9001 | 10107 | 11600 | 11602 | 13435 | 13436
        ),
        _ => false,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "{} (code {code})", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Error {}

impl From<mongodb::error::Error> for Error {
    fn from(error: mongodb::error::Error) -> Self {
        if let Some((code, said)) = reply::failure(&error) {
            return Self::server(code, said);
        }
        let message = words::of(&error);
        let is_passing = code::PASSING_LABELS.iter().any(|label| error.contains_label(label));
        match *error.kind {
            ErrorKind::Command(ref command) if is_passing => {
                Self::server(command.code, message).whatever_was_sent()
            }
            ErrorKind::Command(ref command) => Self::server(command.code, message),
            ErrorKind::Authentication { .. } => Self::server(18, message),
            ErrorKind::Write(WriteFailure::WriteError(ref write)) => {
                Self::server(write.code, message)
            }
            ErrorKind::Write(WriteFailure::WriteConcernError(ref concern)) => {
                Self::server(concern.code, message).whatever_was_sent()
            }
            ErrorKind::InsertMany(ref insert) => {
                let first = insert.write_errors.as_ref().and_then(|errors| errors.first());
                let concern = insert.write_concern_error.as_ref();
                match first.map(|write| write.code).or(concern.map(|concern| concern.code)) {
                    Some(code) => Self::server(code, message),
                    None => Self::unreachable(message),
                }
            }
            ErrorKind::InvalidArgument { .. }
            | ErrorKind::BsonDeserialization(_)
            | ErrorKind::BsonSerialization(_)
            | ErrorKind::Bson(_) => Self::damaged(message),
            _ => Self::unreachable(message),
        }
    }
}

impl From<bson::error::Error> for Error {
    fn from(error: bson::error::Error) -> Self {
        Self::damaged(error.to_string())
    }
}
