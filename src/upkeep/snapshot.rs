//! Taking the snapshot of one document on request: its projected row, proved by a fresh fold of its log.

use bson::{RawDocument, RawDocumentBuf};

use super::fold::{Stop, read_on};
use crate::{
    database,
    log::{LogSource, history},
    metrics::CollectionMetrics,
    model::{
        diff::first_difference,
        document::Document,
        id::{DocumentId, integral},
        row::RowError,
        snapshot::{Reason, Snapshot},
    },
    store::{Documents, PutOutcome, SkipRows, Snapshots},
};

/// What taking snapshots of one collection needs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Snapshotter<S: LogSource, D> {
    /// The collection.
    pub collection: String,
    /// Where its log is.
    pub source: S,
    /// The rows, and where snapshots go.
    pub store: D,
    /// Counts what was taken.
    pub metrics: CollectionMetrics,
    /// How many of the newest snapshots of each document are kept.
    pub keep: u32,
}

/// A snapshot, and whether it was there before.
#[derive(Clone, Debug, PartialEq)]
pub struct Taken {
    /// The snapshot, as it is stored.
    pub snapshot: Snapshot,
    /// Whether this call has stored it.
    pub is_new: bool,
}

/// Why there is no snapshot.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TakeError {
    /// There is no row.
    #[error("document {0} has no projected row: it was never written, or is not projected yet")]
    Unknown(DocumentId),
    /// The row is not what its log makes of it.
    #[error("document {id} at version {version} is not what its log makes of it: {reason}")]
    Differs {
        /// The document.
        id: DocumentId,
        /// The version of its row.
        version: i64,
        /// How it differs.
        reason: String,
    },
    /// Another snapshot of this version exists.
    #[error(
        "document {id} has another snapshot of version {version}: {reason}; delete that snapshot \
         once it is known to be wrong"
    )]
    Conflict {
        /// The document.
        id: DocumentId,
        /// The version.
        version: i64,
        /// How the two differ.
        reason: String,
    },
    /// The database refused or is away.
    #[error(transparent)]
    Database(#[from] database::Error),
}

impl<S: LogSource, D: Documents + Snapshots + SkipRows> Snapshotter<S, D> {
    /// Takes the snapshot of a document at the version of its row, unless it is there already.
    ///
    /// # Errors
    /// [`TakeError`]. After one that came from the database, try again: a snapshot is never taken twice.
    pub async fn take(&self, id: &DocumentId, reason: Reason) -> Result<Taken, TakeError> {
        let row = self.store.load(std::slice::from_ref(id)).await?.into_iter().next();
        let row = row.ok_or_else(|| TakeError::Unknown(id.clone()))?;
        let version = version_of(&row);
        let differs = |reason| TakeError::Differs { id: id.clone(), version, reason };
        let mut document = history::start(id);
        let log = self.source.open_existing(&self.collection).await?;
        // Everything that the row was made of is in the log by now.
        let now = self.source.now().await?;
        let stop = read_on(&log, &self.store, &mut document, version, now).await?;
        if let Some(difference) = difference(&row, &document, &stop) {
            return Err(differs(difference));
        }
        let taken_at = self.store.database_time().await?;
        let snapshot = of_folded(&row, &document, taken_at, reason)
            .map_err(|error| differs(error.to_string()))?;
        let outcome = self.put(std::slice::from_ref(&snapshot)).await?;
        match outcome.into_iter().next() {
            Some(PutOutcome::Conflict { reason }) => {
                Err(TakeError::Conflict { id: id.clone(), version, reason })
            }
            Some(PutOutcome::Existed) => {
                let stored = self.store.snapshot(id, version).await?;
                Ok(Taken { snapshot: stored.unwrap_or(snapshot), is_new: false })
            }
            _ => Ok(Taken { snapshot, is_new: true }),
        }
    }

    /// Stores snapshots, counts those that are new, and deletes what their documents have too many of.
    pub(super) async fn put(
        &self,
        snapshots: &[Snapshot],
    ) -> Result<Vec<PutOutcome>, database::Error> {
        let outcomes = self.store.put_snapshots(snapshots).await?;
        let mut stored = Vec::new();
        for (snapshot, outcome) in snapshots.iter().zip(&outcomes) {
            if *outcome == PutOutcome::Stored {
                self.metrics.upkeep.taken(snapshot.reason).inc();
                // The first ones of a document are not too many.
                if snapshot.version > i64::from(self.keep) {
                    stored.push(snapshot.id.clone());
                }
            }
        }
        self.store.prune_snapshots(&stored, self.keep).await?;
        Ok(outcomes)
    }
}

/// The snapshot of a row that was folded anew from the first event.
///
/// # Errors
/// When it is no projected row, which a comparison would have told.
pub(super) fn of_folded(
    row: &RawDocument,
    folded: &Document,
    taken_at: bson::DateTime,
    reason: Reason,
) -> Result<Snapshot, RowError> {
    // Of events that are all skipped none may have had a readable time.
    let at_max = folded.youngest.map_or(bson::DateTime::MIN, |youngest| youngest.at);
    Snapshot::of_row(row, at_max, taken_at, reason)
}

/// The version that a row claims; 0 if it claims none.
pub(crate) fn version_of(row: &RawDocument) -> i64 {
    row.get("version").ok().flatten().and_then(integral).unwrap_or_default()
}

/// How a stored row differs from what its log makes of it, up to the row's version: every byte counts,
/// but for the mark of a parked document, which no event makes.
pub(super) fn difference(row: &RawDocument, folded: &Document, stop: &Stop) -> Option<String> {
    let version = version_of(row);
    if version < 1 {
        return Some("it has no usable `version`".into());
    }
    if folded.version != version {
        return Some(match stop {
            Stop::Poison(mark) => format!(
                "the event at version {} cannot be applied ({}): {}",
                mark.version,
                mark.class.name(),
                mark.reason
            ),
            Stop::Gap => format!("the event at version {} is missing", folded.version + 1),
            Stop::Base(base) => {
                format!("its log begins with a base at version {base}, which it has not come to")
            }
            Stop::End | Stop::Reached => format!("its log ends at version {}", folded.version),
        });
    }
    let expected = folded.to_raw();
    let mut found = RawDocumentBuf::new();
    for element in row {
        let Ok((name, value)) = element else { return Some("it is not readable BSON".into()) };
        if name.as_str() != "quarantine" {
            found.append(name, value);
        }
    }
    if found == expected {
        return None;
    }
    let names = |row: &RawDocument| -> Vec<String> {
        row.iter().flatten().map(|(name, _)| name.as_str().to_owned()).collect()
    };
    let mut fields = names(&expected);
    let strangers = names(&found).into_iter().filter(|name| !fields.contains(name));
    fields.extend(strangers.collect::<Vec<_>>());
    fields.retain(|name| !same_field(&found, &expected, name));
    let places: Vec<String> = fields.iter().map(|name| place(&found, &expected, name)).collect();
    Some(match places.is_empty() {
        true => "its fields are in another order".into(),
        false => format!("`{}` differs", places.join("`, `")),
    })
}

/// The first place within a field at which it differs.
fn place(found: &RawDocument, expected: &RawDocument, name: &str) -> String {
    let (found, expected) = (found.get_document(name), expected.get_document(name));
    let inner = found.ok().zip(expected.ok());
    match inner.and_then(|(found, expected)| first_difference(found, expected)) {
        Some(inner) => format!("{name}.{inner}"),
        None => name.to_owned(),
    }
}

fn same_field(a: &RawDocument, b: &RawDocument, name: &str) -> bool {
    matches!((a.get(name), b.get(name)), (Ok(a), Ok(b)) if a == b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::EventKey;
    use bson::{DateTime, Document as Fields, doc};

    fn folded() -> Document {
        let mut document = Document::new(DocumentId::String("a".into()));
        let events = [
            doc! { "_id": { "d": "a", "s": 1 }, "client": "x", "op": "create", "state": { "n": 1 },
            "at": DateTime::from_millis(9) },
            doc! { "_id": { "d": "a", "s": 2 }, "client": "y", "op": "update", "patch": { "$inc": { "n": 1 } },
            "at": DateTime::from_millis(5) },
        ];
        for event in events {
            let raw = RawDocumentBuf::try_from(&event).unwrap();
            let key = EventKey::from_event(&raw).unwrap();
            assert_eq!(super::super::fold::offer(&mut document, (key, &raw), 2, None), None);
        }
        document
    }

    fn judged(change: impl Fn(&mut Fields)) -> Option<String> {
        let folded = folded();
        let mut row = Fields::try_from(folded.to_raw()).unwrap();
        change(&mut row);
        difference(&RawDocumentBuf::try_from(&row).unwrap(), &folded, &Stop::End)
    }

    #[test]
    fn a_row_differs_when_any_byte_does_but_not_by_its_mark() {
        let set = |field: &'static str, value: bson::Bson| {
            judged(move |row| drop(row.insert(field, value.clone())))
        };
        assert_eq!(judged(|_| {}), None);
        let mark = doc! { "class": "gap", "version": 3_i64, "reason": "" };
        assert_eq!(set("quarantine", mark.into()), None);
        let told = |text: &str| Some(text.to_owned());
        assert_eq!(set("state", doc! { "n": 3 }.into()), told("`state.n` differs"));
        assert_eq!(set("state", doc! { "n": 2_i64 }.into()), told("`state.n` differs"));
        assert_eq!(set("version", 2_i32.into()), told("`version` differs"));
        assert_eq!(set("extra", 1.into()), told("`extra` differs"));
        assert_eq!(set("version", 3_i64.into()), told("its log ends at version 2"));
        assert_eq!(set("version", "2".into()), told("it has no usable `version`"));
        let moved = judged(|row| {
            let state = row.remove("state").unwrap();
            row.insert("state", state);
        });
        assert_eq!(moved, told("its fields are in another order"));
    }

    #[test]
    fn a_snapshot_keeps_the_youngest_of_all_events_and_not_the_last() {
        let folded = folded();
        let taken_at = DateTime::from_millis(20);
        let snapshot = of_folded(&folded.to_raw(), &folded, taken_at, Reason::Request).unwrap();
        assert_eq!(snapshot.at_max, DateTime::from_millis(9));
        assert_eq!(folded.updated_at, Some(DateTime::from_millis(5)));
    }
}
