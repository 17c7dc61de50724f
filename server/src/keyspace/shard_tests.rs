//! Tests of the shard: its equations under random commands, deadlines, and memory given back.

use super::*;
use crate::keyspace::Keyspace;
use proptest::prelude::*;

/// Every equation of the module's page.
fn validate(keyspace: &Keyspace) {
    keyspace.with_participant(|participant| {
        let guard = participant.pin();
        let db = keyspace.db(0);
        let shard = db.parts[0].lock(db.shared(&guard));
        let entries: Vec<&Entry> = match shard.table() {
            None => Vec::new(),
            Some(table) => {
                let slots = table.slots();
                slots.map(|(_, slot)| db.store.entries.get(slot, &guard).expect("there")).collect()
            }
        };
        assert_eq!(shard.len, entries.len(), "len");
        assert!(shard.used >= shard.len, "used");
        let bytes: usize = entries.iter().map(|entry| entry.heap_bytes()).sum();
        assert_eq!(shard.bytes, bytes, "bytes");
        let volatile = entries.iter().filter(|entry| entry.expires_at().is_some()).count();
        assert_eq!(shard.volatile, volatile, "volatile");
        let lists = entries.iter().filter_map(|entry| entry.value().as_list());
        assert!(lists.into_iter().all(|list| !list.view().is_empty()), "an empty list");
        assert!(entries.iter().all(|entry| entry.pending.load().is_none()), "a change pending");
        assert!(shard.deadlines.len() <= 64.max(2 * shard.volatile) + 1, "stale hints pile up");
        assert!(db.store.pending.is_empty());
    });
}

fn one_shard() -> Keyspace {
    Keyspace::new(1, 1)
}

fn locked<R>(keyspace: &Keyspace, key: &Key<'_>, f: impl FnOnce(&mut Locked<'_>) -> R) -> R {
    keyspace.with_participant(|p| f(&mut keyspace.db(0).lock(key, &p.pin())))
}

fn set(keyspace: &Keyspace, name: &[u8], text: &[u8], at: Option<Millis>, now: Millis) {
    let key = keyspace.db(0).key(name);
    locked(keyspace, &key, |shard| {
        shard.set(&key, Entry::try_string(&key, text, at).unwrap(), now)
    });
}

fn remove(keyspace: &Keyspace, name: &[u8], now: Millis) -> bool {
    let key = keyspace.db(0).key(name);
    locked(keyspace, &key, |shard| shard.remove(&key, now).is_some())
}

fn get(keyspace: &Keyspace, name: &[u8], now: Millis) -> Option<Vec<u8>> {
    let key = keyspace.db(0).key(name);
    keyspace.with_participant(|p| {
        let guard = p.pin();
        Some(keyspace.db(0).read(&key, now, &guard)?.as_text()?.into_owned())
    })
}

#[test]
fn a_key_expires_when_touched_and_by_itself() {
    let keyspace = one_shard();
    let db = keyspace.db(0);
    for (key, at) in [(b"a", Some(100)), (b"b", Some(200)), (b"c", None)] {
        set(&keyspace, key, b"1", at, 0);
    }
    assert!(get(&keyspace, b"a", 99).is_some());
    assert_eq!(get(&keyspace, b"a", 100), None);
    assert_eq!(keyspace.expire_due(199, || false), 0);
    assert_eq!(keyspace.expire_due(200, || false), 1);
    assert_eq!(db.len(), 1);
    assert_eq!(db.figures().expired, 2);
}

#[test]
fn a_new_deadline_replaces_the_old_one() {
    let keyspace = one_shard();
    let db = keyspace.db(0);
    let key = db.key(b"a");
    set(&keyspace, b"a", b"1", Some(100), 0);
    assert!(locked(&keyspace, &key, |shard| shard.set_deadline(&key, Some(300), 0)));
    assert_eq!(keyspace.expire_due(299, || false), 0);
    assert!(locked(&keyspace, &key, |shard| shard.set_deadline(&key, None, 0)));
    assert_eq!(keyspace.expire_due(u64::MAX, || false), 0);
    assert_eq!(db.figures().volatile, 0);
    validate(&keyspace);
}

#[test]
fn expiry_is_bounded_per_visit_and_by_time() {
    let keyspace = one_shard();
    let db = keyspace.db(0);
    for i in 0..1000u32 {
        set(&keyspace, &i.to_le_bytes(), b"1", Some(1), 0);
    }
    let key = db.key(b"any");
    assert_eq!(locked(&keyspace, &key, |shard| shard.expire_due(1, 64)), (64, true));
    assert_eq!(keyspace.expire_due(1, || true), 64);
    assert_eq!(keyspace.expire_due(1, || false), 1000 - 128);
    assert!(db.is_empty());
}

#[test]
fn touching_one_key_for_ever_does_not_grow_the_deadlines() {
    let keyspace = one_shard();
    let db = keyspace.db(0);
    for at in 1..10_000 {
        set(&keyspace, b"session", b"1", Some(at + 1_000_000), 0);
    }
    assert_eq!(db.len(), 1);
    validate(&keyspace);
}

#[test]
fn a_table_that_was_emptied_gives_its_memory_back() {
    let keyspace = one_shard();
    let db = keyspace.db(0);
    for i in 0..10_000u32 {
        set(&keyspace, &i.to_le_bytes(), b"1", None, 0);
    }
    let full = db.figures();
    for i in 0..9_990u32 {
        assert!(remove(&keyspace, &i.to_le_bytes(), 0));
    }
    let rest = db.figures();
    assert!(rest.overhead_bytes < full.overhead_bytes / 50, "{rest:?} of {full:?}");
    validate(&keyspace);
}

#[test]
fn the_account_hears_of_growth() {
    let keyspace = one_shard();
    let db = keyspace.db(0);
    set(&keyspace, b"k", &[b'x'; 100_000], None, 0);
    let grown = keyspace.account().growth();
    assert!(grown >= 100_000, "{grown}");
    keyspace.with_participant(|p| drop(db.take_all(&p.pin())));
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
    SetMany(u8, u8),
    RemoveMany(u8, u8),
    Flush,
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
        (key.clone(), at).prop_map(|(k, at)| Step::Deadline(k, at)),
        (key.clone(), 1u8..16).prop_map(|(k, n)| Step::SetMany(k, n)),
        (key, 1u8..16).prop_map(|(k, n)| Step::RemoveMany(k, n)),
        Just(Step::Flush),
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
            let lock = |k: u8, f: &mut dyn FnMut(&mut Locked<'_>, Key<'_>)| {
                let bytes = name(k);
                let key = db.key(&bytes);
                locked(&keyspace, &key, |shard| f(shard, key));
            };
            match step {
                Step::Set(k, n, at) => set(&keyspace, &name(k), &vec![b'x'; n], at, now),
                Step::Append(k, n) => lock(k, &mut |shard, key| {
                    let longer = shard.peek(&key, now).and_then(|e| e.try_appended(&key, &vec![b'y'; n]).unwrap());
                    if let Some(longer) = longer {
                        shard.set(&key, longer, now);
                    }
                }),
                Step::Push(k, n) => lock(k, &mut |shard, key| {
                    let mut items = vec![Box::from(b"item".as_slice()); n];
                    shard.try_push(&key, End::Left, now, &mut items).unwrap();
                }),
                Step::Pop(k) => lock(k, &mut |shard, key| {
                    shard.try_pop(&key, End::Right, 1, now).unwrap();
                }),
                Step::Remove(k) => {
                    remove(&keyspace, &name(k), now);
                }
                Step::Deadline(k, at) => lock(k, &mut |shard, key| {
                    shard.set_deadline(&key, at, now);
                }),
                Step::SetMany(k, n) => keyspace.with_participant(|p| {
                    let names: Vec<_> = (0..n).map(|i| name((k + i) % 12)).collect();
                    let pairs: Vec<_> = names.iter().map(|n| (db.key(n), b"many".as_slice())).collect();
                    db.set_many(&pairs, now, &p.pin()).unwrap();
                }),
                Step::RemoveMany(k, n) => keyspace.with_participant(|p| {
                    let names: Vec<_> = (0..n).map(|i| name((k + i) % 12)).collect();
                    let keys: Vec<_> = names.iter().map(|n| db.key(n)).collect();
                    db.remove_many(&keys, now, &p.pin());
                }),
                Step::Flush => {
                    keyspace.with_participant(|p| drop(db.take_all(&p.pin())));
                }
                Step::Expire => {
                    keyspace.expire_due(now, || false);
                }
            }
            seen += keyspace.account().take();
            validate(&keyspace);
            let key = db.key(b"any");
            let (drift, bytes) = locked(&keyspace, &key, |shard| (shard.drift, shard.bytes));
            prop_assert_eq!(seen + drift, bytes as i64);
        }
        keyspace.expire_due(u64::MAX - 1, || false);
        prop_assert_eq!(db.figures().volatile, 0);
    }
}
