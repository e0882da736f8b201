//! Events that have no place yet: what a writer wants to say about a document, before the append
//! procedure finds the version at which it is said. The counterpart of [`super::event`], which reads.

use std::fmt;

use bson::{Bson, DateTime, RawArrayBuf, RawBson, RawBsonRef, RawDocumentBuf, raw::cstr};

use super::{
    clock::Clock,
    event::{EventKey, Op},
};

/// An event to append.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// Who writes it.
    pub client: String,
    /// What it does.
    pub change: NewChange,
    /// The writer's clock.
    pub at: DateTime,
    /// The writer's own mark, by which it recognises the event after an uncertain answer. The append
    /// gives a fresh UUID where there is none.
    pub id: Option<RawBson>,
    /// What the writer had seen of the document: the causal context.
    pub seen: Option<Clock>,
    /// The event's name in the domain (`type` in the log).
    pub event_type: Option<String>,
    /// Free metadata.
    pub meta: Option<RawDocumentBuf>,
}

/// What a new event does to its document.
#[derive(Clone, Debug)]
pub enum NewChange {
    /// Makes the document.
    Create {
        /// The whole state.
        state: RawDocumentBuf,
    },
    /// Applies MongoDB update operators.
    Patch {
        /// The operators.
        patch: RawDocumentBuf,
        /// The conditions that `$[name]` in paths refer to.
        array_filters: Option<RawArrayBuf>,
    },
    /// Applies a JSON Merge Patch (RFC 7396).
    Merge {
        /// The merge patch.
        merge: RawDocumentBuf,
    },
    /// Deletes the document.
    Delete,
}

impl NewChange {
    /// Which of the three operations this is.
    pub fn op(&self) -> Op {
        match self {
            Self::Create { .. } => Op::Create,
            Self::Patch { .. } | Self::Merge { .. } => Op::Update,
            Self::Delete => Op::Delete,
        }
    }
}

impl fmt::Display for NewChange {
    /// The operation and what it carries, as relaxed Extended JSON, for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, body) = match self {
            Self::Create { state } => ("state", state),
            Self::Patch { patch, .. } => ("patch", patch),
            Self::Merge { merge } => ("merge", merge),
            Self::Delete => return f.write_str(self.op().name()),
        };
        let body = Bson::try_from(RawBsonRef::Document(body)).map_err(|_| fmt::Error)?;
        write!(f, "{} {name} {}", self.op().name(), body.into_relaxed_extjson())
    }
}

impl NewEvent {
    /// An event by `client` at `at`, with nothing optional.
    pub fn new(client: impl Into<String>, change: NewChange, at: DateTime) -> Self {
        Self {
            client: client.into(),
            change,
            at,
            id: None,
            seen: None,
            event_type: None,
            meta: None,
        }
    }

    /// Names the event in the words of the domain.
    #[must_use]
    pub fn event_type(mut self, name: impl Into<String>) -> Self {
        self.event_type = Some(name.into());
        self
    }

    /// Attaches free metadata.
    #[must_use]
    pub fn meta(mut self, meta: RawDocumentBuf) -> Self {
        self.meta = Some(meta);
        self
    }

    /// Sets the writer's own mark. It must be new for every event of the document.
    #[must_use]
    pub fn id(mut self, id: impl Into<RawBson>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// The event as it stands in the log, at its place.
    pub fn encode(&self, key: &EventKey) -> RawDocumentBuf {
        let mut raw = RawDocumentBuf::new();
        raw.append(cstr!("_id"), key.to_raw());
        raw.append(cstr!("client"), self.client.as_str());
        raw.append(cstr!("op"), self.change.op().name());
        match &self.change {
            NewChange::Create { state } => raw.append(cstr!("state"), state.as_ref()),
            NewChange::Patch { patch, array_filters } => {
                raw.append(cstr!("patch"), patch.as_ref());
                if let Some(filters) = array_filters {
                    raw.append(cstr!("array_filters"), filters.as_ref());
                }
            }
            NewChange::Merge { merge } => raw.append(cstr!("merge"), merge.as_ref()),
            NewChange::Delete => {}
        }
        raw.append(cstr!("at"), self.at);
        self.append_optional(&mut raw);
        raw
    }

    fn append_optional(&self, raw: &mut RawDocumentBuf) {
        if let Some(id) = &self.id {
            raw.append(cstr!("id"), id.as_raw_bson_ref());
        }
        if let Some(seen) = &self.seen {
            raw.append(cstr!("seen"), seen.to_raw());
        }
        if let Some(name) = &self.event_type {
            raw.append(cstr!("type"), name.as_str());
        }
        if let Some(meta) = &self.meta {
            raw.append(cstr!("meta"), meta.as_ref());
        }
    }
}

impl EventKey {
    /// The key as BSON: `{d, s}`, with integers as int64.
    pub fn to_raw(&self) -> RawDocumentBuf {
        let mut raw = RawDocumentBuf::new();
        raw.append(cstr!("d"), self.document.as_raw());
        raw.append(cstr!("s"), self.version);
        raw
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{event::Event, id::DocumentId};
    use bson::rawdoc;

    fn key() -> EventKey {
        EventKey { document: DocumentId::String("a".into()), version: 2 }
    }

    #[test]
    fn every_operation_reads_back_as_itself() {
        let changes = [
            NewChange::Create { state: rawdoc! { "x": 1 } },
            NewChange::Patch { patch: rawdoc! { "$set": { "x": 1 } }, array_filters: None },
            NewChange::Patch { patch: rawdoc! {}, array_filters: Some(RawArrayBuf::new()) },
            NewChange::Merge { merge: rawdoc! { "x": 1 } },
            NewChange::Delete,
        ];
        for change in changes {
            let op = change.op();
            let raw = NewEvent::new("c", change, DateTime::from_millis(7)).encode(&key());
            let event = Event::decode(&raw).unwrap();
            assert_eq!(event.key, key());
            assert_eq!((event.client, event.change.op()), ("c", op));
            assert_eq!(event.at, DateTime::from_millis(7));
        }
    }

    #[test]
    fn changes_are_shown_as_json() {
        let change = NewChange::Merge { merge: rawdoc! { "b": 1_i64, "a": null } };
        assert_eq!(change.to_string(), r#"update merge {"b":1,"a":null}"#);
        assert_eq!(NewChange::Delete.to_string(), "delete");
    }

    #[test]
    fn what_is_optional_stands_in_the_log_under_its_protocol_name() {
        let mut event = NewEvent::new("c", NewChange::Delete, DateTime::from_millis(0))
            .event_type("closed")
            .meta(rawdoc! { "by": "support" })
            .id("mark");
        event.seen = Some([("c", 1)].into_iter().collect());
        let raw = event.encode(&key());
        assert_eq!(raw.get_str("type").unwrap(), "closed");
        assert_eq!(raw.get_str("id").unwrap(), "mark");
        assert_eq!(raw.get_document("meta").unwrap().to_owned(), rawdoc! { "by": "support" });
        assert_eq!(raw.get_document("seen").unwrap().to_owned(), rawdoc! { "c": 1_i64 });
    }
}
