//! Typed slabs under the runtime: memory comes back while its users sleep, and nobody calls anything.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flagstone::epoch::Domain;
use flagstone::runtime::Builder;
use flagstone::typed::{Key, Slab};

/// Workers insert, other workers remove, then all are idle: parks hand over what was retired and the
/// slots at hand, the scavenger reclaims and returns the pages.
#[test]
fn an_idle_runtime_gives_a_slabs_pages_back() {
    const VALUES: usize = 20_000;
    let domain = Domain::builder().name("sessions").build().expect("defaults");
    let slab: Arc<Slab<[u64; 6]>> = Slab::builder().buckets(1).build_shared(&domain);
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .scavenge_every(Duration::from_millis(5))
        .build()
        .expect("a runtime");
    let (domain_of_task, slab_of_task) = (domain.clone(), Arc::clone(&slab));
    runtime.block_on(async move {
        for _ in 0..4 {
            let (domain, slab) = (domain_of_task.clone(), Arc::clone(&slab_of_task));
            let insert = move || -> Vec<Key> {
                let participant = domain.local().expect("a living thread");
                let guard = participant.pin();
                (0..VALUES / 4).map(|n| slab.insert([n as u64; 6], &guard)).collect()
            };
            let keys = tokio::spawn(async move { insert() }).await.expect("no panic");
            let (domain, slab) = (domain_of_task.clone(), Arc::clone(&slab_of_task));
            let remove = move || {
                let participant = domain.local().expect("a living thread");
                let guard = participant.pin();
                assert!(keys.into_iter().all(|key| slab.remove(key, &guard)));
            };
            tokio::spawn(async move { remove() }).await.expect("no panic");
        }
    });
    let start = Instant::now();
    loop {
        let (stats, pending) = (slab.stats(), domain.snapshot().pending.blocks);
        // All but the page whose slots are still being handed out for the first time. A slot is free a
        // moment before the domain has counted it off.
        if stats.pages <= 1
            && stats.returned_pages > 10
            && stats.slots == stats.free
            && pending == 0
        {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "after a minute: {stats:?}, {pending}");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(slab.len(), 0);
}
