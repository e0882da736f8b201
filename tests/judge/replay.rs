//! The walk over one document's events: versions, counts and times by the protocol's words, with the
//! states left to whoever applies patches.

use std::{collections::BTreeMap, ops::RangeInclusive};

use bson::{Bson, DateTime, Document, RawDocumentBuf, rawdoc};

/// Applies what events do to one state after another.
pub trait Replay {
    /// Begins with a document that is absent.
    async fn begin(&mut self, id: &str);

    /// Replaces the state.
    async fn put(&mut self, state: &Document);

    /// Applies update operators, or says why they are refused, and then leaves the state as it was.
    async fn patch(
        &mut self,
        patch: &Document,
        array_filters: Option<&[Bson]>,
        at: DateTime,
    ) -> Result<(), String>;

    /// Applies one after the other until one is refused: which one, and why.
    async fn patches(&mut self, patches: &[Patch<'_>]) -> Result<(), (usize, String)> {
        for (place, Patch { patch, array_filters, at }) in patches.iter().enumerate() {
            let patched = self.patch(patch, *array_filters, *at).await;
            patched.map_err(|reason| (place, reason))?;
        }
        Ok(())
    }

    /// The present state.
    async fn state(&mut self) -> RawDocumentBuf;
}

/// What an update with a patch does.
#[derive(Clone, Copy, Debug)]
pub struct Patch<'e> {
    pub patch: &'e Document,
    pub array_filters: Option<&'e [Bson]>,
    pub at: DateTime,
}

impl<'e> Patch<'e> {
    /// `None` for any other event, and for one without what every event has.
    fn of(event: &'e Document) -> Option<Self> {
        let is_patch =
            event.get_str("op").ok()? == "update" && event.get_document("merge").is_err();
        let has_client = event.get_str("client").is_ok();
        let array_filters = event.get_array("array_filters").ok().map(Vec::as_slice);
        let (patch, at) = (event.get_document("patch").ok()?, *event.get_datetime("at").ok()?);
        (is_patch && has_client).then_some(Self { patch, array_filters, at })
    }
}

/// So many patches go to the server at once, unless they are large.
const RUN: usize = 500;
const RUN_BYTES: usize = 4 << 20;

/// Why a document stands still below its newest event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The event of this version is missing, and there are later ones.
    Hole { version: i64 },
    /// The event of this version cannot be applied.
    Poison { version: i64, reason: String },
}

/// A document on the way through its events.
#[derive(Debug)]
pub struct Walk<'a, R> {
    replay: &'a mut R,
    pub version: i64,
    pub clock: BTreeMap<String, i64>,
    /// Whether it exists: it was created, and not deleted since.
    pub lives: bool,
    pub updated_at: Option<DateTime>,
}

/// The patches that follow each other from the beginning of `versions` on.
fn run<'e>(
    events: &'e BTreeMap<i64, Document>,
    versions: RangeInclusive<i64>,
    skipped: impl Fn(i64) -> bool,
) -> Vec<Patch<'e>> {
    let dense = events.range(versions.clone()).zip(versions);
    let patches = dense.map_while(|((found, event), version)| {
        Patch::of(event).filter(|_| *found == version && !skipped(version))
    });
    let mut bytes = 0;
    let small = patches.take_while(|patch| {
        bytes += patch.patch.to_vec().map_or(usize::MAX, |patch| patch.len()).min(RUN_BYTES);
        bytes < RUN_BYTES
    });
    small.take(RUN).collect()
}

/// The form under which ids that MongoDB holds equal are one.
pub fn canonical(id: &Bson) -> String {
    match id {
        Bson::Int32(number) => number.to_string(),
        Bson::Double(number) if number.fract() == 0.0 => (*number as i64).to_string(),
        Bson::Int64(number) => number.to_string(),
        other => format!("{other:?}"),
    }
}

/// The place of an event: its document's canonical id, and its version.
pub fn place(event: &Document) -> Option<(String, i64)> {
    let key = event.get_document("_id").ok()?;
    Some((canonical(key.get("d")?), whole(key.get("s")?)?))
}

/// The client under which an event counts, also one that was skipped since its client is unusable.
pub fn counted(event: &Document) -> &str {
    let name = event.get_str("client").unwrap_or_default();
    let usable = name.chars().all(|c| (' '..='~').contains(&c) && c != '.' && c != '$');
    if usable && (1..=128).contains(&name.len()) { name } else { "?" }
}

fn whole(number: &Bson) -> Option<i64> {
    match number {
        Bson::Int32(number) => Some(i64::from(*number)),
        Bson::Int64(number) => Some(*number),
        Bson::Double(number) if number.fract() == 0.0 => Some(*number as i64),
        _ => None,
    }
}

impl<'a, R: Replay> Walk<'a, R> {
    /// The document before its first event.
    pub async fn new(replay: &'a mut R, id: &str) -> Self {
        replay.begin(id).await;
        Self { replay, version: 0, clock: BTreeMap::new(), lives: false, updated_at: None }
    }

    /// Applies events until there is no next one, or until one stops the document.
    pub async fn all(
        &mut self,
        events: &BTreeMap<i64, Document>,
        skipped: impl Fn(i64) -> bool,
    ) -> Option<Stop> {
        self.upto(i64::MAX, events, skipped).await
    }

    /// The same, up to `version`.
    pub async fn upto(
        &mut self,
        version: i64,
        events: &BTreeMap<i64, Document>,
        skipped: impl Fn(i64) -> bool,
    ) -> Option<Stop> {
        while self.version < version {
            let next = self.version + 1;
            let Some(event) = events.get(&next) else {
                let later = events.keys().next_back().is_some_and(|last| *last > next);
                return (later && version == i64::MAX).then_some(Stop::Hole { version: next });
            };
            let run = if self.lives { run(events, next..=version, &skipped) } else { Vec::new() };
            if run.len() > 1 {
                let patched = self.replay.patches(&run).await;
                let applied = patched.as_ref().map_or_else(|(place, _)| *place, |()| run.len());
                events.range(next..).take(applied).for_each(|(_, event)| self.count(event, false));
                if let Err((_, reason)) = patched {
                    return Some(Stop::Poison { version: self.version + 1, reason });
                }
                continue;
            }
            let applied = if skipped(next) { Ok(()) } else { self.apply(event).await };
            if let Err(reason) = applied {
                return Some(Stop::Poison { version: next, reason });
            }
            self.count(event, skipped(next));
        }
        None
    }

    fn count(&mut self, event: &Document, skipped: bool) {
        let client = if skipped { counted(event) } else { event.get_str("client").unwrap_or("") };
        *self.clock.entry(client.to_owned()).or_default() += 1;
        self.version += 1;
        self.updated_at = event.get_datetime("at").ok().copied().or(self.updated_at);
    }

    async fn apply(&mut self, event: &Document) -> Result<(), String> {
        let at = *event.get_datetime("at").map_err(|error| error.to_string())?;
        event.get_str("client").map_err(|error| error.to_string())?;
        let op = event.get_str("op").map_err(|error| error.to_string())?;
        match (op, self.lives) {
            ("create", false) => {
                let state = event.get_document("state").map_err(|error| error.to_string())?;
                self.replay.put(state).await;
                self.lives = true;
            }
            ("update", true) => match (event.get_document("patch"), event.get_document("merge")) {
                (Ok(patch), Err(_)) => {
                    let filters = event.get_array("array_filters").ok().map(Vec::as_slice);
                    self.replay.patch(patch, filters, at).await?;
                }
                (Err(_), Ok(merge)) => {
                    let mut state = self.state().await;
                    merge_into(&mut state, merge);
                    self.replay.put(&state).await;
                }
                _ => return Err("not exactly one of patch and merge".into()),
            },
            ("delete", true) => self.lives = false,
            (op, lives) => return Err(format!("op {op} of a document that lives: {lives}")),
        }
        Ok(())
    }

    async fn state(&mut self) -> Document {
        Document::try_from(self.replay.state().await).expect("a state that was just made")
    }

    /// The row that the document must have, without a mark. `events` gives the id in its own type.
    pub async fn row(&mut self, events: &BTreeMap<i64, Document>) -> Option<RawDocumentBuf> {
        if self.version == 0 {
            return None;
        }
        let id = events.get(&1)?.get_document("_id").ok()?.get("d")?;
        let id = whole(id).map_or_else(|| id.clone(), Bson::Int64);
        let clock: Document = self
            .clock
            .iter()
            .map(|(client, count)| (client.clone(), Bson::Int64(*count)))
            .collect();
        let mut row = RawDocumentBuf::try_from(&bson::doc! {
            "_id": id, "version": self.version, "clock": clock,
        })
        .expect("plain values");
        if self.lives {
            row.append(bson::raw::cstr!("state"), self.replay.state().await);
        } else {
            row.append(bson::raw::cstr!("deleted"), true);
        }
        if let Some(at) = self.updated_at {
            row.append(bson::raw::cstr!("updated_at"), at);
        }
        Some(row)
    }
}

/// RFC 7396, section 2, word for word.
fn merge_into(target: &mut Document, patch: &Document) {
    for (key, value) in patch {
        match value {
            Bson::Null => drop(target.remove(key)),
            Bson::Document(inner) => {
                let mut merged = match target.get(key) {
                    Some(Bson::Document(existing)) => existing.clone(),
                    _ => Document::new(),
                };
                merge_into(&mut merged, inner);
                target.insert(key, merged);
            }
            value => drop(target.insert(key, value.clone())),
        }
    }
}

/// An empty document, as bytes.
pub fn empty() -> RawDocumentBuf {
    rawdoc! {}
}
