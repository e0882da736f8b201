//! What handlers take from a request, each refused with a problem that names the part at fault.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{StatusCode, request::Parts},
};
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    ApiState, Served,
    aside::aside,
    problem::{Kind, Problem, too_large},
};
use crate::{model::id::DocumentId, read::Reader, status::Phase};

/// The collection of the path, if it is configured, also while it is refused.
pub(super) struct Named(pub(super) Served);

/// The collection of the path, if it is served.
pub(super) struct Collection(pub(super) Served);

/// The document of the path, in a collection that is served.
pub(super) struct Target {
    pub(super) served: Served,
    pub(super) id: DocumentId,
}

/// The query string.
pub(super) struct Params<T>(pub(super) T);

/// A JSON body, whatever content type it claims.
pub(super) struct JsonBody<T>(pub(super) T);

/// The same of a few words, where nothing at all asks for nothing. No query stands beside it: an option that is looked
/// for in one place alone must not go unheard in the other.
pub(super) struct OptionalBody<T>(pub(super) T);

/// No query.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoParams {}

/// No body: what would be asked for in it must not go unheard.
pub(super) struct NoBody;

#[derive(Deserialize)]
struct CollectionPath {
    collection: String,
}

#[derive(Deserialize)]
struct DocumentPath {
    id: String,
}

async fn path<T: DeserializeOwned + Send>(parts: &mut Parts) -> Result<T, Problem> {
    let path = Path::<T>::from_request_parts(parts, &()).await;
    let malformed = |why: String| {
        Problem::new(Kind::MalformedId, format!("{why}; percent-encode the path as UTF-8"))
    };
    path.map(|Path(path)| path).map_err(|rejection| malformed(rejection.body_text()))
}

/// A collection by its name, if it is configured.
pub(super) fn configured<'a>(state: &'a ApiState, name: &str) -> Result<&'a Served, Problem> {
    state.collections.get(name).ok_or_else(|| {
        let known: Vec<&str> = state.collections.keys().map(String::as_str).collect();
        let known = known.join(", ");
        let detail = format!("`{name}` is not among the configured collections: {known}");
        Problem::new(Kind::UnknownCollection, detail)
    })
}

impl Target {
    /// What reads the collection; refused if it is to read through an archive that there is not.
    pub(super) fn reader(&self, archive: bool) -> Result<&Reader, Problem> {
        let reader = &self.served.reader;
        if archive && !reader.has_archive() {
            let detail = format!(
                "`{}` has no archive; leave out `archive`, or set `archive` in its [collections.compaction]",
                reader.collection()
            );
            return Err(Problem::new(Kind::MalformedQuery, detail));
        }
        Ok(reader)
    }
}

impl FromRequestParts<Arc<ApiState>> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<ApiState>) -> Result<Self, Problem> {
        let CollectionPath { collection } = path(parts).await?;
        Ok(Self(configured(state, &collection)?.clone()))
    }
}

impl FromRequestParts<Arc<ApiState>> for Collection {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<ApiState>) -> Result<Self, Problem> {
        let Named(served) = Named::from_request_parts(parts, state).await?;
        let refused = {
            let status = served.status.borrow();
            (status.phase == Phase::Refused)
                .then(|| Problem::refused(&status.name, status.last_error.as_ref()))
        };
        refused.map_or(Ok(Self(served)), Err)
    }
}

impl FromRequestParts<Arc<ApiState>> for Target {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<ApiState>) -> Result<Self, Problem> {
        let DocumentPath { id } = path(parts).await?;
        let id = DocumentId::from_text(&id).map_err(|error| {
            Problem::new(Kind::MalformedId, format!("the id `{id}` of the path: {error}"))
        })?;
        let Collection(served) = Collection::from_request_parts(parts, state).await?;
        Ok(Self { served, id })
    }
}

impl<T: DeserializeOwned> FromRequestParts<Arc<ApiState>> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<ApiState>) -> Result<Self, Problem> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(params)) => Ok(Self(params)),
            Err(rejection) => {
                let said = rejection.body_text();
                // What comes before is about this program.
                let said =
                    said.strip_prefix("Failed to deserialize query string: ").unwrap_or(&said);
                Err(Problem::new(Kind::MalformedQuery, said.to_owned()))
            }
        }
    }
}

impl<T: DeserializeOwned + Send + 'static> FromRequest<Arc<ApiState>> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &Arc<ApiState>) -> Result<Self, Problem> {
        let bytes = body(request, state).await?;
        let read = aside(bytes.len(), move || serde_json::from_slice(&bytes)).await?;
        let body = read.map_err(|error: serde_json::Error| {
            let detail = format!(
                "the body is not the JSON that is expected here: {error}; \
                 an example: {{\"clock\": {{\"mobile\": 3}}, \"limit\": 1000}}"
            );
            Problem::new(Kind::MalformedBody, detail)
        })?;
        Ok(Self(body))
    }
}

impl<T: DeserializeOwned + Default> FromRequest<Arc<ApiState>> for OptionalBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &Arc<ApiState>) -> Result<Self, Problem> {
        if let Some(query) = request.uri().query().filter(|query| !query.is_empty()) {
            let name = query.split(['=', '&']).next().unwrap_or_default();
            let detail = format!(
                "`{name}` is in the query, where nothing is looked for here: what is asked for goes into the body, as JSON"
            );
            return Err(Problem::new(Kind::MalformedQuery, detail));
        }
        let bytes = body(request, state).await?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        serde_json::from_slice(&bytes).map(Self).map_err(|error| {
            let detail = format!(
                "the body is not the JSON that is expected here: {error}; \
                 an example: {{\"repair\": true}}, or no body at all"
            );
            Problem::new(Kind::MalformedBody, detail)
        })
    }
}

impl FromRequest<Arc<ApiState>> for NoBody {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &Arc<ApiState>) -> Result<Self, Problem> {
        let bytes = body(request, state).await?;
        if bytes.trim_ascii().is_empty() {
            return Ok(Self);
        }
        let found = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&bytes);
        let detail = match found.map(|fields| fields.into_iter().next()) {
            Ok(None) => return Ok(Self),
            Ok(Some((name, _))) => {
                format!("`{name}` is in the body, but this takes none: leave the body out")
            }
            Err(_) => "this takes no body: leave it out".to_owned(),
        };
        Err(Problem::new(Kind::MalformedBody, detail))
    }
}

async fn body(request: Request, state: &Arc<ApiState>) -> Result<Bytes, Problem> {
    Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        _ => Problem::new(Kind::MalformedBody, rejection.body_text()),
    })
}

/// A field that holds JSON inside a query string.
pub(super) async fn json_param<T: DeserializeOwned + Send + 'static>(
    name: &str,
    text: String,
) -> Result<T, Problem> {
    let read = aside(text.len(), move || serde_json::from_str(&text)).await?;
    read.map_err(|error: serde_json::Error| {
        Problem::new(
            Kind::MalformedQuery,
            format!("`{name}` is not the JSON that is expected: {error}"),
        )
    })
}
