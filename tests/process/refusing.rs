//! Servers that refuse: each cause is a sentence of its own that says what to do, wherever it is told, and never a
//! dump of what the server answered.

use std::{
    io::{ErrorKind, Read},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    time::Duration,
};

use alluvium::embedded::{Login, Mongod, Options};
use bson::doc;
use mongodb::{
    Client,
    options::{ClientOptions, Tls, TlsOptions},
};
use rustls::{ServerConfig, ServerConnection, pki_types::PrivateKeyDer};

use crate::{
    at,
    common::{Authority, Daemon, free_port, wait_until},
};

fn args(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// What `alluvium run` says before it ends with exit code 1.
async fn said(uri: &str) -> String {
    let mut daemon = Daemon::start(&at(uri, "game", free_port(), ""));
    let status = daemon.ended().await;
    let mut said = String::new();
    wait_until("all that it said", async || {
        said = daemon.log();
        said.contains("error: ")
    })
    .await;
    assert_eq!(status.code(), Some(1), "{said}");
    no_dump(&said);
    said
}

fn no_dump(said: &str) {
    for dump in ["Topology", "labels:", "lsid", "$clusterTime", "server response", "Kind:"] {
        assert!(!said.contains(dump), "`{dump}` in: {said}");
    }
}

/// Waits until the daemon's log, readiness and status all say this.
async fn tells(daemon: &Daemon, parts: &[&str]) {
    for (path, field) in [("/readyz", "/reasons/0"), ("/v1/status", "/collections/0/last_error")] {
        wait_until(&format!("{path} says {parts:?}"), async || {
            let (_, body) = daemon.get(path);
            no_dump(&body.to_string());
            let told = body.pointer(field).map(ToString::to_string).unwrap_or_default();
            parts.iter().all(|part| told.contains(part))
        })
        .await;
    }
    assert!(parts.iter().all(|part| daemon.log().contains(part)), "{}", daemon.log());
    no_dump(&daemon.log());
}

async fn listening(daemon: &Daemon) {
    let address = daemon.url("").replace("http://", "");
    wait_until("it listens", async || TcpStream::connect(&address).is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_table_scans_is_named_and_waited_for() {
    let options =
        Options { args: args(&["--setParameter", "notablescan=1"]), ..Options::default() };
    let mongod = Mongod::start(options).await.unwrap();
    let daemon = Daemon::start(&at(mongod.uri(), "game", free_port(), ""));
    listening(&daemon).await;
    tells(&daemon, &["notablescan", "turn that parameter off"]).await;
    let admin = Client::with_uri_str(mongod.uri()).await.unwrap().database("admin");
    admin.run_command(doc! { "setParameter": 1, "notablescan": false }).await.unwrap();
    let mut daemon = daemon;
    daemon.ready().await;
    assert_eq!(daemon.stop().await.code(), Some(0));
    mongod.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_on_connections_that_is_reached_is_named_and_waited_for() {
    let options = Options { args: args(&["--maxConns", "8"]), ..Options::default() };
    let mongod = Mongod::start(options).await.unwrap();
    let address = ("127.0.0.1", mongod.port());
    let mut held = Vec::new();
    let mut refused = 0;
    wait_until("the limit is reached, and stays so", async || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        // Whom the server takes in it waits for; the others it closes.
        match stream.read(&mut [0]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                held.push(stream);
                refused = 0;
            }
            _ => refused += 1,
        }
        refused > 50
    })
    .await;
    let mut daemon = Daemon::start(&at(mongod.uri(), "game", free_port(), ""));
    listening(&daemon).await;
    tells(&daemon, &["closes every connection at once", "--maxConns"]).await;
    drop(held);
    wait_until("it goes on", async || daemon.log().contains("leads under epoch")).await;
    daemon.signal("KILL");
    daemon.ended().await;
    mongod.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_without_rights_is_told_which_role_it_lacks() {
    let login = Login { user: "root".into(), password: "correct".into() };
    let mongod = Mongod::start(Options { login: Some(login), ..Options::default() }).await.unwrap();
    let admin = Client::with_uri_str(mongod.uri()).await.unwrap().database("admin");
    let nobody = doc! { "createUser": "nobody", "pwd": "pw", "roles": [] };
    admin.run_command(nobody).await.unwrap();
    let told = said(&mongod.uri().replace("root:correct@", "nobody:pw@")).await;
    for part in ["not authorized on game", "the role that `alluvium init --roles` prints"] {
        assert!(told.contains(part), "{told}");
    }
    mongod.stop().await.unwrap();
}

#[tokio::test]
async fn something_else_than_mongodb_is_no_riddle() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("mongodb://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        use std::io::Write;
        for mut stream in listener.incoming().flatten() {
            drop(stream.read(&mut [0; 512]));
            drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"));
        }
    });
    let daemon = Daemon::start(&at(&uri, "game", free_port(), ""));
    listening(&daemon).await;
    tells(&daemon, &["does not answer as MongoDB does"]).await;
}

impl Authority {
    /// Where somebody shows an expired certificate. MongoDB would not start with one: it expires while it runs.
    fn expired(&self) -> SocketAddr {
        let (certificate, key) = self.issue("server of a test", "127.0.0.1", 2021);
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let (listener, config) = (TcpListener::bind("127.0.0.1:0").unwrap(), Arc::new(config));
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut connection = ServerConnection::new(config.clone()).unwrap();
                // Whoever looks at the certificate hangs up.
                while connection.complete_io(&mut stream).is_ok_and(|(read, _)| read > 0) {}
            }
        });
        address
    }

    /// A server that speaks TLS, and for its own start also lets in who does not.
    async fn server(&self, file: &str, host: &str, more: &[&str]) -> Mongod {
        let certificate = self.sign(file, host);
        let authority = self.path("ca.pem");
        let tls = [
            "--tlsMode",
            "preferTLS",
            "--tlsCertificateKeyFile",
            certificate.to_str().unwrap(),
            "--tlsCAFile",
            authority.to_str().unwrap(),
        ];
        let args = args(&[&tls, more].concat());
        Mongod::start(Options { args, ..Options::default() }).await.unwrap()
    }

    fn trusting(&self, mongod: &Mongod) -> String {
        format!("{}&tls=true&tlsCAFile={}", mongod.uri(), self.path("ca.pem").display())
    }
}

/// Has a server speak nothing but TLS from now on.
async fn demand_tls(mongod: &Mongod) {
    let admin = Client::with_uri_str(mongod.uri()).await.unwrap().database("admin");
    admin.run_command(doc! { "setParameter": 1, "tlsMode": "requireTLS" }).await.unwrap();
}

async fn says(uri: &str, part: &str) {
    let told = said(uri).await;
    assert!(told.contains(part), "`{told}` does not say `{part}`");
}

const WITHOUT_CLIENTS: [&str; 1] = ["--tlsAllowConnectionsWithoutCertificates"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_tls_is_told_apart() {
    let authority = Authority::new();
    let good = authority.server("good.pem", "127.0.0.1", &WITHOUT_CLIENTS).await;
    says(&format!("{}&tls=true", good.uri()), "shows a certificate that is not trusted").await;
    let mut daemon = Daemon::start(&at(&authority.trusting(&good), "game", free_port(), ""));
    daemon.ready().await;
    assert_eq!(daemon.stop().await.code(), Some(0));
    demand_tls(&good).await;
    says(good.uri(), "demands TLS, which mongodb.uri does not ask for").await;
    good.stop().await.unwrap();

    let old = authority.expired();
    let uri = format!("mongodb://{old}/?tls=true&tlsCAFile={}", authority.path("ca.pem").display());
    says(&uri, "shows a certificate that has expired").await;

    let other = authority.server("other.pem", "db.example", &WITHOUT_CLIENTS).await;
    says(&authority.trusting(&other), "shows a certificate for another name").await;
    other.stop().await.unwrap();

    let strict = authority.server("strict.pem", "127.0.0.1", &[]).await;
    says(&authority.trusting(&strict), "demands a client's certificate").await;
    let client = authority.sign("client.pem", "a.client");
    let uri = format!("{}&tlsCertificateKeyFile={}", authority.trusting(&strict), client.display());
    let tls =
        TlsOptions::builder().ca_file_path(authority.path("ca.pem")).cert_key_file_path(client);
    let mut options = ClientOptions::parse(strict.uri()).await.unwrap();
    options.tls = Some(Tls::Enabled(tls.build()));
    let client = Client::with_options(options).unwrap();
    client.database("admin").run_command(doc! { "ping": 1 }).await.unwrap();
    let mut daemon = Daemon::start(&at(&uri, "game", free_port(), ""));
    daemon.ready().await;
    assert_eq!(daemon.stop().await.code(), Some(0));
    strict.stop().await.unwrap();

    let plain = Mongod::start(Options::default()).await.unwrap();
    says(&authority.trusting(&plain), "does not speak TLS, which mongodb.uri asks for").await;
    plain.stop().await.unwrap();
}
