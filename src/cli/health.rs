//! `alluvium health`: asks the daemon of this machine how it is, for the health check of a container.

use axum::body::{Body, to_bytes};
use clap::Args;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use super::{CommandResult, Globals, NeedsAttention, http, output};
use crate::config::Expect;

/// The largest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

#[derive(Args, Debug)]
pub(super) struct Health {
    /// Ask only whether the process lives, as /healthz tells, instead of whether it is ready: what a container is
    /// restarted for
    #[arg(long)]
    live: bool,
}

impl Health {
    pub(super) async fn run(self, globals: &Globals) -> CommandResult {
        let address = http::own(&globals.load(Expect::Connection)?.http);
        let path = if self.live { "/healthz" } else { "/readyz" };
        // The question holds no secret and does not leave this machine, so whose the certificate is does not matter.
        let client = http::client().tls_danger_accept_invalid_certs(true).build()?;
        let (good, reasons) = match client.get(format!("{address}{path}")).send().await {
            Ok(answer) => (answer.status() == StatusCode::OK, reasons(answer).await),
            Err(error) => {
                (false, vec![format!("{address} does not answer: {}", http::words(&error))])
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

async fn reasons(answer: Response) -> Vec<String> {
    let body = reqwest::Body::from(answer);
    let text = to_bytes(Body::new(body), ANSWER_BYTES_MAX).await.unwrap_or_default();
    let body: Value = serde_json::from_slice(&text).unwrap_or_default();
    let reasons = body.get("reasons").and_then(Value::as_array);
    reasons.into_iter().flatten().map(output::plain).collect()
}
