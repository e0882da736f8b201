//! `GET /v1/status`: what the daemon knows about itself. Unknown is null.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde_json::{Value, json};

use super::{ApiState, admission::Caller, value};
use crate::{
    access::Access,
    model::part::Part,
    status::{CollectionStatus, PartStatus, Phase, Role},
};

pub(super) async fn status(State(state): State<Arc<ApiState>>, caller: Caller) -> Json<Value> {
    let seen = state.collections.iter().filter(|(name, _)| caller.opens(name));
    let collections = seen.map(|(_, served)| collection(&served.status.borrow())).collect();
    Json(whole(&state.instance, collections, &state.access))
}

/// The whole answer. What is wrong with the tokens or the certificate stands there while it lasts.
pub(super) fn whole(instance: &str, collections: Vec<Value>, access: &Access) -> Value {
    let mut shown = json!({
        "instance": instance,
        "version": env!("CARGO_PKG_VERSION"),
        "collections": collections,
    });
    if let Some(error) = access.last_error() {
        shown["last_error"] = json!({
            "class": if error.key() == "http.tokens_file" { "tokens" } else { "tls" },
            "message": error.to_string(),
            "advice": "mend the file; what was read before goes on being used",
        });
    }
    shown
}

/// What is known of a collection.
pub(super) fn collection(status: &CollectionStatus) -> Value {
    let last_error = status.last_error.as_ref().map(|error| {
        json!({
            "at": value::time(error.at),
            "class": error.class,
            "message": error.message,
            "advice": error.advice,
        })
    });
    let mut shown = json!({
        "name": status.name,
        "role": status.role.map(Role::name),
        "paused": status.phase == Phase::Paused,
        "phase": status.phase,
        "version_gaps": status.version_gaps,
        "quarantined": status.quarantined,
        "lag_seconds": status.lag_seconds,
        "lag_events": status.lag_events,
        "oplog_headroom_seconds": status.oplog_headroom_seconds,
        "checkpoint_lost_in_seconds": status.checkpoint_lost_in_seconds,
        "compaction": value::told(&status.compaction().into()),
        "last_error": last_error,
    });
    if let Some(why) = &status.compaction_stands {
        shown["compaction_stands"] = why.as_str().into();
    }
    if status.parts.len() > 1 {
        shown["parts"] = status.parts.iter().map(part).collect();
    }
    shown
}

fn part((part, status): (&Part, &PartStatus)) -> Value {
    json!({
        "part": part.index,
        "of": part.of,
        "role": status.role.map(Role::name),
        "phase": status.phase,
        "lag_seconds": status.lag_seconds,
        "lag_events": status.lag_events,
    })
}
