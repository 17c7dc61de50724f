//! Tokio calls the hooks, ours and the program's, in the order that they promise.

mod common;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::wait_until;
use flagstone::runtime::{Builder, hooks};
use flagstone::stats::ShardState;
use flagstone::{Heap, thread};

/// The runtimes of these tests share the shards of one heap: one test at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What happened, and whether the thread had a shard at that moment.
type Events = Arc<Mutex<Vec<(&'static str, bool)>>>;

fn note(events: &Events, what: &'static str) -> impl Fn() + Send + Sync + 'static {
    let events = Arc::clone(events);
    move || {
        let has_shard = thread::shard().is_some();
        events.lock().expect("lock").push((what, has_shard));
    }
}

fn has(events: &Events, what: &str) -> bool {
    events.lock().expect("lock").iter().any(|e| e.0 == what)
}

#[test]
fn hooks_of_the_program_run_beside_ours() {
    let _alone = alone();
    let events = Events::default();
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .on_thread_start(note(&events, "start"))
        .on_thread_start(note(&events, "second start"))
        .on_thread_park(note(&events, "park"))
        .on_thread_unpark(note(&events, "unpark"))
        .on_thread_stop(note(&events, "stop"))
        .build()
        .expect("build");
    runtime.block_on(runtime.spawn(async {})).expect("task");
    wait_until("the worker to park", || has(&events, "park"));
    runtime.block_on(runtime.spawn(async {})).expect("task");
    wait_until("the worker to wake", || has(&events, "unpark"));
    drop(runtime);
    let events = events.lock().expect("lock");
    let at = |what: &str| {
        events.iter().position(|e| e.0 == what).unwrap_or_else(|| panic!("{what}: {events:?}"))
    };
    assert!(at("start") < at("second start") && at("second start") < at("park"), "{events:?}");
    assert!(at("park") < at("unpark"), "{events:?}");
    assert_eq!(events.last().map(|e| e.0), Some("stop"), "{events:?}");
}

#[test]
fn hooks_can_be_installed_on_a_builder_of_ones_own() {
    let _alone = alone();
    let events = Events::default();
    let mut tokio = tokio::runtime::Builder::new_multi_thread();
    // Tokio keeps one hook of each kind: this one gives way.
    tokio.on_thread_start(note(&events, "replaced"));
    hooks::Hooks::new().on_thread_start(note(&events, "start")).install(tokio.worker_threads(1));
    let runtime = tokio.build().expect("build");
    runtime.block_on(runtime.spawn(async {})).expect("task");
    drop(runtime);
    assert!(has(&events, "start") && !has(&events, "replaced"));
}

#[test]
fn a_worker_leases_parks_and_gives_back() {
    let _alone = alone();
    if let thread::Lease::Buckets = thread::lease() {
        println!("skipped: this heap gives out no shard");
        return;
    }
    let events = Events::default();
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .without_scavenger()
        .on_thread_start(note(&events, "start"))
        .build()
        .expect("build");
    let shard = runtime
        .block_on(runtime.spawn(async {
            // An allocation, so that a worker that has parked meanwhile has its shard back.
            drop(std::hint::black_box(Box::new([0u8; 100])));
            thread::lease()
        }))
        .expect("task");
    let thread::Lease::Shard(shard) = shard else { panic!("{shard:?}") };
    assert!(events.lock().expect("lock").iter().all(|e| e.1), "leased before the first hook ran");

    // Asked from outside, so that asking does not wake the worker.
    let state = || Heap::global().snapshot().shards[shard].state;
    wait_until("the worker to park", || state() == ShardState::Parked);
    drop(runtime);
    assert_eq!(state(), ShardState::Idle);
}

#[test]
fn a_blocking_thread_parks_between_tasks() {
    let _alone = alone();
    if let thread::Lease::Buckets = thread::lease() {
        println!("skipped: this heap gives out no shard");
        return;
    }
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .without_scavenger()
        .configure_tokio(|tokio| {
            tokio.thread_keep_alive(Duration::from_secs(3600));
        })
        .build()
        .expect("build");
    let lease = runtime.block_on(async {
        flagstone::runtime::spawn_blocking(thread::lease).await.expect("blocking")
    });
    let thread::Lease::Shard(shard) = lease else { panic!("{lease:?}") };
    wait_until("the blocking thread to park", || {
        Heap::global().snapshot().shards[shard].state == ShardState::Parked
    });
}
