//! Arbitrary sequences: the slab agrees with sharded-slab and with a map, and knows no forged key.

use std::collections::HashMap;

use flagstone_epoch::Domain;
use flagstone_slab::typed::{Key, Pool, Slab};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Insert(u16),
    InsertVacant(u16),
    GiveUpVacant,
    /// Of the keys ever issued, one by number.
    Get(usize),
    Remove(usize),
    Collect,
    Park,
    Maintain,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => any::<u16>().prop_map(Step::Insert),
        2 => any::<u16>().prop_map(Step::InsertVacant),
        1 => Just(Step::GiveUpVacant),
        6 => any::<usize>().prop_map(Step::Get),
        8 => any::<usize>().prop_map(Step::Remove),
        1 => Just(Step::Collect),
        1 => Just(Step::Park),
        1 => Just(Step::Maintain),
    ];
    prop::collection::vec(step, 1..if cfg!(miri) { 30 } else { 400 })
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: if cfg!(miri) { 4 } else { 128 }, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    /// Two participants take turns, so slots are removed by another than their inserter.
    #[test]
    #[cfg_attr(miri, ignore = "whether sharded-slab passes Miri is not ours to say")]
    fn agrees_with_sharded_slab(steps in steps(), page_of_one: bool) {
        let domain = Domain::builder().batch_blocks(16).build().expect("in range");
        let (one, two) = (domain.register(), domain.register());
        let ours = Slab::builder().buckets(2).build(&domain);
        let theirs = sharded_slab::Slab::new();
        // Large values have a page each.
        let pad = || vec![0u8; usize::from(page_of_one) * 64].into_boxed_slice();
        let mut issued: Vec<(Key, usize, u16)> = Vec::new();
        let mut live: HashMap<Key, u16> = HashMap::new();
        for (at, step) in steps.into_iter().enumerate() {
            let participant = if at % 3 == 0 { &one } else { &two };
            match step {
                Step::Insert(value) | Step::InsertVacant(value) => {
                    let guard = participant.pin();
                    let key = if matches!(step, Step::Insert(_)) {
                        ours.insert((value, pad()), &guard)
                    } else {
                        let entry = ours.vacant_entry(&guard);
                        let key = entry.key();
                        prop_assert_eq!(entry.insert((value, pad())).0, value);
                        key
                    };
                    let their = theirs.insert(value).expect("not full");
                    prop_assert!(live.insert(key, value).is_none(), "a key issued twice");
                    issued.push((key, their, value));
                }
                Step::GiveUpVacant => drop(ours.vacant_entry(&participant.pin())),
                Step::Get(at) if !issued.is_empty() => {
                    let (key, their, _) = issued[at % issued.len()];
                    let guard = participant.pin();
                    let found = ours.get(key, &guard).map(|value| value.0);
                    prop_assert_eq!(found, live.get(&key).copied());
                    // Theirs names another value once a slot's 8,191 generations are through; not here.
                    prop_assert_eq!(found, theirs.get(their).map(|value| *value));
                    prop_assert_eq!(ours.contains(key, &guard), theirs.contains(their));
                }
                Step::Remove(at) if !issued.is_empty() => {
                    let (key, their, _) = issued[at % issued.len()];
                    let removed = ours.remove(key, &participant.pin());
                    prop_assert_eq!(removed, live.remove(&key).is_some());
                    prop_assert_eq!(removed, theirs.remove(their));
                }
                Step::Collect => { participant.collect(); }
                Step::Park => ours.park(participant),
                Step::Maintain => { let _ = ours.maintain(); }
                Step::Get(_) | Step::Remove(_) => {}
            }
            prop_assert_eq!(ours.len(), live.len());
        }
        let guard = one.pin();
        let met: HashMap<Key, u16> =
            ours.iter(&guard).map(|(key, value)| (key, value.0)).collect();
        prop_assert_eq!(met, live);
    }

    #[test]
    fn a_forged_key_is_a_miss(
        bits: Vec<u64>, near: Vec<(u8, u8)>, live in 0..200usize, removed in 0..200usize,
    ) {
        let domain = Domain::new();
        let participant = domain.register();
        let slab: Slab<Box<usize>> = Slab::new(&domain);
        let guard = participant.pin();
        let mut keys: Vec<Key> = (0..live + removed).map(|at| slab.insert(Box::new(at), &guard)).collect();
        for key in keys.drain(..removed) {
            prop_assert!(slab.remove(key, &guard));
        }
        // Anything at all, and keys close to real ones: neighbours in slot and in turn.
        let close = near.iter().flat_map(|&(slot, turn)| {
            [u64::from(slot) << 32 | u64::from(turn), u64::from(slot) << 32 | u64::MAX >> 32]
        });
        for bits in bits.iter().copied().chain(close) {
            // SAFETY: the point of the test: what was never issued is a miss.
            let Some(forged) = (unsafe { Key::from_bits(bits) }) else { continue };
            if !keys.contains(&forged) {
                prop_assert!(slab.get(forged, &guard).is_none(), "{forged} was not issued");
                prop_assert!(!slab.remove(forged, &guard));
            }
        }
        prop_assert_eq!(slab.len(), live);
        for key in keys {
            // SAFETY: its own number.
            let again = unsafe { Key::from_bits(key.to_bits().get()) };
            prop_assert_eq!(again, Some(key));
            prop_assert!(slab.contains(key, &guard));
        }
    }

    #[test]
    fn a_pool_hands_out_cleared_objects(steps in prop::collection::vec(any::<(bool, usize)>(), 1..200)) {
        let domain = Domain::builder().batch_blocks(8).build().expect("in range");
        let participant = domain.register();
        let pool: Pool<String> = Pool::new(&domain);
        let mut live: Vec<(Key, String)> = Vec::new();
        for (create, at) in steps {
            let guard = participant.pin();
            if create || live.is_empty() {
                let mut line = pool.create(&guard);
                prop_assert!(line.is_empty(), "not cleared: {:?}", *line);
                line.push_str(&at.to_string());
                live.push((line.publish(), at.to_string()));
            } else {
                let (key, line) = live.swap_remove(at % live.len());
                prop_assert_eq!(pool.get(key, &guard), Some(&line));
                prop_assert!(pool.clear(key, &guard));
                prop_assert!(pool.get(key, &guard).is_none());
            }
        }
        let guard = participant.pin();
        for (key, line) in &live {
            prop_assert_eq!(pool.get(*key, &guard), Some(line));
        }
        prop_assert_eq!(pool.len(), live.len());
    }
}
