//! Consistent reads of one collection: the current document, any earlier one, its history, and what a
//! client is missing. The HTTP API, the command line and the typed writer all answer from here, so
//! that there is one meaning of "current". All reads go to the primary; none of them writes.

mod archived;
mod error;
mod fold;
mod history;
mod missing;
mod moment;
mod suffix;
mod walk;

use bson::{DateTime, RawDocumentBuf};
use futures::future::try_join;
use mongodb::{
    Collection, Database,
    options::{CollectionOptions, ReadConcern, ReadPreference, SelectionCriteria},
};

pub use error::{ReadError, Result};
pub use history::{History, StoredEvent};
pub use missing::{Missing, MissingQuery};
pub use suffix::MissingEvent;

use crate::{
    archive::Archive,
    log::{
        self,
        mongo::{KnownLog, NamedLog},
    },
    model::{
        base::Base,
        document::{Document, FoldLimits, Quarantine},
        id::{DocumentId, INTEGER_MAX},
        position::LogId,
    },
    store::{QUARANTINE_COLLECTION, SKIPS_COLLECTION, format::FormatWatch},
};
use fold::{Stop, Until, fold};
use moment::{Moment, Pick, by_id, read_row};

/// Bounds of every answer.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimits {
    /// What a document may become; the same as the projection's.
    pub fold: FoldLimits,
    /// The most events in one answer, whatever was asked for.
    pub events_max: u32,
    /// The size of an answer's events beyond which it ends early, in bytes of BSON. The first event is
    /// always given.
    pub bytes_max: usize,
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self { fold: FoldLimits::default(), events_max: 10_000, bytes_max: 4 << 20 }
    }
}

/// How many events of a document are likely to wait for their projection.
const TAIL_EXPECTED: i64 = 100;

/// Reads one collection. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reader {
    database: Database,
    documents: Collection<RawDocumentBuf>,
    quarantine: Collection<RawDocumentBuf>,
    skips: Collection<RawDocumentBuf>,
    limits: ReadLimits,
    log: KnownLog,
    format: FormatWatch,
    archive: Option<Archive>,
}

/// A document at the newest version that the log gives it.
#[derive(Clone, Debug)]
pub struct Current {
    /// The projected document and what follows it in the log, folded.
    pub document: Document,
    /// The log that its events are in.
    pub log: LogId,
    /// How many of its events are not projected yet.
    pub pending: i64,
    /// What keeps it from going on, where its log does not simply end here: its next event cannot be applied, or is
    /// missing while later ones exist ([`Class::Gap`](crate::model::quarantine::Class::Gap)).
    pub waits: Option<Quarantine>,
}

/// A document as it is projected.
#[derive(Clone, Debug)]
pub struct Projected {
    /// Its row.
    pub document: Document,
    /// What it waits for, if it is parked or behind a gap.
    pub waits: Option<Quarantine>,
}

impl Reader {
    /// A reader of the configured collection `collection` (the name without a suffix).
    pub fn new(database: &Database, collection: &str, limits: ReadLimits) -> Self {
        // The primary alone can tell what is newest, whatever the connection string prefers.
        let options = CollectionOptions::builder()
            .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary))
            .read_concern(ReadConcern::majority())
            .build();
        Self {
            database: database.clone(),
            documents: database.collection_with_options(collection, options.clone()),
            quarantine: database.collection_with_options(QUARANTINE_COLLECTION, options.clone()),
            skips: database.collection_with_options(SKIPS_COLLECTION, options),
            limits,
            log: KnownLog::new(database, collection),
            format: FormatWatch::new(database),
            archive: None,
        }
    }

    /// The same, which reads earlier versions through this archive where the log no longer holds them.
    #[must_use]
    pub fn with_archive(self, archive: Option<Archive>) -> Self {
        Self { archive, ..self }
    }

    /// Whether earlier versions can be read through an archive.
    pub fn has_archive(&self) -> bool {
        self.archive.is_some()
    }

    /// The name of the collection.
    pub fn collection(&self) -> &str {
        self.documents.name()
    }

    /// Its database.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// The bounds of its answers.
    pub fn limits(&self) -> &ReadLimits {
        &self.limits
    }

    /// Looks at the format of the data at the first read and every hour. Every read begins with it, and so
    /// should whatever uses for long what it has read.
    ///
    /// # Errors
    /// [`ReadError::Newer`] when a later version of this program has taken the data over.
    pub async fn check_format(&self) -> Result<()> {
        self.format.check().await.map_err(ReadError::of_format)
    }

    /// The document as it is projected, at majority; `None` if it has no row yet. Events that were
    /// appended a moment ago may be missing from it: see [`Reader::current`].
    ///
    /// # Errors
    /// [`ReadError`] when the database refuses or the row is not a projected document.
    pub async fn document(&self, id: &DocumentId) -> Result<Option<Document>> {
        self.check_format().await?;
        let row = self.documents.find_one(by_id(id)).await?;
        row.as_deref().map(|row| read_row(id, row)).transpose()
    }

    /// The same with what it waits for, if it is parked or behind a gap by the record.
    ///
    /// # Errors
    /// As [`Reader::document`], or when the record is unreadable.
    pub async fn projected(&self, id: &DocumentId) -> Result<Option<Projected>> {
        let key = bson::doc! { "c": self.collection(), "d": id.to_bson() };
        let record = async {
            let record = self.quarantine.find_one(bson::doc! { "_id": key }).await?;
            Ok(record.as_deref().and_then(Quarantine::from_raw))
        };
        let (document, record) = try_join(self.document(id), record).await?;
        Ok(document.map(|document| {
            // A record may come a little before its row, and go a little after it.
            let record = record.filter(|mark| mark.version > document.version);
            let waits = document.quarantine.clone().or(record);
            Projected { document, waits }
        }))
    }

    /// The document with every majority-committed event of its log: the projected row and, folded into
    /// it, the events that are not projected yet, both of one moment. Stops where the projection would:
    /// before a gap, before an event that cannot be applied, at a parked document's version. `None` if
    /// there is no first event.
    ///
    /// # Errors
    /// [`ReadError`] when the database refuses or the row is not a projected document.
    pub async fn current(&self, id: &DocumentId) -> Result<Option<Current>> {
        self.check_format().await?;
        self.at_one_moment(|| async {
            let mut moment = Moment::open(self).await?;
            let row = moment.document(id).await?;
            self.with_tail(&mut moment, id, row).await
        })
        .await
    }

    /// The document as it was at `version` (from 1). `None` if it has no event at all.
    ///
    /// # Errors
    /// [`ReadError::VersionAhead`] when the document has not come that far, [`ReadError::BelowFloor`]
    /// when the log no longer holds the events.
    pub async fn at_version(&self, id: &DocumentId, version: i64) -> Result<Option<Document>> {
        self.check_format().await?;
        self.at_one_moment(|| self.fold_to_version(id, version)).await
    }

    /// The document as it was at `time`: after the longest run of its first events of which none is
    /// younger, by the writers' clocks. `None` if it had no event then.
    ///
    /// # Errors
    /// [`ReadError::BelowFloor`] when the log no longer holds the events.
    pub async fn at_time(&self, id: &DocumentId, time: DateTime) -> Result<Option<Document>> {
        self.check_format().await?;
        self.at_one_moment(|| self.fold_to_time(id, time)).await
    }

    /// The log that was found last, or the one that is there.
    async fn known_log(&self) -> Result<NamedLog> {
        let missing = || ReadError::NoLog(self.log.events());
        self.log.get().await?.ok_or_else(missing)
    }

    /// The row of a moment with what follows it in the log.
    async fn with_tail(
        &self,
        moment: &mut Moment<'_>,
        id: &DocumentId,
        row: Option<Document>,
    ) -> Result<Option<Current>> {
        let current = self.fold_tail(moment, id, row, Until::End).await?;
        if current.pending == 0 {
            return Ok((current.document.version > 0).then_some(current));
        }
        // A row that the server refuses is parked although its events fold: the record alone knows.
        let parked = moment.parked(id).await?;
        let tail = current.document.version - current.pending + 1..=current.document.version;
        let current = match parked.filter(|mark| tail.contains(&mark.version)) {
            Some(mark) => {
                let row = moment.document(id).await?;
                let folded =
                    self.fold_tail(moment, id, row, Until::Version(mark.version - 1)).await?;
                Current { waits: Some(mark), ..folded }
            }
            None => current,
        };
        Ok((current.document.version > 0).then_some(current))
    }

    async fn fold_tail(
        &self,
        moment: &mut Moment<'_>,
        id: &DocumentId,
        row: Option<Document>,
        until: Until,
    ) -> Result<Current> {
        let mut document = row.unwrap_or_else(|| log::history::start(id));
        let projected = document.version;
        let range = log::history::above(projected);
        let mut events = moment.events(id, range, Pick::Events, TAIL_EXPECTED).await?;
        let mut stop = fold(&mut document, &mut events, until, &self.limits.fold).await?;
        // A base may stand for what looks like a gap.
        if stop == Stop::Gap
            && let Some(base) =
                moment.base(id).await?.filter(|base| base.version > document.version)
        {
            document = from_base(&base)?;
            let range = log::history::above(document.version);
            let mut events = moment.events(id, range, Pick::Events, TAIL_EXPECTED).await?;
            stop = fold(&mut document, &mut events, until, &self.limits.fold).await?;
        }
        let waits = match stop {
            Stop::Reached | Stop::End => None,
            Stop::Gap => Some(Quarantine::gap(document.version + 1)),
            Stop::Poison(mark) => Some(mark),
        };
        let pending = document.version - projected;
        Ok(Current { document, log: moment.log(), pending, waits })
    }

    async fn fold_to_version(&self, id: &DocumentId, version: i64) -> Result<Option<Document>> {
        let mut moment = Moment::open(self).await?;
        let row = moment.document(id).await?;
        let projected = row.as_ref().map_or(0, |row| row.version);
        let mut document = match row {
            Some(row) if row.version <= version => row,
            _ => match moment.base(id).await? {
                Some(base) if version < base.version => {
                    let until = Until::Version(version);
                    return self.fold_archived(&mut moment, &base, until).await;
                }
                Some(base) => from_base(&base)?,
                None => log::history::start(id),
            },
        };
        let parked = moment.parked(id).await?.filter(|mark| mark.version > projected);
        let end = parked.as_ref().map_or(version, |mark| version.min(mark.version - 1));
        let expected = end - document.version;
        let range = document.version + 1..=end;
        let mut events = moment.events(id, range, Pick::Events, expected).await?;
        let until = Until::Version(version);
        let stop = fold(&mut document, &mut events, until, &self.limits.fold).await?;
        match stop {
            Stop::Reached => Ok((document.version > 0).then_some(document)),
            _ if document.version < projected => Err(below(stop, projected)),
            _ if document.version == 0 => Ok(None),
            Stop::Poison(mark) => Err(ahead(version, &document, Some(mark))),
            Stop::End | Stop::Gap => Err(ahead(version, &document, parked)),
        }
    }

    async fn fold_to_time(&self, id: &DocumentId, time: DateTime) -> Result<Option<Document>> {
        let mut moment = Moment::open(self).await?;
        let row = moment.document(id).await?;
        let projected = row.as_ref().map_or(0, |row| row.version);
        let parked = moment.parked(id).await?.filter(|mark| mark.version > projected);
        let end = parked.map_or(INTEGER_MAX, |mark| mark.version - 1);
        let mut document = match moment.base(id).await? {
            Some(base) if time < base.at_max => {
                return self.fold_archived(&mut moment, &base, Until::Time(time)).await;
            }
            Some(base) => from_base(&base)?,
            None => log::history::start(id),
        };
        let (range, expected) = (document.version + 1..=end, projected - document.version);
        let mut events = moment.events(id, range, Pick::Events, expected).await?;
        let stop = fold(&mut document, &mut events, Until::Time(time), &self.limits.fold).await?;
        if stop != Stop::Reached && document.version < projected {
            return Err(below(stop, projected));
        }
        Ok((document.version > 0).then_some(document))
    }
}

/// What a fold goes on from where the log begins with a base.
fn from_base(base: &Base) -> Result<Document> {
    base.document().map_err(|source| ReadError::Base { id: base.id.clone(), source })
}

/// A fold from the first event that did not come to the projected version.
fn below(stop: Stop, projected: i64) -> ReadError {
    match stop {
        Stop::Poison(poison) => ReadError::Unfoldable { poison, projected },
        Stop::Reached | Stop::End | Stop::Gap => ReadError::BelowFloor { floor: projected },
    }
}

fn ahead(asked: i64, document: &Document, poison: Option<Quarantine>) -> ReadError {
    ReadError::VersionAhead { asked, exists: document.version, poison }
}
