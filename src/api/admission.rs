//! Who may ask for what: what a token's role allows, in which collections, and the record of what was changed.

use std::{convert::Infallible, sync::Arc};

use axum::{
    RequestExt,
    extract::{FromRequestParts, MatchedPath, RawPathParams, Request, State},
    http::{HeaderMap, Method, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tracing::info;

use super::problem::{Kind, Problem};
use crate::{
    access::{Access, Role, Token},
    logging::AUDIT,
};

/// Who asks. Without a token, where none are asked for, it is anybody.
#[derive(Clone, Debug)]
pub(super) struct Caller(Option<Arc<Token>>);

/// What a request is about.
struct About {
    path: String,
    collection: Option<String>,
    document: Option<String>,
}

impl Caller {
    /// Refuses a collection that this caller's token does not open.
    pub(super) fn enter(&self, collection: &str) -> Result<(), Problem> {
        if self.opens(collection) {
            return Ok(());
        }
        let detail = format!(
            "the token `{}` does not open the collection `{collection}`; its `collections` list those that it opens",
            self.name()
        );
        Err(Problem::new(Kind::Forbidden, detail))
    }

    /// Whether this caller may see a collection.
    pub(super) fn opens(&self, collection: &str) -> bool {
        self.0.as_ref().is_none_or(|token| token.opens(collection))
    }

    /// The only collections that this caller may see; `None` is all.
    pub(super) fn collections(&self) -> Option<&[String]> {
        self.0.as_ref().and_then(|token| token.collections.as_deref())
    }

    /// Under which name it is on record: the token's, or that somebody came by HTTP.
    pub(super) fn name(&self) -> &str {
        self.0.as_ref().map_or("http", |token| &token.name)
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().cloned().unwrap_or(Self(None)))
    }
}

/// Lets a request of what backends ask pass, or refuses it. What changes something is put on record.
pub(super) async fn admit(
    State(access): State<Access>,
    mut request: Request,
    next: Next,
) -> Response {
    let (caller, unknown) = match identify(&access, request.headers()) {
        Ok(caller) => (caller, None),
        Err(problem) => (Caller(None), Some(problem)),
    };
    let about = about(&mut request).await;
    let method = request.method().clone();
    let needed = needed(&method, &about.path);
    let mut asked = Asked { caller, method, needed, about, status: None };
    let allowed = || allowed(&asked.caller, needed, &asked.about);
    let response = match unknown.map_or_else(allowed, Err) {
        Ok(()) => {
            request.extensions_mut().insert(asked.caller.clone());
            let response = next.run(request).await;
            // Of a token that was taken away meanwhile nothing is told any more. What was done is done.
            match &asked.caller.0 {
                Some(token) if needed == Role::Read && !access.knows(token) => {
                    unknown_token().into_response()
                }
                _ => response,
            }
        }
        Err(problem) => problem.into_response(),
    };
    asked.status = Some(response.status().as_u16());
    response
}

/// Who asks for what. Where that changes something the log has a line of it in the end, also where nobody waits for the
/// answer any more: what was asked for may have been done.
struct Asked {
    caller: Caller,
    method: Method,
    needed: Role,
    about: About,
    /// What was answered, if it came to that.
    status: Option<u16>,
}

impl Drop for Asked {
    fn drop(&mut self) {
        let Self { caller, method, needed, about, status } = self;
        if *needed == Role::Read {
            return;
        }
        info!(
            target: AUDIT,
            by = caller.name(),
            %method,
            path = about.path,
            collection = about.collection,
            document = about.document,
            status,
            "asked over HTTP"
        );
    }
}

/// Lets whoever has any token pass.
pub(super) async fn known(State(access): State<Access>, request: Request, next: Next) -> Response {
    match identify(&access, request.headers()) {
        Ok(_) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn identify(access: &Access, headers: &HeaderMap) -> Result<Caller, Problem> {
    if access.is_open() {
        return Ok(Caller(None));
    }
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let secret = given.and_then(|value| {
        let (scheme, secret) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim())
    });
    match secret.and_then(|secret| access.token(secret)) {
        Some(token) => Ok(Caller(Some(token))),
        None => Err(unknown_token()),
    }
}

fn unknown_token() -> Problem {
    let detail = "the header `Authorization: Bearer <token>` is missing, or its token is not in `http.tokens_file`";
    Problem::new(Kind::Unauthorized, detail)
}

async fn about(request: &mut Request) -> About {
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let params = request.extract_parts::<RawPathParams>().await.ok();
    let param = |name: &str| {
        let value = params.as_ref()?.iter().find(|(key, _)| *key == name)?.1;
        Some(value.to_owned())
    };
    let collection = param("collection");
    About { path: path.unwrap_or_default(), collection, document: param("id") }
}

/// The least role for this.
fn needed(method: &Method, path: &str) -> Role {
    // What a client lacks can be asked with POST, for the sake of its clock.
    if method.is_safe() || path.ends_with("/missing") { Role::Read } else { Role::Admin }
}

fn allowed(caller: &Caller, needed: Role, about: &About) -> Result<(), Problem> {
    if let Some(token) = caller.0.as_ref().filter(|token| token.role < needed) {
        let detail = format!(
            "the token `{}` has the role `{}`, and this needs `{}`",
            token.name,
            token.role.name(),
            needed.name()
        );
        return Err(Problem::new(Kind::Forbidden, detail));
    }
    // A path that cannot be decoded is refused by whoever reads it.
    about.collection.as_deref().map_or(Ok(()), |collection| caller.enter(collection))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_reading_and_missing_can_be_had_without_the_role_for_changes() {
        const MISSING: &str = "/v1/collections/{collection}/documents/{id}/missing";
        assert_eq!(needed(&Method::GET, "/v1/status"), Role::Read);
        assert_eq!(needed(&Method::HEAD, "/v1/jobs"), Role::Read);
        assert_eq!(needed(&Method::POST, MISSING), Role::Read);
        assert_eq!(needed(&Method::DELETE, "/v1/jobs/{id}"), Role::Admin);
        assert_eq!(needed(&Method::POST, "/v1/collections/{collection}/pause"), Role::Admin);
    }
}
