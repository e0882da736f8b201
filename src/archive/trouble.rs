//! What a directory or a bucket says when it does not do what it is asked, in one sentence, and what to do about it.

use std::{error::Error, io};

/// How much of an answer is told that no S3 server has given: a proxy's page, say.
const SAID_MAX: usize = 200;

/// What is wrong, and what an operator can do about it; if that does not show, what there is to look at.
pub(super) fn told(error: &(dyn Error + 'static), otherwise: &str) -> String {
    let cause = causes(error).last().map(ToString::to_string).unwrap_or_default();
    let cause = match (tag(&cause, "Code"), tag(&cause, "Message")) {
        (Some(code), Some(message)) => format!("{code}: {}", message.trim_end_matches('.')),
        _ => {
            let line = cause.lines().next().unwrap_or_default().chars().take(SAID_MAX);
            format!("{}{}", server(&error.to_string()), line.collect::<String>())
        }
    };
    format!("{cause}; {}", advice(error).unwrap_or(otherwise))
}

/// The server that was asked, if the text names one.
fn server(text: &str) -> String {
    let url = text.split_whitespace().find(|word| word.starts_with("http"));
    let host = url.and_then(|url| url.split('/').nth(2));
    host.map_or_else(String::new, |host| format!("{host}: "))
}

/// Whether it says that an object is not there, in a bucket that is.
pub(super) fn is_missing(error: &object_store::Error) -> bool {
    let is_bucket = || code(error).as_deref() == Some("NoSuchBucket");
    matches!(error, object_store::Error::NotFound { .. }) && !is_bucket()
}

/// An error and what is behind it, the cause last.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (**error).source())
}

/// The code of an S3 error, which `object_store` hands on in the text of the answer alone.
fn code(error: &(dyn Error + 'static)) -> Option<String> {
    tag(&causes(error).last()?.to_string(), "Code").map(str::to_owned)
}

fn tag<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once("</").map(|(content, _)| content)
}

fn advice(error: &(dyn Error + 'static)) -> Option<&'static str> {
    const ALLOW: &str = "allow this program to read, write and delete there";
    const RENEW: &str = "its credentials are wrong or have expired: renew AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the \
                         environment and start again";
    match code(error).as_deref() {
        Some("NoSuchBucket") => return Some("make the bucket, or correct `archive`"),
        Some("AccessDenied") => return Some(ALLOW),
        Some(
            "ExpiredToken"
            | "InvalidAccessKeyId"
            | "InvalidToken"
            | "SignatureDoesNotMatch"
            | "TokenRefreshRequired",
        ) => return Some(RENEW),
        Some("RequestTimeTooSkewed") => return Some("set this machine's clock"),
        Some("AuthorizationHeaderMalformed" | "PermanentRedirect") => {
            return Some("set AWS_REGION to the bucket's region");
        }
        Some("NotImplemented") => {
            return Some(
                "a server is needed that knows `If-None-Match`, without which a segment could be overwritten",
            );
        }
        _ => {}
    }
    for cause in causes(error) {
        match cause.downcast_ref::<object_store::Error>() {
            Some(object_store::Error::Unauthenticated { .. }) => return Some(RENEW),
            Some(object_store::Error::PermissionDenied { .. }) => return Some(ALLOW),
            _ => {}
        }
        if cause.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_builder) {
            return Some("correct AWS_ENDPOINT_URL; plain HTTP needs AWS_ALLOW_HTTP=true");
        }
        match cause.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                return Some("make room there");
            }
            Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
                return Some(ALLOW);
            }
            Some(io::ErrorKind::NotFound) => return Some("make or mount the directory"),
            _ => {}
        }
    }
    None
}
