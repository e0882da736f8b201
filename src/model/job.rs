//! Jobs as data: what anybody may ask the leader of a collection to do, by inserting a row. Whatever was
//! inserted is read here, once, and refused with a sentence that says what a job looks like.

mod kind;

use bson::{RawBsonRef, RawDocument};

use super::id::{DocumentId, integral};
pub use kind::{Kind, Scope};

/// How a job ended. The set is closed: it is a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has a result.
    Done,
    /// It has an error.
    Failed,
    /// Somebody did not want it any more. What it had done stays.
    Cancelled,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Done, Self::Failed, Self::Cancelled];

    /// As it stands in rows, metrics and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The state of a job that nobody has begun. A row without a state is one.
pub const QUEUED: &str = "queued";
/// The state of a job that a leader is at, or was when it died.
pub const RUNNING: &str = "running";

/// Whether a job in this state has ended.
pub fn is_final(state: &str) -> bool {
    Outcome::ALL.iter().any(|outcome| outcome.name() == state)
}

/// The fields that whoever inserts a job sets, and those that its leader does.
const FIELDS: [&str; 22] = [
    "_id",
    "kind",
    "collection",
    "document",
    "version",
    "skip_above",
    "dry_run",
    "repair",
    "by",
    "deep",
    "state",
    "progress",
    "place",
    "tally",
    "result",
    "error",
    "owner",
    "epoch",
    "beat",
    "beat_at",
    "started_at",
    "finished_at",
];

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// What to do.
    pub kind: Kind,
    /// The configured collection.
    pub collection: String,
    /// The document, where only one is meant.
    pub document: Option<DocumentId>,
    /// What an operator does to a document that waits is done only while it waits for this version.
    pub version: Option<i64>,
    /// Whether everything above a gap that is filled is skipped.
    pub skip_above: bool,
    /// Whether what would be compacted is only told.
    pub dry_run: bool,
    /// Whether rows are made again that are not what their log makes of them.
    pub repair: bool,
    /// Who asks for it.
    pub by: Option<String>,
    /// Whether documents are folded from their very first event, through the archive.
    pub deep: bool,
}

/// Why a row is no job.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// The kind is absent, of another type, or unknown.
    #[error("`kind` is {0}; the kinds are {known}", known = kinds())]
    Kind(String),
    /// The collection is absent or no text.
    #[error(
        "`collection` is {0}; it must be the name of a configured collection, such as \"games\""
    )]
    Collection(String),
    /// No document can have this id.
    #[error("`document`: {0}")]
    Document(String),
    /// This kind is for whole collections.
    #[error("a job of kind \"{0}\" is for a whole collection; leave `document` out")]
    WholeOnly(&'static str),
    /// This kind is for one document.
    #[error("a job of kind \"{0}\" is for one document; give its id in `document`")]
    OneOnly(&'static str),
    /// No document can wait for this version.
    #[error(
        "`version` is {0}; give the version that the document waits for, an integer from 1 on, or leave it out"
    )]
    Version(String),
    /// This kind asks for no version.
    #[error("a job of kind \"{0}\" has no `version`; leave it out")]
    NoVersion(&'static str),
    /// It is done or not, and only by one kind.
    #[error("`{0}` is {1}; it is true or false, and only for a job of kind \"{2}\"")]
    Flag(&'static str, String, &'static str),
    /// Whoever asks is a name.
    #[error("`by` is {0}; it is a text that says who asks, or left out")]
    By(String),
    /// The state is unknown.
    #[error("`state` is {0}; leave it out: a job without a state waits for its turn")]
    State(String),
    /// A field that means nothing.
    #[error(
        "`{0}` is not a field of a job; a job is {{kind, collection, document?, version?, skip_above?, dry_run?, repair?, deep?, by?}}"
    )]
    Field(String),
}

impl Order {
    /// A job about a whole collection.
    pub fn new(kind: Kind, collection: &str) -> Self {
        let collection = collection.to_owned();
        let (repair, deep) = (kind == Kind::Rebuild, false);
        let (document, version, by) = (None, None, None);
        Self {
            kind,
            collection,
            document,
            version,
            skip_above: false,
            dry_run: false,
            repair,
            deep,
            by,
        }
    }

    /// Reads a row.
    ///
    /// # Errors
    /// [`OrderError`]: such a job can only fail.
    pub fn from_raw(row: &RawDocument) -> Result<Self, OrderError> {
        for element in row {
            let Ok((name, _)) = element else {
                return Err(OrderError::Field("(unreadable BSON)".into()));
            };
            if !FIELDS.contains(&name.as_str()) {
                return Err(OrderError::Field(name.as_str().to_owned()));
            }
        }
        let field = |name: &str| row.get(name).ok().flatten();
        let kind = match field("kind") {
            Some(RawBsonRef::String(name)) => Kind::from_name(name),
            _ => None,
        };
        let kind = kind.ok_or_else(|| OrderError::Kind(shown(field("kind"))))?;
        let Some(RawBsonRef::String(collection)) = field("collection") else {
            return Err(OrderError::Collection(shown(field("collection"))));
        };
        match field("state") {
            None | Some(RawBsonRef::Null) => {}
            Some(RawBsonRef::String(state))
                if state == QUEUED || state == RUNNING || is_final(state) => {}
            other => return Err(OrderError::State(shown(other))),
        }
        let document = match field("document") {
            None | Some(RawBsonRef::Null) => None,
            Some(id) => {
                let id = DocumentId::from_raw(id);
                Some(id.map_err(|error| OrderError::Document(error.to_string()))?)
            }
        };
        match (kind.scope(), &document) {
            (Scope::Whole, Some(_)) => return Err(OrderError::WholeOnly(kind.name())),
            (Scope::One, None) => return Err(OrderError::OneOnly(kind.name())),
            (Scope::Whole | Scope::Either, None) | (Scope::One | Scope::Either, Some(_)) => {}
        }
        let version = match field("version") {
            None | Some(RawBsonRef::Null) => None,
            Some(_) if kind.scope() != Scope::One || kind == Kind::Erase => {
                return Err(OrderError::NoVersion(kind.name()));
            }
            Some(value) => {
                let version = integral(value).filter(|version| *version >= 1);
                Some(version.ok_or_else(|| OrderError::Version(shown(Some(value))))?)
            }
        };
        let flag = |name: &'static str, of: Kind| match field(name) {
            None | Some(RawBsonRef::Null) => Ok(false),
            Some(RawBsonRef::Boolean(flag)) if kind == of => Ok(flag),
            other => Err(OrderError::Flag(name, shown(other), of.name())),
        };
        let by = match field("by") {
            None | Some(RawBsonRef::Null) => None,
            Some(RawBsonRef::String(by)) => Some(by.to_owned()),
            other => return Err(OrderError::By(shown(other))),
        };
        let (skip_above, dry_run) =
            (flag("skip_above", Kind::GapFill)?, flag("dry_run", Kind::Compact)?);
        let repair = flag("repair", Kind::Verify)? || kind == Kind::Rebuild;
        let deep = flag("deep", Kind::Verify)?;
        let collection = collection.to_owned();
        Ok(Self { kind, collection, document, version, skip_above, dry_run, repair, deep, by })
    }
}

/// The names of all kinds, as a sentence has them.
fn kinds() -> String {
    Kind::ALL.map(|kind| format!("\"{}\"", kind.name())).join(", ")
}

/// A value as it stands in an error, cut where it would fill it.
fn shown(value: Option<RawBsonRef<'_>>) -> String {
    match value {
        None => "missing".to_owned(),
        Some(RawBsonRef::String(text)) => {
            format!("{:?}", text.chars().take(100).collect::<String>())
        }
        Some(RawBsonRef::Null) => "null".to_owned(),
        Some(other) => format!("of type {:?}", other.element_type()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{Document, RawDocumentBuf, doc};

    fn read(row: Document) -> Result<Order, String> {
        let row = RawDocumentBuf::try_from(&row).unwrap();
        Order::from_raw(&row).map_err(|error| error.to_string())
    }

    #[test]
    fn a_row_of_kind_and_collection_is_a_job() {
        let order = |kind, document| Order { document, ..Order::new(kind, "games") };
        let whole = doc! { "_id": 1, "kind": "snapshot", "collection": "games", "document": null };
        assert_eq!(read(whole), Ok(order(Kind::Snapshot, None)));
        let one = doc! { "kind": "snapshot", "collection": "games", "document": 5.0 };
        assert_eq!(read(one), Ok(order(Kind::Snapshot, Some(DocumentId::Integer(5)))));
        let verify =
            doc! { "kind": "verify", "collection": "games", "state": "running", "epoch": 3 };
        assert_eq!(read(verify), Ok(order(Kind::Verify, None)));
        let skip = doc! { "kind": "skip", "collection": "games", "document": "a", "version": 4.0 };
        let a = Some(DocumentId::String("a".into()));
        assert_eq!(read(skip), Ok(Order { version: Some(4), ..order(Kind::Skip, a.clone()) }));
        let repair = doc! { "kind": "verify", "collection": "games", "repair": true };
        assert_eq!(read(repair), Ok(Order { repair: true, ..order(Kind::Verify, None) }));
        let deep = doc! { "kind": "verify", "collection": "games", "deep": true };
        assert_eq!(read(deep), Ok(Order { deep: true, ..order(Kind::Verify, None) }));
        let rebuild = doc! { "kind": "rebuild", "collection": "games" };
        assert_eq!(read(rebuild), Ok(Order { repair: true, ..order(Kind::Rebuild, None) }));
        let fill =
            doc! { "kind": "gap_fill", "collection": "games", "document": "a", "skip_above": true };
        assert_eq!(read(fill), Ok(Order { skip_above: true, ..order(Kind::GapFill, a) }));
    }

    #[test]
    fn whatever_else_is_refused_with_what_was_wrong() {
        for (row, told) in [
            (doc! {}, "`kind` is missing"),
            (doc! { "kind": "clean", "collection": "games" }, "`kind` is \"clean\""),
            (doc! { "kind": "erase", "collection": "games" }, "give its id in `document`"),
            (
                doc! { "kind": "erase", "collection": "games", "document": "a", "version": 3 },
                "has no `version`",
            ),
            (doc! { "kind": "verify", "collection": "games", "by": 1 }, "`by` is of type Int32"),
            (doc! { "kind": 5, "collection": "games" }, "`kind` is of type Int32"),
            (doc! { "kind": "verify" }, "`collection` is missing"),
            (doc! { "kind": "verify", "collection": ["games"] }, "`collection` is of type Array"),
            (doc! { "kind": "snapshot", "collection": "games", "document": 1.5 }, "`document`: "),
            (
                doc! { "kind": "rebuild", "collection": "games", "document": "a" },
                "leave `document` out",
            ),
            (
                doc! { "kind": "verify", "collection": "games", "repair": 1 },
                "`repair` is of type Int32",
            ),
            (
                doc! { "kind": "retry", "collection": "games", "repair": true },
                "only for a job of kind \"verify\"",
            ),
            (
                doc! { "kind": "rebuild", "collection": "games", "deep": true },
                "`deep` is of type Boolean; it is true or false, and only for a job of kind \"verify\"",
            ),
            (doc! { "kind": "gap_fill", "collection": "games" }, "give its id in `document`"),
            (
                doc! { "kind": "skip", "collection": "games", "document": "a", "version": 0 },
                "`version` is of type Int32",
            ),
            (
                doc! { "kind": "retry", "collection": "games", "document": "a", "version": 1 },
                "has no `version`",
            ),
            (
                doc! { "kind": "skip", "collection": "games", "document": "a", "skip_above": true },
                "only for a job of kind \"gap_fill\"",
            ),
            (
                doc! { "kind": "gap_fill", "collection": "games", "document": "a", "skip_above": 1 },
                "it is true or false",
            ),
            (
                doc! { "kind": "verify", "collection": "games", "state": "soon" },
                "`state` is \"soon\"",
            ),
            (
                doc! { "kind": "verify", "collection": "games", "dokument": 1 },
                "`dokument` is not a field",
            ),
        ] {
            let error = read(row.clone()).unwrap_err();
            assert!(error.contains(told), "{row}: {error}");
        }
    }
}
