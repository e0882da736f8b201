//! A server that demands a login and TLS, with the roles that the program prints, users who have them, and the program
//! run as each of them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use alluvium::embedded::{Login, Mongod, Options};
use bson::{Document, doc};
use mongodb::{Client, Database};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tempfile::TempDir;

use crate::common::{Authority, Daemon, free_port};

pub(crate) const DATABASE: &str = "game";

/// The server, and what is needed to get in.
pub(crate) struct Secured {
    pub(crate) mongod: Mongod,
    pub(crate) authority: Authority,
    /// Its users and roles, as its administrator has them.
    pub(crate) admin: Database,
    /// The database of the program, as the same.
    pub(crate) db: Database,
    folder: TempDir,
}

/// What a command of the real binary ended with.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Secured {
    /// One without roles.
    pub(crate) async fn bare() -> Secured {
        let authority = Authority::new();
        let certificate = authority.sign("server.pem", "127.0.0.1");
        let trusted = authority.path("ca.pem");
        let args = [
            "--tlsMode",
            "preferTLS",
            "--tlsCertificateKeyFile",
            certificate.to_str().unwrap(),
            "--tlsCAFile",
            trusted.to_str().unwrap(),
            "--tlsAllowConnectionsWithoutCertificates",
        ];
        let args = args.map(str::to_owned).to_vec();
        let login = Login { user: "root".into(), password: "correct".into() };
        let mongod = Mongod::start(Options { args, login: Some(login), ..Options::default() });
        let mongod = mongod.await.unwrap();
        let uri = format!("{}&tls=true&tlsCAFile={}", mongod.uri(), trusted.display());
        let client = Client::with_uri_str(&uri).await.unwrap();
        let (admin, db) = (client.database("admin"), client.database(DATABASE));
        // It speaks without TLS only until here, for its own start.
        let demand = doc! { "setParameter": 1, "tlsMode": "requireTLS" };
        admin.run_command(demand).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        Secured { mongod, authority, admin, db, folder }
    }

    /// One with the roles that the program prints for a configuration.
    pub(crate) async fn new(collections: &str) -> Secured {
        let secured = Secured::bare().await;
        for command in secured.roles(collections).await {
            secured.admin.run_command(command).await.unwrap();
        }
        secured
    }

    /// The commands that are to be pasted into mongosh, in their order.
    pub(crate) async fn roles(&self, collections: &str) -> Vec<Document> {
        let printed = self.run(&self.root(), collections, &["init", "--roles"]).await;
        assert_eq!(printed.code, Some(0), "{printed:?}");
        let pasted = printed.out.split("db.getSiblingDB(\"admin\").runCommand(").skip(1);
        let command = |text: &str| {
            let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
            bson::serialize_to_document(&values.next().unwrap().unwrap()).unwrap()
        };
        pasted.map(command).collect()
    }

    /// What a role is granted on a collection.
    pub(crate) async fn granted(&self, role: &str, collection: &str) -> Vec<String> {
        let info = doc! { "rolesInfo": role_name(role), "showPrivileges": true };
        let info = self.admin.run_command(info).await.unwrap();
        let role = info.get_array("roles").unwrap()[0].as_document().unwrap();
        let privileges = role.get_array("privileges").unwrap().iter();
        let of = |privilege: &Document| {
            let resource = privilege.get_document("resource").unwrap();
            resource == &doc! { "db": DATABASE, "collection": collection }
        };
        let privileges = privileges.map(|privilege| privilege.as_document().unwrap());
        let granted = privileges.filter(|privilege| of(privilege));
        let actions = granted.flat_map(|privilege| privilege.get_array("actions").unwrap().clone());
        actions.map(|action| action.as_str().unwrap().to_owned()).collect()
    }

    /// Takes actions on a collection away from a role, or gives them to it.
    pub(crate) async fn change(&self, verb: &str, role: &str, collection: &str, actions: &[&str]) {
        let resource = doc! { "db": DATABASE, "collection": collection };
        let privilege = doc! { "resource": resource, "actions": actions.to_vec() };
        let change = doc! { verb: role_name(role), "privileges": [privilege] };
        self.admin.run_command(change).await.unwrap();
    }

    /// Makes a user who has a role and nothing else. The connection string.
    pub(crate) async fn user(&self, name: &str, password: &str, role: &str) -> String {
        let create = doc! {
            "createUser": name, "pwd": password, "roles": [role_name(role)], "mechanisms": ["SCRAM-SHA-256"],
        };
        self.admin.run_command(create).await.unwrap();
        self.uri(name, password)
    }

    /// The same, who shows a certificate instead of a password.
    pub(crate) async fn bearer(&self, name: &str, role: &str) -> String {
        let external = self.admin.client().database("$external");
        let role = doc! { "role": role_name(role), "db": "admin" };
        let create = doc! { "createUser": format!("CN={name}"), "roles": [role] };
        external.run_command(create).await.unwrap();
        let certificate = self.authority.sign_for(&format!("{name}.pem"), name, "a.client");
        let (port, certificate) = (self.mongod.port(), certificate.display());
        format!(
            "mongodb://127.0.0.1:{port}/?replicaSet=rs0&authMechanism=MONGODB-X509&authSource=%24external{}\
             &tlsCertificateKeyFile={certificate}",
            self.tls()
        )
    }

    fn tls(&self) -> String {
        format!("&tls=true&tlsCAFile={}", self.authority.path("ca.pem").display())
    }

    /// The connection string of somebody with a password.
    pub(crate) fn uri(&self, name: &str, password: &str) -> String {
        let [name, password] =
            [name, password].map(|text| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string());
        let port = self.mongod.port();
        format!("mongodb://{name}:{password}@127.0.0.1:{port}/?replicaSet=rs0{}", self.tls())
    }

    fn root(&self) -> String {
        self.uri("root", "correct")
    }

    /// A file in a folder of the test's own.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs a command as whoever has this connection string.
    pub(crate) async fn run(&self, uri: &str, collections: &str, arguments: &[&str]) -> Ended {
        let name = format!("{:016x}.toml", fastrand::u64(..));
        let config = self.file(&name, &config(&format!("uri = \"{uri}\""), collections));
        let mut command = Command::new(env!("CARGO_BIN_EXE_alluvium"));
        command.args(arguments).arg("--config").arg(config);
        run(command).await
    }

    /// Starts a daemon as whoever has this connection string.
    pub(crate) fn daemon(&self, uri: &str, collections: &str) -> Daemon {
        Daemon::start(&config(&format!("uri = \"{uri}\""), collections))
    }

    /// What the server has refused until now because somebody had no right to it, in its own log.
    pub(crate) fn refused(&self) -> Vec<String> {
        let log = fs::read_to_string(self.mongod.folder().join("mongod.log")).unwrap();
        let refused = log.lines().filter(|line| line.contains("Checking authorization failed"));
        refused.map(str::to_owned).collect()
    }
}

/// A role of the program's database.
fn role_name(role: &str) -> String {
    format!("alluvium-{DATABASE}-{role}")
}

/// A configuration with a connection string, or a file that holds it.
pub(crate) fn config(uri: &str, collections: &str) -> String {
    format!(
        "[mongodb]\n{uri}\ndatabase = \"{DATABASE}\"\n[http]\nlisten = \"127.0.0.1:{}\"\n\
         [daemon]\nlease_time = \"5s\"\n{collections}",
        free_port()
    )
}

/// Runs a command to its end.
pub(crate) async fn run(mut command: Command) -> Ended {
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    Ended {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}
