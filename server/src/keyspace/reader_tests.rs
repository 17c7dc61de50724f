//! Readers and writers at once: what a reader holds stays, a writer held in the middle of a write keeps no
//! reader waiting, and what is seen of a change is all of it or nothing.

use std::collections::HashMap;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use flagstone::epoch::Guard;
use proptest::prelude::*;

use super::entry::Entry;
use super::list::End;
use super::scan::Cursor;
use super::shard::{Key, pause};
use super::value::{SHARED_FROM, Value};
use super::{Db, Keyspace};
use crate::resp::Protocol;
use crate::resp::output::Output;
use crate::resp::reply::Reply;
use crate::sync::{Counter, Flag};

/// Longer than anything here takes on any machine.
const FOR_EVER: Duration = Duration::from_secs(60);

fn set(db: &Db, name: &[u8], text: &[u8], guard: &Guard<'_>) {
    let key = db.key(name);
    db.set(&key, Entry::try_string(&key, text, None).unwrap(), 0, guard);
}

fn push(db: &Db, name: &[u8], elements: &[&[u8]], guard: &Guard<'_>) {
    let key = db.key(name);
    let mut elements: Vec<Box<[u8]>> = elements.iter().map(|element| Box::from(*element)).collect();
    db.lock(&key, guard).try_push(&key, End::Right, 0, &mut elements).unwrap();
}

fn text(db: &Db, name: &[u8], guard: &Guard<'_>) -> Option<Vec<u8>> {
    Some(db.read(&db.key(name), 0, guard)?.as_text()?.into_owned())
}

fn list(db: &Db, name: &[u8], guard: &Guard<'_>) -> Option<Vec<Vec<u8>>> {
    let view = db.read(&db.key(name), 0, guard)?.value().as_list()?.view();
    Some(view.range(0..view.len()).map(<[u8]>::to_vec).collect())
}

/// On another thread, as another client would.
fn elsewhere(keyspace: &Keyspace, f: impl FnOnce(&Db, &Guard<'_>) + Send) {
    thread::scope(|scope| {
        scope.spawn(|| {
            let participant = keyspace.domain().register();
            f(keyspace.db(0), &participant.pin());
            participant.flush();
        });
    });
}

fn pending(keyspace: &Keyspace) -> u64 {
    keyspace.entries().1
}

#[test]
fn what_a_reader_holds_stays_while_writers_replace_delete_and_flush_it() {
    type Write = fn(&Keyspace, &Db, &Guard<'_>);
    let writes: [(&str, Write); 5] = [
        ("set", |_, db, guard| set(db, b"k", b"another", guard)),
        ("del", |_, db, guard| assert_eq!(db.remove_many(&[db.key(b"k")], 0, guard), 1)),
        ("del of several", |_, db, guard| {
            assert_eq!(db.remove_many(&[db.key(b"k"), db.key(b"l")], 0, guard), 2);
        }),
        ("flush", |_, db, guard| drop(db.take_all(guard))),
        ("expiry", |keyspace, db, guard| {
            let key = db.key(b"k");
            assert!(db.lock(&key, guard).set_deadline(&key, Some(5), 0));
            assert_eq!(keyspace.expire_due(5, || false), 1);
        }),
    ];
    for (name, write) in writes {
        let keyspace = Keyspace::new(1, 4);
        let db = keyspace.db(0);
        let participant = keyspace.domain().register();
        let guard = participant.pin();
        let value = vec![b'v'; 1000];
        set(db, b"k", &value, &guard);
        push(db, b"l", &[b"1", b"2", b"3"], &guard);
        let held = db.read(&db.key(b"k"), 0, &guard).expect("set");
        let elements = db.read(&db.key(b"l"), 0, &guard).and_then(|entry| entry.value().as_list());
        let view = elements.expect("pushed").view();
        elsewhere(&keyspace, |db, guard| {
            write(&keyspace, db, guard);
            let key = db.key(b"l");
            db.lock(&key, guard).try_pop(&key, End::Left, 2, 0).unwrap();
        });
        for _ in 0..10 {
            keyspace.domain().collect();
        }
        assert!(pending(&keyspace) > 0, "{name}: retired, and not freed");
        assert_eq!(held.as_text().as_deref(), Some(value.as_slice()), "{name}");
        let seen: Vec<&[u8]> = view.range(0..view.len()).collect();
        assert_eq!(seen, [b"1", b"2", b"3"], "{name}: the list of that moment");
        drop(guard);
        // The participant of the thread that wrote may go a little after the scope that it ran in.
        let deadline = Instant::now() + FOR_EVER;
        while pending(&keyspace) > 0 {
            assert!(Instant::now() < deadline, "{name}: freed when nobody reads");
            keyspace.collect();
            keyspace.domain().collect();
            thread::yield_now();
        }
    }
}

/// Replies outlive the guard: large values are shared with them, without a copy.
#[test]
fn a_large_value_is_sent_from_where_it_is_though_its_key_is_gone() {
    let keyspace = Keyspace::new(1, 1);
    let db = keyspace.db(0);
    let value = vec![b'v'; 4 * SHARED_FROM];
    let mut out = Output::new(usize::MAX);
    let block = keyspace.with_participant(|participant| {
        let guard = participant.pin();
        set(db, b"k", &value, &guard);
        let entry = db.read(&db.key(b"k"), 0, &guard).expect("set");
        assert!(entry.write_text(&mut Reply::new(&mut out, Protocol::Resp2)));
        let Value::Long(long) = entry.value() else { panic!("not long: {entry:?}") };
        long.pieces()[0].as_ptr()
    });
    elsewhere(&keyspace, |db, guard| drop(db.take_all(guard)));
    keyspace.collect();
    assert_eq!(keyspace.entries(), (0, 0), "the entry is freed");
    let mut slices = [std::io::IoSlice::new(&[]); 8];
    let filled = out.slices(&mut slices);
    let sent = slices[..filled].iter().find(|slice| slice.as_ptr() == block);
    assert_eq!(sent.map(|slice| slice.to_vec()), Some(value), "sent from its own block");
}

/// Holds a writer at every place of `write` where readers might find it, and reads there: everything that
/// was there before must be there, as it was before or as it is after.
fn held_in_the_middle(prepare: fn(&Db, &Guard<'_>), write: fn(&Db, &Guard<'_>)) -> usize {
    let keyspace = Keyspace::new(1, 2);
    let db = keyspace.db(0);
    keyspace.with_participant(|participant| prepare(db, &participant.pin()));
    let (arrived, places) = mpsc::channel::<mpsc::Sender<()>>();
    thread::scope(|scope| {
        scope.spawn(|| {
            pause::hold(move || {
                let (go_on, wait) = mpsc::channel();
                arrived.send(go_on).expect("the test waits for it");
                // The reader is done, or the test has failed.
                let _ = wait.recv();
            });
            let participant = keyspace.domain().register();
            write(db, &participant.pin());
            pause::hold(|| {});
        });
        let mut held = 0;
        // Ends when the writer has ended and dropped its side.
        for go_on in places {
            held += 1;
            let (done, is_done) = mpsc::channel();
            let keyspace = &keyspace;
            scope.spawn(move || {
                keyspace.with_participant(|participant| {
                    let guard = participant.pin();
                    let before = read_all(db, &guard);
                    assert_eq!(
                        before,
                        read_all(db, &guard),
                        "a writer that is held writes nothing"
                    );
                    done.send(before).expect("the test waits for it");
                });
            });
            // A reader that waited for the writer would wait for ever.
            let seen = is_done.recv_timeout(FOR_EVER).expect("the reader got on");
            let whole = [[Some("1"), Some("1")], [Some("2"), Some("2")], [None, None]];
            let pair = [seen.0.as_deref(), seen.1.as_deref()];
            assert!(whole.contains(&pair), "half a change: {pair:?}");
            drop(go_on);
        }
        held
    })
}

type All = (Option<String>, Option<String>, Vec<Vec<Vec<u8>>>, usize, usize);

/// Every way to read.
fn read_all(db: &Db, guard: &Guard<'_>) -> All {
    let text = |name: &[u8]| text(db, name, guard).map(|t| String::from_utf8(t).unwrap());
    let many = db.read_many(&[db.key(b"a"), db.key(b"b")], 0, guard);
    let mut scanned = 0;
    let end = db.scan(Cursor::default(), usize::MAX, 0, guard, |_, _| scanned += 1);
    assert!(end.is_zero());
    let numbers = many.iter().flatten().filter_map(|one| one.number()).collect::<Vec<_>>();
    assert!(numbers.windows(2).all(|pair| pair[0] == pair[1]), "{numbers:?}");
    (text(b"a"), text(b"b"), list(db, b"l", guard).into_iter().collect(), scanned, db.len())
}

/// requirement: D6
#[test]
fn a_reader_gets_on_while_a_writer_is_held_in_the_middle_of_a_write() {
    let both = |db: &Db, guard: &Guard<'_>| {
        db.set_many(&[(db.key(b"a"), b"1"), (db.key(b"b"), b"1")], 0, guard).unwrap();
        push(db, b"l", &[b"x", b"y"], guard);
    };
    let none = |_: &Db, _: &Guard<'_>| {};
    type Step = fn(&Db, &Guard<'_>);
    let writes: [(Step, Step); 7] = [
        (none, |db, guard| set(db, b"other", b"1", guard)),
        (both, |db, guard| {
            db.set_many(&[(db.key(b"a"), b"2"), (db.key(b"b"), b"2")], 0, guard).unwrap();
        }),
        (none, |db, guard| {
            db.set_many(&[(db.key(b"a"), b"1"), (db.key(b"b"), b"1")], 0, guard).unwrap();
        }),
        (both, |db, guard| {
            db.remove_many(&[db.key(b"a"), db.key(b"b"), db.key(b"l")], 0, guard);
        }),
        (both, |db, guard| drop(db.take_all(guard))),
        (both, |db, guard| push(db, b"l", &[b"z".as_slice(); 20], guard)),
        // The table grows on the way.
        (both, |db, guard| {
            for i in 0..40u8 {
                set(db, &[i], b"1", guard);
            }
        }),
    ];
    for (prepare, write) in writes {
        let held = held_in_the_middle(prepare, write);
        assert!(held > 1, "held {held} times");
    }
}

/// A flag for writers to go on, lowered when the test is over or has failed.
struct Running(Flag);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.lower();
    }
}

#[test]
fn reads_of_several_keys_are_of_one_moment() {
    let keyspace = Keyspace::new(1, 8);
    let running = Running(Flag::new());
    running.0.raise();
    let names: Vec<Vec<u8>> = (0..20u8).map(|i| vec![b'k', i]).collect();
    thread::scope(|scope| {
        // Lowered before the scope waits, also by a panic.
        let running = &running;
        scope.spawn(|| {
            let participant = keyspace.domain().register();
            let db = keyspace.db(0);
            for round in 0u64.. {
                if !running.0.is_raised() {
                    break;
                }
                let text = format!("v{round}");
                let pairs: Vec<_> =
                    names.iter().map(|name| (db.key(name), text.as_bytes())).collect();
                let guard = participant.pin();
                if round % 3 == 2 {
                    let keys: Vec<Key<'_>> = pairs.iter().map(|(key, _)| *key).collect();
                    assert_eq!(db.remove_many(&keys, 0, &guard), 20);
                } else {
                    db.set_many(&pairs, 0, &guard).unwrap();
                }
            }
        });
        let participant = keyspace.domain().register();
        let db = keyspace.db(0);
        let keys: Vec<Key<'_>> = names.iter().map(|name| db.key(name)).collect();
        let mut kinds = [0; 2];
        let start = Instant::now();
        let stop = Running(Flag::new());
        while kinds.iter().any(|kind| *kind < 200) {
            assert!(start.elapsed() < FOR_EVER, "{kinds:?}");
            let guard = participant.pin();
            let seen = db.read_many(&keys, 0, &guard);
            let texts: Vec<_> =
                seen.iter().map(|one| one.map(|one| one.entry().as_text().unwrap())).collect();
            if texts.windows(2).any(|pair| pair[0] != pair[1]) {
                running.0.lower();
                panic!("torn: {texts:?}");
            }
            kinds[usize::from(texts[0].is_some())] += 1;
        }
        running.0.lower();
        drop(stop);
    });
}

#[derive(Clone, Debug)]
enum Step {
    Set(u8, u16),
    SetMany(u8, u8),
    Append(u8, u16),
    Add(u8, i8),
    Remove(u8),
    RemoveMany(u8, u8),
    Push(u8, bool, u8),
    Pop(u8, bool, u8),
    Flush,
}

#[derive(Clone, Debug, PartialEq)]
enum Held {
    Text(Vec<u8>),
    List(Vec<Vec<u8>>),
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0u8..40;
    prop_oneof![
        6 => (key(), any::<u16>()).prop_map(|(k, n)| Step::Set(k, n)),
        2 => (key(), 1u8..20).prop_map(|(k, n)| Step::SetMany(k, n)),
        3 => (key(), 0u16..3000).prop_map(|(k, n)| Step::Append(k, n)),
        2 => (key(), any::<i8>()).prop_map(|(k, n)| Step::Add(k, n)),
        3 => key().prop_map(Step::Remove),
        1 => (key(), 1u8..20).prop_map(|(k, n)| Step::RemoveMany(k, n)),
        4 => (key(), any::<bool>(), 1u8..6).prop_map(|(k, l, n)| Step::Push(k, l, n)),
        3 => (key(), any::<bool>(), 1u8..6).prop_map(|(k, l, n)| Step::Pop(k, l, n)),
        1 => Just(Step::Flush),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The keyspace against the map of the standard library, read in every way after every step.
    #[test]
    fn a_keyspace_is_a_map(steps in prop::collection::vec(step(), 1..120)) {
        let keyspace = Keyspace::new(1, 4);
        let db = keyspace.db(0);
        let participant = keyspace.domain().register();
        let mut model: HashMap<Vec<u8>, Held> = HashMap::new();
        let name = |k: u8| vec![b'k', k % 40];
        for (number, step) in steps.into_iter().enumerate() {
            let guard = participant.pin();
            let value = |n: usize| if n.is_multiple_of(3) { n.to_string() } else { format!("v{n}") };
            match step {
                Step::Set(k, n) => {
                    let value = value(n.into());
                    set(db, &name(k), value.as_bytes(), &guard);
                    model.insert(name(k), Held::Text(value.into()));
                }
                Step::SetMany(k, n) => {
                    let names: Vec<_> = (0..n).map(|i| name(k + i)).collect();
                    let values: Vec<_> = (0..n).map(|i| value(usize::from(i) + number)).collect();
                    let keys = names.iter().map(|name| db.key(name));
                    let pairs: Vec<_> = keys.zip(values.iter().map(|v| v.as_bytes())).collect();
                    db.set_many(&pairs, 0, &guard).unwrap();
                    for (name, value) in names.iter().zip(values) {
                        model.insert(name.clone(), Held::Text(value.into()));
                    }
                }
                Step::Append(k, n) => {
                    let name = name(k);
                    let key = db.key(&name);
                    let more = vec![b'm'; n.into()];
                    let mut shard = db.lock(&key, &guard);
                    if let Some(longer) = shard.peek(&key, 0).and_then(|e| e.try_appended(&key, &more).unwrap()) {
                        shard.set(&key, longer, 0);
                    }
                    if let Some(Held::Text(text)) = model.get_mut(&name) {
                        text.extend(more);
                    }
                }
                Step::Add(k, by) => {
                    let name = name(k);
                    let key = db.key(&name);
                    let mut shard = db.lock(&key, &guard);
                    let before = shard.peek(&key, 0);
                    if let Some(entry) = before && let Some(n) = entry.as_int() {
                        let sum = n + i64::from(by);
                        shard.set_integer(&key, entry, sum, 0);
                        model.insert(name, Held::Text(sum.to_string().into()));
                    }
                }
                Step::Remove(k) => {
                    let there = db.remove_many(&[db.key(&name(k))], 0, &guard);
                    prop_assert_eq!(there, usize::from(model.remove(&name(k)).is_some()));
                }
                Step::RemoveMany(k, n) => {
                    let names: Vec<_> = (0..n).map(|i| name(k + i / 2)).collect();
                    let keys: Vec<_> = names.iter().map(|name| db.key(name)).collect();
                    let there = names.iter().filter(|name| model.remove(*name).is_some()).count();
                    prop_assert_eq!(db.remove_many(&keys, 0, &guard), there);
                }
                Step::Push(k, left, n) => {
                    let name = name(k);
                    let key = db.key(&name);
                    let end = if left { End::Left } else { End::Right };
                    let elements: Vec<Vec<u8>> = (0..n).map(|i| vec![i; usize::from(i) * 40]).collect();
                    let mut boxed: Vec<Box<[u8]>> =
                        elements.iter().map(|e| Box::from(e.as_slice())).collect();
                    let len = db.lock(&key, &guard).try_push(&key, end, 0, &mut boxed).unwrap();
                    let held = model.entry(name).or_insert(Held::List(Vec::new()));
                    let Held::List(list) = held else {
                        prop_assert_eq!(len, None);
                        continue;
                    };
                    for element in elements {
                        list.insert(if left { 0 } else { list.len() }, element);
                    }
                    prop_assert_eq!(len, Some(list.len()));
                }
                Step::Pop(k, left, n) => {
                    let name = name(k);
                    let key = db.key(&name);
                    let end = if left { End::Left } else { End::Right };
                    let popped = db.lock(&key, &guard).try_pop(&key, end, n.into(), 0).unwrap();
                    let wanted = match model.get_mut(&name) {
                        None => None,
                        Some(Held::Text(_)) => Some(Vec::new()),
                        Some(Held::List(list)) => {
                            let take = |_| (!list.is_empty()).then(|| {
                                list.remove(if left { 0 } else { list.len() - 1 })
                            });
                            Some((0..n).filter_map(take).collect::<Vec<_>>())
                        }
                    };
                    if matches!(model.get(&name), Some(Held::List(list)) if list.is_empty()) {
                        model.remove(&name);
                    }
                    let popped = popped.map(|p| p.into_iter().map(<[u8]>::to_vec).collect());
                    prop_assert_eq!(popped, wanted);
                }
                Step::Flush => {
                    drop(db.take_all(&guard));
                    model.clear();
                }
            }
            prop_assert_eq!(db.len(), model.len());
            let mut scanned = HashMap::new();
            db.scan(Cursor::default(), usize::MAX, 0, &guard, |name, entry| {
                let held = match entry.value().as_list() {
                    Some(list) => {
                        let view = list.view();
                        Held::List(view.range(0..view.len()).map(<[u8]>::to_vec).collect())
                    }
                    None => Held::Text(entry.as_text().unwrap().into_owned()),
                };
                assert!(scanned.insert(name.to_vec(), held).is_none(), "met twice");
            });
            prop_assert_eq!(&scanned, &model);
            let names: Vec<_> = (0..40).map(name).collect();
            let keys: Vec<_> = names.iter().map(|name| db.key(name)).collect();
            let many = db.read_many(&keys, 0, &guard);
            for (name, seen) in names.iter().zip(many) {
                prop_assert_eq!(seen.is_some(), model.contains_key(name));
                prop_assert_eq!(text(db, name, &guard).map(Held::Text).or_else(|| {
                    list(db, name, &guard).map(Held::List)
                }), model.get(name).cloned());
            }
        }
    }
}

/// Many clients at once: every value says which key it is of, so a reader that finds another's has found
/// a slot that was used again under it. Run by name: `cargo test -p flagstone-server -- --ignored clients`.
#[test]
#[ignore = "a stress test, half a minute"]
fn many_clients_read_and_write_everything() {
    const WRITERS: usize = 6;
    const READERS: usize = 6;
    const KEYS: usize = 200;
    let keyspace = Keyspace::new(1, 8);
    let running = Flag::new();
    running.raise();
    let (reads, writes) = (Counter::new(), Counter::new());
    let name = |n: usize| format!("key:{n}").into_bytes();
    let random = |state: &mut u64| {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state as usize
    };
    let check = |n: usize, entry: &Entry| {
        assert_eq!(entry.name(), name(n));
        match entry.value().as_list() {
            Some(list) => {
                let view = list.view();
                assert!(view.range(0..view.len()).all(|e| e.starts_with(&name(n))), "another's");
            }
            None => {
                let text = entry.as_text().unwrap();
                assert!(entry.as_int().is_some() || text.starts_with(&name(n)), "another's");
            }
        }
    };
    thread::scope(|scope| {
        for client in 0..WRITERS {
            let (keyspace, running, writes) = (&keyspace, &running, &writes);
            scope.spawn(move || {
                let participant = keyspace.domain().register();
                let db = keyspace.db(0);
                let mut state = 0x9E37_79B9 + client as u64;
                while running.is_raised() {
                    let n = random(&mut state) % KEYS;
                    let bytes = name(n);
                    let key = db.key(&bytes);
                    let guard = participant.pin();
                    let long =
                        [bytes.as_slice(), &vec![b'.'; random(&mut state) % 90_000]].concat();
                    match random(&mut state) % 100 {
                        0 => drop(db.take_all(&guard)),
                        1..30 => set(db, &bytes, &bytes.repeat(3), &guard),
                        30..34 => set(db, &bytes, &long, &guard),
                        34..50 => set(db, &bytes, b"17", &guard),
                        50..60 => drop(db.lock(&key, &guard).remove(&key, 0).is_some()),
                        60..70 => {
                            let names: Vec<_> = (0..5).map(|i| name((n + i) % KEYS)).collect();
                            let pairs: Vec<_> =
                                names.iter().map(|n| (db.key(n), n.as_slice())).collect();
                            db.set_many(&pairs, 0, &guard).unwrap();
                        }
                        70..75 => {
                            let names: Vec<_> = (0..5).map(|i| name((n + i) % KEYS)).collect();
                            let keys: Vec<_> = names.iter().map(|n| db.key(n)).collect();
                            db.remove_many(&keys, 0, &guard);
                        }
                        75..90 => {
                            let end = if n.is_multiple_of(2) { End::Left } else { End::Right };
                            let mut elements = vec![Box::from(bytes.as_slice()); 1 + n % 7];
                            db.lock(&key, &guard).try_push(&key, end, 0, &mut elements).unwrap();
                        }
                        _ => {
                            let end = if n.is_multiple_of(3) { End::Left } else { End::Right };
                            let popped = db.lock(&key, &guard).try_pop(&key, end, 1 + n % 9, 0);
                            let popped = popped.unwrap();
                            assert!(popped.is_none_or(|p| p.iter().all(|e| **e == *bytes)));
                        }
                    }
                    writes.add(1);
                }
            });
        }
        for client in 0..READERS {
            let (keyspace, running, reads) = (&keyspace, &running, &reads);
            scope.spawn(move || {
                let participant = keyspace.domain().register();
                let db = keyspace.db(0);
                let mut state = 0xC2B2_AE35 + client as u64;
                while running.is_raised() {
                    let n = random(&mut state) % KEYS;
                    let guard = participant.pin();
                    match random(&mut state) % 50 {
                        0 => {
                            db.scan(Cursor::default(), usize::MAX, 0, &guard, |bytes, entry| {
                                let n =
                                    std::str::from_utf8(bytes).unwrap().split_once(':').unwrap();
                                check(n.1.parse().unwrap(), entry);
                            });
                        }
                        1..10 => {
                            let names: Vec<_> = (0..8).map(|i| name((n + i) % KEYS)).collect();
                            let keys: Vec<_> = names.iter().map(|n| db.key(n)).collect();
                            let many = db.read_many(&keys, 0, &guard);
                            for (i, seen) in many.into_iter().enumerate() {
                                seen.inspect(|seen| check((n + i) % KEYS, seen.entry()));
                            }
                        }
                        _ => {
                            if let Some(entry) = db.read(&db.key(&name(n)), 0, &guard) {
                                check(n, entry);
                            }
                        }
                    }
                    reads.add(1);
                }
            });
        }
        thread::sleep(Duration::from_secs(20));
        running.lower();
    });
    assert!(reads.get() > 1000 && writes.get() > 1000, "{} {}", reads.get(), writes.get());
    keyspace.with_participant(|p| drop(keyspace.db(0).take_all(&p.pin())));
    keyspace.collect();
    assert_eq!(keyspace.entries(), (0, 0));
    assert_eq!(keyspace.figures().dataset_bytes, 0);
}
