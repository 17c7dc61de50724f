//! Tests of the shard: its equations under random commands, deadlines, and memory given back.

use super::*;
use crate::keyspace::{Db, Keyspace};
use proptest::prelude::*;

/// Every equation of the module's page.
fn validate(shard: &Shard) {
    let bytes: usize = shard.table.iter().map(|(key, entry)| entry_bytes(key, entry)).sum();
    assert_eq!(shard.bytes, bytes, "bytes");
    let volatile = shard.table.values().filter(|entry| entry.expires_at != 0).count();
    assert_eq!(shard.volatile, volatile, "volatile");
    assert!(shard.table.values().all(|entry| !entry.value.is_spent()), "an empty list");
    assert!(shard.deadlines.len() <= 64.max(2 * shard.volatile) + 1, "stale hints pile up");
}

fn one_shard() -> Keyspace {
    Keyspace::new(1, 1)
}

fn get(db: &Db, key: &[u8], now: Millis) -> Option<Vec<u8>> {
    let key = db.key(key);
    db.lock(&key).read(&key, now).and_then(|entry| Some(entry.value().as_text()?.into_owned()))
}

#[test]
fn a_key_expires_when_touched_and_by_itself() {
    let keyspace = one_shard();
    let db = keyspace.db(0);
    for (key, at) in [(b"a", Some(100)), (b"b", Some(200)), (b"c", None)] {
        let key = db.key(key);
        db.lock(&key).set(&key, Value::Int(1), at, 0);
    }
    assert!(get(db, b"a", 99).is_some());
    assert_eq!(get(db, b"a", 100), None);
    assert_eq!(keyspace.expire_due(199, || false), 0);
    assert_eq!(keyspace.expire_due(200, || false), 1);
    assert_eq!(db.len(), 1);
    assert_eq!(db.figures().counts, ShardCounts { hits: 1, misses: 1, expired: 2 });
}

#[test]
fn a_new_deadline_replaces_the_old_one() {
    let keyspace = one_shard();
    let db = keyspace.db(0);
    let key = db.key(b"a");
    db.lock(&key).set(&key, Value::Int(1), Some(100), 0);
    assert!(db.lock(&key).set_deadline(&key, Some(300), 0));
    assert_eq!(keyspace.expire_due(299, || false), 0);
    assert!(db.lock(&key).set_deadline(&key, None, 0));
    assert_eq!(keyspace.expire_due(u64::MAX, || false), 0);
    assert_eq!(db.figures().volatile, 0);
    validate(&db.shard(0));
}

#[test]
fn expiry_is_bounded_per_visit_and_by_time() {
    let keyspace = one_shard();
    let db = keyspace.db(0);
    for i in 0..1000u32 {
        let bytes = i.to_le_bytes();
        let key = db.key(&bytes);
        db.lock(&key).set(&key, Value::Int(1), Some(1), 0);
    }
    let mut removed = Vec::new();
    assert!(db.shard(0).expire_due(1, 64, &mut removed));
    assert_eq!(removed.len(), 64);
    assert_eq!(keyspace.expire_due(1, || true), 64);
    assert_eq!(keyspace.expire_due(1, || false), 1000 - 128);
    assert!(db.is_empty());
}

#[test]
fn touching_one_key_for_ever_does_not_grow_the_deadlines() {
    let keyspace = one_shard();
    let db = keyspace.db(0);
    let key = db.key(b"session");
    for at in 1..10_000 {
        db.lock(&key).set(&key, Value::Int(1), Some(at + 1_000_000), 0);
    }
    validate(&db.shard(0));
}

#[test]
fn a_table_that_was_emptied_gives_its_memory_back() {
    let keyspace = one_shard();
    let db = keyspace.db(0);
    for i in 0..10_000u32 {
        let bytes = i.to_le_bytes();
        let key = db.key(&bytes);
        db.lock(&key).set(&key, Value::Int(1), None, 0);
    }
    let full = db.figures();
    for i in 0..9_990u32 {
        let bytes = i.to_le_bytes();
        let key = db.key(&bytes);
        db.lock(&key).remove(&key, 0);
    }
    let rest = db.figures();
    assert!(rest.overhead_bytes < full.overhead_bytes / 50, "{rest:?} of {full:?}");
    validate(&db.shard(0));
}

#[test]
fn the_account_hears_of_growth() {
    let keyspace = one_shard();
    let db = keyspace.db(0);
    let key = db.key(b"k");
    db.lock(&key).set(&key, Value::string(&[b'x'; 100_000]), None, 0);
    let grown = keyspace.account().growth();
    assert!(grown >= 100_000, "{grown}");
    drop(db.take_all());
    let left = keyspace.account().growth();
    assert!(left.abs() < crate::keyspace::DRIFT_STEP, "{left}");
    assert_eq!(db.figures().dataset_bytes, 0);
}

#[derive(Clone, Debug)]
enum Step {
    Set(u8, usize, Option<Millis>),
    Append(u8, usize),
    Push(u8, usize),
    Pop(u8),
    Remove(u8),
    Deadline(u8, Option<Millis>),
    Expire,
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0u8..12;
    let at = prop::option::of(1u64..400);
    prop_oneof![
        (key.clone(), 0usize..300, at.clone()).prop_map(|(k, n, at)| Step::Set(k, n, at)),
        (key.clone(), 0usize..300).prop_map(|(k, n)| Step::Append(k, n)),
        (key.clone(), 0usize..30).prop_map(|(k, n)| Step::Push(k, n)),
        key.clone().prop_map(Step::Pop),
        key.clone().prop_map(Step::Remove),
        (key, at).prop_map(|(k, at)| Step::Deadline(k, at)),
        Just(Step::Expire),
    ]
}

proptest! {
    #[test]
    fn the_equations_hold(steps in prop::collection::vec(step(), 0..200)) {
        let keyspace = one_shard();
        let db = keyspace.db(0);
        let mut seen: i64 = 0;
        for (now, step) in (1u64..).zip(steps) {
            let name = |k: u8| [b'k', k];
            match step {
                Step::Set(k, n, at) => {
                    let bytes = name(k);
                    let key = db.key(&bytes);
                    db.lock(&key).set(&key, Value::string(&vec![b'x'; n]), at, now);
                }
                Step::Append(k, n) => {
                    let bytes = name(k);
                    let key = db.key(&bytes);
                    db.lock(&key).modify(&key, now, |value| value.append(&vec![b'y'; n]));
                }
                Step::Push(k, n) => {
                    let bytes = name(k);
                    let key = db.key(&bytes);
                    let items = std::iter::repeat_n(Box::from(b"item".as_slice()), n);
                    db.lock(&key).push(&key, End::Left, now, items);
                }
                Step::Pop(k) => {
                    let bytes = name(k);
                    let key = db.key(&bytes);
                    db.lock(&key).pop(&key, End::Right, now);
                }
                Step::Remove(k) => {
                    let bytes = name(k);
                    let key = db.key(&bytes);
                    db.lock(&key).remove(&key, now);
                }
                Step::Deadline(k, at) => {
                    let bytes = name(k);
                    let key = db.key(&bytes);
                    db.lock(&key).set_deadline(&key, at, now);
                }
                Step::Expire => {
                    keyspace.expire_due(now, || false);
                }
            }
            seen += keyspace.account().take();
            let shard = db.shard(0);
            validate(&shard);
            prop_assert_eq!(seen + shard.drift, shard.bytes as i64);
        }
        keyspace.expire_due(u64::MAX - 1, || false);
        prop_assert_eq!(db.figures().volatile, 0);
    }
}
