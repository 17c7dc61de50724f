//! The hard limit: reservations never pass it, whoever reserves and releases at once.
//!
//! control: ledger_check_then_store: released 6 of 0 reserved bytes
#![cfg(flagstone_loom)]

use flagstone_epoch::protocol::Ledger;
use flagstone_loom_tests::{model, spawn};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};

const LIMIT: u64 = 10;

struct World {
    ledger: Ledger,
    /// What is really pending: counted after a reservation, counted out before its release.
    pending: AtomicU64,
}

fn retire_and_reclaim(world: &World) -> bool {
    let granted = world.ledger.try_reserve(6).is_ok();
    if granted {
        let pending = world.pending.fetch_add(6, Ordering::Relaxed) + 6;
        assert!(pending <= LIMIT, "{pending} bytes pending past the limit");
        world.pending.fetch_sub(6, Ordering::Relaxed);
        world.ledger.release(6);
    }
    granted
}

#[test]
fn reservations_never_pass_the_limit() {
    model("epoch_ledger", || {
        let world = Arc::new(World { ledger: Ledger::new(LIMIT), pending: AtomicU64::new(0) });
        let others = [(); 2].map(|()| {
            let world = Arc::clone(&world);
            spawn(move || retire_and_reclaim(&world))
        });
        let granted = retire_and_reclaim(&world);
        let all = others.into_iter().map(|other| other.join().unwrap()).fold(granted, |a, b| a & b);
        assert_eq!(world.ledger.reserved(), 0);
        // Some execution refuses somebody; this one matters when nobody was lucky to come alone.
        !all
    });
}
