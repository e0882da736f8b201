//! What an instance publishes of itself in the database.

use bson::{Bson, Document, doc};
use tokio::sync::watch;

use crate::{
    status::{CollectionStatus, LastError, Phase, Role},
    store::{format::FORMAT, mongo::Report},
};

/// Reports how the collections are doing whenever it is asked.
pub(super) fn report(statuses: &[watch::Receiver<CollectionStatus>]) -> Report {
    let statuses = statuses.to_vec();
    Report::new(move || {
        let collections: Vec<Document> =
            statuses.iter().map(|status| collection(&status.borrow())).collect();
        doc! {
            "version": env!("CARGO_PKG_VERSION"),
            "format": FORMAT,
            "collections": collections,
        }
    })
}

fn collection(status: &CollectionStatus) -> Document {
    let last_error = status.last_error.as_ref().map_or(Bson::Null, |error| {
        let LastError { part: _, at, class, message, advice } = error;
        let (at, class) = (Bson::DateTime(*at), *class);
        doc! { "at": at, "class": class, "message": message, "advice": advice }.into()
    });
    doc! {
        "name": &status.name,
        "role": status.role.map(Role::name),
        "paused": status.phase == Phase::Paused,
        "phase": status.phase.name(),
        "lag_seconds": status.lag_seconds,
        "oplog_headroom_seconds": status.oplog_headroom_seconds,
        "compaction": status.compaction(),
        "compaction_stands": status.compaction_stands.as_deref(),
        "last_error": last_error,
    }
}
