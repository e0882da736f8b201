//! Bases proven by what they stand for: documents folded from their very first event, which the archive still has.

use bson::{Document as Fields, RawDocumentBuf, Timestamp, doc};

use super::{Performance, Undone, count, findings::Findings};
use crate::{
    archive::{Archive, ArchiveError, LastRead, holding},
    database::Result,
    log::{EventLog, LogSource, Mend, history},
    model::{base::Base, event::EventKey, id::DocumentId, job::Kind},
    store::{Bases, Jobs, MarkRows, Snapshots, Store},
    time::Time,
    upkeep::{
        compare::Checked,
        fold::{Stop, base_of, offer},
        snapshot::difference,
    },
};

/// How often a document is looked at again that is compacted meanwhile.
const TRIES_MAX: u32 = 5;

/// What it counts.
#[derive(Default)]
pub(super) struct Deep {
    /// Bases that are what all events up to them make.
    proven: i64,
    /// Bases of which the archive does not have every event.
    unproven: i64,
    last: LastRead,
}

impl Deep {
    pub(super) fn to_bson(&self) -> Fields {
        match self.proven + self.unproven {
            0 => Fields::new(),
            _ => doc! { "proven": self.proven, "unproven": self.unproven },
        }
    }

    pub(super) fn from_bson(saved: &Fields) -> Self {
        let (proven, unproven) = (count(saved, "proven"), count(saved, "unproven"));
        Self { proven, unproven, last: LastRead::default() }
    }
}

/// What comes of a base.
enum Proof {
    /// There is none, or none that could be proven: that was told already.
    None,
    Proven,
    /// The archive does not have every event.
    Unproven,
    /// It is another than its events make, or they cannot be read.
    Wrong(i64, String),
    /// Somebody compacts the document.
    Moved,
}

impl<J: Jobs, S: LogSource, D, T: Time> Performance<'_, J, S, D, T>
where
    S::Log: Mend,
    D: Store + Snapshots + Bases + MarkRows,
{
    /// Proves the bases of some documents, if that is asked for.
    pub(super) async fn prove_bases(
        &self,
        documents: &[Checked],
        (findings, deep): (&mut Findings, &mut Deep),
    ) -> std::result::Result<(), Undone> {
        let archive = match self.order.kind {
            Kind::Rebuild => self.ward.compaction.archive.as_ref(),
            _ if self.order.deep => Some(self.archive()?),
            _ => None,
        };
        let Some(archive) = archive else { return Ok(()) };
        // Who looks at one document alone has not met its base.
        let is_one = self.order.document.is_some();
        let log = self.snapshotter().source.open_existing(&self.ward.collection).await?;
        for checked in documents.iter().filter(|checked| is_one || checked.begins_with_base()) {
            let id = &checked.folded.id;
            let mut proof = Proof::Moved;
            for _ in 0..TRIES_MAX {
                proof = match self.prove((&log, archive, &deep.last), id).await {
                    Ok(proof) => proof,
                    Err(ArchiveError::Database(error)) => return Err(error.into()),
                    Err(error @ ArchiveError::Damaged { .. }) => {
                        Proof::Wrong(checked.version(), error.to_string())
                    }
                    Err(error) => return Err(Undone::Failed(error.to_string())),
                };
                if !matches!(proof, Proof::Moved) {
                    break;
                }
            }
            match proof {
                Proof::None | Proof::Moved => {}
                Proof::Proven => deep.proven += 1,
                Proof::Unproven => deep.unproven += 1,
                Proof::Wrong(version, problem) => findings.find(id, version, &problem),
            }
        }
        Ok(())
    }

    async fn prove(
        &self,
        (log, archive, last): (&S::Log, &Archive, &LastRead),
        id: &DocumentId,
    ) -> std::result::Result<Proof, ArchiveError> {
        let store = &self.snapshotter().store;
        let at_least = self.snapshotter().source.now().await?;
        let base = base_of(log, id, at_least).await?;
        let base =
            base.and_then(|base| Base::from_raw(&base).ok()).filter(|base| !base.is_erased());
        let made = base.as_ref().and_then(|base| base.document().ok());
        let (Some(base), Some(made)) = (base, made) else { return Ok(Proof::None) };
        let rows = store.archived(std::slice::from_ref(id)).await?;
        let skips = store.load_skips_of(id, Some(at_least)).await?;
        let mut document = history::start(id);
        while document.version < base.version {
            let next = document.version + 1;
            let events = match holding(&rows, log.id(), next) {
                Some(row) => {
                    let mut events = archive.events_with(row, last).await?;
                    events.split_off(usize::try_from(next - row.from).unwrap_or_default())
                }
                None if next < base.version => return Ok(Proof::Unproven),
                None => match event(log, id, next, at_least).await? {
                    Some(own) => vec![own],
                    None => return Ok(Proof::Moved),
                },
            };
            for event in &events {
                let Ok(key) = EventKey::from_event(event) else { continue };
                match offer(&mut document, (key, event), base.version, Some(&skips)) {
                    None => {}
                    Some(Stop::Poison(mark)) => {
                        let reason = mark.reason;
                        let problem = format!("its archived event cannot be applied: {reason}");
                        return Ok(Proof::Wrong(mark.version, problem));
                    }
                    Some(_) => return Ok(Proof::Moved),
                }
            }
            if document.version < next {
                return Ok(Proof::Moved);
            }
        }
        Ok(match difference(&made.to_raw(), &document, &Stop::Reached) {
            None => Proof::Proven,
            Some(how) => {
                let problem = format!("its base is not what its archived events make: {how}");
                Proof::Wrong(base.version, problem)
            }
        })
    }
}

/// One event of the log, if it is there.
async fn event(
    log: &impl EventLog,
    id: &DocumentId,
    version: i64,
    at_least: Timestamp,
) -> Result<Option<RawDocumentBuf>> {
    let page = log.read(id, version - 1, 1, Some(at_least)).await?;
    let event = page.documents()?.next().transpose()?;
    let is_it = |event: &&bson::RawDocument| {
        EventKey::from_event(event).is_ok_and(|key| key.version == version)
    };
    Ok(event.filter(is_it).map(ToOwned::to_owned))
}
