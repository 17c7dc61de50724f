//! Building, running and ending a runtime.

mod common;

use std::error::Error as _;
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::{Client, PATIENCE, config, wait_until};
use flagstone::admin::{self, BindError};
use flagstone::runtime::{BuildError, Builder, spawn_blocking};
use serde_json::json;

#[test]
fn a_runtime_runs_futures_tasks_and_blocking_work() {
    let runtime = Builder::new_multi_thread().worker_threads(2).build().expect("build");
    let task = runtime.spawn(async { spawn_blocking(|| 20).await.expect("blocking") + 1 });
    assert_eq!(runtime.block_on(async { task.await.expect("task") * 2 }), 42);
    assert_eq!(runtime.handle().metrics().num_workers(), 2);
    assert_eq!(runtime.admin_addr(), None);
}

#[test]
fn blocking_work_that_panics_is_reported_as_tokio_does() {
    let runtime = Builder::new_current_thread().build().expect("build");
    let error = runtime
        .block_on(async { spawn_blocking(|| panic!("on purpose")).await })
        .expect_err("it panicked");
    assert!(error.is_panic());
}

#[test]
fn zero_threads_are_an_error_and_not_a_panic() {
    let workers = Builder::new_multi_thread().worker_threads(0).build().expect_err("zero");
    assert!(matches!(workers, BuildError::Zero("worker_threads")), "{workers:?}");
    let blocking = Builder::new_multi_thread().max_blocking_threads(0).build().expect_err("zero");
    assert_eq!(blocking.to_string(), "max_blocking_threads must be at least 1");
}

#[test]
fn a_busy_admin_port_fails_the_build_and_leaves_nothing_running() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let addr = taken.local_addr().expect("addr");
    let (stopped, ends) = mpsc::channel();
    let error = Builder::new_multi_thread()
        .worker_threads(1)
        .on_thread_stop(move || {
            let _ = stopped.send(());
        })
        .admin(admin::Config::new(addr))
        .build()
        .expect_err("the port is taken");
    assert!(matches!(error, BuildError::Admin(BindError::Listen(a, _)) if a == addr), "{error:?}");
    assert!(error.to_string().contains(&addr.to_string()));
    assert!(error.source().is_some_and(|e| e.source().is_some()), "the cause is kept");
    ends.recv_timeout(PATIENCE).expect("the worker has stopped");
}

#[test]
fn settings_that_are_not_wrapped_can_be_reached() {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("mine")
        .configure_tokio(|tokio| {
            tokio.thread_stack_size(1 << 20);
        })
        .build()
        .expect("build");
    let name =
        runtime.block_on(runtime.spawn(async { std::thread::current().name().map(str::to_owned) }));
    assert_eq!(name.expect("task").as_deref(), Some("mine"));

    let mut tokio = tokio::runtime::Builder::new_multi_thread();
    tokio.worker_threads(3);
    let runtime = Builder::from_tokio(tokio).build().expect("build");
    assert_eq!(runtime.handle().metrics().num_workers(), 3);

    let tokio = Builder::new_multi_thread().worker_threads(2).into_tokio().build().expect("build");
    assert_eq!(tokio.metrics().num_workers(), 2);
}

#[test]
fn the_admin_server_shows_the_scavenger_and_ends_with_the_runtime() {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .scavenge_every(Duration::from_millis(1))
        .admin(config())
        .build()
        .expect("build");
    let addr = runtime.admin_addr().expect("configured");
    assert_ne!(addr.port(), 0);
    let scavenger = runtime.scavenger().expect("configured").figures();
    wait_until("a pass", || scavenger.snapshot().passes > 0);
    let text = Client::connect(addr).get("/metrics").body;
    let passes = text.lines().find_map(|l| l.strip_prefix("flagstone_scavenger_passes_total "));
    assert!(passes.expect("the series").parse::<u64>().expect("a count") > 0);

    let snapshot = runtime.snapshot();
    assert!(snapshot.scavenger.expect("runs").passes > 0);
    assert_eq!(snapshot.admin.expect("runs").requests, 1);

    drop(runtime);
    assert!(TcpStream::connect(addr).is_err(), "the port is closed");
    let stopped = scavenger.snapshot();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(scavenger.snapshot(), stopped, "the scavenger has stopped");
}

#[test]
fn without_a_scavenger_there_is_none() {
    let runtime = Builder::new_current_thread().without_scavenger().build().expect("build");
    assert!(runtime.scavenger().is_none());
    assert!(runtime.snapshot().scavenger.is_none());
}

#[test]
fn a_current_thread_runtime_serves_while_it_is_driven() {
    let runtime = Builder::new_current_thread().admin(config()).build().expect("build");
    let addr = runtime.admin_addr().expect("configured");
    let client = std::thread::spawn(move || Client::connect(addr).get("/metrics").status);
    let status = runtime.block_on(async {
        tokio::task::spawn_blocking(|| client.join().expect("client")).await.expect("join")
    });
    assert_eq!(status, 200);
    drop(runtime);
    assert!(TcpStream::connect(addr).is_err());
}

#[test]
fn dropping_a_runtime_loses_no_reply() {
    for builder in [Builder::new_multi_thread().worker_threads(2), Builder::new_current_thread()] {
        let (ask, asked) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let ends = std::sync::Mutex::new((ask, released));
        let runtime = builder
            .admin(config().shutdown_grace(PATIENCE).section("slow", move || {
                let ends = ends.lock().expect("lock");
                let _ = ends.0.send(());
                let _ = ends.1.recv();
                json!("whole")
            }))
            .build()
            .expect("build");
        let addr = runtime.admin_addr().expect("configured");
        let client = std::thread::spawn(move || Client::connect(addr).get("/stats.json"));
        // A current-thread runtime must be driven until the request is in.
        runtime.block_on(async {
            tokio::task::spawn_blocking(move || asked.recv_timeout(PATIENCE).expect("asked"))
                .await
                .expect("join");
        });
        let releaser = std::thread::spawn(move || {
            wait_until("the port to close", || TcpStream::connect(addr).is_err());
            release.send(()).expect("the section waits");
        });
        drop(runtime);
        let response = client.join().expect("client");
        assert_eq!(response.status, 200);
        assert!(response.body.contains("\"slow\":\"whole\""), "{}", response.body);
        releaser.join().expect("releaser");
    }
}

#[test]
fn shutdown_timeout_does_not_wait_for_stuck_work() {
    let (release, stuck) = mpsc::channel::<()>();
    let runtime =
        Builder::new_multi_thread().worker_threads(1).admin(config()).build().expect("build");
    runtime.handle().spawn_blocking(move || {
        let _ = stuck.recv();
    });
    let start = Instant::now();
    runtime.shutdown_timeout(Duration::from_millis(200));
    assert!(start.elapsed() < PATIENCE);
    drop(release);
}

#[test]
fn a_runtime_can_be_built_and_ended_inside_another() {
    let outer = Builder::new_current_thread().build().expect("build");
    outer.block_on(async {
        let inner =
            Builder::new_multi_thread().worker_threads(1).admin(config()).build().expect("build");
        let taken = admin::Config::new(inner.admin_addr().expect("configured"));
        let error = Builder::new_multi_thread().worker_threads(1).admin(taken).build();
        assert!(matches!(error, Err(BuildError::Admin(_))), "an error here, too, and no panic");
        inner.shutdown_background();
    });
}
