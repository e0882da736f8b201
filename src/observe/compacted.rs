//! What is told of compaction, and what a projection tells it.

use std::collections::BTreeMap;

use bson::Document;
use tokio::sync::watch;
use tracing::debug;

use super::Observer;
use crate::{
    model::compaction::{Notice, Rule},
    status::{CollectionStatus, Kept},
};

/// How many of the largest documents are told of.
const LARGEST_MAX: usize = 10;

impl Observer {
    /// How the collection is.
    pub(crate) fn status(&self) -> watch::Ref<'_, CollectionStatus> {
        self.status.borrow()
    }

    /// Hands on what matters to compaction. What there is no room for is left out.
    pub(crate) fn notice(&self, notice: Notice) {
        let Some(notices) = &self.notices else { return };
        if notices.try_send(notice).is_err() {
            debug!(collection = self.collection(), "compaction takes no notice of some documents");
        }
    }

    /// Why the collection is not compacted, if an operator has to do something about it.
    pub(crate) fn compaction_stands(&self, why: Option<String>) {
        self.status.send_if_modified(|status| {
            let changed = status.compaction_stands != why;
            status.compaction_stands = why;
            changed
        });
    }

    /// So many bytes went into the archive.
    pub(crate) fn archived(&self, bytes: u64) {
        self.metrics.upkeep.archived(bytes);
    }

    /// So much went out of the log: events, their bytes as far as they were read, and events that came late.
    pub(crate) fn compacted(&self, events: i64, bytes: i64, late: i64) {
        self.metrics.upkeep.compacted(events, bytes, late);
        self.status.send_if_modified(|status| {
            let reclaimed = &mut status.reclaimed;
            reclaimed.events += events;
            reclaimed.bytes += bytes;
            reclaimed.late += late;
            events + bytes + late > 0
        });
    }

    /// What a compaction of the whole collection has found to stay: how many events by which rule, and of which documents,
    /// the largest first.
    pub(crate) fn kept(&self, pinned: &BTreeMap<String, i64>, largest: &[Document]) {
        let of = |rule: Rule| pinned.get(rule.name()).copied().unwrap_or_default();
        for rule in Rule::ALL {
            self.metrics.upkeep.pinned(rule, of(rule));
        }
        let kept = Kept {
            at: (self.wall.0)(),
            pinned: Rule::ALL.map(|rule| (rule.name(), of(rule))).into(),
            largest: largest.iter().take(LARGEST_MAX).cloned().collect(),
        };
        self.status.send_modify(|status| status.kept = Some(kept));
    }
}
