//! Tests of the watch: each check holds on a sound page, and finds what is wrong with a doctored one.

use serde_json::json;

use super::*;

fn sound() -> Value {
    json!({
        "heap": {
            "bytes": { "live": 60, "cached": 20, "fragmentation": 10, "retired": 5, "metadata": 5,
                       "mapped": 100, "residual": 0 },
            "classes": [{ "in_use": 2, "allocs": 5, "frees": 3 }],
            "remote": { "pending_blocks": 1, "posted_blocks": 4, "drained_blocks": 3 },
            "segments": { "segments": 2, "mapped_total": 3, "unmapped_total": 1 },
        },
        "domains": [domain(0, 0, 0, 0)],
    })
}

fn domain(completed: i64, stalls: i64, in_flight: i64, age: i64) -> Value {
    json!({
        "domain": "global", "stalls": stalls, "in_flight_batches": in_flight,
        "grace": { "completed": completed },
        "oldest_guard": { "age_nanos": age, "place": "there" },
        "pending": { "blocks": 1, "bytes": 8 },
        "retired": { "blocks": 3, "bytes": 24 },
        "reclaimed": { "blocks": 2, "bytes": 16 },
    })
}

fn with(path: &str, value: i64) -> Value {
    let mut stats = sound();
    *stats.pointer_mut(path).unwrap() = json!(value);
    stats
}

#[test]
fn parts_and_whole_are_added_up_here() {
    assert_eq!(residual(&sound()), Ok(0));
    // A residual that the server admits to is one; one that it hides is found.
    let mut admitted = with("/heap/bytes/mapped", 150);
    *admitted.pointer_mut("/heap/bytes/residual").unwrap() = json!(50);
    assert_eq!(residual(&admitted), Ok(50));
    assert!(residual(&with("/heap/bytes/mapped", 150)).unwrap_err().contains("leave 50"));
    assert!(residual(&with("/heap/bytes/live", -1)).is_err());
    assert!(residual(&json!({})).is_err());
}

#[test]
fn counters_that_belong_together_agree() {
    assert_eq!(agreements(&sound()), Ok(()));
    for path in [
        "/heap/classes/0/frees",
        "/heap/remote/drained_blocks",
        "/heap/segments/segments",
        "/domains/0/reclaimed/bytes",
        "/domains/0/retired/blocks",
    ] {
        assert!(agreements(&with(path, 77)).is_err(), "{path}");
    }
}

#[test]
fn a_residual_above_what_is_in_flight_is_a_violation() {
    let ledger = Ledger::default();
    let mut watched = Watched::default();
    let mut stats = with("/heap/bytes/mapped", 100 + 2 * IN_FLIGHT);
    *stats.pointer_mut("/heap/bytes/residual").unwrap() = json!(2 * IN_FLIGHT);
    identity(&ledger, &sound(), &mut watched, || panic!("there is nothing to look at again"));
    let broken = |ledger: &Ledger| {
        let entries = ledger.entries();
        entries.iter().find(|(check, _)| *check == Check::Identity).unwrap().1.broken
    };
    assert_eq!(broken(&ledger), 0);
    let mut looks = 0;
    // In flight, and gone at the second look; then one that stays.
    identity(&ledger, &stats, &mut watched, || {
        looks += 1;
        Ok(if looks == 2 { sound() } else { stats.clone() })
    });
    assert_eq!((broken(&ledger), looks), (0, 2));
    identity(&ledger, &stats, &mut watched, || Ok(stats.clone()));
    assert_eq!(broken(&ledger), 1);
    assert_eq!(watched.largest_residual, 2 * IN_FLIGHT as u64);
}

#[test]
fn stalls_are_found_and_pauses_are_not_stalls() {
    let mut epochs = Epochs::default();
    assert_eq!(epochs.judge("d", &domain(1, 0, 0, 0), false), Ok(()));
    assert!(epochs.judge("d", &domain(1, 1, 0, 0), false).unwrap_err().contains("held too long"));
    assert_eq!(epochs.judge("d", &domain(1, 2, 0, 0), true), Ok(()));
    let old = STALLED.as_nanos() as i64 + 1;
    assert!(epochs.judge("d", &domain(1, 2, 0, old), false).unwrap_err().contains("is held"));
    assert_eq!(epochs.judge("d", &domain(1, 2, 0, old), true), Ok(()));
    assert!(epochs.judge("d", &json!({}), false).is_err());
}

#[test]
fn batches_that_wait_for_ever_are_a_stall() {
    let mut epochs = Epochs::default();
    assert_eq!(epochs.judge("d", &domain(1, 0, 3, 0), false), Ok(()));
    let long_ago = Instant::now().checked_sub(STALLED + Duration::from_secs(1)).unwrap();
    let long = |epochs: &mut Epochs| {
        epochs.0.get_mut("d").unwrap().waiting_since = Some(long_ago);
    };
    long(&mut epochs);
    assert!(epochs.judge("d", &domain(1, 0, 3, 0), false).unwrap_err().contains("no grace period"));
    // A period that completed, nothing that waits, or a pause: the clock starts again.
    for (next, paused) in
        [(domain(2, 0, 3, 0), false), (domain(2, 0, 0, 0), false), (domain(2, 0, 3, 0), true)]
    {
        long(&mut epochs);
        assert_eq!(epochs.judge("d", &next, paused), Ok(()));
    }
}

#[test]
fn counters_may_not_fall_or_go() {
    let page = |a: u64| {
        format!(
            "# HELP a_total x\n# TYPE a_total counter\na_total{{k=\"v\"}} {a}\na_total{{k=\"w\"}} 1\n\
             # TYPE g gauge\ng {}\n",
            100 - a
        )
    };
    let mut counters = Counters::default();
    assert_eq!(counters.check(&page(5)), Ok(()));
    assert_eq!(counters.check(&page(6)), Ok(()));
    assert!(counters.check(&page(4)).unwrap_err().contains("from 6 to 4"));
    let gone = "# TYPE a_total counter\na_total{k=\"v\"} 9\n";
    assert!(counters.check(gone).unwrap_err().contains("is gone"));
    assert!(counters.check("").is_err());
}

#[test]
fn promtool_finds_what_is_wrong() {
    if !is_there("promtool") {
        println!("skipped: promtool is not installed");
        return;
    }
    assert_eq!(lint("# HELP a_total x\n# TYPE a_total counter\na_total 1\n"), Ok(()));
    assert!(lint("# TYPE a counter\na{ 1\n").unwrap_err().starts_with("promtool: "));
}
