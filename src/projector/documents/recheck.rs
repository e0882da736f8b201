//! Documents that have to be looked at again, and why. Whoever finds a reason notes it here; they are looked at together,
//! many at once, when there is time for it.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use crate::model::{document::Document, id::DocumentId};

/// What has to be done about one document.
#[derive(Debug, Default)]
pub(in crate::projector) struct Recheck {
    /// The newest version that was seen of it and is not folded. No checkpoint may be saved before it is, or is on record as
    /// waiting. 0 where nothing was seen.
    pub(in crate::projector) known: i64,
    /// What is in memory is not trusted: the row is read again.
    pub(in crate::projector) is_afresh: bool,
    /// The row counts for nothing: it is folded again from the log, and written where that makes something else.
    pub(in crate::projector) is_remade: bool,
    /// What its log makes of it, up to some version, where somebody has folded that already.
    pub(in crate::projector) folded: Option<Box<Document>>,
    /// An event that parked it is offered again.
    pub(in crate::projector) is_retried: bool,
    /// Who is to be told when what became of it is written.
    pub(in crate::projector) askers: Vec<oneshot::Sender<()>>,
}

/// See the module.
#[derive(Debug, Default)]
pub(in crate::projector) struct Rechecks {
    rechecks: BTreeMap<DocumentId, Recheck>,
    /// How many of them hold back the checkpoint.
    urgent: usize,
}

impl Rechecks {
    /// This version was seen of a document, and an earlier one is missing in memory: the log is read on.
    pub(in crate::projector) fn behind(&mut self, id: &DocumentId, known: i64) {
        self.note(id, Recheck { known, ..Recheck::default() });
    }

    /// Something may have changed that a look at the log shows.
    pub(in crate::projector) fn look(&mut self, id: &DocumentId) {
        self.note(id, Recheck::default());
    }

    /// The row is another than the one in memory, which had come to `known`.
    pub(in crate::projector) fn afresh(&mut self, id: &DocumentId, known: i64) {
        self.note(id, Recheck { known, is_afresh: true, ..Recheck::default() });
    }

    /// A row cannot be read. No checkpoint may be saved before it is made again.
    pub(in crate::projector) fn remade(&mut self, id: &DocumentId) {
        self.note(id, Recheck { known: 1, is_afresh: true, is_remade: true, ..Recheck::default() });
    }

    /// Somebody asks for it, whether the document is parked or not.
    pub(in crate::projector) fn asked(&mut self, id: &DocumentId, asker: oneshot::Sender<()>) {
        let asked = Recheck { is_afresh: true, is_retried: true, ..Recheck::default() };
        self.note(id, Recheck { askers: vec![asker], ..asked });
    }

    /// Somebody has found that a row is not what its log makes of it.
    pub(in crate::projector) fn differs(
        &mut self,
        id: &DocumentId,
        folded: Option<Box<Document>>,
        asker: oneshot::Sender<()>,
    ) {
        let (is_afresh, is_remade, askers) = (true, true, vec![asker]);
        self.note(id, Recheck { is_afresh, is_remade, folded, askers, ..Recheck::default() });
    }

    /// A look at a document has come to nothing, since its row cannot be read: it is made again.
    pub(in crate::projector) fn goes_on(&mut self, id: &DocumentId, why: Recheck) {
        self.note(id, Recheck { is_remade: true, ..why });
    }

    /// Whether it is noted that a row is to be made again.
    pub(in crate::projector) fn is_remade(&self, id: &DocumentId) -> bool {
        self.rechecks.get(id).is_some_and(|recheck| recheck.is_remade)
    }

    /// Whether there are none.
    pub(in crate::projector) fn is_empty(&self) -> bool {
        self.rechecks.is_empty()
    }

    /// Whether any of them holds back the checkpoint.
    pub(in crate::projector) fn are_urgent(&self) -> bool {
        self.urgent > 0
    }

    /// Takes out at most `limit` of those that pass; only urgent ones, if so wanted.
    pub(in crate::projector) fn take(
        &mut self,
        limit: usize,
        only_urgent: bool,
        may_pass: impl Fn(&DocumentId, &Recheck) -> bool,
    ) -> Vec<(DocumentId, Recheck)> {
        let wanted = |(id, recheck): &(&DocumentId, &Recheck)| {
            (!only_urgent || recheck.known > 0) && may_pass(id, recheck)
        };
        let ids = self.rechecks.iter().filter(wanted).map(|(id, _)| id.clone());
        let ids: Vec<DocumentId> = ids.take(limit).collect();
        let taken = ids.into_iter().filter_map(|id| self.rechecks.remove_entry(&id));
        let taken: Vec<(DocumentId, Recheck)> = taken.collect();
        self.urgent -= taken.iter().filter(|(_, recheck)| recheck.known > 0).count();
        taken
    }

    /// Notes a reason.
    pub(in crate::projector) fn note(&mut self, id: &DocumentId, why: Recheck) {
        let recheck = self.rechecks.entry(id.clone()).or_default();
        self.urgent += usize::from(why.known > 0 && recheck.known == 0);
        recheck.known = recheck.known.max(why.known);
        recheck.is_afresh |= why.is_afresh;
        recheck.is_remade |= why.is_remade;
        recheck.folded = why.folded.or(recheck.folded.take());
        recheck.is_retried |= why.is_retried;
        recheck.askers.extend(why.askers);
    }
}
