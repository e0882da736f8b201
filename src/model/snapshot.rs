//! Snapshots as data: what a document was at a version, with the proof that it is still what was
//! written. A snapshot saves folding; it never replaces anything of the log.

use bson::{
    Binary, DateTime, RawBsonRef, RawDocument, RawDocumentBuf, raw::cstr, spec::BinarySubtype,
};
use sha2::{Digest, Sha256};

use super::{
    clock::Clock,
    document::{Body, Document, Youngest},
    id::{DocumentId, integral},
    row::RowError,
    sound,
    state::{State, StateError},
};

/// The schema of the fold: rises whenever the same events would give another state or clock. A
/// snapshot of another one is ignored.
pub const FOLD: i64 = 2;

/// Why a snapshot was taken. The set is closed: it is a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// So many events since the last one.
    Events,
    /// So much time since the last one.
    Time,
    /// Somebody asked for it.
    Request,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Events, Self::Time, Self::Request];

    /// As it stands in rows, metrics and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Time => "time",
            Self::Request => "request",
        }
    }

    /// The reason of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

/// What a document was at a version.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The document.
    pub id: DocumentId,
    /// Its version.
    pub version: i64,
    /// Its clock at that version.
    pub clock: Clock,
    /// Its state at that version; `None` when it was deleted.
    pub state: Option<RawDocumentBuf>,
    /// The youngest of its events up to that version, by their writers' clocks.
    pub at_max: DateTime,
    /// When it was taken, by the database's clock.
    pub taken_at: DateTime,
    /// Why.
    pub reason: Reason,
}

/// A projected row of which a snapshot is due.
#[derive(Clone, Debug, PartialEq)]
pub struct Due {
    /// The row, as the majority holds it.
    pub row: RawDocumentBuf,
    /// What the projection knows of the times of its events.
    pub youngest: Option<Youngest>,
}

/// Why a stored snapshot cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// A field is absent or has the wrong type.
    #[error("`{0}` is missing or has the wrong type")]
    Field(&'static str),
    /// Another version of this program folds differently.
    #[error("it was taken under fold {found}; this version folds under {FOLD}")]
    Fold {
        /// The fold that it was taken under.
        found: i64,
    },
    /// The content is not what was hashed.
    #[error("its hash does not fit its content: it was changed after it was taken, or is damaged")]
    Hash,
}

/// SHA-256 over the BSON of `{fold, version, clock, state}`, without `state` where there is none.
pub(super) fn content_hash(
    fold: i64,
    version: i64,
    clock: &Clock,
    state: Option<&RawDocument>,
) -> [u8; 32] {
    let mut content = RawDocumentBuf::new();
    content.append(cstr!("fold"), fold);
    content.append(cstr!("version"), version);
    content.append(cstr!("clock"), clock.to_raw());
    if let Some(state) = state {
        content.append(cstr!("state"), state.to_owned());
    }
    Sha256::digest(content.as_bytes()).into()
}

/// The document of this content, whose events are no younger than `at_max`, without the time of its last event.
///
/// # Errors
/// When the state is unreadable.
pub(super) fn content_document(
    id: &DocumentId,
    (version, clock, state): (i64, &Clock, Option<&RawDocument>),
    at_max: DateTime,
) -> Result<Document, StateError> {
    let state = state.map(State::from_raw).transpose()?;
    Ok(Document {
        version,
        clock: clock.clone(),
        body: state.map_or(Body::Deleted, Body::Live),
        youngest: Some(Youngest { above: 0, at: at_max }),
        ..Document::new(id.clone())
    })
}

impl Snapshot {
    /// The snapshot of a projected row, whose events are no younger than `at_max`.
    ///
    /// # Errors
    /// [`RowError`] when it is no projected row.
    pub fn of_row(
        row: &RawDocument,
        at_max: DateTime,
        taken_at: DateTime,
        reason: Reason,
    ) -> Result<Self, RowError> {
        let get = |field| row.get(field).map_err(|error| RowError::Malformed(error.to_string()));
        let id = DocumentId::from_raw(get("_id")?.ok_or(RowError::Field("_id"))?)?;
        let version = get("version")?.and_then(integral).ok_or(RowError::Field("version"))?;
        let clock = row.get_document("clock").map_err(|_| RowError::Field("clock"))?;
        let state = match get("state")? {
            Some(RawBsonRef::Document(state)) => Some(state.to_owned()),
            None if get("deleted")? == Some(RawBsonRef::Boolean(true)) => None,
            _ => return Err(RowError::Field("state")),
        };
        let clock = Clock::from_raw(clock)?;
        Ok(Self { id, version, clock, state, at_max, taken_at, reason })
    }

    /// The document to fold on from, without the time of its last event, which a snapshot does not keep.
    ///
    /// # Errors
    /// [`SnapshotError::Field`] when the state is unreadable.
    pub fn document(&self) -> Result<Document, SnapshotError> {
        let state = self.state.as_deref();
        content_document(&self.id, (self.version, &self.clock, state), self.at_max)
            .map_err(|_| SnapshotError::Field("state"))
    }

    /// SHA-256 over the BSON of `{fold, version, clock, state}`, without `state` when it was deleted.
    pub fn hash(&self) -> [u8; 32] {
        content_hash(FOLD, self.version, &self.clock, self.state.as_deref())
    }

    /// The key of its row: `{d, s}`.
    pub fn key(&self) -> RawDocumentBuf {
        let mut key = RawDocumentBuf::new();
        key.append(cstr!("d"), self.id.as_raw());
        key.append(cstr!("s"), self.version);
        key
    }

    /// The row: `{_id: {d, s}, clock, state | deleted, at_max, hash, fold, taken_at, reason}`.
    pub fn to_raw(&self) -> RawDocumentBuf {
        let mut row = RawDocumentBuf::new();
        row.append(cstr!("_id"), self.key());
        row.append(cstr!("clock"), self.clock.to_raw());
        match &self.state {
            Some(state) => row.append(cstr!("state"), state.clone()),
            None => row.append(cstr!("deleted"), true),
        }
        row.append(cstr!("at_max"), self.at_max);
        let hash = Binary { subtype: BinarySubtype::Generic, bytes: self.hash().to_vec() };
        row.append(cstr!("hash"), hash);
        row.append(cstr!("fold"), FOLD);
        row.append(cstr!("taken_at"), self.taken_at);
        row.append(cstr!("reason"), self.reason.name());
        row
    }

    /// Reads a row back and proves its content by its hash.
    ///
    /// # Errors
    /// [`SnapshotError`]: it must not be used.
    pub fn from_raw(row: &RawDocument) -> Result<Self, SnapshotError> {
        let field =
            |name: &'static str| row.get(name).ok().flatten().ok_or(SnapshotError::Field(name));
        let fold = field("fold").ok().and_then(integral).ok_or(SnapshotError::Field("fold"))?;
        if fold != FOLD {
            return Err(SnapshotError::Fold { found: fold });
        }
        let key = field("_id")?.as_document().ok_or(SnapshotError::Field("_id"))?;
        let part = |name| key.get(name).ok().flatten();
        let id = part("d").and_then(|id| DocumentId::from_raw(id).ok());
        let version = part("s").and_then(integral);
        let clock = field("clock")?.as_document().and_then(|clock| Clock::from_raw(clock).ok());
        let state = match field("state") {
            // One of another fold may have been taken of what is no state any more.
            Ok(RawBsonRef::Document(state)) if sound::check(state).is_ok() => {
                Some(state.to_owned())
            }
            Err(_) if field("deleted") == Ok(RawBsonRef::Boolean(true)) => None,
            _ => return Err(SnapshotError::Field("state")),
        };
        let time =
            |name: &'static str| field(name)?.as_datetime().ok_or(SnapshotError::Field(name));
        let reason = field("reason")?.as_str().and_then(Reason::from_name);
        let snapshot = Self {
            id: id.ok_or(SnapshotError::Field("_id.d"))?,
            version: version.ok_or(SnapshotError::Field("_id.s"))?,
            clock: clock.ok_or(SnapshotError::Field("clock"))?,
            state,
            at_max: time("at_max")?,
            taken_at: time("taken_at")?,
            reason: reason.ok_or(SnapshotError::Field("reason"))?,
        };
        match field("hash")? {
            RawBsonRef::Binary(hash) if hash.bytes == snapshot.hash() => Ok(snapshot),
            RawBsonRef::Binary(_) => Err(SnapshotError::Hash),
            _ => Err(SnapshotError::Field("hash")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{doc, rawdoc};

    fn row() -> RawDocumentBuf {
        rawdoc! {
            "_id": "a", "version": 3_i64, "clock": { "x": 2_i64, "y": 1_i64 },
            "state": { "n": 1, "$odd": [1, 2] }, "updated_at": DateTime::from_millis(5),
        }
    }

    fn snapshot(row: &RawDocument) -> Snapshot {
        let (at_max, taken_at) = (DateTime::from_millis(7), DateTime::from_millis(9));
        Snapshot::of_row(row, at_max, taken_at, Reason::Events).unwrap()
    }

    #[test]
    fn a_row_read_back_is_the_snapshot_that_was_written() {
        let deleted =
            rawdoc! { "_id": 5, "version": 1_i64, "clock": { "x": 1_i64 }, "deleted": true };
        for snapshot in [snapshot(&row()), snapshot(&deleted)] {
            assert_eq!(Snapshot::from_raw(&snapshot.to_raw()), Ok(snapshot.clone()));
            let document = snapshot.document().unwrap();
            assert_eq!(document.is_deleted(), snapshot.state.is_none());
            assert_eq!(document.state().map(State::to_raw), snapshot.state);
        }
    }

    #[test]
    fn the_hash_is_that_of_the_four_fields_and_the_same_in_every_version_of_this_program() {
        let content = doc! {
            "fold": 2_i64, "version": 3_i64, "clock": { "x": 2_i64, "y": 1_i64 },
            "state": { "n": 1, "$odd": [1, 2] },
        };
        let bytes = content.to_vec().unwrap();
        assert_eq!(snapshot(&row()).hash()[..], Sha256::digest(bytes)[..]);
        let hex: String =
            snapshot(&row()).hash().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, PINNED);
    }

    /// Computed with pymongo's `bson.encode` and `hashlib`.
    const PINNED: &str = "74eae92bf2f8504b971add485e32399f110edf106d49c355ea5e06d7512fed48";

    #[test]
    fn what_was_changed_or_comes_from_another_fold_is_not_used() {
        let stored = bson::Document::try_from(snapshot(&row()).to_raw()).unwrap();
        let changed = |field: &str, value: bson::Bson| {
            let mut row = stored.clone();
            row.insert(field, value);
            Snapshot::from_raw(&RawDocumentBuf::try_from(&row).unwrap())
        };
        assert_eq!(changed("state", doc! { "n": 2 }.into()), Err(SnapshotError::Hash));
        assert_eq!(changed("clock", doc! { "x": 3_i64 }.into()), Err(SnapshotError::Hash));
        let key = doc! { "d": "a", "s": 4_i64 };
        assert_eq!(changed("_id", key.into()), Err(SnapshotError::Hash));
        assert_eq!(changed("fold", 1_i64.into()), Err(SnapshotError::Fold { found: 1 }));
        assert_eq!(changed("reason", "whim".into()), Err(SnapshotError::Field("reason")));
        assert_eq!(changed("at_max", 5.into()), Err(SnapshotError::Field("at_max")));
        assert!(changed("reason", "time".into()).is_ok());
    }
}
