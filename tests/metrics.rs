//! The metrics against their catalogue, and what they say before anything is known.

use std::collections::{BTreeMap, BTreeSet};

use alluvium::{
    health::Heartbeats,
    metrics::{DEFINITIONS, Metrics},
    model::{compaction::Rule, document::Class, part::Part},
    status::{CollectionStatus, PartStatus, Phase, Role},
    time::SystemTime,
};
use prometheus::TextEncoder;
use tokio::sync::watch;

const CATALOGUE: &str = include_str!("../metrics/README.md");

fn text(metrics: &Metrics) -> String {
    TextEncoder::new().encode_to_string(&metrics.registry().gather()).unwrap()
}

#[test]
fn the_catalogue_lists_exactly_the_metrics() {
    let rows: Vec<&str> =
        CATALOGUE.lines().filter(|line| line.starts_with("| `alluvium_")).collect();
    let expected: Vec<String> = DEFINITIONS
        .iter()
        .map(|definition| {
            let kind = format!("{:?}", definition.kind).to_lowercase();
            let labels: Vec<String> =
                definition.labels.iter().map(|label| format!("`{label}`")).collect();
            format!(
                "| `{}` | {kind} | {} | {} |",
                definition.name,
                labels.join(", "),
                definition.help
            )
        })
        .collect();
    assert_eq!(rows, expected, "metrics/README.md must read:\n{}", expected.join("\n"));
}

#[test]
fn the_catalogue_lists_exactly_the_values_of_labels() {
    let metrics = Metrics::new().unwrap();
    let (_sender, status) = watch::channel(CollectionStatus::new("games"));
    let games = metrics.collection("games", status).unwrap();
    Class::ALL.into_iter().for_each(|class| games.set_quarantined(class, 1));
    Rule::ALL.into_iter().for_each(|rule| games.upkeep.pinned(rule, 1));
    let mut sets: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for family in metrics.registry().gather() {
        let Some(name) = family.name().strip_prefix("alluvium_") else { continue };
        let labels = family.get_metric().iter().flat_map(|metric| metric.get_label());
        for label in labels.filter(|label| !matches!(label.name(), "collection" | "version")) {
            let set = sets.entry((name.to_owned(), label.name().to_owned())).or_default();
            set.insert(label.value().to_owned());
        }
    }
    let expected: Vec<String> = sets
        .into_iter()
        .map(|((name, label), values)| {
            let values: Vec<String> = values.into_iter().collect();
            format!("| `{label}` | `{name}` | {} |", values.join(", "))
        })
        .collect();
    let after = CATALOGUE.split_once("| label | of").unwrap().1;
    let rows: Vec<&str> = after.lines().filter(|line| line.starts_with("| `")).collect();
    assert_eq!(rows, expected, "metrics/README.md must read:\n{}", expected.join("\n"));
}

#[test]
fn every_rule_that_keeps_events_is_explained() {
    let guide = include_str!("../deploy/README.md");
    let (_, after) = guide.split_once("| rule | what it means").unwrap();
    let rows = after.lines().skip(2).take_while(|line| line.starts_with("| `"));
    let explained: BTreeSet<&str> = rows.filter_map(|row| row.split('`').nth(1)).collect();
    assert_eq!(explained, Rule::ALL.into_iter().map(Rule::name).collect());
}

#[test]
fn counters_start_at_zero_and_gauges_are_absent_while_unknown() {
    let metrics = Metrics::new().unwrap();
    let (_sender, status) = watch::channel(CollectionStatus::new("games"));
    metrics.collection("games", status).unwrap();
    let text = text(&metrics);
    for line in [
        "alluvium_events_applied_total{collection=\"games\",op=\"delete\"} 0",
        "alluvium_missing_requests_total{answer=\"ahead\",collection=\"games\"} 0",
        "alluvium_flush_seconds_count{collection=\"games\"} 0",
        "alluvium_apply_lag_known{collection=\"games\"} 0",
        "process_start_time_seconds",
    ] {
        assert!(text.contains(line), "no `{line}` in:\n{text}");
    }
    for name in [
        "apply_lag_seconds",
        "apply_lag_events",
        "oplog_headroom",
        "oldest_gap",
        "checkpoint_lost",
        "gaps",
        "quarantined",
    ] {
        assert!(!text.contains(&format!("alluvium_{name}")), "`{name}` is there in:\n{text}");
    }
}

#[test]
fn every_metric_appears_once_all_is_known_and_vanishes_when_it_no_longer_is() {
    let metrics = Metrics::new().unwrap();
    let mut known = CollectionStatus::new("games");
    known.role = Some(Role::Leader);
    known.lease_epoch = Some(1);
    known.phase = Phase::Tailing;
    known.lag_seconds = Some(0.0);
    known.lag_events = Some(0);
    known.oplog_headroom_seconds = Some(3600.0);
    known.oldest_gap_seconds = Some(0.0);
    known.checkpoint_lost_in_seconds = Some(7200.0);
    known.parts.insert(Part::WHOLE, PartStatus::default());
    known.version_gaps = Some(0);
    let (games, status) = watch::channel(known.clone());
    let handle = metrics.collection("games", status).unwrap();
    handle.set_quarantined(Class::Gap, 1);
    handle.upkeep.pinned(Rule::Client, 1);
    handle.upkeep.verified(0);
    metrics.watch_loops(Heartbeats::default(), SystemTime::new()).unwrap();
    known.name = "users".into();
    let (_users, status) = watch::channel(known);
    metrics.collection("users", status).unwrap();

    let found: BTreeSet<String> = metrics
        .registry()
        .gather()
        .iter()
        .map(|family| family.name().to_owned())
        .filter(|name| name.starts_with("alluvium_"))
        .collect();
    let expected: BTreeSet<String> =
        DEFINITIONS.iter().map(|definition| definition.name.to_owned()).collect();
    assert_eq!(found, expected);
    assert!(text(&metrics).contains("alluvium_apply_lag_seconds{collection=\"users\"} 0"));

    games.send_modify(|status| status.lag_seconds = None);
    assert!(!text(&metrics).contains("alluvium_apply_lag_seconds{collection=\"games\"}"));
    assert!(text(&metrics).contains("alluvium_apply_lag_known{collection=\"games\"} 0"));
}

#[test]
fn every_alert_has_an_entry_in_the_runbook_to_which_it_leads() {
    let rules = include_str!("../metrics/alluvium.rules.yml");
    let runbook = include_str!("../deploy/README.md");
    let after =
        |key: &'static str| rules.lines().filter_map(move |line| line.trim().strip_prefix(key));
    let alerts: Vec<&str> = after("- alert: ").collect();
    let links: Vec<&str> = after("runbook: deploy/README.md#").collect();
    let anchors: Vec<String> = alerts.iter().map(|alert| alert.to_lowercase()).collect();
    assert_eq!(links, anchors);
    let entries: Vec<&str> =
        runbook.lines().filter_map(|line| line.strip_prefix("### Alluvium")).collect();
    let names: Vec<&str> =
        alerts.iter().filter_map(|alert| alert.strip_prefix("Alluvium")).collect();
    assert_eq!(entries, names);
}
