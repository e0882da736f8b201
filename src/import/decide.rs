//! What has to be appended so that a document is what it is in the collection it comes from. Pure, so that the rules that
//! protect what others wrote can be read and tested without a server.

use bson::{DateTime, RawDocument, RawDocumentBuf};

use crate::model::{
    clock::Clock,
    diff::{Diff, Order, diff},
    document::{Document, FoldLimits, Outcome},
    event::EventKey,
    new_event::{NewChange, NewEvent},
    quarantine::Quarantine,
};

/// What has to be done about one document.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// It is what it should be.
    Same,
    /// These events are missing, right above its version.
    Append(Vec<NewChange>),
    /// Nothing may be done, for this reason.
    Leave(String),
}

/// What makes of `document`, as its log has it, the one that the source has, which is `None` where it is gone.
/// `waits` is what keeps the document from going on. A document that others have written to is theirs.
pub(super) fn decide(
    document: &Document,
    waits: Option<&Quarantine>,
    wanted: Option<&RawDocument>,
    client: &str,
) -> Step {
    let state = document.state().map(|state| state.to_raw());
    let steps = match (state.as_deref(), wanted) {
        (None, None) => return Step::Same,
        (Some(_), None) => vec![NewChange::Delete],
        (None, Some(wanted)) => vec![NewChange::Create { state: wanted.to_owned() }],
        (Some(state), Some(wanted)) => match between(state, wanted) {
            Some(steps) => steps,
            None => return Step::Same,
        },
    };
    if let Some(waits) = waits {
        let (class, version, reason) = (waits.class.name(), waits.version, &waits.reason);
        return Step::Leave(format!("it waits at version {version} ({class}): {reason}"));
    }
    if !is_only_of(&document.clock, document.version, client) {
        return Step::Leave(format!(
            "it differs, and others than `{client}` have written to it (clock {}): what they wrote is left as it is",
            document.clock
        ));
    }
    Step::Append(steps)
}

/// Whether one client wrote all of it.
pub(super) fn is_only_of(clock: &Clock, version: i64, client: &str) -> bool {
    clock.get(client) == version
}

/// The changes that lead from one state to another; `None` when they are equal. Fields of the root may come in another
/// order: a patch cannot say it, and JSON has none.
fn between(state: &RawDocument, wanted: &RawDocument) -> Option<Vec<NewChange>> {
    let Diff { patch, order } = diff(state, wanted);
    match order {
        // A name that no path can express: the whole state says it.
        Order::RootFieldsLeft => {
            Some(vec![NewChange::Delete, NewChange::Create { state: wanted.to_owned() }])
        }
        _ if patch.is_empty() => None,
        _ => Some(vec![NewChange::Patch { patch, array_filters: None }]),
    }
}

/// Events of one document that are proven to fold, with their places above `document`.
///
/// # Errors
/// Why the fold refuses one.
pub(super) fn proven(
    document: &Document,
    changes: &[NewChange],
    client: &str,
    limits: &FoldLimits,
) -> Result<Vec<NewEvent>, String> {
    let mut folded = document.clone();
    let at = DateTime::now();
    let events: Vec<NewEvent> =
        changes.iter().map(|change| NewEvent::new(client, change.clone(), at)).collect();
    for event in &events {
        let key = EventKey { document: document.id.clone(), version: folded.version + 1 };
        let raw: RawDocumentBuf = event.encode(&key);
        match folded.offer(&key, &raw, false, limits) {
            Outcome::Applied(_) => {}
            Outcome::Poison(poison) => return Err(poison.reason),
            other => {
                return Err(format!("it does not follow version {}: {other:?}", folded.version));
            }
        }
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    use bson::rawdoc;

    use super::*;
    use crate::model::id::DocumentId;

    fn document(changes: &[(&str, NewChange)]) -> Document {
        let mut document = Document::new(DocumentId::String("a".into()));
        for (client, change) in changes {
            let key = EventKey { document: document.id.clone(), version: document.version + 1 };
            let event = NewEvent::new(*client, change.clone(), DateTime::MIN).encode(&key);
            let outcome = document.offer(&key, &event, false, &FoldLimits::default());
            assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
        }
        document
    }

    fn create(state: RawDocumentBuf) -> NewChange {
        NewChange::Create { state }
    }

    #[track_caller]
    fn check(changes: &[(&str, NewChange)], wanted: Option<RawDocumentBuf>, expected: &[&str]) {
        let document = document(changes);
        let found = match decide(&document, None, wanted.as_deref(), "me") {
            Step::Same => vec!["same".to_owned()],
            Step::Leave(reason) => vec![reason],
            Step::Append(changes) => {
                proven(&document, &changes, "me", &FoldLimits::default()).unwrap();
                changes.iter().map(ToString::to_string).collect()
            }
        };
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{found} does not say {expected}");
        }
    }

    #[test]
    fn the_events_that_are_missing_are_appended_and_no_others() {
        let state = rawdoc! { "n": 1, "b": { "c": 2 } };
        let mine = [("me", create(state.clone()))];
        check(&[], Some(state.clone()), &["create"]);
        check(&mine, Some(state.clone()), &["same"]);
        check(&mine, Some(rawdoc! { "b": { "c": 2 }, "n": 1 }), &["same"]);
        check(
            &mine,
            Some(rawdoc! { "n": 1, "b": { "c": 3 } }),
            &[r#"update patch {"$set":{"b.c":3}}"#],
        );
        check(&mine, Some(rawdoc! { "n": 1, "b": { "c": 2 }, "x.y": 1 }), &["delete", "create"]);
        check(&mine, None, &["delete"]);
        let gone = [("me", create(state.clone())), ("me", NewChange::Delete)];
        check(&gone, None, &["same"]);
        check(&gone, Some(state), &["create"]);
    }

    #[test]
    fn what_others_wrote_is_left_unless_it_is_what_it_should_be() {
        let set = NewChange::Patch { patch: rawdoc! { "$set": { "n": 2 } }, array_filters: None };
        let theirs = [("me", create(rawdoc! { "n": 1 })), ("you", set)];
        check(&theirs, Some(rawdoc! { "n": 2 }), &["same"]);
        check(&theirs, Some(rawdoc! { "n": 1 }), &["others than `me`"]);
        check(&theirs, None, &["others than `me`"]);
    }

    #[test]
    fn a_document_that_waits_is_left() {
        let document = document(&[("me", create(rawdoc! { "n": 1 }))]);
        let waits = Quarantine::gap(2);
        let step = decide(&document, Some(&waits), Some(&rawdoc! { "n": 2 }), "me");
        assert!(matches!(step, Step::Leave(reason) if reason.contains("waits at version 2")));
    }

    #[test]
    fn what_the_fold_refuses_is_told() {
        let limits = FoldLimits { event_bytes_max: 20, ..FoldLimits::default() };
        let empty = Document::new(DocumentId::Integer(1));
        let change = create(rawdoc! { "n": 1 });
        let refused = proven(&empty, &[change], "me", &limits).unwrap_err();
        assert!(refused.contains("bytes"), "{refused}");
    }
}
