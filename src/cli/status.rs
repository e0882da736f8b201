//! `alluvium status`: how each projection is doing, as far as the database alone can tell. A daemon's own view,
//! with its lag, is at `/v1/status`.

use std::collections::BTreeSet;

use clap::Args;
use serde_json::{Value, json};

use super::{CommandResult, Globals, output, parts};
use crate::{
    config::Expect,
    model::document::Class,
    store::{
        Layout,
        mongo::{Overview, overview},
    },
};

#[derive(Args, Debug)]
pub(super) struct Status {}

impl Status {
    pub(super) async fn run(self, globals: &Globals) -> CommandResult {
        let config = globals.load(Expect::Collections)?;
        let connected = globals.open_known(&config.mongodb).await?;
        let mut collections = Vec::new();
        for collection in &config.collections {
            let seen = overview(&connected.database, &collection.name).await?;
            if globals.json {
                collections.push(to_json(&collection.name, &seen));
            } else {
                print(&collection.name, &seen)?;
            }
        }
        if globals.json {
            output::json(&json!({ "collections": collections }))?;
        }
        Ok(())
    }
}

/// How many documents wait behind a hole, and how many are parked by an event of their own.
fn waiting(seen: &Overview) -> (u64, u64) {
    let gaps = seen.waiting.get(Class::Gap.name()).copied().unwrap_or_default();
    (gaps, seen.waiting.values().sum::<u64>() - gaps)
}

/// How old the place is from which it would go on; unknown while there is none.
fn age_seconds(seen: &Overview) -> Option<u32> {
    seen.resume?.age_seconds
}

/// The instances that lead any part.
fn leaders(seen: &Overview) -> Vec<&str> {
    let leaders: BTreeSet<&str> =
        seen.parts.iter().filter_map(|(_, holder)| holder.as_deref()).collect();
    leaders.into_iter().collect()
}

fn to_json(name: &str, seen: &Overview) -> Value {
    let (version_gaps, quarantined) = waiting(seen);
    let mut shown = json!({
        "name": name,
        "leaders": leaders(seen),
        "checkpoint_age_seconds": age_seconds(seen),
        "version_gaps": version_gaps,
        "quarantined": quarantined,
        "waiting": seen.waiting,
    });
    if seen.parts.len() > 1 {
        shown["parts"] = parts::leaders(&seen.parts).into();
    }
    shown
}

fn print(name: &str, seen: &Overview) -> std::io::Result<()> {
    output::line(name)?;
    match &seen.layout {
        Layout::Damaged(found) => {
            output::line(format!("  parts            {found}, which is no number of parts"))?
        }
        Layout::Parts(1) => {}
        Layout::Parts(_) => {
            let led = seen.parts.iter().filter(|(_, holder)| holder.is_some()).count();
            output::line(format!("  parts            {}, {led} of them led", seen.parts.len()))?;
        }
    }
    let leaders = leaders(seen);
    let leaders = if leaders.is_empty() { "none".into() } else { leaders.join(", ") };
    output::line(format!("  led by           {leaders}"))?;
    output::line(match age_seconds(seen) {
        Some(age) => format!("  checkpoint       {age} s old"),
        None => "  checkpoint       none yet".into(),
    })?;
    let (gaps, quarantined) = waiting(seen);
    output::line(format!("  behind a hole    {gaps} documents"))?;
    output::line(format!("  in quarantine    {quarantined} documents"))?;
    for (class, count) in seen.waiting.iter().filter(|(class, _)| **class != Class::Gap.name()) {
        output::line(format!("    {class:<14} {count}"))?;
    }
    Ok(())
}
