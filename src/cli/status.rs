//! `alluvium status`: whether all is well, in one line for each collection, from what the database holds: the
//! bookkeeping, and what each instance tells of itself. Exit code 4 when something needs attention.

use std::{collections::BTreeSet, time::Duration};

use bson::Document;
use clap::Args;
use serde_json::{Value, json};

use super::{CommandResult, Globals, NeedsAttention, output, parts};
use crate::{
    api::value,
    config::{Config, Expect},
    model::document::Class,
    store::{
        Layout, Pauses,
        mongo::{Instance, MongoPauses, Overview, instances, overview},
    },
};

/// An instance that has been silent for longer than so many of its lease times is not there any more.
const SILENT_LEASES: f64 = 2.0;

#[derive(Args, Debug)]
pub(super) struct Status {}

/// What is known of a collection.
struct Seen<'a> {
    name: &'a str,
    overview: Overview,
    paused: bool,
    /// The instances that lead any part of it, each with what it tells, if it is there.
    leaders: Vec<(String, Option<&'a Document>)>,
}

impl Status {
    pub(super) async fn run(self, globals: &Globals) -> CommandResult {
        let config = globals.load(Expect::Collections)?;
        let database = globals.open_known(&config.mongodb).await?.database;
        let instances = instances(&database).await?;
        let lives = |instance: &&Instance| {
            let limit = config.daemon.lease_time.as_secs_f64() * SILENT_LEASES;
            instance.silent_seconds.is_some_and(|silent| silent <= limit)
        };
        let alive: Vec<&Instance> = instances.iter().filter(lives).collect();
        let paused = MongoPauses::new(&database).load_pauses().await?;
        let mut collections = Vec::new();
        let mut is_well = true;
        for collection in &config.collections {
            let name = collection.name.as_str();
            let overview = overview(&database, name).await?;
            let leaders = leaders(&overview).into_iter().map(|leader| {
                let told = alive.iter().find(|instance| instance.name == leader);
                (leader.clone(), told.and_then(|instance| instance.of_collection(name)))
            });
            let (leaders, paused) = (leaders.collect(), paused.contains_key(name));
            let seen = Seen { name, overview, paused, leaders };
            let reasons = reasons(&seen, &config);
            is_well &= reasons.is_empty();
            if globals.json {
                collections.push(to_json(&seen, &reasons));
            } else {
                print(&seen, &reasons)?;
            }
        }
        if globals.json {
            let instances: Vec<Value> = instances.iter().map(instance_json).collect();
            output::json(
                &json!({ "ok": is_well, "collections": collections, "instances": instances }),
            )?;
        }
        if is_well { Ok(()) } else { Err(NeedsAttention.into()) }
    }
}

/// Why a collection needs attention.
fn reasons(seen: &Seen<'_>, config: &Config) -> Vec<String> {
    let mut reasons = Vec::new();
    if let Layout::Damaged(found) = &seen.overview.layout {
        reasons.push(format!("{found} stands for its number of parts"));
    }
    if seen.paused {
        reasons.push("it is paused (`alluvium resume` lets it go on)".into());
    }
    let all = seen.overview.parts.len();
    let led = seen.overview.parts.iter().filter(|(_, holder)| holder.is_some()).count();
    if led < all {
        reasons.push(match all {
            1 => "nobody leads it".into(),
            _ => format!("nobody leads {} of its {all} parts", all - led),
        });
    }
    for (leader, told) in &seen.leaders {
        match told {
            None => reasons.push(format!("its leader {leader} is silent")),
            Some(told) => reasons.extend(of_leader(leader, told, seen.paused, config)),
        }
    }
    let (gaps, parked) = waiting(&seen.overview);
    if gaps > 0 {
        reasons.push(format!("{gaps} documents wait behind a gap"));
    }
    if parked > 0 {
        reasons.push(format!("{parked} documents are parked"));
    }
    reasons
}

/// Why what a leader tells needs attention.
fn of_leader(leader: &str, told: &Document, paused: bool, config: &Config) -> Vec<String> {
    let mut reasons = Vec::new();
    let limit = config.daemon.max_ready_lag;
    let phase = told.get_str("phase").unwrap_or("unknown");
    match (phase, told.get_f64("lag_seconds").ok()) {
        _ if paused => {}
        ("tailing", Some(lag)) if lag <= limit.as_secs_f64() => {}
        ("tailing", Some(lag)) => {
            reasons.push(format!("{leader} is {lag:.0} s behind, more than {} s", limit.as_secs()));
        }
        ("tailing", None) => reasons.push(format!("how far {leader} is behind is not known")),
        (phase, _) => reasons.push(format!("{leader} is {phase}")),
    }
    if let Ok(why) = told.get_str("compaction_stands") {
        reasons.push(format!("nothing is compacted: {why}"));
    }
    if let Ok(error) = told.get_document("last_error") {
        let text = |field: &str| error.get_str(field).unwrap_or_default().to_owned();
        reasons.push(format!("{}; {}", text("message"), text("advice")));
    }
    reasons
}

/// How many documents wait behind a gap, and how many are parked by an event of their own.
fn waiting(seen: &Overview) -> (u64, u64) {
    let gaps = seen.waiting.get(Class::Gap.name()).copied().unwrap_or_default();
    (gaps, seen.waiting.values().sum::<u64>() - gaps)
}

/// How old the place is from which it would go on; unknown while there is none.
fn age_seconds(seen: &Overview) -> Option<u32> {
    seen.resume?.age_seconds
}

/// The instances that lead any part.
fn leaders(seen: &Overview) -> BTreeSet<String> {
    seen.parts.iter().filter_map(|(_, holder)| holder.clone()).collect()
}

fn to_json(seen: &Seen<'_>, reasons: &[String]) -> Value {
    let (version_gaps, quarantined) = waiting(&seen.overview);
    let leaders = seen.leaders.iter().map(|(leader, told)| {
        let field =
            |name: &str| told.and_then(|told| told.get(name)).map_or(Value::Null, value::told);
        json!({
            "instance": leader,
            "phase": field("phase"),
            "lag_seconds": field("lag_seconds"),
            "oplog_headroom_seconds": field("oplog_headroom_seconds"),
            "compaction": field("compaction"),
            "compaction_stands": field("compaction_stands"),
            "last_error": field("last_error"),
        })
    });
    let mut shown = json!({
        "name": seen.name,
        "ok": reasons.is_empty(),
        "reasons": reasons,
        "paused": seen.paused,
        "leaders": leaders.collect::<Vec<_>>(),
        "checkpoint_age_seconds": age_seconds(&seen.overview),
        "version_gaps": version_gaps,
        "quarantined": quarantined,
        "waiting": seen.overview.waiting,
    });
    if seen.overview.parts.len() > 1 {
        shown["parts"] = parts::leaders(&seen.overview.parts).into();
    }
    shown
}

fn instance_json(instance: &Instance) -> Value {
    json!({
        "name": instance.name,
        "silent_seconds": instance.silent_seconds,
        "version": instance.report.get("version").map_or(Value::Null, value::told),
        "format": instance.report.get("format").map_or(Value::Null, value::told),
    })
}

fn print(seen: &Seen<'_>, reasons: &[String]) -> std::io::Result<()> {
    let verdict = if reasons.is_empty() { "ok" } else { "needs attention" };
    let mut line = format!("{}: {verdict}", seen.name);
    for (leader, told) in &seen.leaders {
        line += &format!("; led by {leader}");
        if let Some(told) = told {
            line += &format!(" ({})", of_instance(told));
        }
    }
    if !reasons.is_empty() {
        line += &format!("; {}", reasons.join("; "));
    }
    output::line(line)
}

/// What a leader tells, in words.
fn of_instance(told: &Document) -> String {
    let mut words = vec![told.get_str("phase").unwrap_or("unknown").to_owned()];
    match told.get_f64("lag_seconds") {
        Ok(lag) => words.push(format!("{lag:.1} s behind")),
        Err(_) => words.push("lag unknown".into()),
    }
    if let Ok(headroom) = told.get_f64("oplog_headroom_seconds") {
        let headroom = Duration::try_from_secs_f64(headroom.max(0.0).trunc()).unwrap_or_default();
        words.push(format!("oplog headroom {}", humantime::format_duration(headroom)));
    }
    if let Ok(compaction) = told.get_document("compaction") {
        words.extend(of_compaction(compaction));
    }
    words.join(", ")
}

/// What compaction has come to, if there was any.
fn of_compaction(told: &Document) -> Vec<String> {
    let count = |name: &str| told.get_i64(name).unwrap_or_default();
    let (events, bytes, late) = (count("events"), count("bytes"), count("late_events"));
    let mut words = Vec::new();
    if events > 0 {
        words.push(format!("{events} events of {bytes} bytes compacted"));
    }
    if late > 0 {
        words.push(format!("{late} events came late"));
    }
    let pinned = told.get_document("kept").and_then(|kept| kept.get_document("pinned"));
    for (rule, events) in pinned.into_iter().flatten() {
        if let Some(events) = events.as_i64().filter(|events| *events > 0) {
            words.push(format!("{events} events kept by {rule}"));
        }
    }
    words
}
