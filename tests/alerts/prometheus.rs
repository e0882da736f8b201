//! A real Prometheus with the rules of `metrics/`, made impatient: it looks several times a second, and an alert
//! fires as soon as its condition holds.

use std::{
    collections::BTreeSet,
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::common::{Guarded, free_port, wait_for, wait_until};

/// The folder of rules and dashboard.
pub(crate) const METRICS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/metrics");

/// An alert by its name and its collection or class, as far as it has one.
pub(crate) type Alerts = BTreeSet<String>;

/// A running Prometheus.
#[derive(Debug)]
pub(crate) struct Prometheus {
    _process: Guarded,
    address: String,
    _folder: TempDir,
}

/// The rules without their patience.
fn impatient(rules: &str) -> String {
    let lines = rules.lines().filter(|line| !line.trim_start().starts_with("for:"));
    lines.map(|line| format!("{line}\n")).collect()
}

impl Prometheus {
    /// Starts it with the committed configuration and rules, for these instances.
    pub(crate) async fn start(instances: &[u16]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let rules = fs::read_to_string(format!("{METRICS}/alluvium.rules.yml")).unwrap();
        fs::write(folder.path().join("alluvium.rules.yml"), impatient(&rules)).unwrap();
        let config = fs::read_to_string(format!("{METRICS}/prometheus.yml")).unwrap();
        let targets = instances.iter().map(|port| format!("\"127.0.0.1:{port}\""));
        let targets = targets.collect::<Vec<_>>().join(", ");
        let quick = config
            .replace("_interval: 15s", "_interval: 300ms")
            .replace("\"127.0.0.1:8750\"", &targets);
        assert_ne!(quick, config);
        let file = folder.path().join("prometheus.yml");
        fs::write(&file, quick).unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("`prometheus` cannot be run ({error}); see .ci/run for how to install it")
            });
        let started = Self { _process: Guarded::new(process), address, _folder: folder };
        wait_until("Prometheus is ready", async || started.get("/-/ready").is_some()).await;
        started
    }

    fn get(&self, path: &str) -> Option<String> {
        let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(10)));
        let agent: ureq::Agent = config.build().into();
        let mut answer = agent.get(format!("http://{}{path}", self.address)).call().ok()?;
        answer.body_mut().read_to_string().ok()
    }

    /// What a query gives: the number of series and the value of the first.
    pub(crate) fn query(&self, query: &str) -> Result<(usize, Option<f64>), String> {
        let escaped =
            percent_encoding::utf8_percent_encode(query, percent_encoding::NON_ALPHANUMERIC);
        let answer = self.get(&format!("/api/v1/query?query={escaped}"));
        let answer = answer.ok_or_else(|| format!("`{query}` is refused"))?;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let series = answer["data"]["result"].as_array().cloned().unwrap_or_default();
        let first = series.first().and_then(|first| first["value"][1].as_str());
        Ok((series.len(), first.and_then(|value| value.parse().ok())))
    }

    /// Waits until a query gives this value for its first series.
    pub(crate) async fn says(&self, query: &str, value: f64) {
        let what = format!("{query} is {value}");
        wait_until(&what, async || self.query(query).unwrap().1 == Some(value)).await;
    }

    /// The alerts that fire.
    pub(crate) fn firing(&self) -> Alerts {
        let Some(answer) = self.get("/api/v1/alerts") else { return Alerts::new() };
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let alerts = answer["data"]["alerts"].as_array().cloned().unwrap_or_default();
        let name = |alert: &Value| {
            let label = |name: &str| alert["labels"][name].as_str().map(str::to_owned);
            let name = label("alertname").unwrap();
            label("collection").map_or(name.clone(), |of| format!("{name} {of}"))
        };
        alerts.iter().filter(|alert| alert["state"] == "firing").map(name).collect()
    }

    /// Sees that no rule has failed, as one does that makes two series of one name and labels.
    pub(crate) fn has_evaluated_all(&self) {
        let answer = self.get("/api/v1/rules").unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let groups = answer["data"]["groups"].as_array().unwrap().iter();
        let rules = groups.flat_map(|group| group["rules"].as_array().unwrap());
        let rules: Vec<&Value> = rules.collect();
        assert!(rules.len() > 20, "{rules:?}");
        assert!(rules.iter().all(|rule| rule["health"] == "ok"), "{rules:#?}");
    }

    /// Waits until this alert fires.
    pub(crate) async fn fires(&self, alert: &str) {
        wait_until(&format!("{alert} fires"), async || self.firing().contains(alert)).await;
    }

    /// Waits until no alert fires but these.
    pub(crate) async fn only(&self, wanted: &[&str]) {
        let wanted: Alerts = wanted.iter().map(|alert| (*alert).to_owned()).collect();
        let mut last = Alerts::new();
        wait_for(&format!("only {wanted:?} fire"), async || {
            let firing = self.firing();
            if firing != last {
                eprintln!("firing: {firing:?}");
                last.clone_from(&firing);
            }
            (firing == wanted).then_some(())
        })
        .await;
    }
}
