//! The queries of the dashboard, each of which has to give a number at some time while a real Prometheus watches.

use std::{cell::RefCell, collections::BTreeSet, fs};

use serde_json::Value;

use crate::{
    common::wait_until,
    prometheus::{METRICS, Prometheus},
};

/// The queries that have given nothing yet.
#[derive(Debug)]
pub(crate) struct Dashboard(RefCell<BTreeSet<String>>);

impl Dashboard {
    /// The committed one, with its variables filled in.
    pub(crate) fn new() -> Self {
        let dashboard = fs::read_to_string(format!("{METRICS}/dashboard.json")).unwrap();
        let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
        let panels = dashboard["panels"].as_array().unwrap().iter();
        let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
        let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
        let variables = variables.filter_map(|variable| variable["query"]["query"].as_str());
        // `label_values(SELECTOR, LABEL)` is Grafana's own, and asks for the selector.
        let selector = |query: &str| {
            let inside = query.strip_prefix("label_values(").unwrap();
            inside.rsplit_once(',').unwrap().0.to_owned()
        };
        let queries = targets.map(|target| target["expr"].as_str().unwrap().to_owned());
        let filled = |query: String| {
            let query = query.replace("$job", "alluvium").replace("$collection", ".*");
            let query = query.replace("$__rate_interval", "5m");
            assert!(!query.contains('$'), "{query} has a variable that nobody fills in");
            query
        };
        let queries: BTreeSet<String> =
            queries.chain(variables.map(selector)).map(filled).collect();
        assert!(queries.len() > 40, "{queries:?}");
        Self(RefCell::new(queries))
    }

    /// Asks again what has given nothing yet. Each is to be a query, whatever it gives.
    pub(crate) fn look(&self, watch: &Prometheus) {
        self.0.borrow_mut().retain(|query| {
            let (_, value) = watch.query(query).unwrap();
            value.is_none_or(f64::is_nan)
        });
    }

    /// Waits until each has given a number.
    pub(crate) async fn is_complete(&self, watch: &Prometheus) {
        let mut left = BTreeSet::new();
        wait_until("every panel shows something", async || {
            self.look(watch);
            let now = self.0.borrow().clone();
            if now != left {
                eprintln!("nothing is shown by {now:#?}");
                left = now;
            }
            left.is_empty()
        })
        .await;
    }
}
