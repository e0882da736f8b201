//! Errors as the API gives them: RFC 9457 problem details with a closed list of types, so that a caller
//! can act on the type and a person on the detail, which says what was wrong, where, and what to do.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

use crate::{
    archive::ArchiveError,
    database::{self, Verdict},
    read::ReadError,
    status::LastError,
};

/// The content type of a problem.
pub const CONTENT_TYPE: &str = "application/problem+json";

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident $name:literal $status:ident $title:literal;)*) => {
        /// What kind of problem it is: the closed list.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind { $($(#[$doc])* $kind),* }

        impl Kind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// The last part of the problem's `type`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$kind => $name),* }
            }

            /// The status code it comes with.
            pub fn status(self) -> StatusCode {
                match self { $(Self::$kind => StatusCode::$status),* }
            }

            /// What it means in general.
            pub fn title(self) -> &'static str {
                match self { $(Self::$kind => $title),* }
            }
        }
    };
}

kinds! {
    /// The id in the path.
    MalformedId "malformed-id" BAD_REQUEST "The document id cannot be read";
    /// The query string.
    MalformedQuery "malformed-query" BAD_REQUEST "The query cannot be read";
    /// The request's body.
    MalformedBody "malformed-body" BAD_REQUEST "The body cannot be read";
    /// No such path.
    NotFound "not-found" NOT_FOUND "There is nothing at this path";
    /// No such collection.
    UnknownCollection "unknown-collection" NOT_FOUND "No such collection is configured";
    /// No such document.
    UnknownDocument "unknown-document" NOT_FOUND "The document was never written";
    /// No such job.
    UnknownJob "unknown-job" NOT_FOUND "There is no such job";
    /// The path exists, the method does not.
    MethodNotAllowed "method-not-allowed" METHOD_NOT_ALLOWED "The path does not take this method";
    /// The clock claims more than exists.
    ClockAhead "clock-ahead" CONFLICT "The clock claims events that do not exist";
    /// The version does not exist yet.
    VersionAhead "version-ahead" CONFLICT "The document has not come to this version";
    /// The document does not wait.
    NotWaiting "not-waiting" NOT_FOUND "The document waits for nothing of this kind";
    /// What was asked for does not fit how the document waits.
    ActionRefused "action-refused" CONFLICT "The document does not wait like that, or not for long enough";
    /// The job cannot be cancelled any more.
    JobFinished "job-finished" CONFLICT "The job has ended";
    /// The events are gone.
    BelowFloor "below-floor" GONE "The log no longer reaches back that far";
    /// A segment of the archive is not what was written.
    ArchiveDamaged "archive-damaged" GONE "A segment of the archive is damaged or missing";
    /// The archive cannot be read.
    ArchiveAway "archive-away" SERVICE_UNAVAILABLE "The archive cannot be read";
    /// The body is beyond the limit.
    TooLarge "too-large" PAYLOAD_TOO_LARGE "The body is too large";
    /// The URL is beyond the limit.
    UrlTooLong "url-too-long" URI_TOO_LONG "The URL is too long";
    /// The headers are beyond the limit.
    HeadTooLarge "head-too-large" REQUEST_HEADER_FIELDS_TOO_LARGE "The headers are too large";
    /// Nobody knows who asks.
    Unauthorized "unauthorized" UNAUTHORIZED "A token is needed";
    /// The token is not good for this.
    Forbidden "forbidden" FORBIDDEN "The token does not allow this";
    /// A page of another origin wants to change something.
    ForeignOrigin "foreign-origin" FORBIDDEN "A page of another origin cannot ask for this";
    /// The request is meant for another machine.
    ForeignHost "foreign-host" FORBIDDEN "The request names another host";
    /// There is no room.
    TooBusy "too-busy" SERVICE_UNAVAILABLE "Too many requests at once";
    /// The projection of this collection has stopped for good reason.
    CollectionRefused "collection-refused" SERVICE_UNAVAILABLE "The collection is not served";
    /// The database cannot be reached or refuses.
    DatabaseAway "database-away" SERVICE_UNAVAILABLE "The database did not answer";
    /// It took too long.
    RequestTimeout "request-timeout" SERVICE_UNAVAILABLE "The request took too long";
    /// The version was not applied in time.
    WaitExpired "wait-expired" GATEWAY_TIMEOUT "The version was not applied in time";
    /// Stored data contradicts itself.
    DamagedData "damaged-data" INTERNAL_SERVER_ERROR "Stored data cannot be read";
    /// A fault of this program.
    Internal "internal" INTERNAL_SERVER_ERROR "A fault of this program";
}

/// One problem.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// Its kind.
    pub kind: Kind,
    /// What was wrong, where, and what to do.
    pub detail: String,
    members: Map<String, Value>,
}

impl Problem {
    /// A problem without further members.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), members: Map::new() }
    }

    /// Adds a member of its own.
    #[must_use]
    pub fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.members.insert(member.to_owned(), value.into());
        self
    }

    /// The collection is refused; `error` says why.
    pub(super) fn refused(collection: &str, error: Option<&LastError>) -> Self {
        let why = error.map_or_else(
            || "see /v1/status".to_owned(),
            |error| format!("{}; {}", error.message, error.advice),
        );
        let detail = format!("the projection of `{collection}` is stopped: {why}");
        Self::new(Kind::CollectionRefused, detail)
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        let said = error.to_string();
        match error {
            ReadError::ClockAhead(ahead) => Self::new(
                Kind::ClockAhead,
                format!(
                    "{said}; forget this document's clock and ask again with {{}} and without `log`"
                ),
            )
            .with("client", ahead.client)
            .with("claimed", ahead.claimed)
            .with("exists", ahead.exists),
            ReadError::VersionAhead { exists, .. } => {
                Self::new(Kind::VersionAhead, said).with("version", exists)
            }
            ReadError::BelowFloor { floor } => {
                Self::new(Kind::BelowFloor, said).with("floor_version", floor)
            }
            ReadError::Newer(_) => Self::new(Kind::CollectionRefused, said),
            ReadError::NoLog(_) => Self::new(
                Kind::CollectionRefused,
                format!("{said}; create it with `alluvium init`, or restore it"),
            ),
            ReadError::Unfoldable { .. } => Self::new(
                Kind::DamagedData,
                format!("{said}; compare the document with its log: `alluvium verify`"),
            ),
            ReadError::Base { .. } => Self::new(Kind::DamagedData, said),
            ReadError::Row { .. } => Self::new(
                Kind::DamagedData,
                format!("{said}; compare the document with its log: `alluvium verify`"),
            ),
            ReadError::Archive(ArchiveError::Damaged { segment, .. }) => {
                Self::new(Kind::ArchiveDamaged, said).with("segment", segment)
            }
            ReadError::Archive(_) => Self::new(Kind::ArchiveAway, said),
            ReadError::Database(error) => error.into(),
        }
    }
}

impl From<database::Error> for Problem {
    fn from(error: database::Error) -> Self {
        let detail = match error.verdict() {
            Verdict::Stop(advice) => format!("{error}; {advice}"),
            _ => format!("{error}; try again in a moment, and see /v1/status if it lasts"),
        };
        Self::new(Kind::DatabaseAway, detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": format!("urn:alluvium:problem:{}", self.kind.name()),
            "title": self.kind.title(),
            "status": self.kind.status().as_u16(),
            "detail": self.detail,
        });
        if let Some(object) = body.as_object_mut() {
            object.extend(self.members);
        }
        let content_type = [(header::CONTENT_TYPE, CONTENT_TYPE)];
        let mut response = (self.kind.status(), content_type, body.to_string()).into_response();
        if self.kind == Kind::Unauthorized {
            let bearer = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
        }
        with_retry_after(response)
    }
}

/// Says when to ask again, where the answer is that it is not possible now.
fn with_retry_after(mut response: Response) -> Response {
    if matches!(response.status(), StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS)
    {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// Makes a problem of an error response that the framework made, keeping its headers.
pub(super) async fn from_the_framework(response: Response) -> Response {
    let status = response.status();
    let content_type = response.headers().get(header::CONTENT_TYPE);
    let ours = content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/"));
    if ours || !(status.is_client_error() || status.is_server_error()) {
        return with_retry_after(response);
    }
    let problem = match status {
        StatusCode::METHOD_NOT_ALLOWED => Problem::new(
            Kind::MethodNotAllowed,
            "the header `Allow` lists the methods that this path takes",
        ),
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        StatusCode::SERVICE_UNAVAILABLE => Problem::new(
            Kind::RequestTimeout,
            "no answer within the time limit of a request; ask for less at once, or try again",
        ),
        StatusCode::NOT_FOUND => Problem::new(Kind::NotFound, "see the README for the paths"),
        other => Problem::new(Kind::Internal, format!("an unforeseen status {other}")),
    };
    let (mut parts, _) = response.into_parts();
    let (made, body) = problem.into_response().into_parts();
    parts.status = made.status;
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    with_retry_after(Response::from_parts(parts, Body::new(body)))
}

pub(super) fn too_large() -> Problem {
    Problem::new(
        Kind::TooLarge,
        "the body is beyond the limit of a request; a clock and a limit are enough",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_the_api_lists_exactly_the_problems() {
        let row = |kind: &Kind| {
            format!("| `{}` | {} | {} |", kind.name(), kind.status().as_u16(), kind.title())
        };
        let page = include_str!("README.md");
        let (_, table) = page.split_once("| name | status | title |").unwrap();
        let listed: Vec<&str> = table.lines().filter(|line| line.starts_with("| `")).collect();
        assert_eq!(listed, Kind::ALL.iter().map(row).collect::<Vec<_>>());
    }
}
