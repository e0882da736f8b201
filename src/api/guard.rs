//! What every request has to pass before it is looked at: a head of bounded size, no page of another origin
//! behind it, and, of what costs the database something, not too many at once.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, Uri, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::sync::Semaphore;

use super::{
    Door, is_probe,
    problem::{Kind, Problem},
};

/// The longest URL, in bytes.
pub const URL_BYTES_MAX: usize = 32 << 10;

/// The largest head of a request without its URL, in bytes.
pub const HEADERS_BYTES_MAX: usize = 64 << 10;

/// The most headers.
pub const HEADERS_MAX: usize = 100;

/// How long a request waits for its turn when too many are being answered.
const TURN_MAX: Duration = Duration::from_secs(5);

/// Lets a request pass, or refuses it.
pub(super) async fn guard(request: Request, next: Next) -> Response {
    let (uri, headers) = (request.uri(), request.headers());
    let door = request.extensions().get::<Door>().copied().unwrap_or_default();
    let checks = head(uri, headers)
        .and_then(|()| host(uri, headers, door.local_only))
        .and_then(|()| beside(uri, door.probes_only))
        .and_then(|()| origin(request.method(), uri, headers));
    match checks {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// Lets a request pass once fewer than the limit are being answered.
pub(super) async fn in_turn(
    State(turns): State<Arc<Semaphore>>,
    request: Request,
    next: Next,
) -> Response {
    match tokio::time::timeout(TURN_MAX, turns.acquire()).await {
        Ok(Ok(_turn)) => next.run(request).await,
        _ => too_busy().into_response(),
    }
}

/// There is no room for this request at present.
pub fn too_busy() -> Problem {
    let detail = "as many requests are being answered as there may be at once; try again in a moment, \
                  with fewer at once, or raise `http.connections_max`";
    Problem::new(Kind::TooBusy, detail)
}

fn head(uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    let url = uri.path_and_query().map_or(0, |path| path.as_str().len());
    if url > URL_BYTES_MAX {
        let detail = format!(
            "the URL has {url} bytes and may have {URL_BYTES_MAX}; what a client is missing can also be asked with \
             POST and the clock in the body"
        );
        return Err(Problem::new(Kind::UrlTooLong, detail));
    }
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if headers.len() > HEADERS_MAX || bytes > HEADERS_BYTES_MAX {
        let detail = format!(
            "there are {} headers of {bytes} bytes; there may be {HEADERS_MAX} of {HEADERS_BYTES_MAX} bytes together",
            headers.len()
        );
        return Err(Problem::new(Kind::HeadTooLarge, detail));
    }
    Ok(())
}

/// At the address for probes there is nothing else.
fn beside(uri: &Uri, probes_only: bool) -> Result<(), Problem> {
    if !probes_only || is_probe(uri.path()) {
        return Ok(());
    }
    let detail = "only /healthz, /readyz and /metrics are served at `http.health_listen`; ask for everything else at \
                  `http.listen`";
    Err(Problem::new(Kind::NotFound, detail))
}

/// Whom the request is meant for, as the sender sees it.
fn asked<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    let header = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    header.or_else(|| uri.authority().map(Authority::as_str))
}

/// On loopback: a name that somebody else has pointed at this machine is not ours. It is how a page gets
/// around the rule that it may only read from its own origin.
fn host(uri: &Uri, headers: &HeaderMap, local_only: bool) -> Result<(), Problem> {
    let Some(asked) = asked(uri, headers).filter(|_| local_only) else { return Ok(()) };
    let is_local = asked.parse::<Authority>().is_ok_and(|authority| {
        let name = authority.host().trim_start_matches('[').trim_end_matches(']');
        let named = name.eq_ignore_ascii_case("localhost");
        named || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    });
    if is_local {
        return Ok(());
    }
    let detail = "the header `Host` names another machine, and this server listens on loopback only; ask for \
                  localhost or 127.0.0.1, and let a proxy in front of it set `Host` to that";
    Err(Problem::new(Kind::ForeignHost, detail))
}

/// What changes anything cannot be asked by a page of another origin, which any browser on this machine may show.
fn origin(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    if method.is_safe() {
        return Ok(());
    }
    let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
    let origin = headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or_default());
    let is_foreign = origin.is_some_and(|origin| {
        let from = origin.split_once("://").map(|(_, authority)| authority);
        from.is_none() || !from.zip(asked(uri, headers)).is_some_and(same)
    });
    if !is_foreign && site != Some(b"cross-site") {
        return Ok(());
    }
    let detail = "a page of another origin sent this request, which the headers `Origin` and `Sec-Fetch-Site` tell; \
                  such pages cannot change anything here: let a backend of yours ask";
    Err(Problem::new(Kind::ForeignOrigin, detail))
}

fn same((one, other): (&str, &str)) -> bool {
    one.eq_ignore_ascii_case(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn on_loopback_only_names_of_loopback_are_served() {
        let uri: Uri = "/v1/status".parse().unwrap();
        let served = |name: &str| host(&uri, &headers(&[("host", name)]), true).is_ok();
        for name in ["localhost", "LOCALHOST:1", "127.0.0.1:8750", "127.9.9.9", "[::1]:8750"] {
            assert!(served(name), "{name}");
        }
        for name in [
            "evil.example",
            "evil.example:8750",
            "10.0.0.1",
            "localhost.evil.example",
            "0.0.0.0:8750",
            "[::]:8750",
            "127.0.0.1.evil.example",
            "",
            "a b",
        ] {
            assert!(!served(name), "{name}");
        }
        assert!(host(&uri, &HeaderMap::new(), true).is_ok(), "no browser leaves it out");
        assert!(host(&uri, &headers(&[("host", "api.example")]), false).is_ok());
        let whole: Uri = "http://evil.example/v1/status".parse().unwrap();
        assert!(host(&whole, &HeaderMap::new(), true).is_err());
    }

    #[test]
    fn a_page_of_another_origin_cannot_change_anything() {
        let uri: Uri = "/v1/collections/games/pause".parse().unwrap();
        let refused = |method: Method, pairs: &[(&'static str, &str)]| {
            let pairs = [&[("host", "localhost:8750")], pairs].concat();
            origin(&method, &uri, &headers(&pairs)).is_err()
        };
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            for foreign in [
                "http://evil.example",
                "http://localhost:3000",
                "http://localhost",
                "null",
                "",
                "http://localhost:8750.evil.example",
                "http://evil.example/http://localhost:8750",
            ] {
                assert!(refused(method.clone(), &[("origin", foreign)]), "{method} {foreign}");
            }
            assert!(refused(method.clone(), &[("sec-fetch-site", "cross-site")]));
            assert!(!refused(method.clone(), &[("origin", "http://localhost:8750")]));
            assert!(!refused(method.clone(), &[("sec-fetch-site", "same-origin")]));
            assert!(!refused(method, &[]));
        }
        assert!(!refused(Method::GET, &[("origin", "http://evil.example")]));
    }

    #[test]
    fn a_head_of_the_largest_size_passes_and_one_byte_more_does_not() {
        let url = |bytes: usize| format!("/{}", "x".repeat(bytes - 1)).parse::<Uri>().unwrap();
        assert!(head(&url(URL_BYTES_MAX), &HeaderMap::new()).is_ok());
        let problem = head(&url(URL_BYTES_MAX + 1), &HeaderMap::new()).unwrap_err();
        assert_eq!(problem.kind, Kind::UrlTooLong);
        let long = |bytes: usize| headers(&[("x", &"y".repeat(bytes - 1))]);
        assert!(head(&url(1), &long(HEADERS_BYTES_MAX)).is_ok());
        let problem = head(&url(1), &long(HEADERS_BYTES_MAX + 1)).unwrap_err();
        assert_eq!(problem.kind, Kind::HeadTooLarge);
        let mut many = HeaderMap::new();
        for at in 0..HEADERS_MAX {
            many.append("x", at.into());
        }
        assert!(head(&url(1), &many).is_ok());
        many.append("x", 0.into());
        assert_eq!(head(&url(1), &many).unwrap_err().kind, Kind::HeadTooLarge);
    }
}
