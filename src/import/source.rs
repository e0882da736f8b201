//! The collection that is adopted: read in the order of its ids, never written to.

use std::collections::HashSet;

use bson::{Binary, Document, RawBson, RawBsonRef, RawDocument, RawDocumentBuf, doc};
use futures::TryStreamExt;
use mongodb::{
    Client, Collection, Cursor, Database,
    options::{CollectionOptions, Hint, ReadConcern, ReadPreference, SelectionCriteria},
};

use super::ImportError;
use crate::{
    database::{self, Result, code::UNAUTHORIZED},
    model::id::{DocumentId, integral},
};

/// How many bytes of documents are looked at together.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// How many documents are looked at together.
const BATCH_MAX: usize = 1_000;

/// A document of the source.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) id: DocumentId,
    /// All of it but its `_id`.
    pub(super) state: RawDocumentBuf,
    /// What its field of the version says, where one is asked for.
    pub(super) version: Option<i64>,
}

/// A document that cannot become one of ours, and why.
pub type Refused = (String, String);

/// The collection that documents come from.
#[derive(Clone, Debug)]
pub(super) struct Source {
    documents: Collection<RawDocumentBuf>,
    uuid: Option<Binary>,
}

impl Source {
    /// Finds `from`: a collection of this database, or of another one as `DATABASE.COLLECTION`.
    pub(super) async fn find(database: &Database, from: &str) -> Result<Self, ImportError> {
        let mut places = vec![(database.name(), from)];
        places.extend(from.split_once('.').filter(|(of, name)| !of.is_empty() && !name.is_empty()));
        for (of, name) in &places {
            let not_readable = |error: database::Error| match error.code() {
                Some(UNAUTHORIZED) => ImportError::NotReadable {
                    database: of.to_string(),
                    name: name.to_string(),
                    reason: error.to_string(),
                },
                _ => error.into(),
            };
            let uuid = uuid_of(database.client(), of, name).await.map_err(not_readable)?;
            if let Some(uuid) = uuid {
                let options = CollectionOptions::builder()
                    .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary))
                    .read_concern(ReadConcern::majority())
                    .build();
                let database = database.client().database(of);
                let documents = database.collection_with_options(name, options);
                let any: Result<_> = documents.find_one(doc! {}).await.map_err(Into::into);
                any.map_err(not_readable)?;
                return Ok(Self { documents, uuid });
            }
        }
        let looked: Vec<String> =
            places.iter().map(|(of, name)| format!("`{name}` in `{of}`")).collect();
        Err(ImportError::NoSource(looked.join(", ")))
    }

    /// `DATABASE.COLLECTION`.
    pub(super) fn name(&self) -> String {
        self.documents.namespace().to_string()
    }

    /// About how many documents it has.
    pub(super) async fn estimate(&self) -> Result<u64> {
        Ok(self.documents.estimated_document_count().await?)
    }

    /// All documents, in the order of their ids.
    pub(super) fn walk(&self) -> Walk {
        Walk { source: self.clone(), cursor: None, last: None }
    }

    /// Which of these ids it has.
    pub(super) async fn present(&self, ids: &[DocumentId]) -> Result<HashSet<DocumentId>> {
        let keys: Vec<bson::Bson> = ids.iter().map(DocumentId::to_bson).collect();
        let found = self.documents.find(doc! { "_id": { "$in": keys } });
        let rows: Vec<RawDocumentBuf> =
            found.projection(doc! { "_id": 1 }).await?.try_collect().await?;
        Ok(rows.iter().filter_map(|row| DocumentId::of_row(row)).collect())
    }

    /// A walk that begins at this id: a bound of the index, since `$gt` finds only ids of one type.
    async fn from(&self, least: Option<RawBson>) -> Result<Cursor<RawDocumentBuf>> {
        let mut find = self.documents.find(doc! {}).sort(doc! { "_id": 1 });
        if let Some(least) = least {
            let least: Document = doc! { "_id": bson::Bson::try_from(least)? };
            find = find.hint(Hint::Keys(doc! { "_id": 1 })).min(least);
        }
        Ok(find.batch_size(BATCH_MAX as u32).await?)
    }

    /// Whether it is there still. One that was dropped reads as empty.
    pub(super) async fn is_there(&self) -> Result<bool> {
        let namespace = self.documents.namespace();
        let found = uuid_of(self.documents.client(), &namespace.db, &namespace.coll).await?;
        Ok(found == Some(self.uuid.clone()))
    }

    /// One document as it is now.
    pub(super) async fn one(&self, id: &DocumentId) -> Result<Option<RawDocumentBuf>> {
        let found = self.documents.find_one(doc! { "_id": id.to_bson() }).await?;
        Ok(found.map(|document| without_id(&document)).transpose()?)
    }
}

/// The UUID of a collection, `None` of a view; or nothing where there is none of this name.
async fn uuid_of(client: &Client, database: &str, name: &str) -> Result<Option<Option<Binary>>> {
    let database = client.database(database);
    let look = database.list_collections().filter(doc! { "name": name });
    Ok(look.await?.try_next().await?.map(|found| found.info.uuid))
}

/// A walk over the source, which can begin again behind what has been dealt with.
pub(super) struct Walk {
    source: Source,
    /// None before the beginning, and after it went back.
    cursor: Option<Cursor<RawDocumentBuf>>,
    /// The last id that has been dealt with.
    last: Option<RawBson>,
}

impl Walk {
    /// The next documents; none at the end.
    pub(super) async fn next(&mut self) -> Result<Vec<RawDocumentBuf>> {
        let mut cursor = match self.cursor.take() {
            Some(cursor) => cursor,
            None => self.source.from(self.last.clone()).await?,
        };
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < BATCH_MAX && bytes < BATCH_BYTES_MAX {
            let Some(document) = cursor.try_next().await? else { break };
            // A cursor that begins again begins with it.
            if self.last.is_some() && id_of(&document)? == self.last {
                continue;
            }
            bytes += document.as_bytes().len();
            batch.push(document);
        }
        self.cursor = Some(cursor);
        Ok(batch)
    }

    /// What [`Walk::next`] gave last has been dealt with.
    pub(super) fn go_past(&mut self, batch: &[RawDocumentBuf]) -> Result<()> {
        if let Some(last) = batch.last() {
            self.last = id_of(last)?;
        }
        Ok(())
    }

    /// Back to what has not been dealt with.
    pub(super) fn go_back(&mut self) {
        self.cursor = None;
    }
}

fn id_of(document: &RawDocument) -> Result<Option<RawBson>> {
    Ok(document.get("_id")?.map(RawBson::from))
}

/// Reads a document of the source, whose version stands in `version_field`.
pub(super) fn item(raw: &RawDocument, version_field: Option<&str>) -> Result<Item, Refused> {
    let shown = |raw: &RawDocument| match raw.get("_id") {
        Ok(Some(id)) => bson::Bson::try_from(id)
            .map_or_else(|_| "?".to_owned(), |id| id.into_relaxed_extjson().to_string()),
        _ => "?".to_owned(),
    };
    let refuse = |reason: String| (shown(raw), reason);
    let id = raw.get("_id").ok().flatten().ok_or_else(|| refuse("it has no `_id`".into()))?;
    let id = DocumentId::from_raw(id).map_err(|error| refuse(error.to_string()))?;
    let state = without_id(raw).map_err(|error| refuse(error.to_string()))?;
    let version = match version_field {
        None => None,
        Some(field) => Some(version(raw, field).map_err(refuse)?),
    };
    Ok(Item { id, state, version })
}

fn version(raw: &RawDocument, field: &str) -> Result<i64, String> {
    let value: Option<RawBsonRef<'_>> = raw.get(field).ok().flatten();
    match value.and_then(integral) {
        Some(version) if (1..=crate::model::id::INTEGER_MAX).contains(&version) => Ok(version),
        _ => Err(format!("`{field}` is no version: it has to be an integer from 1 to 2^53 - 1")),
    }
}

fn without_id(raw: &RawDocument) -> bson::error::Result<RawDocumentBuf> {
    let mut state = RawDocumentBuf::new();
    for field in raw {
        let (name, value) = field?;
        if name != "_id" {
            state.append(name, value);
        }
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use bson::rawdoc;

    use super::*;

    #[test]
    fn a_document_becomes_an_id_a_state_and_a_version() {
        let raw = rawdoc! { "_id": 5.0, "n": 1, "v": 7.0 };
        let found = item(&raw, Some("v")).unwrap();
        assert_eq!((found.id, found.version), (DocumentId::Integer(5), Some(7)));
        assert_eq!(found.state, rawdoc! { "n": 1, "v": 7.0 });
    }

    #[test]
    fn what_is_none_of_ours_is_named_with_the_reason() {
        let check = |raw: RawDocumentBuf, id: &str, part: &str| {
            let (shown, reason) = item(&raw, Some("v")).unwrap_err();
            assert_eq!(shown, id);
            assert!(reason.contains(part), "{reason}");
        };
        check(rawdoc! { "_id": { "a": 1 }, "v": 1 }, r#"{"a":1}"#, "an id is");
        check(rawdoc! { "_id": 1.5, "v": 1 }, "1.5", "integer");
        check(rawdoc! { "_id": "a" }, r#""a""#, "`v` is no version");
        check(rawdoc! { "_id": "a", "v": 0 }, r#""a""#, "`v` is no version");
        check(rawdoc! { "_id": "a", "v": "2" }, r#""a""#, "`v` is no version");
    }
}
