//! Reading what compaction has taken out of the log, from the archive.

use bson::RawDocumentBuf;

use super::{
    Reader, below,
    error::{ReadError, Result},
    fold::{Stop, Until, step},
    moment::Moment,
};
use crate::{
    archive::holding,
    log,
    model::{base::Base, document::Document, event::EventKey, part::Part, position::LogId},
    store::{ArchiveRows, mongo::MongoStore},
};

impl Reader {
    /// Archived events of a document above `after` and below its base, ascending: at least one.
    pub(super) async fn archived(
        &self,
        log: LogId,
        base: &Base,
        after: i64,
    ) -> Result<Vec<RawDocumentBuf>> {
        let below = || ReadError::BelowFloor { floor: base.version };
        let archive =
            self.archive.as_ref().filter(|_| after >= base.erased_through).ok_or_else(below)?;
        let store = MongoStore::new(&self.database, self.collection(), Part::WHOLE);
        let rows = store.archived(std::slice::from_ref(&base.id)).await?;
        let row = holding(&rows, log, after + 1).ok_or_else(below)?;
        let mut events = archive.events(row).await.map_err(ReadError::of_archive)?;
        // A segment may hold what is in the log as well, of a document that was put back.
        let size = |count: i64| usize::try_from(count).unwrap_or_default();
        events.truncate(size(base.version - row.from));
        Ok(events.split_off(size(after + 1 - row.from).min(events.len())))
    }

    /// A document as it was below its base, folded from its first event.
    pub(super) async fn fold_archived(
        &self,
        moment: &mut Moment<'_>,
        base: &Base,
        until: Until,
    ) -> Result<Option<Document>> {
        let (skips, log) = (moment.skips(&base.id).await?, moment.log());
        let mut document = log::history::start(&base.id);
        'fold: while document.version + 1 < base.version {
            let reached = document.version;
            for event in self.archived(log, base, reached).await? {
                if until == Until::Version(document.version) {
                    break 'fold;
                }
                let version = EventKey::from_event(&event).map_or(0, |key| key.version);
                let is_skipped = skips.contains(version);
                match step(&mut document, &event, is_skipped, until, &self.limits.fold) {
                    None => {}
                    Some(Stop::Reached) => break 'fold,
                    Some(stop) => return Err(below(stop, base.version)),
                }
            }
            if document.version == reached {
                return Err(ReadError::BelowFloor { floor: base.version });
            }
        }
        Ok((document.version > 0).then_some(document))
    }
}
