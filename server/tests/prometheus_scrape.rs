//! `/metrics` under Prometheus' own tools: promtool finds nothing to complain about, and a real
//! Prometheus that runs with the shipped configuration scrapes it and answers for it.

mod client_support;

use client_support::{
    Running, Scratch, Server, client, deploy_dir, http_get, poll, resp_connection, run,
};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::thread;

#[test]
fn promtool_finds_no_fault_with_the_metrics() {
    let Some(promtool) = client("promtool", "prometheus") else { return };
    let server = Server::start(&[]);
    load(server.resp);
    let metrics = http_get(server.admin, "/metrics").unwrap().body;
    assert!(metrics.contains("\nflagstone_"), "{metrics}");
    let output = run(Command::new(promtool).args(["check", "metrics"]), metrics.as_bytes());
    let said = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert_eq!((output.status.code(), said.as_str()), (Some(0), ""));
}

#[test]
fn a_prometheus_with_the_shipped_configuration_answers_for_flagstone() {
    let Some(prometheus) = client("prometheus", "prometheus") else { return };
    // Two workers at least, so that one frees what another has allocated.
    let server = Server::start(&["--workers", "2"]);
    let prometheus = Prometheus::start(&prometheus, server.admin);

    poll("a first scrape", || prometheus.number("up{job=\"flagstone\"}").filter(|up| *up == 1.0));
    load(server.resp);

    // Where the bytes are: blocks in use, by class.
    prometheus.expect("count(flagstone_class_in_use_blocks > 0)", |classes| classes >= 2.0);
    prometheus.expect("sum(flagstone_class_high_water_blocks)", |blocks| blocks > 0.0);
    // What the locks did.
    prometheus.expect("sum(flagstone_lock_acquisitions_total)", |taken| taken > 0.0);
    prometheus.expect("sum(flagstone_lock_wait_seconds_total)", |seconds| seconds >= 0.0);
    // What crossed threads.
    prometheus.expect("sum(flagstone_remote_posted_blocks_total)", |blocks| blocks > 0.0);

    let targets = prometheus.get("/api/v1/targets");
    let target = &targets["activeTargets"][0];
    assert_eq!(target["lastError"], "", "{target}");
    assert_eq!(target["labels"]["job"], "flagstone", "{target}");

    // Every shipped alert is loaded, evaluates without an error, and none fires for a sound server.
    let alerts = poll("evaluated rules", || {
        let groups = prometheus.get("/api/v1/rules");
        let rules: Vec<Value> = groups["groups"]
            .as_array()?
            .iter()
            .flat_map(|group| group["rules"].as_array().into_iter().flatten().cloned())
            .collect();
        rules.iter().all(|rule| rule["health"] != "unknown").then_some(rules)
    });
    assert!(!alerts.is_empty());
    for alert in alerts {
        assert_eq!(alert["health"], "ok", "{alert}");
        assert_ne!(alert["state"], "firing", "{alert}");
    }
}

#[test]
fn every_series_that_alerts_and_pages_name_is_exported() {
    let server = Server::start(&[]);
    load(server.resp);
    let metrics = http_get(server.admin, "/metrics").unwrap().body;
    for page in ["prometheus/rules.yml", "README.md", "../README.md"] {
        let text = std::fs::read_to_string(deploy_dir().join(page)).unwrap();
        let mut named = 0;
        for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            // A word that ends in an underscore is the beginning of several names.
            if word.starts_with("flagstone_") {
                let is_whole = !word.ends_with('_');
                let shown =
                    metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")).any(|line| {
                        match line.split_once(' ') {
                            Some((name, _)) if is_whole => name == word,
                            _ => line.starts_with(word),
                        }
                    });
                assert!(shown, "{page} names {word}");
                named += 1;
            }
        }
        assert!(named > 0, "{page} names no series any more");
    }
}

/// A Prometheus on a free port of the loopback interface.
struct Prometheus {
    addr: SocketAddr,
    /// Ended when dropped.
    _process: Running,
    _files: Scratch,
}

impl Prometheus {
    /// Starts it with the files of `deploy/prometheus`. Only the list of targets differs, and how often it
    /// looks: it need not be waited for.
    fn start(program: &Path, target: SocketAddr) -> Self {
        let files = Scratch::new("prometheus");
        let shipped = |name: &str| {
            std::fs::read_to_string(deploy_dir().join("prometheus").join(name)).unwrap()
        };
        let (slow, quick) = ("_interval: 15s", "_interval: 1s");
        let settings = shipped("prometheus.yml");
        assert_eq!(settings.matches(slow).count(), 2, "of scrapes and of rules");
        files.file("prometheus.yml", &settings.replace(slow, quick));
        files.file("rules.yml", &shipped("rules.yml"));
        files.file("targets.yml", &format!("- targets: [\"{target}\"]\n"));
        let mut process = Running::start(
            Command::new(program)
                .current_dir(&files.0)
                .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
                .arg("--web.listen-address=127.0.0.1:0"),
        );
        let addr = poll("the address of Prometheus", || {
            assert!(process.ended().is_none(), "Prometheus ended at once");
            process.stderr().iter().find_map(|line| {
                let (_, rest) = line.split_once("msg=\"Listening on\"")?;
                rest.split_once("address=")?.1.split(' ').next()?.parse().ok()
            })
        });
        let started = Self { addr, _process: process, _files: files };
        poll("a ready Prometheus", || {
            http_get(addr, "/-/ready").ok().filter(|reply| reply.status == 200)
        });
        started
    }

    /// The `data` of a reply of its API.
    fn get(&self, path: &str) -> Value {
        let reply = http_get(self.addr, path).unwrap();
        let body: Value = serde_json::from_str(&reply.body)
            .unwrap_or_else(|e| panic!("{path}: {e}: {}", reply.body));
        assert_eq!(body["status"], "success", "{path}: {body}");
        body["data"].clone()
    }

    /// The value of an instant query that gives one series, or nothing when it gives none.
    fn number(&self, query: &str) -> Option<f64> {
        let data = self.get(&format!("/api/v1/query?query={}", percent_encoded(query)));
        let series = data["result"].as_array().unwrap();
        assert!(series.len() <= 1, "{query}: {data}");
        series.first()?["value"][1].as_str()?.parse().ok()
    }

    /// Asks until the query's value is as it must be.
    fn expect(&self, query: &str, holds: impl Fn(f64) -> bool) {
        let mut last = None;
        poll(query, || {
            last = self.number(query);
            last.filter(|value| holds(*value))
        });
    }
}

/// Writes and overwrites the same keys from many connections, so that values die on another worker
/// than the one where they came to life.
fn load(addr: SocketAddr) {
    const CONNECTIONS: usize = 8;
    const ROUNDS: usize = 20;
    const KEYS: usize = 100;
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|id| {
            thread::spawn(move || {
                let mut stream = resp_connection(addr);
                let mut replies = BufReader::new(stream.try_clone().unwrap());
                for round in 0..ROUNDS {
                    let value = "v".repeat(40 + 97 * ((id + round) % 11));
                    let batch: String =
                        (0..KEYS).map(|key| format!("SET key:{key} {value}\r\n")).collect();
                    stream.write_all(batch.as_bytes()).unwrap();
                    let mut reply = String::new();
                    for _ in 0..KEYS {
                        reply.clear();
                        replies.read_line(&mut reply).unwrap();
                        assert_eq!(reply, "+OK\r\n");
                    }
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
}

fn percent_encoded(text: &str) -> String {
    let escaped = text.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    });
    escaped.collect()
}
