//! `alluvium parts`: show into how many parts a collection is divided, and which instance leads each; or divide it anew.

use clap::{Args, value_parser};
use serde_json::{Value, json};

use super::{CommandResult, Globals, follow, output, who::who};
use crate::{
    model::part::{PARTS_MAX, Part},
    store::{
        Layout, Layouts,
        mongo::{MongoLayouts, Overview, overview},
    },
};

#[derive(Args, Debug)]
pub(super) struct Parts {
    /// The collection
    collection: String,
    /// Divide it into so many parts from now on, from 1 to 64; every daemon follows by itself
    #[arg(value_parser = value_parser!(u32).range(1..=i64::from(PARTS_MAX)))]
    parts: Option<u32>,
}

impl Parts {
    pub(super) async fn run(self, globals: &Globals) -> CommandResult {
        let database = globals.connect().await?.database;
        let Self { collection, parts } = self;
        follow::known(&database, &collection).await?;
        match parts {
            None => show(globals, &collection, &overview(&database, &collection).await?),
            Some(of) => {
                let layouts = MongoLayouts::new(&database);
                let before = layouts.layout(&collection).await?;
                layouts.set_layout(&collection, of, &who()).await?;
                divided(globals, &collection, before, of)
            }
        }
    }
}

fn show(globals: &Globals, collection: &str, seen: &Overview) -> CommandResult {
    let of = match &seen.layout {
        Layout::Parts(of) => *of,
        Layout::Damaged(found) => {
            let advice = format!("`alluvium parts {collection} N` sets it");
            return Err(format!("{found} stands for the number of parts; {advice}").into());
        }
    };
    if globals.json {
        let report = json!({ "name": collection, "parts": of, "leaders": leaders(&seen.parts) });
        return Ok(output::json(&report)?);
    }
    output::line(format!("`{collection}` is {}", shown(of)))?;
    for (part, holder) in &seen.parts {
        let holder = holder.as_deref().unwrap_or("nobody");
        output::line(format!("  {:<6} led by {holder}", part.to_string()))?;
    }
    Ok(())
}

fn divided(globals: &Globals, collection: &str, before: Layout, of: u32) -> CommandResult {
    let changed = before != Layout::Parts(of);
    if globals.json {
        let report = json!({ "name": collection, "parts": of, "changed": changed });
        return Ok(output::json(&report)?);
    }
    let now = if changed { "is now" } else { "was already" };
    Ok(output::line(format!("`{collection}` {now} {}", shown(of)))?)
}

fn shown(parts: u32) -> String {
    match parts {
        1 => "in one part".into(),
        parts => format!("in {parts} parts"),
    }
}

/// Each part, and which instance leads it.
pub(super) fn leaders(parts: &[(Part, Option<String>)]) -> Vec<Value> {
    let leader = |(part, holder): &(Part, Option<String>)| json!({ "part": part.index, "of": part.of, "leader": holder });
    parts.iter().map(leader).collect()
}
