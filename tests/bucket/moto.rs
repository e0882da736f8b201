//! A real S3 API, which checks signatures and rights: moto's server. And a door before it that does to requests what
//! bad servers do.

use std::{
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, Method, StatusCode},
    response::Response,
};
use futures::TryStreamExt;
use object_store::{
    ObjectStore, ObjectStoreExt, PutPayload, aws::AmazonS3Builder, path::Path as Name,
};

use crate::common::{Guarded, free_port, wait_until};

/// The bucket that every test has.
pub(crate) const BUCKET: &str = "archives";

/// A running server.
#[derive(Debug)]
pub(crate) struct Moto {
    _process: Guarded,
    pub(crate) address: String,
    /// Who may do everything.
    root: Keys,
}

/// The keys of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keys {
    pub(crate) id: String,
    pub(crate) secret: String,
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().into()
}

fn between<'t>(text: &'t str, tag: &str) -> &'t str {
    let (_, rest) = text.split_once(&format!("<{tag}>")).unwrap_or_else(|| panic!("{text}"));
    rest.split_once("</").unwrap().0
}

impl Moto {
    /// Starts one that has a bucket, and looks at signatures and rights.
    pub(crate) async fn start() -> Self {
        // For the test's own look into the bucket.
        let _kept = rustls::crypto::ring::default_provider().install_default();
        let port = free_port();
        let process = Command::new("moto_server")
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("`moto_server` cannot be run ({error}); see .ci/run for how to install it")
            });
        let none = Keys { id: String::new(), secret: String::new() };
        let address = format!("127.0.0.1:{port}");
        let mut moto = Self { _process: Guarded::new(process), address, root: none };
        wait_until("moto is there", async || std::net::TcpStream::connect(&moto.address).is_ok())
            .await;
        let made = agent().put(moto.url(&format!("/{BUCKET}"))).send_empty().unwrap();
        assert_eq!(made.status(), 200);
        moto.root = moto.user("root", true);
        moto
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// From now on requests have to be signed, or not.
    pub(crate) fn checks(&self, is_on: bool) {
        let unchecked_requests = if is_on { "0" } else { "inf" };
        let done = agent().post(self.url("/moto-api/reset-auth")).send(unchecked_requests);
        assert_eq!(done.unwrap().status(), 200);
    }

    /// Asks for something about users, which are not checked themselves.
    fn iam(&self, form: &str) -> String {
        self.checks(false);
        let scope = "AWS4-HMAC-SHA256 Credential=any/20260101/us-east-1/iam/aws4_request, \
                     SignedHeaders=host, Signature=none";
        let asked = agent().post(self.url("/")).header("authorization", scope);
        let asked = asked.header("content-type", "application/x-www-form-urlencoded");
        let mut answer = asked.send(format!("{form}&Version=2010-05-08")).unwrap();
        let said = answer.body_mut().read_to_string().unwrap();
        assert_eq!(answer.status(), 200, "{said}");
        self.checks(true);
        said
    }

    /// A new user, who may do everything with objects, or nothing.
    pub(crate) fn user(&self, name: &str, is_allowed: bool) -> Keys {
        self.iam(&format!("Action=CreateUser&UserName={name}"));
        if is_allowed {
            let policy = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"s3:*","Resource":"*"}}"#;
            let policy =
                percent_encoding::utf8_percent_encode(policy, percent_encoding::NON_ALPHANUMERIC);
            self.iam(&format!(
                "Action=PutUserPolicy&UserName={name}&PolicyName=p&PolicyDocument={policy}"
            ));
        }
        let said = self.iam(&format!("Action=CreateAccessKey&UserName={name}"));
        let (id, secret) = (between(&said, "AccessKeyId"), between(&said, "SecretAccessKey"));
        Keys { id: id.to_owned(), secret: secret.to_owned() }
    }

    /// The keys of a user are good for nothing any more.
    pub(crate) fn withdraw(&self, name: &str, keys: &Keys) {
        self.iam(&format!("Action=DeleteAccessKey&UserName={name}&AccessKeyId={}", keys.id));
    }

    /// The bucket, for the test itself.
    fn store(&self) -> impl ObjectStore {
        let store = AmazonS3Builder::new().with_bucket_name(BUCKET).with_allow_http(true);
        let store = store.with_endpoint(self.url("")).with_access_key_id(&self.root.id);
        store.with_secret_access_key(&self.root.secret).build().unwrap()
    }

    /// The names of all objects below a prefix, in order.
    pub(crate) async fn names(&self, prefix: &str) -> Vec<String> {
        let store = self.store();
        let found: Vec<_> = store.list(Some(&Name::from(prefix))).try_collect().await.unwrap();
        let mut names: Vec<String> = found.into_iter().map(|meta| meta.location.into()).collect();
        names.sort();
        names
    }

    pub(crate) async fn get(&self, name: &str) -> Vec<u8> {
        let found = self.store().get(&Name::from(name)).await.unwrap();
        found.bytes().await.unwrap().to_vec()
    }

    pub(crate) async fn put(&self, name: &str, bytes: &[u8]) {
        let bytes = PutPayload::from(bytes.to_vec());
        self.store().put(&Name::from(name), bytes).await.unwrap();
    }

    pub(crate) async fn delete(&self, name: &str) {
        self.store().delete(&Name::from(name)).await.unwrap();
    }
}

/// What the door does to what comes through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manners {
    Good,
    /// Stores half of each segment, and says that it has stored it.
    Halves,
    /// Passes over the condition under which an object is created.
    Heedless,
    /// Says that it does not know that condition.
    Ignorant,
}

/// A server before moto.
pub(crate) struct Door {
    pub(crate) address: String,
    manners: Arc<Mutex<Manners>>,
}

impl Door {
    /// One that has good manners at first, for the runtime of the test.
    pub(crate) async fn before(moto: &Moto) -> Self {
        moto.checks(false);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let manners = Arc::new(Mutex::new(Manners::Good));
        let state = (moto.url(""), Arc::clone(&manners));
        let router = axum::Router::new().fallback(pass).with_state(state);
        tokio::spawn(async { axum::serve(listener, router).await });
        Self { address, manners }
    }

    pub(crate) fn behaves(&self, manners: Manners) {
        *self.manners.lock().unwrap() = manners;
    }
}

type Behind = (String, Arc<Mutex<Manners>>);

async fn pass(State((moto, manners)): State<Behind>, request: Request) -> Response {
    let manners = *manners.lock().unwrap();
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 64 << 20).await.unwrap();
    let is_conditional = head.headers.contains_key("if-none-match");
    if manners == Manners::Ignorant && is_conditional {
        let said = "<Error><Code>NotImplemented</Code><Message>A header you provided implies functionality that is \
                    not implemented.</Message></Error>";
        let answer = Response::builder().status(StatusCode::NOT_IMPLEMENTED);
        return answer.body(Body::from(said)).unwrap();
    }
    let path = head.uri.path_and_query().unwrap().as_str();
    let is_halved =
        manners == Manners::Halves && head.method == Method::PUT && path.contains("/segments/");
    let body = if is_halved { body.slice(..body.len() / 2) } else { body };
    let mut headers = head.headers;
    if manners == Manners::Heedless {
        headers.remove("if-none-match");
    }
    let url = format!("{moto}{path}");
    tokio::task::spawn_blocking(move || forward(&head.method, &url, &headers, &body)).await.unwrap()
}

fn forward(method: &Method, url: &str, headers: &HeaderMap, body: &Bytes) -> Response {
    /// What belongs to one connection alone.
    const OWN: [HeaderName; 3] = [
        axum::http::header::CONNECTION,
        axum::http::header::CONTENT_LENGTH,
        axum::http::header::TRANSFER_ENCODING,
    ];
    let mut request = axum::http::Request::builder().method(method).uri(url);
    for (name, value) in headers.iter().filter(|(name, _)| !OWN.contains(name)) {
        request = request.header(name, value);
    }
    let mut answer = agent().run(request.body(&body[..]).unwrap()).unwrap();
    let mut response = Response::builder().status(answer.status());
    for (name, value) in answer.headers().iter().filter(|(name, _)| !OWN.contains(name)) {
        response = response.header(name, value);
    }
    let body = answer.body_mut().with_config().limit(64 << 20).read_to_vec().unwrap();
    response.body(Body::from(body)).unwrap()
}
