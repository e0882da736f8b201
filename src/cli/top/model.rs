//! What is shown: what the instances told last, and rates from what they told before.

use std::{collections::HashMap, time::Instant};

use serde::Serialize;
use serde_json::Value;

use super::asking::{Answer, Told};

/// See the module.
#[derive(Debug, Default, Serialize)]
pub(super) struct Model {
    pub(super) instances: Vec<Instance>,
    pub(super) jobs: Vec<Job>,
    /// Whether what is shown is to stay as it is.
    #[serde(skip)]
    pub(super) is_held: bool,
}

/// An instance, as it was when it last answered.
#[derive(Debug, Default, Serialize)]
pub(super) struct Instance {
    pub(super) url: String,
    pub(super) name: Option<String>,
    pub(super) version: Option<String>,
    /// Why it does not answer, while it does not.
    pub(super) complaint: Option<String>,
    pub(super) collections: Vec<Row>,
    #[serde(skip)]
    pub(super) before: Option<(Instant, HashMap<String, f64>)>,
}

/// A collection on an instance.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) role: Option<String>,
    pub(super) phase: String,
    pub(super) lag_seconds: Option<f64>,
    pub(super) lag_events: Option<u64>,
    pub(super) applied_per_second: Option<f64>,
    pub(super) written_per_second: Option<f64>,
    pub(super) gaps: Option<u64>,
    pub(super) parked: Option<u64>,
    pub(super) oplog_headroom_seconds: Option<f64>,
    /// How many parts it leads, of how many, where there are several.
    pub(super) parts: Option<(usize, usize)>,
    pub(super) last_error: Option<String>,
    pub(super) compaction_stands: Option<String>,
}

/// A job, whoever does it.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Job {
    pub(super) kind: String,
    pub(super) collection: String,
    pub(super) document: Option<String>,
    pub(super) state: String,
    pub(super) done: Option<u64>,
    pub(super) total: Option<u64>,
    pub(super) error: Option<String>,
}

impl Model {
    /// Takes in what the instances answered at `now`. Of one that does not answer the last is kept.
    pub(super) fn look(&mut self, answers: Vec<Answer>, now: Instant) {
        let mut jobs = None;
        for (at, Answer { url, told }) in answers.into_iter().enumerate() {
            if self.instances.len() <= at {
                self.instances.push(Instance { url, ..Instance::default() });
            }
            match told {
                Ok(told) => {
                    jobs = jobs.or_else(|| told.jobs["jobs"].as_array().cloned());
                    self.instances[at].told(&told, now);
                }
                Err(complaint) => {
                    self.instances[at].complaint = Some(complaint);
                    // A rate over the time in which nobody answered says nothing.
                    self.instances[at].before = None;
                }
            }
        }
        if let Some(jobs) = jobs {
            self.jobs = jobs.iter().map(job).collect();
        }
    }

    pub(super) fn is_anybody_there(&self) -> bool {
        self.instances.iter().any(|instance| instance.complaint.is_none())
    }

    pub(super) fn complaints(&self) -> Vec<String> {
        let complaint =
            |of: &Instance| of.complaint.as_ref().map(|why| format!("{} ({why})", of.url));
        self.instances.iter().filter_map(complaint).collect()
    }
}

impl Instance {
    fn told(&mut self, told: &Told, now: Instant) {
        let counted = counters(&told.metrics);
        let rate = |name: &str, collection: &str| {
            let key = format!("{name} {collection}");
            let (at, before) = self.before.as_ref()?;
            let seconds = now.saturating_duration_since(*at).as_secs_f64();
            let more = counted.get(&key)? - before.get(&key)?;
            // A counter that fell belongs to another run.
            (seconds > 0.0 && more >= 0.0).then(|| more / seconds)
        };
        let rows = told.status["collections"].as_array().map(Vec::as_slice).unwrap_or_default();
        let rows = rows.iter().map(|told| {
            let mut row = row(told);
            row.applied_per_second = rate("alluvium_events_applied_total", &row.name);
            row.written_per_second = rate("alluvium_document_writes_total", &row.name);
            row
        });
        self.collections = rows.collect();
        self.name = text(&told.status["instance"]);
        self.version = text(&told.status["version"]);
        self.complaint = None;
        self.before = Some((now, counted));
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn row(told: &Value) -> Row {
    let error = &told["last_error"];
    let last_error = text(&error["message"])
        .map(|message| format!("{message}; {}", text(&error["advice"]).unwrap_or_default()));
    let parts = told["parts"]
        .as_array()
        .map(|parts| (parts.iter().filter(|part| part["role"] == "leader").count(), parts.len()));
    Row {
        name: text(&told["name"]).unwrap_or_default(),
        role: text(&told["role"]),
        phase: text(&told["phase"]).unwrap_or_default(),
        lag_seconds: told["lag_seconds"].as_f64(),
        lag_events: told["lag_events"].as_u64(),
        applied_per_second: None,
        written_per_second: None,
        gaps: told["version_gaps"].as_u64(),
        parked: told["quarantined"].as_u64(),
        oplog_headroom_seconds: told["oplog_headroom_seconds"].as_f64(),
        parts,
        last_error,
        compaction_stands: text(&told["compaction_stands"]),
    }
}

fn job(told: &Value) -> Job {
    let (document, progress) = (&told["document"], &told["progress"]);
    Job {
        kind: text(&told["kind"]).unwrap_or_default(),
        collection: text(&told["collection"]).unwrap_or_default(),
        document: (!document.is_null()).then(|| super::output::plain(document)),
        state: text(&told["state"]).unwrap_or_default(),
        done: progress["done"].as_u64(),
        total: progress["total"].as_u64(),
        error: text(&told["error"]),
    }
}

/// The sums of the series of each metric and collection.
fn counters(metrics: &str) -> HashMap<String, f64> {
    let mut sums = HashMap::new();
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let Some((name, labels)) = series.split_once('{') else { continue };
        let collection = labels.split_once("collection=\"").and_then(|(_, of)| of.split_once('"'));
        let (Some((collection, _)), Ok(value)) = (collection, value.parse::<f64>()) else {
            continue;
        };
        *sums.entry(format!("{name} {collection}")).or_default() += value;
    }
    sums
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn answer(told: Result<(f64, f64), &str>) -> Vec<Answer> {
        let told = told.map_err(str::to_owned).map(|(created, updated)| Told {
            status: json!({ "instance": "a", "version": "1", "collections": [{ "name": "games" }] }),
            metrics: format!(
                "# HELP x\nalluvium_events_applied_total{{collection=\"games\",op=\"create\"}} {created}\n\
                 alluvium_events_applied_total{{collection=\"games\",op=\"update\"}} {updated}\n"
            ),
            jobs: json!({ "jobs": [] }),
        });
        vec![Answer { url: "http://a".into(), told }]
    }

    #[test]
    fn rates_come_from_two_looks_and_are_unknown_after_a_silence_and_a_restart() {
        let (mut model, start) = (Model::default(), Instant::now());
        let mut look = |seconds: u64, told| {
            model.look(answer(told), start + Duration::from_secs(seconds));
            model.instances[0].collections[0].applied_per_second
        };
        assert_eq!(look(0, Ok((5.0, 5.0))), None);
        assert_eq!(look(2, Ok((6.0, 9.0))), Some(2.5));
        assert_eq!(look(3, Ok((0.0, 1.0))), None, "the counters began anew");
        assert_eq!(look(4, Ok((0.0, 4.0))), Some(3.0));
        // The last rows stay in sight.
        assert_eq!(look(5, Err("refused")), Some(3.0));
        assert_eq!(look(6, Ok((0.0, 9.0))), None);
    }

    #[test]
    fn whoever_does_not_answer_is_named_with_the_reason() {
        let mut model = Model::default();
        model.look(answer(Err("connection refused")), Instant::now());
        assert!(!model.is_anybody_there());
        assert_eq!(model.complaints(), ["http://a (connection refused)"]);
    }
}
