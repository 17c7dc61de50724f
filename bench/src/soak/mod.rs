//! The soak: one server process under churn and faults for as long as one likes, and checks that can
//! fail.
//!
//! A soak is a number of rounds. A round is churn, in which the resident set is read, and then one
//! fault, while the clients of the churn go on; [`ending`] follows. The server is driven through its
//! public protocol alone, and watched through its admin pages and `/proc`.
//!
//! | part | what |
//! |---|---|
//! | [`plan`] | how long, how hard, which faults |
//! | [`abreast`] | several servers at once, round by round |
//! | [`target`], [`wire`] | the server process; a client connection of ours |
//! | [`keys`], [`messages`] | the clients that go on all the time, with a model of every reply |
//! | [`series`] | redis-benchmark beside them |
//! | [`faults`] | the faults |
//! | [`watch`] | `/stats.json` and `/metrics` held against their identities; epochs |
//! | [`trend`] | whether the resident set rises |
//! | [`processor`] | what processor time the servers take, and how much the machine has left |
//! | [`ending`] | everything given back; a signal under load |
//! | [`checks`], [`outcome`] | the ledger of violations; the report |
//!
//! Nothing is timed: latencies are reported, and every wait is bounded by a patience that a slow
//! machine does not use up.

use std::io;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

pub mod abreast;
pub mod checks;
pub mod ending;
pub mod faults;
pub mod keys;
pub mod messages;
pub mod outcome;
pub mod plan;
pub mod processor;
pub mod pulse;
pub mod scene;
pub mod series;
pub mod target;
pub mod trend;
pub mod watch;
pub mod wire;

use abreast::Seat;
use checks::{Check, Ledger};
use faults::FAULTS;
use outcome::{Outcome, Parts, Reading};
use plan::{FEWEST_ROUNDS, Injected, Plan};
use processor::Ticks;
use scene::{Percentiles, Scene};
use series::Series;
use target::Target;
use watch::Watched;
use wire::Wire;

/// Time between two readings of the resident set.
const READ_EVERY: Duration = Duration::from_millis(200);
/// Servers that are started, loaded and told to end after the one that was soaked.
const FURTHER_ENDS: usize = 5;
/// Time for free pages to go back to the system: three times the heap's decay.
const RETURNED: Duration = Duration::from_secs(3);

/// Soaks the server of one build, in step with those at the other seats. `heap_serves`: its allocations
/// are Flagstone's.
///
/// # Errors
/// The server could not be started, or its process could not be watched.
pub fn soak(
    binary: &Path,
    folder: &Path,
    plan: &Plan,
    heap_serves: bool,
    seat: Seat,
    say: &dyn Fn(&str),
) -> io::Result<Outcome> {
    let ledger = Ledger::default();
    for fault in &FAULTS {
        if !plan.faults.contains(&fault.name) {
            ledger.excuse(fault.check, "not asked for in this run");
        }
    }
    let mut target = Target::start(binary, folder)?;
    let mut outcome = Outcome::default();
    {
        // All servers are there before the first is loaded.
        seat.anybody(false);
        let scene = Scene::new(&target, plan, &ledger);
        let baseline = ending::Baseline::read(&scene, heap_serves).map_err(io::Error::other)?;
        load(&scene, heap_serves, seat, &mut outcome, say);
        say("the end");
        ledger.judge(Check::Released, ending::released(&scene, &baseline));
        if plan.faults.contains(&"half-open") {
            ledger.judge(Check::HalfOpen, ending::idle(&scene));
        }
        if heap_serves {
            ledger.judge(Check::Identity, watch::identity_at_rest(&scene));
        }
        // Free pages go back a while after they became free.
        thread::sleep(RETURNED);
        outcome.resident_at_end = target.resident().map(|resident| resident.current);
        outcome.peak_resident = target.resident().map(|resident| resident.peak);
        outcome.counts = scene.counts();
        let latencies = scene.latencies();
        outcome.churn = Some(Percentiles::of(&latencies.churn));
        outcome.due = Some(Percentiles::of(&latencies.due));
        outcome.faults = Some(Percentiles::of(&latencies.faults));
        outcome.baseline = Some(baseline);
    }
    ledger.judge(
        Check::Alive,
        match target.ended()? {
            None => Ok(()),
            Some(status) => Err(format!("the server ended by itself: {status}")),
        },
    );
    if target.ended()?.is_none() {
        ending::terminate(&mut target, plan, &ledger, plan.injects(Injected::Kill))?;
    }
    no_panic(&target, &ledger);
    drop(target);
    // A soak ends once; what the end may lose takes more than one.
    let ends = if plan.injects(Injected::Kill) { 0 } else { FURTHER_ENDS };
    for end in 0..ends {
        let mut target = Target::start(binary, &folder.join(format!("end-{end}")))?;
        ending::terminate(&mut target, plan, &ledger, false)?;
        no_panic(&target, &ledger);
    }
    outcome.checks = ledger.entries();
    Ok(outcome)
}

fn no_panic(target: &Target, ledger: &Ledger) {
    let complaints = target.complaints();
    if complaints.contains("panicked") {
        ledger.broke(Check::Alive, format!("standard error: {}", complaints.trim()));
    }
}

/// All clients at work, round after round.
fn load(
    scene: &Scene<'_>,
    heap_serves: bool,
    seat: Seat,
    outcome: &mut Outcome,
    say: &dyn Fn(&str),
) {
    let (produced, sum) = mpsc::channel();
    let (ticks, spent) = (Ticks::now(), scene.target.processor_time());
    thread::scope(|scope| {
        let watching = scope.spawn(|| watch::watch(scene, heap_serves));
        let mut consumers = Vec::new();
        for id in 0..keys::CLIENTS {
            scope.spawn(move || keys::run(scene, id));
        }
        scope.spawn(|| keys::connections(scene));
        scope.spawn(|| messages::publish(scene));
        for id in 0..messages::SUBSCRIBERS {
            scope.spawn(move || messages::subscribe(scene, id));
        }
        for _ in 0..messages::CONSUMERS {
            consumers.push(scope.spawn(|| messages::consume(scene)));
        }
        scope.spawn(move || messages::produce(scene, &produced));
        if scene.plan.injects(Injected::Leak) {
            scope.spawn(|| keys::leak(scene));
        }
        if scene.plan.injects(Injected::Value) {
            scope.spawn(|| keys::overwrite(scene));
        }
        let until = scene.plan.rounds_until();
        let there = rounds(scene, heap_serves, &seat, outcome, say, |round| {
            round < FEWEST_ROUNDS || scene.began.elapsed() < until
        });
        outcome.warm_up = Plan::warm_up(outcome.rounds);
        let rises = outcome.judge().is_some_and(|f| f.rises());
        // Of all, if of any: a window without the others' load would not compare.
        if there && scene.plan.confirms(outcome.rounds) && seat.anybody(rises) {
            say("it rises: as many rounds again will tell");
            outcome.warm_up = outcome.rounds;
            let last = 2 * outcome.rounds;
            rounds(scene, heap_serves, &seat, outcome, say, |round| round < last);
        }
        drop(seat);
        outcome.flatness = outcome.judge();
        scene.pulse.stop();
        outcome.busy = Ticks::now().zip(ticks).and_then(|(now, then)| now.busy_since(then));
        let spent = scene.target.processor_time().zip(spent);
        outcome.processor_seconds = spent.map(|(now, then)| now.saturating_sub(then).as_secs_f64());
        let consumed: Vec<_> = consumers
            .into_iter()
            .map(|consumer| consumer.join().expect("a consumer does not panic"))
            .collect();
        messages::settle(scene, &sum, &consumed);
        outcome.watched = watching.join().unwrap_or_else(|_| Watched::default());
    });
    outcome.seconds = scene.began.elapsed().as_secs_f64();
    judge_resident(scene, outcome);
}

/// Rounds for as long as `more` wants one here or beside, and the server is there. False if it is not.
fn rounds(
    scene: &Scene<'_>,
    heap_serves: bool,
    seat: &Seat,
    outcome: &mut Outcome,
    say: &dyn Fn(&str),
    more: impl Fn(usize) -> bool,
) -> bool {
    let faults: Vec<_> =
        FAULTS.iter().filter(|fault| scene.plan.faults.contains(&fault.name)).collect();
    while seat.anybody(more(outcome.rounds)) {
        // Until here another server's fault may have gone on.
        scene.set_faulty(false);
        let round = outcome.rounds;
        if scene.target.resident().is_none() {
            scene.ledger.broke(Check::Alive, "the server is gone");
            return false;
        }
        let fault = (!faults.is_empty()).then(|| faults[round % faults.len()]);
        scene.pulse.rest(scene.plan.settle());
        churn(scene, round, heap_serves, seat, outcome);
        let next = fault.map_or("no fault", |fault| fault.name);
        say(&format!("round {} · {} · {next}", round + 1, outcome.last_reading()));
        if let Some(fault) = fault {
            scene.set_faulty(true);
            let result = (fault.run)(scene);
            scene.ledger.judge(fault.check, result);
        }
        outcome.rounds += 1;
    }
    scene.set_faulty(false);
    true
}

/// The part of a round in which the resident set is read.
fn churn(scene: &Scene<'_>, round: usize, heap_serves: bool, seat: &Seat, outcome: &mut Outcome) {
    let began = Instant::now();
    let turn = seat.turn(round, scene.plan.churn());
    let mut series = Series::new(scene, turn, seat.of() == 1);
    let mut readings = Vec::new();
    while began.elapsed() < scene.plan.churn() {
        series.tend();
        scene.pulse.rest(READ_EVERY);
        if let Some(resident) = scene.target.resident() {
            readings.push(resident.current as f64);
        }
    }
    series.finish();
    let middle = began.duration_since(scene.began) + scene.plan.churn() / 2;
    if let Some(median) = crate::stats::median(&readings) {
        let heap = parts(scene).filter(|_| heap_serves);
        outcome.resident.push(Reading {
            round,
            seconds: middle.as_secs_f64(),
            bytes: median,
            data: data(scene),
            heap,
        });
    }
}

/// Bytes of keys, values and tables, as the server accounts for them under every allocator.
fn data(scene: &Scene<'_>) -> Option<u64> {
    let mut control = Wire::connect(scene.target.resp).ok()?;
    let dataset = control.info("used_memory_dataset").ok()?;
    Some(dataset + control.info("used_memory_tables").ok()?)
}

fn parts(scene: &Scene<'_>) -> Option<Parts> {
    let stats = watch::read_json(scene).ok()?;
    let part = |name: &str| watch::number(&stats, &format!("/heap/bytes/{name}"));
    Some(Parts {
        live: part("live")?,
        cached: part("cached")?,
        fragmentation: part("fragmentation")?,
    })
}

fn judge_resident(scene: &Scene<'_>, outcome: &Outcome) {
    // Without a verdict the check has not been looked at, which is a failure.
    let Some(flatness) = outcome.flatness else { return };
    const MIB: f64 = (1 << 20) as f64;
    scene.ledger.judge(
        Check::Resident,
        if flatness.rises() {
            Err(format!(
                "it rises by {:.1} MiB in {:.0} s at the least, {:.1} would be tolerated",
                flatness.proven_growth() / MIB,
                flatness.window,
                flatness.tolerated / MIB,
            ))
        } else {
            Ok(())
        },
    );
}
