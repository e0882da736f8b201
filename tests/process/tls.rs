//! TLS: the certificate that is shown, how it is renewed, handshakes that never end, and pairs that nobody could use.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use reqwest::{Certificate, Client};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    common::{Daemon, TestDatabase, database, free_port, wait_until},
    config,
};

/// Where a certificate and its key stand.
struct Pair {
    folder: TempDir,
}

impl Pair {
    fn new() -> Pair {
        let pair = Pair { folder: tempfile::tempdir().unwrap() };
        let (cert, key) = made(2090);
        fs::write(pair.cert(), cert).unwrap();
        fs::write(pair.key(), key).unwrap();
        pair
    }

    fn cert(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    fn keys(&self) -> String {
        format!("tls_cert = {:?}\ntls_key = {:?}\n", self.cert(), self.key())
    }
}

/// A certificate of this machine until that year, and its key.
fn made(until: i32) -> (String, String) {
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.not_after = date_time_ymd(until, 1, 1);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// A daemon with its configuration file, and where it listens.
struct Scene {
    _db: TestDatabase,
    daemon: Daemon,
    port: u16,
    folder: TempDir,
}

impl Scene {
    async fn new(keys: &str) -> Scene {
        let (db, port, folder) = (database().await, free_port(), tempfile::tempdir().unwrap());
        let text = config(&db, port, keys);
        fs::write(folder.path().join("alluvium.toml"), &text).unwrap();
        let scene = Scene { _db: db, daemon: Daemon::start(&text), port, folder };
        wait_until("it is ready", async || scene.run(&["health"]).0 == 0).await;
        scene
    }

    fn run(&self, arguments: &[&str]) -> (i32, String) {
        said(arguments, &self.folder.path().join("alluvium.toml"))
    }

    fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.port)
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    /// What the status says to somebody who trusts this certificate alone.
    async fn status(&self, trusted: &str) -> Result<Value, reqwest::Error> {
        let trusted = Certificate::from_pem(trusted.as_bytes()).unwrap();
        let client = Client::builder().no_proxy().tls_certs_only([trusted]).build().unwrap();
        let text = client.get(self.url("/v1/status")).send().await?.text().await?;
        Ok(serde_json::from_str(&text).unwrap())
    }
}

fn said(arguments: &[&str], config: &Path) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_alluvium"));
    let command = command.args(arguments).arg("--config").arg(config);
    let Output { status, stdout, stderr } = command.output().unwrap();
    let said = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    (status.code().unwrap(), said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_is_shown_and_one_that_does_not_fit_is_told_and_changes_nothing() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let pair = Pair::new();
    let first = fs::read_to_string(pair.cert()).unwrap();
    let mut scene = Scene::new(&pair.keys()).await;
    let (second, key) = made(2090);
    assert_eq!(scene.status(&first).await.unwrap()["last_error"], Value::Null);
    assert!(scene.status(&second).await.is_err());

    // The certificate has come and the key has not.
    fs::write(pair.cert(), &second).unwrap();
    wait_until("it is told", async || {
        let said = scene.status(&first).await.unwrap();
        let error = said["last_error"]["message"].as_str().unwrap_or_default().to_owned();
        said["last_error"]["class"] == "tls" && error.contains("does not belong to the certificate")
    })
    .await;
    // The log is written beside everything else.
    wait_until("the log tells it too", async || {
        scene.daemon.log().contains("what was read before goes on being used")
    })
    .await;
    fs::write(pair.key(), &key).unwrap();
    wait_until("the new one is shown", async || scene.status(&second).await.is_ok()).await;
    assert_eq!(scene.status(&second).await.unwrap()["last_error"], Value::Null);
    assert!(scene.status(&first).await.is_err());
    let secret = key.lines().nth(1).unwrap();
    assert!(!scene.daemon.log().contains(secret));
    assert_eq!(scene.daemon.stop().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_that_ask_over_http_speak_tls() {
    let pair = Pair::new();
    let mut scene = Scene::new(&pair.keys()).await;
    assert_eq!(scene.run(&["health", "--live"]), (0, "alive\n".into()));
    let (cert, url) = (pair.cert().display().to_string(), scene.url(""));
    let (code, text) = scene.run(&["top", "--once", "--ca", &cert]);
    assert!(code == 0 && text.contains("games"), "{text}");
    assert_eq!(scene.run(&["top", "--once", "--url", &url, "--ca", &cert]).0, 0);
    for (arguments, wanted) in [
        (
            &["--url", &url][..],
            "UnknownIssuer: name the certificates of whoever has signed it with --ca",
        ),
        (&["--url", &url.replace("https", "http"), "--ca", &cert], "begins with https://"),
        (&["--ca", "/nowhere"], "--ca: /nowhere cannot be read"),
        (&["--ca", &pair.key().display().to_string()], "holds no certificate"),
    ] {
        let (code, text) = scene.run(&[&["top", "--once"], arguments].concat());
        assert!(code == 1 && text.contains(wanted), "{text}");
    }
    assert_eq!(scene.daemon.stop().await.code(), Some(0));
    let (code, text) = scene.run(&["health"]);
    assert!(code == 4 && text.contains("https://127.0.0.1"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_never_ends_holds_nobody_up() {
    let pair = Pair::new();
    let keys =
        |time: &str| format!("{}head_timeout = \"{time}\"\nconnections_max = 8\n", pair.keys());
    let mut scene = Scene::new(&keys("1s")).await;
    let mut half = scene.connect();
    // The beginning of a record of a handshake.
    half.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).unwrap();
    let mut silent = scene.connect();
    // Each ends only because the server closes it.
    let mut rest = Vec::new();
    drop((half.read_to_end(&mut rest), silent.read_to_end(&mut rest)));
    assert_eq!(rest, b"");
    assert_eq!(scene.daemon.stop().await.code(), Some(0));

    let mut scene = Scene::new(&keys("10m")).await;
    let many: Vec<TcpStream> = (0..40).map(|_| scene.connect()).collect();
    let start = Instant::now();
    assert_eq!(scene.run(&["health"]).0, 0);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(scene.daemon.stop().await.code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    drop(many);
}

#[test]
fn a_pair_that_nobody_could_use_is_refused_in_a_sentence_by_check_and_run_alike() {
    let (good, expired) = (Pair::new(), Pair::new());
    let (cert, key) = made(2021);
    fs::write(expired.cert(), cert).unwrap();
    fs::write(expired.key(), key).unwrap();
    let other = Pair::new();
    let both = |cert: &Path, key: &Path| format!("tls_cert = {cert:?}\ntls_key = {key:?}");
    let file = good.folder.path().join("alluvium.toml");
    for (http, wanted) in [
        (
            format!("tls_cert = {:?}", good.cert()),
            "http.tls_cert: has no effect without http.tls_key",
        ),
        (
            format!("tls_key = {:?}", good.key()),
            "http.tls_key: has no effect without http.tls_cert",
        ),
        (both(Path::new("/nowhere"), &good.key()), "http.tls_cert: /nowhere cannot be read"),
        (expired.keys(), "expired at 2021-01-01T00:00:00Z; have it renewed"),
        (both(&good.cert(), &other.key()), "does not belong to the certificate in"),
    ] {
        let text = format!(
            "[mongodb]\nuri = \"mongodb://127.0.0.1:{}/\"\ndatabase = \"game\"\n[http]\nlisten = \"127.0.0.1:0\"\n\
             {http}\n[[collections]]\nname = \"games\"\n",
            free_port(),
        );
        fs::write(&file, text).unwrap();
        for command in [&["config", "check"][..], &["run"]] {
            let (code, text) = said(command, &file);
            assert!(code == 1 && text.contains(wanted), "{text}");
        }
    }
}
