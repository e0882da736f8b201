//! Asking the instances, each with a time limit, all at once.

use std::path::Path;

use futures::future::join_all;
use reqwest::{
    Client, Response, Url,
    header::{AUTHORIZATION, HeaderMap, HeaderValue},
};
use serde_json::Value;

use super::http::{self, FileError, words};

/// What every instance tells of itself.
const STATUS: &str = "v1/status";
/// The largest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// How many jobs are asked for.
const JOBS: &str = "v1/jobs?limit=20";

/// Asks the instances.
pub(super) struct Asking {
    client: Client,
    urls: Vec<Url>,
    has_token: bool,
}

/// What one instance has answered.
pub(super) struct Answer {
    pub(super) url: String,
    pub(super) told: Result<Told, String>,
}

/// Its status, metrics and jobs.
pub(super) struct Told {
    pub(super) status: Value,
    pub(super) metrics: String,
    pub(super) jobs: Value,
}

/// Why nothing can be asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error(
        "the token holds characters that no header can have; check --token-file, --token or ALLUVIUM_TOKEN"
    )]
    Token,
    #[error(transparent)]
    Authority(#[from] FileError),
    #[error("HTTP cannot be set up: {0}")]
    Client(reqwest::Error),
    #[error("`{0}` is no address of a daemon: it begins with http:// or https://")]
    Scheme(Url),
}

impl Asking {
    pub(super) fn new(
        mut urls: Vec<Url>,
        token: Option<&str>,
        authority: Option<&Path>,
    ) -> Result<Self, AskError> {
        if let Some(url) = urls.iter().find(|url| !matches!(url.scheme(), "http" | "https")) {
            return Err(AskError::Scheme(bare(url)));
        }
        for url in &mut urls {
            // So that a path is added to it, and replaces nothing.
            if !url.path().ends_with('/') {
                url.set_path(&format!("{}/", url.path()));
            }
        }
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            let bearer = HeaderValue::from_str(&format!("Bearer {token}"));
            let mut bearer = bearer.map_err(|_| AskError::Token)?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        let client = http::client().default_headers(headers);
        let client = match authority {
            Some(file) => http::trusting(client, file)?,
            // Nobody has to be trusted, and a small machine may know of nobody.
            None if urls.iter().all(|url| url.scheme() == "http") => client.tls_certs_only([]),
            None => client,
        };
        let client = client.build().map_err(AskError::Client)?;
        Ok(Self { client, urls, has_token: token.is_some() })
    }

    /// What each of them answers now.
    pub(super) async fn all(&self) -> Vec<Answer> {
        join_all(self.urls.iter().map(|url| async {
            let told = self.one(url).await;
            Answer { url: bare(url).as_str().trim_end_matches('/').to_owned(), told }
        }))
        .await
    }

    async fn one(&self, url: &Url) -> Result<Told, String> {
        let metrics = self.text(url, "metrics").await?;
        let status = self.text(url, STATUS).await?;
        // While it waits for its database there are none.
        let jobs = self.text(url, JOBS).await.unwrap_or_default();
        let status = serde_json::from_str(&status)
            .map_err(|error| format!("its status cannot be read: {error}"))?;
        Ok(Told { status, metrics, jobs: serde_json::from_str(&jobs).unwrap_or_default() })
    }

    async fn text(&self, url: &Url, path: &str) -> Result<String, String> {
        let address = url.join(path).map_err(|error| error.to_string())?;
        let answer = self.client.get(address).send().await.map_err(|error| words(&error))?;
        match answer.status().as_u16() {
            401 if self.has_token => Err("it does not know this token".into()),
            401 => Err("it asks for a token: --token-file, --token or ALLUVIUM_TOKEN".into()),
            403 => Err("the token may not read this".into()),
            200 => body(answer).await,
            404 if path == STATUS => Err(format!(
                "it answers /{path} with 404: `http.health_listen` serves health and metrics alone, so give the address \
                 of `http.listen`"
            )),
            other => Err(format!("it answers /{path} with {other}")),
        }
    }
}

/// An address without what lets in.
fn bare(url: &Url) -> Url {
    let mut bare = url.clone();
    // An address that can have neither has neither.
    let _had_none = (bare.set_password(None), bare.set_username(""));
    bare.set_query(None);
    bare
}

/// What was answered, up to a limit.
async fn body(mut answer: Response) -> Result<String, String> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| words(&error))? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(format!("its answer has more than {} MiB", ANSWER_BYTES_MAX >> 20));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(String::from_utf8_lossy(&body).into_owned())
}
