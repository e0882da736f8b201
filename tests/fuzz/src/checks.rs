//! What must hold for every input, however hostile: no panic, no growth beyond the limits, no trace
//! of what was refused, and a result that is BSON.

use bson::{DateTime, Document, RawArrayBuf, RawDocument, RawDocumentBuf};

use crate::model::diff::diff;
use crate::model::event::Event;
use crate::model::patch::{PatchError, apply as apply_patch, merge};
use crate::model::sound;
use crate::model::state::{Limits, State};
use crate::shape::Choices;

const AT: DateTime = DateTime::from_millis(1_700_000_000_000);

/// Limits that small inputs can reach.
const NARROW: Limits =
    Limits { state_bytes_max: 4_096, depth_max: 12, padding_max: 500, steps_max: 5_000 };

/// Reads the input as an event, as it is and rebuilt as BSON.
pub(crate) fn event(data: &[u8]) {
    if let Ok(raw) = RawDocument::from_bytes(data) {
        decoded(raw);
    }
    let mut choices = Choices(data);
    let key = bson::doc! {"d": choices.value(1), "s": choices.value(0)};
    let mut event = bson::doc! {"_id": key, "client": "c", "op": "update", "at": AT};
    event.insert("patch", choices.patch());
    event.extend(choices.document(3));
    if let Ok(raw) = RawDocumentBuf::try_from(&event) {
        decoded(&raw);
        cut(raw.as_bytes(), data, decoded);
    }
}

fn decoded(raw: &RawDocument) {
    match Event::decode(raw) {
        Ok(_) => assert_eq!(sound::check(raw), Ok(()), "an event is read that is unsound"),
        Err(error) => assert!(error.to_string().len() < 2_000, "the message is too long"),
    }
}

/// Applies a patch, a merge and a difference: to what the input builds, and to bytes damaged by it.
pub(crate) fn apply(data: &[u8]) {
    let mut choices = Choices(data);
    let before = raw(&choices.document(4));
    let patch = raw(&choices.patch());
    let filters = RawArrayBuf::from_iter(choices.filters().iter().map(raw));
    let after = raw(&choices.document(4));
    for limits in [NARROW, Limits::default()] {
        let apply = |patch, filters| {
            folded(&before, &limits, patch, |state| {
                apply_patch(state, patch, filters, AT, &limits)
            });
        };
        apply(&patch, Some(&filters));
        apply(&diff(&before, &after).patch, None);
        folded(&before, &limits, &after, |state| merge(state, &after, &limits));
    }
    cut(patch.as_bytes(), choices.0, |patch| {
        folded(&before, &NARROW, patch, |state| apply_patch(state, patch, None, AT, &NARROW));
    });
    cut(before.as_bytes(), choices.0, |before| {
        if let Ok(mut state) = State::from_raw(before) {
            let _ = apply_patch(&mut state, &patch, Some(&filters), AT, &NARROW);
            let _ = merge(&mut state, &after, &NARROW);
            assert_eq!(state.to_raw().as_bytes().len(), state.bytes(), "the size is wrong");
            let _ = diff(before, &after);
        }
    });
}

fn raw(document: &Document) -> RawDocumentBuf {
    RawDocumentBuf::try_from(document).unwrap_or_default()
}

fn folded(
    before: &RawDocument,
    limits: &Limits,
    change: &RawDocument,
    edit: impl FnOnce(&mut State) -> Result<(), PatchError>,
) {
    let Ok(mut state) = State::from_raw(before) else { return };
    let result = edit(&mut state);
    let after = state.to_raw();
    assert_eq!(after.as_bytes().len(), state.bytes(), "the size is wrong");
    match result {
        Ok(()) => {
            assert!(state.bytes() <= limits.state_bytes_max, "the state is too large");
            // What is unsound goes through, as it does in the server: it is refused before.
            if sound::check(change).is_ok()
                && sound::check(before).is_ok()
                && let Err(error) = sound::check(&after)
            {
                panic!("the state is unsound: {error}");
            }
        }
        Err(error) => {
            assert_eq!(&*after, before, "a refused patch left a trace");
            assert!(error.to_string().len() < 2_000, "the message is too long");
        }
    }
}

/// Damages well-formed bytes at places that the input names, and hands on what still has its length
/// and its end.
fn cut(bytes: &[u8], data: &[u8], check: impl FnOnce(&RawDocument)) {
    let mut bytes = bytes.to_vec();
    for damage in data.chunks_exact(3).take(4) {
        let at = usize::from(u16::from_le_bytes([damage[0], damage[1]])) % bytes.len();
        bytes[at] ^= damage[2];
    }
    if let Ok(raw) = RawDocument::from_bytes(&bytes) {
        check(raw);
    }
}
