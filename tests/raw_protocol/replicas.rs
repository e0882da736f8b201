//! The client of `examples`: replicas that work offline end with the bytes of the projected row.

use bson::{Document, RawDocumentBuf};
use serde_json::json;

use crate::{
    common::{TestDatabase, database, free_port},
    projected, projecting_on, run, script,
};

/// What the scenes of `replicas.py` lead to: the documents, two replicas each.
const DOCUMENTS: [&str; 8] =
    ["meets", "answer", "unfit", "unknown", "skipped", "away", "gap", "news"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_work_offline_end_with_the_bytes_of_the_row() {
    let test = database().await;
    let port = free_port();
    let settings = "gap_grace = \"0s\"\nmax_state_bytes = \"4KiB\"\n";
    let mut daemon = projecting_on(&test, port, settings).await;
    let TestDatabase { uri, name, .. } = &test;
    let api = format!("http://127.0.0.1:{port}");
    let replicas = run("python3", &["-B", &script("replicas.py"), uri, name, &api]);
    let documents: Vec<&str> = replicas.iter().map(|found| found["d"].as_str().unwrap()).collect();
    assert_eq!(documents, DOCUMENTS.map(|document| [document; 2]).concat());
    for replica in &replicas {
        let id = replica["d"].as_str().unwrap();
        let row = projected(&test, id, replica["version"].as_i64().unwrap()).await;
        let clock = row.get_document("clock").unwrap().clone();
        assert_eq!(bson::Bson::from(clock).into_relaxed_extjson(), replica["clock"], "{id}");
        assert_eq!(hex(row.get_document("state").unwrap()), replica["state"], "{id}: {row}");
    }
    assert!(daemon.stop().await.success());
}

#[test]
fn the_fold_of_the_example_is_that_of_the_test_vectors() {
    let vectors = include_str!("../../examples/patches.json");
    let count = serde_json::from_str::<Vec<serde_json::Value>>(vectors).unwrap().len();
    let found = run("python3", &["-B", &script("vectors.py")]);
    assert_eq!(found, [json!({ "cases": count })]);
}

fn hex(document: &Document) -> String {
    let raw = RawDocumentBuf::try_from(document).unwrap();
    raw.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}
