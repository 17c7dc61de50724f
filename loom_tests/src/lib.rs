//! Loom models over the protocols of the layers below, one file each in `tests/`.
//!
//! Without `--cfg flagstone_loom` this package compiles to nothing. With it:
//!
//! - `RUSTFLAGS="--cfg flagstone_loom" cargo test -p flagstone-loom-tests --release` runs the models;
//! - `loom_tests/run.sh` runs them and then each negative control, which must fail.
//!
//! Every model names its controls in its head, one line `//! control: name: message` each. A control is
//! the same model over a protocol that is wrong on purpose: one ordering is weakened or one check dropped
//! where the crate under test asks for `weakened("name")`, which only builds with `--cfg flagstone_weaken`
//! can be. It has to fail, and the first failure has to say the message. A model without a control proves
//! little: loom can end a model early and call it passed, or not explore the interleaving that matters.
//!
//! Models with names in `heap_` run a whole heap; see `heap`. `docs/verification.md` maps the rules of
//! the invariants pages to models and controls.
//!
//! A model over a whole `Domain` also needs `--cfg crossbeam_loom`, without which crossbeam-epoch runs
//! on std's atomics, unseen. Such a model says `//! needs: crossbeam_loom`, and the script obliges.
//!
//! What loom does not see: load buffering, stores older than the last seven, and anything that does
//! not go through a crate's `sync` facade. Sequentially consistent accesses count as acquire-release.
#![cfg(flagstone_loom)]

pub mod heap;
pub mod pages;

use std::sync::{Arc, Mutex};

use self::counter::{AtomicUsize, Ordering};
use loom::model::Builder;
use loom::thread::JoinHandle;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::{EnvFilter, filter, fmt};

/// Preemptions of running threads that are explored, unless `LOOM_MAX_PREEMPTIONS` says otherwise.
/// Most bugs of this kind show with two; three is affordable for every model here.
pub const DEFAULT_PREEMPTIONS: usize = 3;

/// Steps of one execution after which loom takes it for a livelock.
const MAX_BRANCHES: usize = 20_000;

/// Explores `model` and panics unless it ran to its end, by loom's own word, in more than one way.
///
/// # Panics
/// When the model does; when `LOOM_MAX_DURATION` or `LOOM_MAX_PERMUTATIONS` is set, either of which
/// makes loom stop early without saying so; when there was nothing to explore; when no execution got
/// to the claim.
///
/// `model` returns whether this execution got as far as the claim that it checks. Models do not spin:
/// loom starves a thread that two others spin for. They try a few times and give up, and some
/// execution must have succeeded.
pub fn model(name: &str, model: impl Fn() -> bool + Send + Sync + 'static) {
    model_within(DEFAULT_PREEMPTIONS, name, model);
}

/// The same, for a model that can afford only `preemptions` unless `LOOM_MAX_PREEMPTIONS` is set, and so
/// many more as `FLAGSTONE_LOOM_DEEPER` says.
pub fn model_within(
    preemptions: usize,
    name: &str,
    model: impl Fn() -> bool + Send + Sync + 'static,
) {
    for early_end in ["LOOM_MAX_DURATION", "LOOM_MAX_PERMUTATIONS"] {
        assert!(std::env::var_os(early_end).is_none(), "{early_end} ends a model as if it passed");
    }
    let mut builder = Builder::new();
    // A whole slab over a whole domain has more steps than loom expects of a model.
    builder.max_branches = builder.max_branches.max(MAX_BRANCHES);
    let deeper = std::env::var("FLAGSTONE_LOOM_DEEPER").map_or(0, |more| {
        more.parse::<usize>()
            .unwrap_or_else(|_| panic!("FLAGSTONE_LOOM_DEEPER={more} is no number"))
    });
    let bound = *builder.preemption_bound.get_or_insert(preemptions + deeper);

    let end = End::default();
    let log = fmt::layer().with_test_writer().without_time();
    let subscriber = tracing_subscriber::registry()
        .with(end.clone().with_filter(filter::filter_fn(|metadata| {
            metadata.is_event() && metadata.target() == "loom::model"
        })))
        .with(log.with_filter(EnvFilter::from_env("LOOM_LOG")));
    let checked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&checked);
    tracing::subscriber::with_default(subscriber, || {
        builder.check(move || {
            if model() {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
    });

    let message =
        end.message().unwrap_or_else(|| panic!("{name}: loom did not complete the model"));
    let executions = message.split_whitespace().find_map(|word| word.parse::<usize>().ok());
    let executions = executions.unwrap_or_else(|| panic!("{name}: no number in {message:?}"));
    let checked = checked.load(Ordering::Relaxed);
    println!("{name}: {executions} executions, {checked} to the claim, preemption bound {bound}");
    assert!(executions > 1, "{name}: one execution only, nothing was explored");
    assert!(checked > 0, "{name}: no execution got to the claim");
}

/// Spawns a thread of a model.
///
/// Use this and not `loom::thread::spawn`: a thread whose first operation is an atomic load has only
/// one of its outcomes explored (tokio-rs/loom#392), so each begins with a write of no consequence.
pub fn spawn<T: 'static>(f: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
    loom::thread::spawn(move || {
        loom::sync::atomic::AtomicUsize::new(0).store(1, loom::sync::atomic::Ordering::Relaxed);
        f()
    })
}

/// A point at which the order of two threads is worth exploring both ways.
///
/// loom finds such points by itself, but remembers one access per atomic only: a thread that loads an
/// atomic and then stores to it, as single-writer counters do, hides the loads of others from before
/// from the search. The writer [`pass`](Self::pass)es after such a store, the reader
/// [`look`](Self::look)s before its load. It is relaxed, and so orders nothing.
#[derive(Debug)]
pub struct Crossing(loom::sync::atomic::AtomicUsize);

impl Crossing {
    /// A crossing for one execution.
    pub fn new() -> Self {
        Self(loom::sync::atomic::AtomicUsize::new(0))
    }

    /// The writer's side.
    pub fn pass(&self) {
        self.0.store(1, loom::sync::atomic::Ordering::Relaxed);
    }

    /// The reader's side.
    pub fn look(&self) {
        self.0.load(loom::sync::atomic::Ordering::Relaxed);
    }
}

impl Default for Crossing {
    fn default() -> Self {
        Self::new()
    }
}

/// Keeps loom's last word on a model.
#[derive(Clone, Default)]
struct End(Arc<Mutex<Option<String>>>);

impl End {
    fn message(&self) -> Option<String> {
        self.0.lock().expect("no panic under the lock").clone()
    }
}

impl<S: Subscriber> Layer<S> for End {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        struct Message(Option<String>);
        impl Visit for Message {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    self.0 = Some(format!("{value:?}"));
                }
            }
        }
        let mut message = Message(None);
        event.record(&mut message);
        if let Some(text) = message.0.filter(|text| text.starts_with("Completed in")) {
            *self.0.lock().expect("no panic under the lock") = Some(text);
        }
    }
}

/// The count of executions is kept across them, outside what loom models.
mod counter {
    #![allow(clippy::disallowed_types, reason = "not part of any model")]
    pub(crate) type AtomicUsize = std::sync::atomic::AtomicUsize;
    pub(crate) use std::sync::atomic::Ordering;
}
