//! Records change owners: the next one adds to the counters where the last one stopped.
//!
//! Two threads each claim a record, retire one object, hand it over and give the record back; they may
//! get the same record one after the other. Nothing that either counted is lost.
//!
//! control: record_release_relaxed: a count was lost
#![cfg(flagstone_loom)]

use flagstone_epoch::protocol::Registry;
use flagstone_loom_tests::{model, spawn};
use loom::sync::Arc;

fn take_part(registry: &Registry) {
    let record = registry.claim("worker");
    record.retired(3);
    record.handed(1, 3);
    record.release();
}

#[test]
fn no_count_is_lost_between_owners() {
    model("epoch_registry", || {
        let registry = Arc::new(Registry::new());
        // Both records exist before: loom does not see std's `OnceLock`, which publishes new ones.
        let (first, second) = (registry.claim("early"), registry.claim("early"));
        first.release();
        second.release();
        let other = {
            let registry = Arc::clone(&registry);
            spawn(move || take_part(&registry))
        };
        take_part(&registry);
        other.join().unwrap();

        let totals = registry.iter().map(|record| record.retired_so_far());
        let totals = totals.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        assert_eq!(totals, (2, 6), "a count was lost");
        assert!(registry.iter().all(|record| !record.is_claimed()));
        // The case that matters: one record, two owners.
        registry.iter().any(|record| record.retired_so_far().0 == 2)
    });
}
