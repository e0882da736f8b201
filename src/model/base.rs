//! Bases: what a document was at a version, in its log, in the place of its first event. A base stands for everything up
//! to its version, so that those events need not stay. A log with its bases is complete in itself: rows and snapshots are
//! made again from it.

use bson::{
    Binary, DateTime, RawBson, RawBsonRef, RawDocument, RawDocumentBuf, Uuid, raw::cstr, rawdoc,
    spec::BinarySubtype,
};

use super::{
    clock::Clock,
    document::{Document, Outcome},
    event::{BASE_OP, EventKey, claimed_version, is_base},
    id::{DocumentId, integral},
    quarantine::{Class, Quarantine},
    skip::FILLER_CLIENT,
    snapshot::{FOLD, content_document, content_hash},
    sound,
    state::State,
};

/// The least version of a base: its event stays, so that below it there has to be another.
pub const VERSION_MIN: i64 = 2;

/// What a document was at a version, in the place of its first event.
#[derive(Clone, Debug, PartialEq)]
pub struct Base {
    /// The `_id`, byte for byte that of the first event.
    pub key: RawDocumentBuf,
    /// The document.
    pub id: DocumentId,
    /// Its version. What stands for it in the log begins with the event of this version.
    pub version: i64,
    /// Its clock at that version.
    pub clock: Clock,
    /// Its state at that version; `None` when it was deleted.
    pub state: Option<RawDocumentBuf>,
    /// The writer's time of the event at that version.
    pub at: DateTime,
    /// The youngest of the events up to that version, by their writers' clocks.
    pub at_max: DateTime,
    /// The schema of the fold that it was made by. A base of any is read for ever.
    pub fold: i64,
    /// The events above the first, up to this version, are gone.
    pub pruned: i64,
    /// When it was written, by the database's clock.
    pub based_at: DateTime,
    /// The writer's own mark on the first event, so that he knows it for his.
    pub mark: Option<RawBson>,
    /// The version up to which the content of the document was erased; 0 where it never was. Later bases know it too, so
    /// that nothing of it is kept that comes late.
    pub erased_through: i64,
}

/// Why a base cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BaseError {
    /// A field is absent or has the wrong type.
    #[error("`{0}` of the base is missing or not usable")]
    Field(&'static str),
    /// The clock does not sum to the version.
    #[error("the clock of the base sums to {total}, but its version is {version}")]
    Sum {
        /// The sum.
        total: i64,
        /// The version.
        version: i64,
    },
    /// The content is not what was hashed.
    #[error(
        "the hash of the base does not fit its content: it was changed after it was written, or is damaged"
    )]
    Hash,
}

impl Base {
    /// The base of a document as it was folded, whose first event is `first`, or an earlier base. `None` where none can be:
    /// at a version too low, or without a usable time.
    pub fn of(document: &Document, first: &RawDocument, based_at: DateTime) -> Option<Self> {
        let youngest = document.youngest.filter(|youngest| youngest.above == 0)?;
        let key = first.get_document("_id").ok()?.to_owned();
        let mark = first.get("id").ok()?.map(TryInto::try_into).transpose().ok()?;
        let pruned = match is_base(first) {
            true => first.get("pruned").ok().flatten().and_then(integral)?,
            false => 1,
        };
        (document.version >= VERSION_MIN).then_some(Self {
            key,
            id: document.id.clone(),
            version: document.version,
            clock: document.clock.clone(),
            state: document.state().map(State::to_raw),
            at: document.updated_at?,
            at_max: youngest.at,
            fold: FOLD,
            pruned,
            based_at,
            mark,
            erased_through: erased_through(first),
        })
    }

    /// SHA-256 over the BSON of `{fold, version, clock, state}`, without `state` when it was deleted.
    pub fn hash(&self) -> [u8; 32] {
        content_hash(self.fold, self.version, &self.clock, self.state.as_deref())
    }

    /// The document to fold on from.
    ///
    /// # Errors
    /// [`BaseError::Field`] when the state is unreadable.
    pub fn document(&self) -> Result<Document, BaseError> {
        let state = self.state.as_deref();
        let document = content_document(&self.id, (self.version, &self.clock, state), self.at_max)
            .map_err(|_| BaseError::Field("state"))?;
        Ok(Document { updated_at: Some(self.at), ..document })
    }

    /// As it stands in the log: `{_id, client, op, version, clock, state | deleted, at, at_max, hash, fold, pruned, based_at,
    /// id?, erased?, erased_through?}`.
    pub fn to_raw(&self) -> RawDocumentBuf {
        let mut raw = rawdoc! {
            "_id": self.key.clone(), "client": FILLER_CLIENT, "op": BASE_OP, "version": self.version,
            "clock": self.clock.to_raw(),
        };
        match &self.state {
            Some(state) => raw.append(cstr!("state"), state.clone()),
            None => raw.append(cstr!("deleted"), true),
        }
        raw.append(cstr!("at"), self.at);
        raw.append(cstr!("at_max"), self.at_max);
        let hash = Binary { subtype: BinarySubtype::Generic, bytes: self.hash().to_vec() };
        raw.append(cstr!("hash"), hash);
        raw.append(cstr!("fold"), self.fold);
        raw.append(cstr!("pruned"), self.pruned);
        raw.append(cstr!("based_at"), self.based_at);
        if let Some(mark) = &self.mark {
            raw.append(cstr!("id"), mark.clone());
        }
        if self.is_erased() {
            raw.append(cstr!("erased"), true);
        }
        if self.erased_through > 0 {
            raw.append(cstr!("erased_through"), self.erased_through);
        }
        raw
    }

    /// Reads a base and proves its content by its hash.
    ///
    /// # Errors
    /// [`BaseError`]: it must not be used.
    pub fn from_raw(raw: &RawDocument) -> Result<Self, BaseError> {
        sound::check(raw).map_err(|_| BaseError::Field("state"))?;
        let field = |name: &'static str| raw.get(name).ok().flatten();
        let need = |name| field(name).ok_or(BaseError::Field(name));
        let number = |name| field(name).and_then(integral).ok_or(BaseError::Field(name));
        let time = |name| need(name)?.as_datetime().ok_or(BaseError::Field(name));
        let key = need("_id")?.as_document().ok_or(BaseError::Field("_id"))?;
        let EventKey { document: id, version: first } =
            EventKey::from_raw(key).map_err(|_| BaseError::Field("_id"))?;
        if !is_base(raw) || first != 1 {
            return Err(BaseError::Field("op"));
        }
        let clock = need("clock")?.as_document().ok_or(BaseError::Field("clock"))?;
        let state = match (field("state"), field("deleted")) {
            (Some(RawBsonRef::Document(state)), None) => Some(state.to_owned()),
            (None, Some(RawBsonRef::Boolean(true))) => None,
            _ => return Err(BaseError::Field("state")),
        };
        let mark = field("id").map(TryInto::try_into).transpose();
        let base = Self {
            key: key.to_owned(),
            id,
            version: number("version")?,
            clock: Clock::from_raw(clock).map_err(|_| BaseError::Field("clock"))?,
            state,
            at: time("at")?,
            at_max: time("at_max")?,
            fold: number("fold")?,
            pruned: number("pruned")?,
            based_at: time("based_at")?,
            mark: mark.map_err(|_| BaseError::Field("id"))?,
            erased_through: erased_through(raw),
        };
        base.check(need("hash")?)?;
        Ok(base)
    }

    fn check(&self, hash: RawBsonRef<'_>) -> Result<(), BaseError> {
        let (total, version) = (self.clock.total(), self.version);
        if version < VERSION_MIN {
            return Err(BaseError::Field("version"));
        }
        if !(1..version).contains(&self.pruned) {
            return Err(BaseError::Field("pruned"));
        }
        if total != version {
            return Err(BaseError::Sum { total, version });
        }
        match hash {
            RawBsonRef::Binary(hash) if hash.bytes == self.hash() => Ok(()),
            RawBsonRef::Binary(_) => Err(BaseError::Hash),
            _ => Err(BaseError::Field("hash")),
        }
    }

    /// The same base after an erasure of everything up to `through`. Whoever wrote the first event does not find his mark
    /// again: that may be content as well. One by lot takes its place, for a log may have a unique index on marks.
    #[must_use]
    pub fn erased(self, through: i64) -> Self {
        let mark = self.mark.map(|_| RawBson::Binary(Uuid::new().into()));
        Self { erased_through: self.erased_through.max(through), mark, ..self }
    }

    /// Whether it stands for a document whose content was erased.
    pub fn is_erased(&self) -> bool {
        self.erased_through == self.version
    }

    /// What goes on record of an event that came late: all of it; or of an erased place, that there was one.
    pub fn kept_of(&self, event: &RawDocument) -> RawDocumentBuf {
        let version = EventKey::from_event(event).map_or(0, |key| key.version);
        if version > self.erased_through {
            return event.to_owned();
        }
        let mut kept = RawDocumentBuf::new();
        for (name, value) in event.iter().flatten() {
            if ["_id", "client", "op", "at"].contains(&name.as_str()) {
                kept.append(name, value);
            }
        }
        kept.append(cstr!("erased"), true);
        kept
    }

    /// Whether the events that it stands for are gone, but for its own.
    pub fn is_pruned(&self) -> bool {
        self.pruned + 1 >= self.version
    }
}

fn erased_through(raw: &RawDocument) -> i64 {
    let version = raw.get("erased_through").ok().flatten().and_then(integral);
    version.filter(|version| *version > 0).unwrap_or_default()
}

impl Document {
    /// A base stands for all that a document below it lacks up to there.
    pub(super) fn take_base(&mut self, raw: &RawDocument) -> Outcome {
        if claimed_version(raw) <= self.version {
            return Outcome::Replay;
        }
        if self.quarantine.is_some() {
            return Outcome::Parked;
        }
        match Base::from_raw(raw).and_then(|base| base.document()) {
            Ok(document) => {
                *self = document;
                Outcome::Based
            }
            Err(error) => {
                let (class, version) = (Class::BadBase, self.version + 1);
                Outcome::Poison(Quarantine { class, version, reason: error.to_string() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::document::{FoldLimits, Outcome, Quarantine};
    use crate::model::quarantine::Class;
    use bson::{Document as Fields, doc};

    fn event(version: i64, fields: Fields) -> RawDocumentBuf {
        let mut event = doc! {
            "_id": { "d": "a", "s": version as i32 }, "client": "x", "at": DateTime::from_millis(10 - version),
        };
        event.extend(fields);
        RawDocumentBuf::try_from(&event).unwrap()
    }

    fn log() -> Vec<RawDocumentBuf> {
        let inc = || doc! { "op": "update", "patch": { "$inc": { "n": 1 } } };
        vec![
            event(1, doc! { "op": "create", "state": { "n": 0 }, "id": "mine" }),
            event(2, inc()),
            event(3, inc()),
            event(4, doc! { "op": "delete" }),
        ]
    }

    fn offer(document: &mut Document, raw: &RawDocument) -> Outcome {
        let key = EventKey::from_event(raw).unwrap();
        document.offer(&key, raw, false, &FoldLimits::default())
    }

    fn folded(events: &[RawDocumentBuf]) -> Document {
        let mut document = Document::new(DocumentId::String("a".into()));
        events.iter().for_each(|event| drop(offer(&mut document, event)));
        document
    }

    fn base(version: usize) -> Base {
        let log = log();
        Base::of(&folded(&log[..version]), &log[0], DateTime::from_millis(99)).unwrap()
    }

    #[test]
    fn what_is_read_back_is_what_was_written_and_the_first_key_keeps_its_bytes() {
        for version in [2, 3, 4] {
            let base = base(version);
            assert_eq!(Base::from_raw(&base.to_raw()).as_ref(), Ok(&base));
            assert_eq!(&*base.key, log()[0].get_document("_id").unwrap());
            assert_eq!(base.mark, Some(RawBson::String("mine".into())));
            assert_eq!(base.at_max, DateTime::from_millis(9));
            assert_eq!((base.pruned, base.is_pruned()), (1, version == 2));
        }
        assert_eq!(Base::of(&folded(&log()[..1]), &log()[0], DateTime::MIN), None);
    }

    #[test]
    fn a_fold_from_a_base_gives_the_bytes_of_a_fold_of_everything() {
        let log = log();
        for version in [2, 3, 4] {
            let mut document = folded(&[base(version).to_raw()]);
            assert_eq!(document.version, version as i64);
            // What is left below it, and its own event, are replays.
            for event in &log[1..version] {
                assert_eq!(offer(&mut document, event), Outcome::Replay);
            }
            log[version..].iter().for_each(|event| drop(offer(&mut document, event)));
            assert_eq!(document.to_raw(), folded(&log).to_raw());
            assert_eq!(document.youngest, folded(&log).youngest);
            // A document above it passes it over, one below takes it up.
            assert_eq!(offer(&mut document, &base(version).to_raw()), Outcome::Replay);
            let mut below = folded(&log[..1]);
            assert_eq!(offer(&mut below, &base(version).to_raw()), Outcome::Based);
            assert_eq!(below.to_raw(), folded(&log[..version]).to_raw());
        }
    }

    #[test]
    fn a_base_that_is_not_what_was_written_parks_its_document_as_bad_base() {
        let stored = Fields::try_from(base(3).to_raw()).unwrap();
        let changed = |field: &str, value: bson::Bson| {
            let mut raw = stored.clone();
            raw.insert(field, value);
            let raw = RawDocumentBuf::try_from(&raw).unwrap();
            let mut document = Document::new(DocumentId::String("a".into()));
            match offer(&mut document, &raw) {
                Outcome::Poison(Quarantine { class: Class::BadBase, version: 1, .. }) => {}
                other => panic!("{other:?}"),
            }
            Base::from_raw(&raw).unwrap_err()
        };
        assert_eq!(changed("state", doc! { "n": 7 }.into()), BaseError::Hash);
        assert_eq!(changed("clock", doc! { "y": 3_i64 }.into()), BaseError::Hash);
        assert_eq!(changed("fold", 1_i64.into()), BaseError::Hash);
        let sum = BaseError::Sum { total: 3, version: 4 };
        assert_eq!(changed("version", 4_i64.into()), sum);
        assert_eq!(changed("pruned", 3_i64.into()), BaseError::Field("pruned"));
        assert_eq!(changed("deleted", true.into()), BaseError::Field("state"));
        assert_eq!(changed("based_at", 1.into()), BaseError::Field("based_at"));
        assert_eq!(changed("hash", "no".into()), BaseError::Field("hash"));
    }

    #[test]
    fn a_base_of_another_fold_is_proven_by_that_one() {
        let other = Base { fold: FOLD + 1, ..base(3) };
        assert_eq!(Base::from_raw(&other.to_raw()), Ok(other));
    }
}
