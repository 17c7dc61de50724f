//! Threads without a participant retire too: nothing is lost, nothing is early, the limit holds.

mod common;

use std::ptr::NonNull;
use std::thread;

use common::{DEADLINE, Drops, Gate, Probe};
use flagstone_epoch::{Domain, ReclaimUnlinked};

const CONTEXT: usize = 7;

const DROP: ReclaimUnlinked = {
    unsafe fn reclaim(object: NonNull<u8>, context: usize) {
        assert_eq!(context, CONTEXT);
        // SAFETY: retired below from a leaked box, and reclaimed once.
        drop(unsafe { Box::from_raw(object.cast::<Probe>().as_ptr()) });
    }
    reclaim
};

fn retire(domain: &Domain, drops: &Drops) {
    // SAFETY: leaked just now, found by nobody.
    unsafe { domain.retire_unlinked(drops.boxed().cast(), 100, CONTEXT, DROP) };
}

// requirement: D6
#[test]
fn a_reader_that_entered_before_keeps_what_an_unregistered_thread_retires() {
    let domain = Domain::new();
    let drops = Drops::default();
    let reader = domain.register();
    let guard = reader.pin();
    thread::scope(|scope| {
        scope.spawn(|| (0..10).for_each(|_| retire(&domain, &drops)));
    });
    let snapshot = domain.snapshot();
    assert_eq!((snapshot.pending.blocks, snapshot.pending.bytes), (10, 1_000));
    assert_eq!(snapshot.open.blocks, 10);
    assert_eq!(snapshot.participants, 1, "none was registered for it");
    domain.collect();
    assert_eq!(drops.count(), 0);
    drop(guard);
    assert_eq!(domain.collect().blocks, 10);
    assert_eq!(drops.count(), 10);
    assert_eq!(domain.reserved_bytes(), 0);
}

#[test]
fn full_batches_go_by_themselves_and_a_barrier_waits_for_the_rest() {
    let domain = Domain::builder().batch_blocks(8).build().expect("in range");
    let drops = Drops::default();
    let gate = Gate::new(4);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                gate.wait();
                (0..250).for_each(|_| retire(&domain, &drops));
            });
        }
    });
    assert!(drops.count() > 0, "full batches went");
    domain.barrier(DEADLINE).expect("nobody is inside");
    assert_eq!(drops.count(), 1_000);
    assert_eq!(domain.snapshot().retired.blocks, 1_000);
    let participant = domain.register();
    retire(&domain, &drops);
    assert_eq!(participant.collect().blocks, 1, "a participant reaches it too");
}

#[test]
fn the_end_of_the_domain_reclaims_it() {
    let drops = Drops::default();
    let domain = Domain::new();
    (0..3).for_each(|_| retire(&domain, &drops));
    drop(domain);
    assert_eq!(drops.count(), 3);
}

#[test]
fn the_limit_refuses_and_gives_the_object_back() {
    let domain = Domain::builder().hard_limit(1_000).build().expect("in range");
    let drops = Drops::default();
    let reader = domain.register();
    let guard = reader.pin();
    let mut refused = 0;
    for _ in 0..20 {
        let object = drops.boxed();
        // SAFETY: leaked just now, found by nobody.
        let tried = unsafe { domain.try_retire_unlinked(object.cast(), 100, CONTEXT, DROP) };
        if let Err(error) = tried {
            refused += 1;
            assert_eq!((error.bytes, error.limit, error.rejected), (100, 1_000, object.cast()));
            // SAFETY: refused, so it is ours still.
            drop(unsafe { Box::from_raw(object.as_ptr()) });
        }
        assert!(domain.reserved_bytes() <= 1_000);
    }
    assert_eq!(refused, 10);
    assert_eq!(domain.snapshot().refusals, 10);
    drop(guard);
    domain.collect();
    assert_eq!(drops.count(), 20);
}

/// What a reclaim function retires waits for a grace period of its own, whoever runs it.
#[test]
fn a_reclaim_function_retires_more() {
    struct Again(Domain, Drops, u32);
    unsafe fn again(object: NonNull<u8>, _: usize) {
        // SAFETY: retired below from a leaked box, and reclaimed once.
        let Again(domain, drops, left) = *unsafe { Box::from_raw(object.cast::<Again>().as_ptr()) };
        retire(&domain, &drops);
        if left > 0 {
            let next = NonNull::from(Box::leak(Box::new(Again(domain.clone(), drops, left - 1))));
            // SAFETY: leaked just now, found by nobody.
            unsafe { domain.retire_unlinked(next.cast(), 1, 0, again) };
        }
    }
    let domain = Domain::builder().batch_blocks(1).build().expect("in range");
    let drops = Drops::default();
    let first = Box::leak(Box::new(Again(domain.clone(), drops.clone(), 20)));
    // SAFETY: leaked just now, found by nobody.
    unsafe { domain.retire_unlinked(NonNull::from(first).cast(), 1, 0, again) };
    common::eventually("all of the chain is reclaimed", || {
        domain.collect();
        drops.count() == 21
    });
}
