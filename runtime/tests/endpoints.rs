//! What the admin server answers, asked over TCP.

mod common;

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::Mutex;

use common::{Server, config};
use flagstone::telemetry::prometheus::Exporter;
use serde_json::{Value, json};

#[test]
fn each_endpoint_has_its_content_type_and_says_not_to_cache() {
    let server = Server::start(config());
    for (path, content_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
        ("/stats.json", "application/json"),
        ("/healthz", "text/plain; charset=utf-8"),
    ] {
        let response = server.get(path);
        assert_eq!(response.status, 200, "{path}");
        assert_eq!(response.header("content-type"), Some(content_type), "{path}");
        assert_eq!(response.header("cache-control"), Some("no-store"), "{path}");
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"), "{path}");
    }
}

#[test]
fn the_index_links_to_every_endpoint() {
    let server = Server::start(config());
    let page = server.get("/").body;
    for path in ["/metrics", "/stats.json", "/healthz"] {
        assert!(page.contains(&format!("href=\"{path}\"")), "{page}");
        assert_eq!(server.get(path).status, 200);
    }
}

#[test]
fn paths_are_exact() {
    let server = Server::start(config());
    for path in ["/metrics/", "/Metrics", "//metrics", "/metrics/x", "/stats", "/%6detrics", "/.."]
    {
        assert_eq!(server.get(path).status, 404, "{path}");
    }
    assert_eq!(server.get("/metrics?format=text").status, 200, "a query is not part of the path");
}

#[test]
fn only_get_and_head_are_allowed() {
    let server = Server::start(config());
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"] {
        let request = format!("{method} /metrics HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
        let response = server.connect().request(&request);
        assert_eq!(response.status, 405, "{method}");
        assert_eq!(response.header("allow"), Some("GET, HEAD"), "{method}");
        let request = format!("{method} /nothing HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(server.connect().request(&request).status, 404, "{method}");
    }
}

// requirement: D10
#[test]
fn a_purge_is_posted_reports_and_is_not_to_be_had_from_a_page() {
    let server = Server::start(config());
    let post = |headers: &str| {
        let request =
            format!("POST /purge HTTP/1.1\r\nHost: h\r\n{headers}Content-Length: 0\r\n\r\n");
        server.connect().request(&request)
    };
    let response = post("");
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), Some("application/json"));
    let report: Value = serde_json::from_str(&response.body).unwrap();
    for kind in ["slabs", "parts", "large", "segments", "total"] {
        assert!(report["returned"][kind].is_u64(), "{report}");
    }
    for why in ["leased_shards", "outbox_bytes", "pending_inboxes", "refused_bytes"] {
        assert!(report["unreachable"][why].is_u64(), "{report}");
    }
    assert_eq!(post("Origin: http://example.org\r\n").status, 403);
    assert_eq!(post("Sec-Fetch-Site: cross-site\r\n").status, 403);
    let response = server.get("/purge");
    assert_eq!(response.status, 405);
    assert_eq!(response.header("allow"), Some("POST"));
}

#[test]
fn head_gives_the_length_and_no_body() {
    let server = Server::start(config());
    let body = server.get("/healthz").body;
    let mut client = server.connect();
    let head = client.request("HEAD /healthz HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(head.status, 200);
    assert_eq!(head.header("content-length"), Some(body.len().to_string().as_str()));
    // Had a body followed, it would be taken for the next response.
    assert_eq!(client.get("/healthz").body, body);
}

#[test]
fn a_request_with_a_body_does_not_confuse_the_next() {
    let server = Server::start(config());
    let mut client = server.connect();
    let first =
        client.request("GET /healthz HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(first.status, 200);
    if first.header("connection") != Some("close") {
        assert_eq!(client.get("/healthz").status, 200);
    }
    let chunked =
        "POST /metrics HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(server.connect().request(chunked).status, 405);
}

#[test]
fn nonsense_is_answered_with_400() {
    let server = Server::start(config());
    let answer = {
        let mut client = server.connect();
        client.send("\u{1}\u{2}\u{3} nonsense\r\n\r\n");
        client.until_closed()
    };
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn sections_of_the_program_stand_beside_ours() {
    let server = Server::start(
        config()
            .section("keyspace", || json!({ "keys": 17 }))
            .section("broken", || panic!("a section that panics")),
    );
    let stats: Value = serde_json::from_str(&server.get("/stats.json").body).expect("JSON");
    assert_eq!(stats["keyspace"]["keys"], 17);
    assert_eq!(stats["broken"]["error"], "this section panicked");
    assert_eq!(stats["heap"]["heap"], "global");
    assert_eq!(stats["process"]["version"], env!("CARGO_PKG_VERSION"));
    assert!(stats["admin"]["connections"].as_u64() >= Some(1));
}

#[test]
fn health_names_what_is_ill() {
    let ill = Arc::new(Mutex::new(None::<String>));
    let server = Server::start(config().health(|| Ok(())).health({
        let ill = Arc::clone(&ill);
        move || ill.lock().expect("lock").clone().map_or(Ok(()), Err)
    }));
    let answer = server.get("/healthz");
    assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"));
    *ill.lock().expect("lock") = Some("the disk is full".to_owned());
    let answer = server.get("/healthz");
    assert_eq!((answer.status, answer.body.as_str()), (503, "the disk is full\n"));

    let server = Server::start(config().health(|| panic!("a check that panics")));
    let answer = server.get("/healthz");
    assert_eq!((answer.status, answer.body.as_str()), (503, "a check panicked\n"));
}

#[test]
fn one_connection_carries_many_requests() {
    let server = Server::start(config());
    let mut client = server.connect();
    for _ in 0..50 {
        assert_eq!(client.get("/healthz").status, 200);
    }
    // And several at once.
    client.send(&"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n".repeat(5));
    for _ in 0..5 {
        assert_eq!(client.response(true).body, "ok\n");
    }
    let figures = server.figures.snapshot();
    assert_eq!((figures.connections, figures.requests), (1, 55));
}

#[test]
fn a_client_that_half_closes_gets_its_reply() {
    let server = Server::start(config());
    let mut client = server.connect();
    client.send("GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n");
    client.stream.shutdown(std::net::Shutdown::Write).expect("half-close");
    assert_eq!(client.response(true).status, 200);
}

/// requirement: D10
#[test]
fn metrics_and_json_show_the_same_figures() {
    let server = Server::start(config());
    let mut client = server.connect();
    let text = client.get("/metrics").body;
    let stats: Value = serde_json::from_str(&client.get("/stats.json").body).expect("JSON");
    let of_text = |name: &str| -> f64 {
        let line = text.lines().find(|l| l.starts_with(&format!("{name} "))).expect(name);
        line.rsplit(' ').next().expect("a value").parse().expect("a number")
    };
    // The heap moves between two requests; the connections of this test do not.
    assert_eq!(of_text("flagstone_admin_connections_total"), 1.0);
    assert_eq!(stats["admin"]["connections"], 1);
    assert_eq!(of_text("flagstone_admin_requests_total"), 1.0);
    assert_eq!(stats["admin"]["requests"], 2);
    let started = stats["process"]["started_unix_nanos"].as_f64();
    if let Some(started) = started {
        assert_eq!(of_text("flagstone_process_start_time_seconds"), started / 1e9);
    }
}

#[test]
fn an_exporter_of_the_programs_own_is_served() {
    let exporter = Exporter::install().expect("no other test of this binary installs one");
    metrics::counter!("own_jobs_total").increment(4);
    let server = Server::start(config().exporter(exporter));
    let text = server.get("/metrics").body;
    assert!(text.lines().any(|l| l == "own_jobs_total 4"), "{text}");
    assert!(text.contains("flagstone_mapped_bytes "));
    // A server without it keeps to itself.
    assert!(!Server::start(config()).get("/metrics").body.contains("own_jobs_total"));
}

#[test]
fn promtool_finds_nothing_to_say_about_a_scrape() {
    let server = Server::start(config().per_shard_metrics(true));
    let text = server.get("/metrics").body;
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match promtool {
        Ok(child) => child,
        Err(e) => {
            println!(
                "skipped: promtool cannot be run ({e}); it is part of the Prometheus distribution"
            );
            return;
        }
    };
    std::io::Write::write_all(&mut promtool.stdin.take().expect("piped"), text.as_bytes())
        .expect("promtool reads its input");
    let output = promtool.wait_with_output().expect("promtool ends");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.trim().is_empty(), "{}: {said}", output.status);
}
