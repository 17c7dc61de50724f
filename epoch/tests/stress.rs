//! Threads that read, replace, retire, park, come and go, for as long as asked.
//!
//! `FLAGSTONE_STRESS_SECONDS=30 cargo test -p flagstone-epoch --release --test stress -- --ignored`

#![allow(clippy::disallowed_types, reason = "a test of the interface as users meet it")]

mod common;

use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{DEADLINE, Drops, Probe};
use flagstone_epoch::{Domain, Linked};

const SLOTS: usize = 16;

#[test]
#[ignore = "runs for FLAGSTONE_STRESS_SECONDS (default 10) on 4 threads and more: run by name"]
fn readers_and_replacers_on_shared_slots() {
    let seconds = std::env::var("FLAGSTONE_STRESS_SECONDS").ok();
    let seconds: u64 = seconds.map_or(10, |text| text.parse().expect("a number of seconds"));
    let end = Instant::now() + Duration::from_secs(seconds);
    let domain = Domain::builder()
        .batch_blocks(32)
        .watermark(256 << 10)
        .hard_limit(4 << 20)
        .batch_age(Duration::from_millis(1))
        .build()
        .expect("in range");
    let drops = Drops::default();
    let slots: [AtomicPtr<Linked<Probe>>; SLOTS] =
        std::array::from_fn(|_| AtomicPtr::new(drops.linked().as_ptr()));

    let mut made = SLOTS;
    thread::scope(|scope| {
        let workers: Vec<_> = (0..4u64)
            .map(|worker| {
                let (domain, drops, slots) = (&domain, &drops, &slots);
                scope.spawn(move || {
                    let mut made = 0;
                    let mut random = worker + 1;
                    let mut next = move || {
                        // Xorshift: enough to mix the workers.
                        random ^= random << 13;
                        random ^= random >> 7;
                        random ^= random << 17;
                        random as usize
                    };
                    while Instant::now() < end {
                        // A participant now and then: registration and hand-over are under test too.
                        let participant = domain.register();
                        for _ in 0..2_000 {
                            let guard = participant.pin();
                            for _ in 0..next() % 8 {
                                let object = slots[next() % SLOTS].load(Ordering::Acquire);
                                // SAFETY: slots are never empty, and what leaves one is retired.
                                unsafe { (*object).assert_live() };
                            }
                            if next() % 4 == 0 {
                                let new = drops.linked();
                                made += 1;
                                let old =
                                    slots[next() % SLOTS].swap(new.as_ptr(), Ordering::AcqRel);
                                let old = NonNull::new(old).expect("slots are never empty");
                                // SAFETY: it came from a box and is in no slot any more.
                                if let Err(full) = unsafe { participant.try_retire_linked(old) } {
                                    // SAFETY: as above; it was given back.
                                    unsafe { participant.retire_linked(full.into_inner()) };
                                }
                            }
                            drop(guard);
                            if next() % 256 == 0 {
                                participant.park();
                            }
                        }
                    }
                    made
                })
            })
            .collect();
        while Instant::now() < end {
            domain.maintain();
            let snapshot = domain.snapshot();
            assert!(snapshot.retired.blocks >= snapshot.reclaimed.blocks);
            let token = domain.start_grace();
            while !domain.poll_grace(token).is_over() {
                thread::yield_now();
            }
            domain.barrier(DEADLINE).expect("workers do not stall");
        }
        for worker in workers {
            made += worker.join().expect("no panic");
        }
    });
    domain.barrier(DEADLINE).expect("nobody is left");
    let snapshot = domain.snapshot();
    assert_eq!(snapshot.retired.blocks as usize, made - SLOTS);
    assert_eq!(snapshot.reclaimed, snapshot.retired);
    assert_eq!(drops.count(), made - SLOTS);
    assert_eq!(snapshot.reserved_bytes, 0);
    for slot in slots {
        // SAFETY: nobody else has it.
        drop(unsafe { Box::from_raw(slot.into_inner()) });
    }
    println!("{made} objects, {} batches, {} pins", snapshot.batches, snapshot.pins);
    println!("{} grace periods, longest {:?}", snapshot.grace.completed, snapshot.grace.max);
}
