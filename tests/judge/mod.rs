//! The judge: says whether projected documents are what their events make of them. Independent of
//! the daemon: it shares no code with the fold, has patches applied by a real server's plain
//! updates (`server`) or, for the few operators that a simulation's writers use, by a model of a few
//! lines (`reference`), and compares bytes.

#![allow(dead_code, reason = "every test binary uses a part of this")]
#![allow(unreachable_pub, reason = "a helper is as public as its test binary")]

mod answer;
mod reference;
mod replay;
mod server;

use std::collections::{BTreeMap, BTreeSet};

use bson::{Bson, Document, RawDocument, RawDocumentBuf};

#[allow(unused_imports, reason = "every test binary uses a part of this")]
pub use self::{
    answer::Answer,
    reference::Reference,
    replay::{Replay, Stop, Walk, canonical, place},
    server::ServerReplay,
};

/// Everything that is known when a run is over and has settled.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// The log as the majority holds it.
    pub log: Vec<Document>,
    /// The projected rows.
    pub rows: Vec<RawDocumentBuf>,
    /// The events whose append was acknowledged, as they were sent.
    pub acknowledged: Vec<Document>,
    /// Sets of events that were appended together: all of a set are in the log, or none.
    pub together: Vec<Vec<Document>>,
    /// The places that an operator had skipped: they count, and change nothing.
    pub skipped: Vec<(Bson, i64)>,
    /// Answers to clients that asked what they were missing.
    pub answers: Vec<Answer>,
}

/// What a run came to, when the judge found nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Documents compared.
    pub documents: usize,
    /// Events replayed.
    pub events: i64,
    /// Documents that wait behind a hole.
    pub holes: usize,
    /// Documents parked by an event that cannot be applied.
    pub poisoned: usize,
    /// Places that were skipped.
    pub skipped: usize,
    /// Events that only fill a hole.
    pub filled: usize,
    /// Answers checked.
    pub answers: usize,
}

/// The events of a log, by document and version.
pub type Log = BTreeMap<String, BTreeMap<i64, Document>>;

/// Compares everything, replaying through `replay`.
///
/// # Errors
/// All differences that were found, each a sentence.
pub async fn judge(evidence: &Evidence, replay: &mut impl Replay) -> Result<Report, Vec<String>> {
    let mut findings = Vec::new();
    let log = by_document(&evidence.log, &mut findings);
    appended(evidence, &log, &mut findings);
    let mut rows: BTreeMap<String, &RawDocument> = BTreeMap::new();
    for row in &evidence.rows {
        let id = row.get("_id").ok().flatten().and_then(|id| Bson::try_from(id).ok());
        rows.insert(canonical(&id.unwrap_or(Bson::Null)), row);
    }
    let skipped: BTreeSet<(String, i64)> =
        evidence.skipped.iter().map(|(id, version)| (canonical(id), *version)).collect();
    let mut report = Report {
        skipped: skipped.len(),
        filled: fillers(&evidence.log, &mut findings),
        answers: evidence.answers.len(),
        ..Report::default()
    };
    for (id, version) in &skipped {
        if !log.get(id).is_some_and(|events| events.contains_key(version)) {
            findings.push(format!("version {version} of {id} is skipped, and not in the log"));
        }
    }
    for (id, events) in &log {
        let mut walk = Walk::new(replay, id).await;
        let stop = walk.all(events, |version| skipped.contains(&(id.clone(), version))).await;
        report.documents += 1;
        report.events += walk.version;
        report.holes += usize::from(matches!(stop, Some(Stop::Hole { .. })));
        report.poisoned += usize::from(matches!(stop, Some(Stop::Poison { .. })));
        let expected = walk.row(events).await;
        findings.extend(compare(id, expected.as_deref(), rows.remove(id), stop.as_ref()));
    }
    findings.extend(rows.keys().map(|id| format!("document {id} is projected and has no events")));
    for answer in &evidence.answers {
        findings.extend(answer::check(answer, &log, &skipped, replay).await.err());
    }
    if findings.is_empty() { Ok(report) } else { Err(findings) }
}

fn by_document(events: &[Document], findings: &mut Vec<String>) -> Log {
    let mut log = Log::new();
    for event in events {
        match place(event) {
            Some((id, version)) => {
                if log.entry(id.clone()).or_default().insert(version, event.clone()).is_some() {
                    findings.push(format!("the log holds version {version} of {id} twice"));
                }
            }
            None => findings.push(format!("an event without a place: {event}")),
        }
    }
    log
}

/// How many events only fill a hole: those of the daemon itself, which must change nothing of what there is, but for the
/// bare deletion with which an erasure begins, and which has a mark of its own.
fn fillers(events: &[Document], findings: &mut Vec<String>) -> usize {
    let fillers = events.iter().filter(|event| event.get_str("client").ok() == Some("alluvium"));
    let empty = Document::new();
    let changes = |event: &&Document| match event.get_str("op") {
        Ok("update") => event.get_document("patch").ok() != Some(&empty),
        Ok("create") => event.get_document("state").ok() != Some(&empty),
        Ok("delete") => {
            event.keys().any(|key| !["_id", "client", "op", "at", "id"].contains(&key.as_str()))
        }
        _ => true,
    };
    let wrong = fillers.clone().filter(changes);
    findings
        .extend(wrong.map(|event| format!("a hole is filled by what changes something: {event}")));
    fillers.count()
}

/// What was acknowledged is there as it was sent; and what was sent together is there together.
fn appended(evidence: &Evidence, log: &Log, findings: &mut Vec<String>) {
    let stored = |event: &Document| {
        let (id, version) = place(event)?;
        log.get(&id)?.get(&version).filter(|stored| *stored == event)
    };
    let lost = evidence.acknowledged.iter().filter(|event| stored(event).is_none());
    findings.extend(lost.map(|event| format!("acknowledged, and not in the log: {event}")));
    for set in &evidence.together {
        let there = set.iter().filter(|event| stored(event).is_some()).count();
        if there != 0 && there != set.len() {
            findings.push(format!("half appended, {there} of {}: {set:?}", set.len()));
        }
    }
}

/// Compares a row with what its events make, byte for byte, except for the words of a quarantine mark.
pub fn compare(
    id: &str,
    expected: Option<&RawDocument>,
    row: Option<&RawDocument>,
    stop: Option<&Stop>,
) -> Vec<String> {
    let mut findings = Vec::new();
    let (bare, mark) = row.map(split_mark).unzip();
    let bytes = |row: Option<&RawDocument>| row.map(|row| row.as_bytes().to_vec());
    if bytes(expected) != bytes(bare.as_deref()) {
        findings.push(format!(
            "document {id} is not what its events make of it\n  is:     {}\n  should: {}",
            shown(row),
            shown(expected)
        ));
    }
    let mark = mark.flatten();
    let marked = mark.as_ref().and_then(|mark| mark.get_i64("version").ok());
    match (stop, marked) {
        (Some(Stop::Poison { version, .. }), Some(marked)) if marked == *version => {}
        // A document that has no row yet cannot carry a mark.
        (Some(Stop::Poison { .. }), None) if row.is_none() => {}
        (Some(Stop::Poison { version, reason }), marked) => findings.push(format!(
            "document {id} should be parked at the event {version} ({reason}), its mark says {marked:?}"
        )),
        (Some(Stop::Hole { .. }) | None, None) => {}
        (Some(Stop::Hole { version }), Some(marked)) if marked == *version => {}
        (stop, Some(marked)) => findings
            .push(format!("document {id} is parked at {marked}, but its events say {stop:?}")),
    }
    findings
}

/// A row without its quarantine mark, and the mark.
fn split_mark(row: &RawDocument) -> (RawDocumentBuf, Option<Document>) {
    let mut bare = RawDocumentBuf::new();
    let mut mark = None;
    for (key, value) in row.iter().flatten() {
        if key == "quarantine" {
            mark = value.as_document().and_then(|mark| Document::try_from(mark).ok());
        } else {
            bare.append(key, value);
        }
    }
    (bare, mark)
}

fn shown(row: Option<&RawDocument>) -> String {
    match row.map(Document::try_from) {
        Some(Ok(row)) => row.to_string(),
        Some(Err(error)) => format!("unreadable: {error}"),
        None => "absent".into(),
    }
}
