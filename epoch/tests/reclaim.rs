//! When objects are reclaimed: never before their readers leave, always once, whoever retired them.

mod common;

use std::ptr::NonNull;
use std::rc::Rc;
use std::thread;

use common::{Drops, Embedded, Gate, eventually};
use flagstone_epoch::{Domain, Participant, Reclaim};

/// Every way to retire one object.
const WAYS: [fn(&Participant, &Drops); 6] = [
    |participant, drops| {
        let object = Embedded::leak(drops);
        let reclaim: Reclaim = Embedded::reclaim;
        // SAFETY: leaked just now, found by nobody.
        unsafe { participant.retire(Embedded::node(object), size_of::<Embedded>(), reclaim) };
    },
    |participant, drops| {
        let object = Embedded::leak(drops);
        // SAFETY: as above.
        unsafe { participant.try_retire(Embedded::node(object), 1, Embedded::reclaim) }
            .expect("no limit");
    },
    // SAFETY: as above.
    |participant, drops| unsafe { participant.retire_linked(drops.linked()) },
    // SAFETY: as above.
    |participant, drops| unsafe { participant.retire_box(drops.boxed()) },
    |participant, drops| participant.defer_drop(Box::new(drops.probe())),
    |participant, drops| {
        participant.try_defer_drop(Box::new(drops.probe())).expect("no limit");
    },
];

/// A reader that entered before the retire never sees the reclaim, on every way to retire.
// requirement: D6
#[test]
fn a_reader_that_entered_before_the_retire_never_sees_the_reclaim() {
    for retire in WAYS {
        let domain = Domain::new();
        let drops = Drops::default();
        let (entered, leave) = (Gate::new(2), Gate::new(2));
        thread::scope(|scope| {
            scope.spawn(|| {
                let participant = domain.register();
                let guard = participant.pin();
                entered.wait();
                leave.wait();
                assert_eq!(drops.count(), 0, "reclaimed under a reader");
                drop(guard);
            });
            let participant = domain.register();
            entered.wait();
            for _ in 0..300 {
                retire(&participant, &drops);
            }
            for _ in 0..100 {
                participant.collect();
                domain.collect();
                domain.advance();
            }
            assert_eq!(drops.count(), 0, "reclaimed under a reader");
            leave.wait();
            eventually("reclaim after the reader left", || {
                participant.collect();
                drops.count() == 300
            });
        });
    }
}

/// The reader's guard counts although the retiring thread is gone by the time it is tested.
// requirement: D6
#[test]
fn a_reader_holds_what_an_exited_thread_retired() {
    let domain = Domain::new();
    let reader = domain.register();
    let guard = reader.pin();
    let drops = Drops::default();
    thread::scope(|scope| {
        scope.spawn(|| WAYS[3](&domain.register(), &drops));
    });
    domain.collect();
    assert_eq!(drops.count(), 0);
    drop(guard);
    domain.collect();
    assert_eq!(drops.count(), 1);
}

#[test]
fn a_thread_that_exits_with_a_partial_batch_loses_nothing() {
    let domain = Domain::new();
    let drops = Drops::default();
    for threads in 1..=8 {
        thread::scope(|scope| {
            scope.spawn(|| {
                let participant = domain.register();
                for retire in WAYS {
                    retire(&participant, &drops);
                }
            });
        });
        assert_eq!(domain.snapshot().open.blocks, 0);
        assert_eq!(domain.snapshot().retired.blocks, (threads * WAYS.len()) as u64);
    }
    domain.collect();
    assert_eq!(drops.count(), 8 * WAYS.len());
    assert_eq!(domain.snapshot().participants, 0);
}

#[test]
fn parking_hands_over_a_partial_batch() {
    let domain = Domain::new();
    let drops = Drops::default();
    let participant = domain.register();
    participant.defer_drop(Box::new(drops.probe()));
    domain.collect();
    assert_eq!(drops.count(), 0, "the open batch is its participant's own");
    participant.park();
    domain.collect();
    assert_eq!(drops.count(), 1);
}

#[test]
fn the_end_of_the_domain_reclaims_what_is_pending() {
    let drops = Drops::default();
    let domain = Domain::new();
    let (first, second) = (domain.register(), domain.register());
    drop(domain);
    for retire in WAYS {
        retire(&first, &drops);
        retire(&second, &drops);
    }
    drop(first);
    drop(second);
    assert_eq!(drops.count(), 2 * WAYS.len());
}

#[test]
fn nested_guards_end_with_the_last() {
    let domain = Domain::new();
    let drops = Drops::default();
    let (reader, writer) = (domain.register(), domain.register());
    let outer = reader.pin();
    let inner = reader.pin();
    reader.enter();
    writer.defer_drop(Box::new(drops.probe()));
    drop(outer);
    writer.collect();
    assert_eq!(drops.count(), 0);
    reader.leave().expect("entered");
    writer.collect();
    assert_eq!(drops.count(), 0);
    assert!(reader.is_pinned());
    drop(inner);
    assert!(!reader.is_pinned());
    writer.collect();
    assert_eq!(drops.count(), 1);
    assert_eq!(domain.snapshot().pins, 1, "nested guards are no pins of their own");
}

/// Guards and enters may end in any order; the participant is inside until the last of them is gone,
/// and a leave never ends a guard.
#[test]
fn guards_and_enters_end_in_any_order() {
    let domain = Domain::new();
    let drops = Drops::default();
    let (reader, writer) = (domain.register(), domain.register());
    // Each step takes a guard (G), enters (E), drops the oldest guard (d) or leaves (l).
    for steps in ["GEdl", "GEld", "EGld", "EGdl", "EElGld", "EGElld", "GEGddl", "EGlEdl", "EEGlld"]
    {
        let mut guards = std::collections::VecDeque::new();
        let (mut held, mut entered) = (0, 0);
        for step in steps.chars() {
            match step {
                'G' => guards.push_back(reader.pin()),
                'E' => reader.enter(),
                'd' => drop(guards.pop_front()),
                _ => reader.leave().expect("entered"),
            }
            held += if step.is_uppercase() { 1 } else { -1 };
            entered += i32::from(step == 'E') - i32::from(step == 'l');
            assert_eq!(reader.is_pinned(), held > 0, "{steps} at {step}");
            assert_eq!(domain.snapshot().pinned, u64::from(held > 0), "{steps} at {step}");
            if entered == 0 {
                reader.leave().expect_err("nothing to leave");
            }
            // Retired while it is inside, and so kept.
            let before = drops.count();
            writer.defer_drop(Box::new(drops.probe()));
            writer.collect();
            assert_eq!(drops.count() > before, held == 0, "{steps} at {step}");
        }
    }
}

#[test]
fn guards_nest_deeper_than_a_record_counts() {
    let domain = Domain::new();
    let participant = domain.register();
    let guards: Vec<_> = (0..700).map(|_| participant.pin()).collect();
    (0..300).for_each(|_| participant.enter());
    assert_eq!((domain.snapshot().pins, domain.snapshot().pinned), (1, 1));
    drop(guards);
    (0..299).for_each(|_| participant.leave().expect("entered"));
    assert!(participant.is_pinned());
    participant.leave().expect("entered");
    assert!(!participant.is_pinned());
    participant.leave().expect_err("nothing to leave");
    assert_eq!((domain.snapshot().pins, domain.snapshot().pinned), (1, 0));
}

/// A reclaim function may enter and stay; whoever runs it is inside then, and seen to be.
#[test]
fn a_reclaim_function_may_enter() {
    struct Enters(Rc<Participant>);
    impl Drop for Enters {
        fn drop(&mut self) {
            self.0.enter();
        }
    }
    // SAFETY: it is dropped on this thread, which has the only participants of the domain.
    unsafe impl Send for Enters {}

    let domain = Domain::new();
    let participant = Rc::new(domain.register());
    participant.defer_drop(Box::new(Enters(Rc::clone(&participant))));
    participant.flush();
    // Until the collector's own collecting in a pin has run it.
    let mut pins = 0;
    while !participant.is_pinned() {
        pins += 1;
        assert!(pins < 10_000, "never reclaimed");
        let guard = participant.pin();
        let entered_meanwhile = domain.snapshot().reclaimed.blocks == 1;
        drop(guard);
        assert_eq!(participant.is_pinned(), entered_meanwhile);
    }
    let other = domain.register();
    let drops = Drops::default();
    other.defer_drop(Box::new(drops.probe()));
    other.collect();
    assert_eq!(drops.count(), 0, "the enter holds");
    participant.leave().expect("entered by the reclaim function");
    other.collect();
    assert_eq!(drops.count(), 1);
}

#[test]
fn leave_without_enter_is_refused_and_leaves_guards_alone() {
    let domain = Domain::new();
    let participant = domain.register();
    let guard = participant.pin();
    participant.leave().expect_err("no enter");
    assert!(participant.is_pinned());
    drop(guard);
    participant.leave().expect_err("no enter");
    assert!(!participant.is_pinned());
}

#[test]
fn repin_lets_go_of_old_memory_unless_another_guard_is_held() {
    let domain = Domain::new();
    let drops = Drops::default();
    let (reader, writer) = (domain.register(), domain.register());
    let mut guard = reader.pin();
    writer.defer_drop(Box::new(drops.probe()));
    writer.collect();
    assert_eq!(drops.count(), 0);
    {
        let _other = reader.pin();
        assert!(!guard.repin());
        writer.collect();
        assert_eq!(drops.count(), 0);
    }
    for _ in 0..4 {
        assert!(guard.repin());
        writer.collect();
    }
    assert_eq!(drops.count(), 1);
    drop(guard);
}

#[test]
fn a_forgotten_guard_ends_with_its_participant() {
    let domain = Domain::new();
    let drops = Drops::default();
    let reader = domain.register();
    std::mem::forget(reader.pin());
    reader.enter();
    let writer = domain.register();
    writer.defer_drop(Box::new(drops.probe()));
    writer.collect();
    assert_eq!(drops.count(), 0);
    drop(reader);
    writer.collect();
    assert_eq!(drops.count(), 1);
}

#[test]
fn a_panicking_drop_is_counted_and_harms_no_other_object() {
    struct Bomb(Drops);
    impl Drop for Bomb {
        fn drop(&mut self) {
            drop(self.0.probe());
            panic!("bomb (expected by the test)");
        }
    }
    let domain = Domain::new();
    let drops = Drops::default();
    let participant = domain.register();
    for _ in 0..10 {
        participant.defer_drop(Box::new(Bomb(drops.clone())));
        WAYS[0](&participant, &drops);
        WAYS[4](&participant, &drops);
    }
    participant.collect();
    assert_eq!(drops.count(), 30);
    let snapshot = domain.snapshot();
    assert_eq!(snapshot.reclaim_panics, 10);
    assert_eq!(snapshot.pending.blocks, 0);
}

/// A list of which each element retires the next in its drop, through the participant that may be
/// running that very drop: no recursion to speak of, nothing lost.
#[test]
fn drops_that_retire_more_do_not_recurse() {
    thread_local! {
        static PARTICIPANT: std::cell::OnceCell<Participant> = const { std::cell::OnceCell::new() };
    }
    struct Chain(usize, Drops);
    impl Drop for Chain {
        fn drop(&mut self) {
            drop(self.1.probe());
            let rest = (self.0 > 0).then(|| Box::new(Chain(self.0 - 1, self.1.clone())));
            PARTICIPANT.with(|participant| {
                let participant = participant.get().expect("set by the test");
                let _guard = participant.pin();
                if let Some(rest) = rest {
                    participant.defer_drop(rest);
                }
            });
        }
    }
    let drops = Drops::default();
    // Its own thread: a small stack, and an end that drops the thread-local.
    let domain = Domain::builder().batch_blocks(2).build().expect("in range");
    let inside = (domain.clone(), drops.clone());
    thread::Builder::new()
        .stack_size(256 << 10)
        .spawn(move || {
            let (domain, drops) = inside;
            PARTICIPANT.with(|participant| {
                let participant = participant.get_or_init(|| domain.register());
                for _ in 0..50 {
                    participant.defer_drop(Box::new(Chain(200, drops.clone())));
                }
                eventually("the chains are gone", || {
                    participant.collect();
                    drops.count() == 50 * 201
                });
            });
        })
        .expect("a thread")
        .join()
        .expect("no panic");
    assert_eq!(domain.snapshot().pending.blocks, 0);
}

#[test]
fn boxes_of_nothing_and_of_much_alignment_are_dropped() {
    #[repr(align(256))]
    struct Wide(#[allow(dead_code)] common::Probe);
    struct Nothing;
    let domain = Domain::new();
    let drops = Drops::default();
    let participant = domain.register();
    participant.defer_drop(Box::new(Nothing));
    participant.defer_drop(Box::new(Wide(drops.probe())));
    let wide = NonNull::from(Box::leak(flagstone_epoch::Linked::boxed(Wide(drops.probe()))));
    // SAFETY: leaked just now, found by nobody.
    unsafe { participant.retire_linked(wide) };
    participant.collect();
    assert_eq!(drops.count(), 2);
    assert_eq!(domain.snapshot().reclaimed.blocks, 3);
}
