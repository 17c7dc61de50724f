//! Any sequence of calls, against a model that remembers who was inside when an object was retired.
//!
//! Participants of one thread stand for several threads: the collector cannot tell, and every run can
//! be repeated. The model is what a reader relies on, no more: an object is not reclaimed while an
//! enter that came before its retire is open, it is reclaimed once, and the figures add up.

mod common;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use flagstone_epoch::{Domain, Participant, Tally};
use proptest::prelude::*;

const LIMIT: u64 = 6_000;

#[derive(Clone, Debug)]
enum Op {
    Register,
    Drop(usize),
    Enter(usize),
    Leave(usize),
    Retire(usize),
    TryRetire(usize),
    Park(usize),
    CollectAs(usize),
    Collect,
    Advance,
    Maintain,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => Just(Op::Register),
        1 => (0..4usize).prop_map(Op::Drop),
        6 => (0..4usize).prop_map(Op::Enter),
        6 => (0..4usize).prop_map(Op::Leave),
        12 => (0..4usize).prop_map(Op::Retire),
        12 => (0..4usize).prop_map(Op::TryRetire),
        2 => (0..4usize).prop_map(Op::Park),
        3 => (0..4usize).prop_map(Op::CollectAs),
        3 => Just(Op::Collect),
        2 => Just(Op::Advance),
        1 => Just(Op::Maintain),
    ]
}

/// One object; its drop writes its number down.
struct Object {
    id: usize,
    log: Arc<Mutex<Vec<usize>>>,
    _weight: [u8; 100],
}

impl Drop for Object {
    fn drop(&mut self) {
        self.log.lock().expect("no panic").push(self.id);
    }
}

#[derive(Default)]
struct Model {
    /// Enters so far, by number; an open one stays in the set of its participant.
    enters: usize,
    /// Enters that were open when each object was retired.
    held_by: Vec<BTreeSet<usize>>,
    reclaimed: BTreeSet<usize>,
    retired: Tally,
    refused: u64,
}

struct Run {
    domain: Domain,
    /// A participant and its open enters, oldest first; only the outermost holds the collector.
    participants: Vec<(Participant, Vec<usize>)>,
    log: Arc<Mutex<Vec<usize>>>,
    model: Model,
}

impl Run {
    fn new(batch_blocks: u32) -> Self {
        let domain = Domain::builder()
            .batch_blocks(batch_blocks)
            .watermark(LIMIT / 2)
            .hard_limit(LIMIT)
            .build()
            .expect("in range");
        Self { domain, participants: Vec::new(), log: Arc::default(), model: Model::default() }
    }

    fn step(&mut self, op: &Op) {
        match *op {
            Op::Register if self.participants.len() < 4 => {
                self.participants.push((self.domain.register(), Vec::new()));
            }
            Op::Drop(i) if i < self.participants.len() => drop(self.participants.swap_remove(i)),
            Op::Retire(i) => self.retire(i, |participant, object| {
                participant.defer_drop(object);
                None
            }),
            Op::TryRetire(i) => self.retire(i, |participant, object| {
                participant.try_defer_drop(object).err().map(|error| error.into_inner())
            }),
            Op::Collect => drop(self.domain.collect()),
            Op::Advance => drop(self.domain.advance()),
            Op::Maintain => drop(self.domain.maintain()),
            Op::Enter(i) | Op::Leave(i) | Op::Park(i) | Op::CollectAs(i) => {
                if let Some((participant, enters)) = self.participants.get_mut(i) {
                    match op {
                        Op::Enter(_) => {
                            participant.enter();
                            enters.push(self.model.enters);
                            self.model.enters += 1;
                        }
                        Op::Leave(_) => {
                            assert_eq!(participant.leave().is_ok(), enters.pop().is_some());
                        }
                        Op::Park(_) => participant.park(),
                        _ => drop(participant.collect()),
                    }
                }
            }
            Op::Register | Op::Drop(_) => {}
        }
        self.check();
    }

    fn retire(
        &mut self,
        i: usize,
        retire: impl FnOnce(&Participant, Box<Object>) -> Option<Box<Object>>,
    ) {
        let Some((participant, _)) = self.participants.get(i) else { return };
        let id = self.model.held_by.len();
        // Outermost enters only: the collector may let go of nothing else.
        let held = self.participants.iter().filter_map(|(_, enters)| enters.first().copied());
        self.model.held_by.push(held.collect());
        let object = Box::new(Object { id, log: Arc::clone(&self.log), _weight: [0; 100] });
        match retire(participant, object) {
            None => {
                self.model.retired += Tally { blocks: 1, bytes: size_of::<Object>() as u64 };
            }
            Some(object) => {
                assert_eq!(object.id, id);
                self.model.refused += 1;
                // Nobody else has it; its drop is no reclaim.
                self.model.held_by[id].clear();
                drop(object);
                let last = self.log.lock().expect("no panic").pop();
                assert_eq!(last, Some(id));
            }
        }
    }

    fn check(&mut self) {
        let open: BTreeSet<usize> =
            self.participants.iter().filter_map(|(_, enters)| enters.first().copied()).collect();
        for id in self.log.lock().expect("no panic").drain(..) {
            assert!(self.model.reclaimed.insert(id), "object {id} reclaimed twice");
            let holders: Vec<_> = self.model.held_by[id].intersection(&open).collect();
            assert!(holders.is_empty(), "object {id} reclaimed under enters {holders:?}");
        }
        let snapshot = self.domain.snapshot();
        let reclaimed = self.model.reclaimed.len() as u64;
        assert_eq!(snapshot.retired, self.model.retired);
        assert_eq!(snapshot.reclaimed.blocks, reclaimed);
        assert_eq!(snapshot.reclaimed.bytes, reclaimed * size_of::<Object>() as u64);
        assert_eq!(snapshot.retired, snapshot.reclaimed + snapshot.pending);
        assert_eq!(snapshot.refusals, self.model.refused);
        assert_eq!(snapshot.participants, self.participants.len() as u64);
        assert_eq!(snapshot.pinned, open.len() as u64);
        assert!(snapshot.reserved_bytes >= snapshot.pending.bytes);
        if snapshot.open.blocks == 0 {
            assert_eq!(snapshot.reserved_bytes, snapshot.pending.bytes);
        }
    }

    fn finish(mut self) {
        self.participants.clear();
        self.domain.collect();
        self.check();
        assert_eq!(
            self.model.reclaimed.len() as u64,
            self.model.retired.blocks,
            "objects are lost"
        );
        assert_eq!(self.domain.reserved_bytes(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 8 } else { 512 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// requirement: D6
    #[test]
    fn every_sequence_keeps_readers_safe_and_figures_true(
        batch_blocks in 1..20u32,
        ops in prop::collection::vec(op(), 1..300),
    ) {
        let mut run = Run::new(batch_blocks);
        for op in &ops {
            run.step(op);
        }
        run.finish();
    }
}
