//! The words of the demonstration, for people; or, with `--json`, the facts alone.

use bson::{Bson, RawDocument};
use serde_json::{Value, json};

use super::super::{CommandResult, output};
use crate::{
    model::{clock::Clock, document::Document, id::DocumentId},
    read::Missing,
};

/// Tells the story as it happens.
pub(super) struct Teller {
    /// With `--json`: what has happened, to be printed at the end.
    facts: Option<Facts>,
    steps: usize,
}

#[derive(Default)]
struct Facts {
    events: Vec<Value>,
    documents: Vec<Value>,
    missing: Vec<Value>,
    checks: Vec<String>,
}

impl Teller {
    pub(super) fn new(json: bool) -> Self {
        Self { facts: json.then(Facts::default), steps: 0 }
    }

    pub(super) fn say(&self, text: impl AsRef<str>) -> CommandResult {
        if self.facts.is_none() {
            output::line(text)?;
        }
        Ok(())
    }

    pub(super) fn step(&mut self, title: &str) -> CommandResult {
        self.steps += 1;
        self.say(format!("\n{}. {title}", self.steps))
    }

    pub(super) fn opening(&self, id: &DocumentId) -> CommandResult {
        self.say(format!(
            "\nA game is a document: {id}. Nobody ever writes it. Writers append events to the\n\
             collection `games.events`, each at the next version of its document, and the daemon folds\n\
             them into the collection `games`, where anybody can query the result.\n\
             Beside the state stands a vector clock: how many events of each client are in it."
        ))
    }

    pub(super) fn appended(&mut self, version: i64, event: &RawDocument) -> CommandResult {
        let shown = shown(event);
        self.say(format!("   appended   version {version}  {shown}"))?;
        if let Some(facts) = &mut self.facts {
            facts.events.push(shown);
        }
        Ok(())
    }

    pub(super) fn projected(&mut self, document: &Document) -> CommandResult {
        let (version, clock) = (document.version, &document.clock);
        let state = state(document);
        self.say(format!(
            "   projected  version {version}  clock {clock}\n              state {state}"
        ))?;
        if let Some(facts) = &mut self.facts {
            facts.documents.push(json!({ "version": version, "clock": clock, "state": state }));
        }
        Ok(())
    }

    pub(super) fn bought(&self, phone: &Document) -> CommandResult {
        self.say(format!(
            "\n   A phone copies the game now, with the clock {}, and goes offline.",
            phone.clock
        ))
    }

    pub(super) fn clocks(&self, phone: &Document, document: &Document) -> CommandResult {
        self.say(format!("   the phone's clock     {}", phone.clock))?;
        self.say(format!("   the document's clock  {}", document.clock))?;
        self.say(format!("   so it lacks {}.", lacking(&document.clock, &phone.clock)))
    }

    pub(super) fn missing(&mut self, missing: &Missing) -> CommandResult {
        for event in &missing.events {
            let shown = shown(&event.raw);
            self.say(format!(
                "   missing    version {}  (event {} of {})  {shown}",
                event.version, event.seq, event.client
            ))?;
            if let Some(facts) = &mut self.facts {
                facts.missing.push(shown);
            }
        }
        self.say(format!("   and its next clock is {}\n", missing.next_clock))
    }

    pub(super) fn checked(&mut self, what: &str) -> CommandResult {
        self.say(format!("   ok: {what}"))?;
        if let Some(facts) = &mut self.facts {
            facts.checks.push(what.to_owned());
        }
        Ok(())
    }

    pub(super) fn finish(self) -> CommandResult {
        self.say(
            "\nEverything came out as it must; the server and its data are gone. To play with one that\n\
             stays: alluvium dev",
        )?;
        let Some(Facts { events, documents, missing, checks }) = self.facts else { return Ok(()) };
        Ok(output::json(&json!({
            "events": events, "documents": documents, "missing": missing, "checks": checks,
        }))?)
    }
}

/// What of an event matters to the story: who, what, and what was seen before.
fn shown(event: &RawDocument) -> Value {
    let field = |name: &str| {
        let value = event.get(name).ok().flatten()?;
        Some((name.to_owned(), Bson::try_from(value).ok()?.into_relaxed_extjson()))
    };
    ["client", "op", "type", "state", "patch", "seen"].into_iter().filter_map(field).collect()
}

fn state(document: &Document) -> Value {
    let state = document.state().and_then(|state| bson::Document::try_from(state.to_raw()).ok());
    state.map_or(Value::Null, |state| Bson::Document(state).into_relaxed_extjson())
}

/// The difference of two clocks in words.
fn lacking(document: &Clock, phone: &Clock) -> String {
    let lacks = document.iter().filter_map(|(client, count)| match count - phone.get(client) {
        0 => None,
        1 => Some(format!("1 event of {client}")),
        more => Some(format!("{more} events of {client}")),
    });
    let lacks: Vec<String> = lacks.collect();
    if lacks.is_empty() { "nothing".into() } else { lacks.join(" and ") }
}
