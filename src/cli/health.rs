//! `alluvium health`: asks the daemon of this machine how it is, for the health check of a container.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use axum::{
    body::{Body, to_bytes},
    http::{Request, StatusCode, header},
};
use clap::Args;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};

use super::{CommandResult, Globals, NeedsAttention, output};
use crate::config::Expect;

/// How long the daemon may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// The largest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

#[derive(Args, Debug)]
pub(super) struct Health {
    /// Ask only whether the process lives, as /healthz tells, instead of whether it is ready: what a container is
    /// restarted for
    #[arg(long)]
    live: bool,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Health {
    pub(super) async fn run(self, globals: &Globals) -> CommandResult {
        let listen = globals.load(Expect::Connection)?.http.listen;
        let path = if self.live { "/healthz" } else { "/readyz" };
        let (good, reasons) = match timeout(ANSWER_MAX, ask(listen, path)).await {
            Ok(Ok((status, body))) => (status == StatusCode::OK, reasons(&body)),
            Ok(Err(error)) => {
                (false, vec![format!("{} does not answer: {error}", reachable(listen))])
            }
            Err(_) => {
                let seconds = ANSWER_MAX.as_secs();
                (false, vec![format!("{} does not answer within {seconds} s", reachable(listen))])
            }
        };
        let name = if self.live { "alive" } else { "ready" };
        if globals.json {
            output::json(&json!({ name: good, "reasons": reasons }))?;
        } else if good {
            output::line(name)?;
        } else {
            output::line(format!("not {name}: {}", reasons.join("; ")))?;
        }
        if good { Ok(()) } else { Err(NeedsAttention.into()) }
    }
}

/// The address at which a server that listens there can be reached from this machine.
pub(super) fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

async fn ask(listen: SocketAddr, path: &str) -> Result<(StatusCode, Value), Failure> {
    let address = reachable(listen);
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path)
        .header(header::HOST, address.to_string())
        .header(header::CONNECTION, "close")
        .body(Body::empty())?;
    let answer = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = to_bytes(Body::new(answer.into_body()), ANSWER_BYTES_MAX).await?;
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    };
    tokio::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        ended = connection => match ended {
            // What has been read by then may still be taken.
            Ok(()) => answer.await,
            Err(error) => Err(io::Error::other(error).into()),
        },
    }
}

fn reasons(body: &Value) -> Vec<String> {
    let reasons = body.get("reasons").and_then(Value::as_array);
    reasons.into_iter().flatten().map(output::plain).collect()
}
