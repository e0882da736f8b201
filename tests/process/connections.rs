//! Connections that want too much: health and metrics always have room, whatever else there is.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::{
    common::{Daemon, database, free_port, wait_until},
    config,
};

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// Sends this on a connection of its own, which it asks to be closed, and reads all that comes until its end.
fn exchange(port: u16, request: &str) -> String {
    let mut stream = connect(port);
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_half_heads_with_few_files_leave_room_for_health() {
    let db = database().await;
    let port = free_port();
    let few_files = ["sh", "-c", "ulimit -n 64; exec \"$@\"", "few"];
    let mut daemon = Daemon::under(&few_files, &config(&db, port, "head_timeout = \"10m\""), &[]);
    daemon.ready().await;
    let mut half = Vec::new();
    for _ in 0..100 {
        let mut stream = connect(port);
        // It may have had to make room already.
        drop(stream.write_all(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n"));
        half.push(stream);
        let start = Instant::now();
        assert_eq!(daemon.get("/healthz").0, 200);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
    for path in ["/healthz", "/readyz", "/metrics", "/v1/status"] {
        assert_eq!(daemon.get(path).0, 200, "{path}");
    }
    assert!(daemon.log().contains("connections_max"), "{}", daemon.log());
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_has_room_while_every_connection_is_being_answered() {
    let db = database().await;
    let port = free_port();
    let mut daemon = Daemon::start(&config(&db, port, "connections_max = 8"));
    daemon.ready().await;
    let wait = "GET /v1/collections/games/documents/a?min_version=1&wait=30s HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let ask = |path: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        exchange(port, &head)
    };
    let mut waiting = Vec::new();
    wait_until("all connections are being answered", async || {
        // One that was not being answered yet may have made room for the question.
        let mut stream = connect(port);
        stream.write_all(wait.as_bytes()).unwrap();
        waiting.push(stream);
        ask("/v1/status").starts_with("HTTP/1.1 503")
    })
    .await;
    let refused = ask("/v1/status");
    assert!(refused.contains("urn:alluvium:problem:too-busy"), "{refused}");
    assert!(refused.to_lowercase().contains("retry-after: 1"), "{refused}");
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert!(ask(path).starts_with("HTTP/1.1 200"), "{path}");
    }
    drop(waiting);
    daemon.signal("KILL");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_takes_too_long_and_a_connection_that_is_idle_are_closed() {
    let db = database().await;
    let port = free_port();
    let mut daemon = Daemon::start(&config(&db, port, "head_timeout = \"1s\""));
    daemon.ready().await;
    let mut half = connect(port);
    half.write_all(b"GET /healthz HTTP/1.1\r\nHost: lo").unwrap();
    let mut idle = connect(port);
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answers = String::new();
    // Each ends only because the server closes it.
    idle.read_to_string(&mut answers).unwrap();
    assert!(answers.starts_with("HTTP/1.1 200"), "{answers}");
    half.read_to_string(&mut answers).unwrap();
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_is_a_problem_like_all_others() {
    let db = database().await;
    let port = free_port();
    let mut daemon = Daemon::start(&config(&db, port, ""));
    daemon.ready().await;
    let ask = |path: &str, headers: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        exchange(port, &format!("{head}{headers}\r\n"))
    };
    let long = "x".repeat(40_000);
    let many: String = (0..200).map(|at| format!("x-{at}: y\r\n")).collect();
    for (answer, status, name) in [
        (ask(&format!("/{long}"), ""), 414, "url-too-long"),
        (ask("/healthz", &format!("x: {long}\r\ny: {long}\r\n")), 431, "head-too-large"),
        (ask("/healthz", &many), 431, "head-too-large"),
    ] {
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains(&format!("urn:alluvium:problem:{name}")), "{answer}");
        assert!(answer.contains("application/problem+json"), "{answer}");
    }
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clock_of_ten_thousand_clients_fits_into_a_request() {
    let db = database().await;
    let mut daemon = Daemon::start(&config(&db, free_port(), ""));
    daemon.ready().await;
    let clock: serde_json::Map<String, serde_json::Value> =
        (0..10_000).map(|at| (format!("{at:\"<128}"), u32::MAX.into())).collect();
    let body = serde_json::json!({ "clock": clock });
    assert!(body.to_string().len() > 2_500_000, "every character of a name is escaped");
    let (status, problem) = daemon.post("/v1/collections/games/documents/a/missing", &body);
    // It was read: the document is what there is not.
    assert_eq!((status, &problem["type"]), (404, &"urn:alluvium:problem:unknown-document".into()));
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_page_of_another_origin_can_change_or_read_anything() {
    let db = database().await;
    let port = free_port();
    let mut daemon = Daemon::start(&config(&db, port, ""));
    daemon.ready().await;
    let ask = |method: &str, path: &str, headers: &str| {
        exchange(
            port,
            &format!(
                "{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: 0\r\n{headers}\r\n"
            ),
        )
    };
    let pause = "/v1/collections/games/pause";
    let here = format!("Host: localhost:{port}\r\n");
    for foreign in [
        "Origin: http://evil.example\r\nContent-Type: text/plain\r\n",
        "Origin: null\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
    ] {
        let answer = ask("POST", pause, &format!("{here}{foreign}"));
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        assert!(answer.contains("urn:alluvium:problem:foreign-origin"), "{answer}");
    }
    for (method, path) in [("GET", "/v1/status"), ("POST", pause), ("GET", "/metrics")] {
        let answer = ask(method, path, &format!("Host: evil.example:{port}\r\n"));
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        assert!(answer.contains("urn:alluvium:problem:foreign-host"), "{answer}");
    }
    let own = format!("{here}Origin: http://localhost:{port}\r\nSec-Fetch-Site: same-origin\r\n");
    assert!(ask("POST", pause, &own).starts_with("HTTP/1.1 200"));
    assert_eq!(daemon.stop().await.code(), Some(0));
}
