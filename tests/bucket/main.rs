//! Archives in a bucket, over a real S3 API and a real MongoDB server, by the real binary: what goes is kept before, is read
//! and comes back byte for byte; whatever is wrong with the bucket is a sentence in the status, nothing is pruned, and
//! projecting goes on. Needs `moto_server` on PATH, 5.2.5 or later.

#[path = "../common/mod.rs"]
mod common;
#[path = "../judge/mod.rs"]
mod judge;
mod moto;
#[path = "../common/scene.rs"]
mod scene;

use std::process::Command;

use bson::{RawDocumentBuf, doc};
use common::{Daemon, free_port, wait_for};
use futures::TryStreamExt;
use moto::{BUCKET, Door, Keys, Manners, Moto};
use scene::{Scene, event};
use serde_json::Value;

/// A collection whose archive is in the bucket, and who may reach it.
struct Site {
    scene: Scene,
    port: u16,
    /// Below this prefix.
    prefix: String,
    /// What the programs find in their environment.
    environment: Vec<(&'static str, String)>,
    folder: tempfile::TempDir,
}

/// What a command of the real binary ended with.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    said: String,
}

fn keys(keys: &Keys) -> Vec<(&'static str, String)> {
    vec![
        ("AWS_ACCESS_KEY_ID", keys.id.clone()),
        ("AWS_SECRET_ACCESS_KEY", keys.secret.clone()),
        ("AWS_REGION", "us-east-1".into()),
        ("AWS_ALLOW_HTTP", "true".into()),
    ]
}

impl Site {
    /// One whose log has so many events of `a` and of `b`, with a server of the S3 API at this address.
    async fn new(server: &str, access: Vec<(&'static str, String)>, upto: i64) -> Self {
        let scene = Scene::new().await;
        let format = doc! { "_id": "format", "version": 2_i64 };
        scene.collection("alluvium.meta").insert_one(format).await.unwrap();
        let mut environment = access;
        environment.push(("AWS_ENDPOINT_URL", format!("http://{server}")));
        let folder = tempfile::tempdir().unwrap();
        let prefix = scene.db.name().to_owned();
        let site = Self { scene, port: free_port(), prefix, environment, folder };
        site.append(1..=upto).await;
        site.configure(BUCKET, "");
        site
    }

    async fn append(&self, versions: std::ops::RangeInclusive<i64>) {
        for document in ["a", "b"] {
            self.scene.append(versions.clone().map(|version| event(document, version))).await;
        }
    }

    fn file(&self) -> String {
        self.folder.path().join("alluvium.toml").to_string_lossy().into_owned()
    }

    /// Writes the configuration of everything that is run from now on.
    fn configure(&self, bucket: &str, compaction: &str) {
        let (uri, database, prefix) = (&self.scene.uri, self.scene.db.name(), &self.prefix);
        let config = format!(
            "[mongodb]\nuri = \"{uri}\"\ndatabase = \"{database}\"\n[http]\nlisten = \"127.0.0.1:{}\"\n\
             [[collections]]\nname = \"games\"\n[collections.compaction]\nmin_age = \"0s\"\nkeep_events = 20\n\
             archive = \"s3://{bucket}/{prefix}\"\n{compaction}\n",
            self.port
        );
        std::fs::write(self.file(), config).unwrap();
    }

    /// Another value in the environment of everything that is started from now on, or none.
    fn set(&mut self, name: &'static str, value: Option<&str>) {
        self.environment.retain(|(known, _)| *known != name);
        self.environment.extend(value.map(|value| (name, value.to_owned())));
    }

    /// Starts the daemon, and waits until it has projected everything.
    async fn start(&self) -> Daemon {
        let config = std::fs::read_to_string(self.file()).unwrap();
        let pairs = self.environment.iter().map(|(name, value)| format!("{name}={value}"));
        let pairs: Vec<String> = pairs.collect();
        let wrapper = ["env"].into_iter().chain(pairs.iter().map(String::as_str));
        let mut daemon = Daemon::under(&wrapper.collect::<Vec<_>>(), &config, &[]);
        daemon.ready().await;
        daemon
    }

    /// Runs a command that finds the same in its environment.
    async fn run(&self, arguments: &[&str]) -> Ended {
        let mut command = Command::new(env!("CARGO_BIN_EXE_alluvium"));
        command.args(arguments).args(["--config", &self.file()]);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let said = [output.stdout, output.stderr].concat();
        Ended { code: output.status.code(), said: String::from_utf8(said).unwrap() }
    }

    /// Runs a command that must succeed, and gives what it says.
    async fn done(&self, arguments: &[&str]) -> String {
        let ended = self.run(arguments).await;
        assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
        ended.said
    }

    /// The whole log, as bytes.
    async fn log(&self) -> Vec<Vec<u8>> {
        let log = self.scene.db.collection::<RawDocumentBuf>("games.events");
        let found = log.find(doc! {}).sort(doc! { "_id": 1 }).await.unwrap();
        let events: Vec<RawDocumentBuf> = found.try_collect().await.unwrap();
        events.into_iter().map(RawDocumentBuf::into_bytes).collect()
    }

    /// Nothing was taken out of the log, and what is appended is projected.
    async fn goes_on_with(&self, log: &[Vec<u8>], version: i64) {
        assert!(self.log().await == log, "the log is another");
        self.append(version..=version).await;
        self.scene.reached("a", version).await;
        self.scene.reached("b", version).await;
        assert_eq!(self.log().await.len(), log.len() + 2);
    }
}

/// Waits until the status says why nothing is compacted.
async fn stands(daemon: &Daemon) -> String {
    wait_for("compaction stands", async || {
        let (_, status) = daemon.get("/v1/status");
        status["collections"][0]["compaction_stands"].as_str().map(str::to_owned)
    })
    .await
}

const EARLIER: &str = "/v1/collections/games/documents/a?at_version=100";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_compacted_is_kept_in_the_bucket_read_from_there_and_restored_byte_for_byte() {
    let moto = Moto::start().await;
    let site = Site::new(&moto.address, keys(&moto.user("alluvium", true)), 300).await;
    let daemon = site.start().await;
    site.scene.level("games").await;
    let (before, earlier) = (site.log().await, daemon.get(EARLIER));
    let history = site.done(&["history", "games", "a", "--limit", "1000", "--json"]).await;
    let said = site.done(&["compact", "games"]).await;
    assert!(said.starts_with("2 bases written") && said.contains("556 events pruned"), "{said}");
    assert_eq!(site.log().await.len(), 2 * 22);

    let names = moto.names(&site.prefix).await;
    assert_eq!(names[0], format!("{}/manifest.json", site.prefix));
    let manifest: Value = serde_json::from_slice(&moto.get(&names[0]).await).unwrap();
    assert_eq!(manifest["database"], site.scene.db.name());
    assert!(names[1..].iter().all(|name| name.contains("/segments/")) && names.len() > 1);

    // By whoever reads.
    assert_eq!(daemon.get(EARLIER), earlier);
    let whole = ["history", "games", "a", "--limit", "1000", "--json", "--archive"];
    let mut pages: Vec<Value> = Vec::new();
    let mut after = Some(0);
    while let Some(version) = after {
        let version = version.to_string();
        let arguments = [&whole[..], &["--after-version", &version]].concat();
        let page: Value = serde_json::from_str(&site.done(&arguments).await).unwrap();
        pages.extend(page["events"].as_array().unwrap().iter().cloned());
        after = page["next"].as_i64();
    }
    let history: Value = serde_json::from_str(&history).unwrap();
    assert_eq!(&Value::from(pages), &history["events"]);
    let got = site.done(&["get", "games", "a", "--at-version", "7", "--json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&got).unwrap()["version"], 7);
    let checked = site.done(&["archive", "check", "games"]).await;
    assert!(checked.contains("558 events read back, 0 are bad"), "{checked}");
    let verified = site.done(&["verify", "games", "--deep"]).await;
    assert!(verified.contains("2 bases proven through the archive"), "{verified}");

    // Whatever is wrong with a segment.
    let after = site.log().await;
    let segment = names[1].clone();
    let (_, short) = segment.split_once('/').unwrap();
    let good = moto.get(&segment).await;
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    for bad in [Some(&good[..good.len() / 2]), Some(&flipped), None] {
        match bad {
            Some(bytes) => moto.put(&segment, bytes).await,
            None => moto.delete(&segment).await,
        }
        let (status, problem) = daemon.get(EARLIER);
        assert_eq!((status, &problem["segment"]), (410, &short.into()), "{problem}");
        let checked = site.run(&["archive", "check", "games"]).await;
        assert!(checked.code == Some(3) && checked.said.contains(short), "{checked:?}");
        let restored = site.run(&["restore", "games", "a"]).await;
        assert!(restored.code == Some(1) && restored.said.contains(short), "{restored:?}");
        assert!(site.log().await == after);
    }
    moto.put(&segment, &good).await;
    let restored = site.done(&["restore", "games"]).await;
    assert!(restored.contains("2 documents whole again"), "{restored}");
    assert!(site.log().await == before, "the restored log is another");
    site.done(&["verify", "games"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_cannot_be_used_is_a_sentence_and_nothing_is_pruned() {
    let moto = Moto::start().await;
    let good = moto.user("alluvium", true);
    let mut site = Site::new(&moto.address, keys(&good), 150).await;
    let stranger = moto.user("stranger", false);
    let closed = format!("http://127.0.0.1:{}", free_port());
    let moto_address = moto.url("");
    type Change<'a> = &'a [(&'static str, Option<&'a str>)];
    let cases: [(&str, Change<'_>, [&str; 2]); 7] = [
        ("nobodys-bucket", &[], ["NoSuchBucket", "make the bucket"]),
        (BUCKET, &[("AWS_ACCESS_KEY_ID", Some("AKIAUNKNOWN"))], ["InvalidAccessKeyId", "renew"]),
        (
            BUCKET,
            &[("AWS_ACCESS_KEY_ID", Some(&good.id)), ("AWS_SECRET_ACCESS_KEY", Some("wrong"))],
            ["SignatureDoesNotMatch", "renew"],
        ),
        (
            BUCKET,
            &[
                ("AWS_ACCESS_KEY_ID", Some(&stranger.id)),
                ("AWS_SECRET_ACCESS_KEY", Some(&stranger.secret)),
            ],
            ["AccessDenied", "allow this program to read, write and delete there"],
        ),
        (BUCKET, &[("AWS_ENDPOINT_URL", Some(&closed))], ["Connection refused", "can be reached"]),
        (
            BUCKET,
            &[("AWS_ENDPOINT_URL", Some(&moto_address)), ("AWS_ALLOW_HTTP", None)],
            ["URL scheme is not allowed", "AWS_ALLOW_HTTP=true"],
        ),
        (
            BUCKET,
            &[
                ("AWS_ALLOW_HTTP", Some("true")),
                ("AWS_ACCESS_KEY_ID", None),
                ("AWS_SECRET_ACCESS_KEY", None),
                ("AWS_METADATA_ENDPOINT", Some(&closed)),
            ],
            ["Connection refused", "AWS_ACCESS_KEY_ID"],
        ),
    ];
    for (version, (bucket, changes, words)) in (151..).zip(cases) {
        site.configure(bucket, "every = \"1s\"");
        changes.iter().for_each(|(name, value)| site.set(name, *value));
        let mut daemon = site.start().await;
        let said = stands(&daemon).await;
        assert!(words.iter().all(|word| said.contains(word)), "{words:?}: {said}");
        assert!(said.contains(&format!("s3://{bucket}/{}", site.prefix)), "{said}");
        assert!(!said.contains(['\n', '<']) && said.len() < 400, "{said}");
        site.goes_on_with(&site.log().await, version).await;
        assert!(daemon.stop().await.success());
    }
    assert_eq!(moto.names(&site.prefix).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_are_withdrawn_in_the_middle_stop_compaction_alone() {
    let moto = Moto::start().await;
    let first = moto.user("alluvium", true);
    let mut site = Site::new(&moto.address, keys(&first), 150).await;
    let mut daemon = site.start().await;
    site.scene.level("games").await;
    let earlier = daemon.get(EARLIER);
    site.done(&["compact", "games", "a"]).await;
    moto.withdraw("alluvium", &first);
    let log = site.log().await;
    let failed = site.run(&["compact", "games"]).await;
    let said = &failed.said;
    assert!(failed.code == Some(1) && said.contains("have expired: renew"), "{failed:?}");
    let (status, problem) = daemon.get(EARLIER);
    assert_eq!((status, &problem["type"]), (503, &"urn:alluvium:problem:archive-away".into()));
    assert!(problem["detail"].as_str().unwrap().contains("/segments/"), "{problem}");
    site.goes_on_with(&log, 151).await;
    daemon.stop().await;

    let second = moto.user("alluvium2", true);
    for (name, value) in keys(&second) {
        site.set(name, Some(&value));
    }
    let daemon = site.start().await;
    assert_eq!(daemon.get(EARLIER), earlier);
    let said = site.done(&["compact", "games"]).await;
    assert!(said.contains("129 events pruned"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_in_a_bucket_is_overwritten_and_a_server_that_would_is_not_used() {
    let moto = Moto::start().await;
    let door = Door::before(&moto).await;
    let any = Keys { id: "any".into(), secret: "any".into() };
    let site = Site::new(&door.address, keys(&any), 150).await;
    let _daemon = site.start().await;
    site.scene.level("games").await;
    let log = site.log().await;
    door.behaves(Manners::Halves);
    let failed = site.run(&["compact", "games"]).await;
    assert!(failed.code == Some(1) && failed.said.contains("is truncated"), "{failed:?}");
    let names = moto.names(&site.prefix).await;
    let [_, segment] = &names[..] else { panic!("{names:?}") };
    let (_, short) = segment.split_once('/').unwrap();
    assert!(failed.said.contains(short), "{failed:?}");
    let half = moto.get(segment).await;
    assert!(site.log().await == log);
    // What is there stays as it is, and the same is kept once more beside it.
    door.behaves(Manners::Good);
    site.done(&["compact", "games"]).await;
    assert_eq!(moto.get(segment).await, half);
    let again = segment.replace(".bson.zst", "-2.bson.zst");
    assert!(moto.get(&again).await.len() > half.len());

    let cases = [
        (Manners::Heedless, "does not heed `If-None-Match`"),
        (Manners::Ignorant, "a server is needed that knows `If-None-Match`"),
    ];
    for (manners, word) in cases {
        door.behaves(manners);
        let site = Site::new(&door.address, keys(&any), 150).await;
        let _daemon = site.start().await;
        site.scene.level("games").await;
        let log = site.log().await;
        let failed = site.run(&["compact", "games"]).await;
        assert!(failed.code == Some(1) && failed.said.contains(word), "{failed:?}");
        site.goes_on_with(&log, 151).await;
    }
}
