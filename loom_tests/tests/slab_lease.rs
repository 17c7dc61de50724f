//! The lease: a shard never has two holders, and each holder sees what the one before it did.
//!
//! The real [`Lease`] around a cell that stands for the shard. A thread parks its shard, wants it
//! back, and ends; another wants an idle shard; the scavenger claims. Whoever is refused goes on
//! without (exit, adoption, park, unpark, claim).
//!
//! control: lease_acquire: Causality violation
//! control: lease_release: Causality violation
//! control: lease_take: Causality violation
#![cfg(flagstone_loom)]

use flagstone_loom_tests::{model, spawn};
use flagstone_slab::model::{Lease, LeaseWord, Take, Unpark};
use loom::cell::UnsafeCell;
use loom::sync::Arc;

struct World {
    lease: Lease,
    /// Blocks that the shard's holders have counted: each adds one.
    shard: UnsafeCell<u32>,
}

// SAFETY: the lease under test gives the cell one holder at a time; loom checks that.
unsafe impl Sync for World {}

impl World {
    fn work(&self) {
        // SAFETY: the claim under test: the caller is the only holder.
        self.shard.with_mut(|blocks| unsafe { *blocks += 1 });
    }
}

#[test]
fn a_shard_has_one_holder_at_a_time() {
    model("slab_lease", || {
        let world = Arc::new(World { lease: Lease::new_leased(), shard: UnsafeCell::new(0) });
        let adopter = spawn({
            let world = world.clone();
            move || {
                if world.lease.try_lease() == Take::Refused {
                    return 0;
                }
                world.work();
                world.lease.give_back();
                1
            }
        });
        let scavenger = spawn({
            let world = world.clone();
            move || {
                if world.lease.try_claim() == Take::Refused {
                    return 0;
                }
                world.work();
                world.lease.unclaim();
                1
            }
        });
        // The home thread: works, parks, works again if it gets its shard back, and ends.
        world.work();
        world.lease.park();
        let mut worked = 1;
        if world.lease.try_unpark() == Unpark::Taken {
            world.work();
            worked += 1;
        }
        world.lease.give_back();
        let adopted = adopter.join().unwrap();
        let scavenged = scavenger.join().unwrap();
        worked += adopted + scavenged;
        // Everybody is done: the shard is idle, and whoever takes it sees all the work.
        assert_eq!(world.lease.word(), LeaseWord::IDLE);
        assert_eq!(world.lease.try_lease(), Take::Taken);
        // SAFETY: just taken.
        world.shard.with(|blocks| assert_eq!(unsafe { *blocks }, worked, "work was lost"));
        adopted + scavenged > 0
    });
}
