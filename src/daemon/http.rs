//! The HTTP server: one task a connection, with limits on how long a request's head may take, how long a
//! connection may be idle, and how many there are. What is served can be exchanged while it runs.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    extract::Request,
    response::{IntoResponse, Response},
};
use hyper::{
    body::{Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::{debug, warn};

use super::connections::{Answering, Connections, Place, RESERVE};
use crate::{
    access::Access,
    api::{self, Door},
    time::{SystemTime, Time},
};

/// How many files everything but the HTTP server may have open: connections to MongoDB, above all.
const OTHER_FILES: usize = 40;

/// How many headers the library takes. Above the limit of `api`, which answers with a problem; what is beyond this
/// one the library answers itself, with an empty body.
const LIBRARY_HEADERS_MAX: usize = 1_024;

/// How many bytes of a head the library takes, for the same reason.
const LIBRARY_HEAD_BYTES_MAX: usize = 256 << 10;

/// How long the server waits when the system gives it no connection, for want of files for instance.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The limits on connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// How many connections there may be at once.
    pub connections_max: usize,
    /// How long a handshake and the head of a request may take, and how long a connection may be idle.
    pub head_timeout: Duration,
}

impl HttpLimits {
    /// The same with no more connections than this process may have open files for.
    #[must_use]
    pub(super) fn within_open_files(self) -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let Some(files) = limit.and_then(|files| usize::try_from(files).ok()) else { return self };
        let room = files.saturating_sub(OTHER_FILES + RESERVE).max(1);
        if room >= self.connections_max {
            return self;
        }
        warn!(
            open_files_max = files,
            connections_max = room,
            "the limit on open files (`ulimit -n`) allows fewer HTTP connections than `http.connections_max`"
        );
        Self { connections_max: room, ..self }
    }
}

/// The server, at any number of addresses: they share the connections that there may be.
#[derive(Clone, Debug)]
pub struct HttpServer {
    connections: Connections,
    access: Access,
    head_timeout: Duration,
    stop: CancellationToken,
}

impl HttpServer {
    /// A server that ends with `stop`.
    pub fn new(limits: HttpLimits, access: Access, stop: CancellationToken) -> Self {
        let HttpLimits { connections_max, head_timeout } = limits;
        Self { connections: Connections::new(connections_max), access, head_timeout, stop }
    }

    /// Serves what `routes` holds until it is to stop; then takes no new requests and completes once those under way
    /// have been answered.
    pub async fn serve(self, listener: TcpListener, door: Door, routes: watch::Receiver<Router>) {
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                Some(_) = tasks.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        tasks.spawn(self.connection(door, routes.clone()).serve(stream, self.access.tls()));
                    }
                    Err(error) => refused(&error, &self.connections).await,
                }
            }
        }
        drop(listener);
        while tasks.join_next().await.is_some() {}
    }

    fn connection(&self, door: Door, routes: watch::Receiver<Router>) -> Connection {
        let (place, stop) = (self.connections.admit(), self.stop.clone());
        Connection { place, door, routes, head_timeout: self.head_timeout, stop }
    }
}

/// No connection could be taken: when there are too many open files, one connection makes room.
async fn refused(error: &io::Error, connections: &Connections) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    // The other side has given up meanwhile, which is its own affair.
    if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        return;
    }
    let made_room = connections.make_room();
    warn!(%error, made_room, "an HTTP connection could not be taken");
    SystemTime::new().sleep(ACCEPT_PAUSE).await;
}

/// One connection, until its end.
struct Connection {
    place: Place,
    door: Door,
    routes: watch::Receiver<Router>,
    head_timeout: Duration,
    stop: CancellationToken,
}

impl Connection {
    async fn serve(self, stream: TcpStream, tls: Option<Arc<ServerConfig>>) {
        // Answers are small and wanted at once. A socket that does not know this works all the same.
        drop(stream.set_nodelay(true));
        match tls {
            None => self.answer(stream).await,
            Some(tls) => {
                if let Some(stream) = self.shake_hands(stream, tls).await {
                    self.answer(stream).await;
                }
            }
        }
    }

    /// Until then the connection is idle, and makes room for others like any that is.
    async fn shake_hands(
        &self,
        stream: TcpStream,
        tls: Arc<ServerConfig>,
    ) -> Option<TlsStream<TcpStream>> {
        let handshake = timeout(self.head_timeout, TlsAcceptor::from(tls).accept(stream));
        tokio::select! {
            biased;
            () = self.place.close.cancelled() => None,
            () = self.stop.cancelled() => None,
            shaken = handshake => match shaken {
                Ok(Ok(stream)) => Some(stream),
                Ok(Err(error)) => {
                    debug!(%error, "a connection came to no TLS");
                    None
                }
                Err(_) => None,
            },
        }
    }

    async fn answer(self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let Self { place, door, routes, head_timeout, stop } = self;
        let answer = service_fn(|request| {
            let routes = routes.borrow().clone();
            respond(request, &place, door, routes)
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(head_timeout)
            .max_headers(LIBRARY_HEADERS_MAX)
            .max_buf_size(LIBRARY_HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), answer);
        tokio::pin!(serving);
        let mut stopping = false;
        loop {
            tokio::select! {
                biased;
                () = place.close.cancelled() => return,
                () = stop.cancelled(), if !stopping => {
                    if place.is_idle() {
                        return;
                    }
                    stopping = true;
                    serving.as_mut().graceful_shutdown();
                }
                // However it ended, it is the other side that has to do something about it.
                _ = &mut serving => return,
            }
        }
    }
}

async fn respond(
    request: Request<Incoming>,
    place: &Place,
    door: Door,
    routes: Router,
) -> Result<Response, Infallible> {
    let answering = place.answer();
    if place.probes_only && !api::is_probe(request.uri().path()) {
        return Ok(api::too_busy().into_response());
    }
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(door);
    let response = match routes.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    Ok(response.map(|body| Body::new(Answer { body, _answering: answering })))
}

/// The body of an answer. Its connection is idle again once it has been sent.
struct Answer {
    body: Body,
    _answering: Answering,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
