//! The space against a model: no two blocks overlap, what is called unwritten is unwritten, the books
//! agree with themselves, and everything can be given back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use proptest::prelude::*;

use super::super::UNIT;
use super::*;

#[derive(Clone, Debug)]
enum Step {
    Take { granules: usize, align: u32, place: Place },
    Free { which: usize },
    Resize { which: usize, granules: usize },
    Move { which: usize, granules: usize },
    Expire { age: u32, over: usize },
    Refuse,
    Wait { millis: u32 },
}

fn granules() -> impl Strategy<Value = usize> {
    prop_oneof![3 => 1usize..40, 2 => 40usize..300, 1 => 60usize..67]
}

fn step() -> impl Strategy<Value = Step> {
    let place = prop::sample::select(vec![Place::Best, Place::Best, Place::Growing, Place::Clean]);
    let align = prop_oneof![6 => Just(16u32), 1 => 16u32..24];
    let which = any::<usize>;
    prop_oneof![
        6 => (granules(), align, place)
            .prop_map(|(granules, align, place)| Step::Take { granules, align, place }),
        5 => which().prop_map(|which| Step::Free { which }),
        3 => (which(), granules()).prop_map(|(which, granules)| Step::Resize { which, granules }),
        1 => (which(), granules()).prop_map(|(which, granules)| Step::Move { which, granules }),
        2 => (0u32..3_000, 0usize..500).prop_map(|(age, over)| Step::Expire { age, over }),
        1 => Just(Step::Refuse),
        2 => (0u32..2_000).prop_map(|millis| Step::Wait { millis }),
    ]
}

/// What a kernel would know.
struct Model {
    space: Space,
    blocks: Vec<Node>,
    /// Granules that may hold something.
    written: BTreeSet<usize>,
    /// Mapped ranges, by start.
    mapped: BTreeMap<usize, usize>,
    next: usize,
    now: u32,
    refuse: bool,
}

impl Model {
    fn new() -> Self {
        Self {
            space: Space::new(),
            blocks: Vec::new(),
            written: BTreeSet::new(),
            mapped: BTreeMap::new(),
            next: UNIT << 12,
            now: u32::MAX - 5_000,
            refuse: false,
        }
    }

    fn records(&mut self) {
        if self.space.wants_records() {
            // Named here, so that a leak checker sees that the records are meant to stay.
            static CHUNKS: Mutex<Vec<usize>> = Mutex::new(Vec::new());
            let chunk = vec![0u64; 2_000].leak();
            CHUNKS.lock().unwrap().push(chunk.as_ptr().expose_provenance());
            // SAFETY: leaked, so it is ours and stays.
            unsafe { self.space.add_records(chunk.as_mut_ptr().cast(), 16_000) };
        }
    }

    fn take(&mut self, bytes: usize, align: usize, place: Place) -> Node {
        self.records();
        let taken = self.space.take(bytes, align, place).unwrap_or_else(|| {
            self.records();
            let span = bytes.next_multiple_of(UNIT);
            self.next = (self.next - span) & !(align.max(UNIT) - 1);
            self.mapped.insert(self.next, span);
            self.space.add(self.next, span, Origin::Common, self.now);
            let again = self.space.take(bytes, align, place);
            again.or_else(|| self.space.take_at(self.next, bytes)).expect("there is room now")
        });
        let node = taken.node;
        assert_eq!(node.bytes(), bytes);
        assert_eq!(node.start() % align, 0);
        for at in (0..bytes).step_by(GRANULE).filter(|at| !taken.dirty.contains(at)) {
            assert!(!self.written.contains(&(node.start() + at)), "not as clean as it says");
        }
        self.check_range(node);
        node
    }

    /// A block lies in mapped memory and over no other.
    fn check_range(&self, node: Node) {
        for other in self.blocks.iter().filter(|other| !std::ptr::eq(**other, node)) {
            let apart = other.end() <= node.start() || node.end() <= other.start();
            assert!(apart, "blocks overlap");
        }
        let mut at = node.start();
        while at < node.end() {
            let (start, bytes) = self.mapped.range(..=at).next_back().expect("mapped");
            assert!(at < start + bytes, "a block where nothing is mapped");
            at = start + bytes;
        }
    }

    fn write(&mut self, node: Node) {
        self.written.extend((node.start()..node.end()).step_by(GRANULE));
    }

    fn unmap(&mut self, start: usize, end: usize) {
        self.written.retain(|at| !(start..end).contains(at));
        let touched: Vec<_> = self.mapped.range(..end).map(|(&at, &bytes)| (at, bytes)).collect();
        for (at, bytes) in touched.into_iter().filter(|(at, bytes)| at + bytes > start) {
            self.mapped.remove(&at);
            if at < start {
                self.mapped.insert(at, start - at);
            }
            if at + bytes > end {
                self.mapped.insert(end, at + bytes - end);
            }
        }
    }

    fn expire(&mut self, age: u32, over: u64) -> usize {
        let mut jobs = [Job::NONE; 8];
        let count = self.space.expire(self.now, age, over, &mut jobs);
        let mut refused = false;
        for job in &jobs[..count] {
            match job.purged {
                None => {
                    assert!(job.start % GRANULE == 0 && job.bytes % GRANULE == 0 && job.bytes > 0);
                    self.unmap(job.start, job.start + job.bytes);
                }
                Some(node) => {
                    refused |= self.refuse;
                    if !self.refuse {
                        self.written.retain(|at| !(node.start()..node.end()).contains(at));
                    }
                    self.space.settle(node, !self.refuse, self.now);
                }
            }
        }
        self.space.set_purgeable(!refused);
        count
    }

    fn run(&mut self, step: Step) {
        let pick = |which: usize, n: usize| (n > 0).then(|| which % n);
        match step {
            Step::Take { granules, align, place } => {
                let node = self.take(granules * GRANULE, 1 << align, place);
                self.blocks.push(node);
                self.write(node);
            }
            Step::Free { which } => {
                let Some(at) = pick(which, self.blocks.len()) else { return };
                let node = self.blocks.swap_remove(at);
                assert!(self.space.block_at(node.start()).is_some());
                self.space.free(node, self.now);
            }
            Step::Resize { which, granules } => {
                let Some(at) = pick(which, self.blocks.len()) else { return };
                let (node, bytes) = (self.blocks[at], granules * GRANULE);
                self.records();
                let done = if bytes <= node.bytes() {
                    self.space.shrink(node, bytes, self.now)
                } else {
                    self.space.grow(node, bytes)
                };
                if done {
                    assert_eq!(node.bytes(), bytes);
                    self.check_range(node);
                    self.write(node);
                }
            }
            Step::Move { which, granules } => {
                let Some(at) = pick(which, self.blocks.len()) else { return };
                let from = self.blocks[at];
                let bytes = from.bytes() + granules * GRANULE;
                let to = self.take(bytes, GRANULE, Place::Clean);
                self.unmap(from.start(), from.end());
                self.space.depart(from, to);
                self.space.moved(from, to);
                self.blocks[at] = to;
                self.write(to);
            }
            Step::Expire { age, over } => _ = self.expire(age, (over * GRANULE) as u64),
            Step::Refuse => self.refuse = !self.refuse,
            Step::Wait { millis } => self.now = self.now.wrapping_add(millis),
        }
    }
}

impl Space {
    /// Checks that the books agree with themselves. For tests: walks everything.
    fn validate(&self) {
        let mut seen = Figures::default();
        let mut before: Option<Node> = None;
        let mut at = self.all.at_least(0);
        while let Some(node) = at {
            assert!(node.bytes() > 0 && node.bytes() % GRANULE == 0 && node.start() % GRANULE == 0);
            if let Some(before) = before {
                assert!(before.end() <= node.start(), "ranges overlap");
                let joined = before.end() == node.start() && before.is_free();
                assert!(
                    !joined || before.state() != node.state() || !may_join(before, node),
                    "neighbours are not joined"
                );
            }
            match node.state() {
                State::Used => seen.used += node.bytes() as u64,
                State::Clean => seen.clean += node.bytes() as u64,
                State::Dirty | State::Away => seen.dirty += node.bytes() as u64,
            }
            before = at;
            at = self.all.at_least(node.end());
        }
        assert_eq!(seen, self.figures);
    }
}

proptest! {
    #[test]
    fn any_sequence_keeps_the_books(steps in prop::collection::vec(step(), 1..200)) {
        let mut model = Model::new();
        for step in steps {
            model.run(step);
            model.space.validate();
            let used: usize = model.blocks.iter().map(|node| node.bytes()).sum();
            prop_assert_eq!(model.space.figures().used, used as u64);
        }
        // Everything can be given back, purges or no purges.
        for node in std::mem::take(&mut model.blocks) {
            model.space.free(node, model.now);
        }
        while model.expire(0, 0) > 0 {
            model.space.validate();
        }
        prop_assert_eq!(model.space.figures(), Default::default());
        prop_assert!(model.written.is_empty() && model.mapped.is_empty());
    }
}

#[test]
fn the_smallest_populated_range_that_holds_a_block_serves_it() {
    let mut model = Model::new();
    // A block that stays between any two, so that free ones do not join.
    let blocks: Vec<Node> = [3, 40, 9, 20]
        .into_iter()
        .map(|n| {
            model.take(GRANULE, GRANULE, Place::Best);
            model.take(n * GRANULE, GRANULE, Place::Best)
        })
        .collect();
    blocks.iter().for_each(|node| model.space.free(node, model.now));
    let node = model.take(8 * GRANULE, GRANULE, Place::Best);
    assert!((blocks[2].start()..blocks[2].start() + 9 * GRANULE).contains(&node.start()));
    let growing = model.take(2 * GRANULE, GRANULE, Place::Growing);
    assert!(model.space.grow(growing, 30 * GRANULE), "a growing block has room behind");
}
