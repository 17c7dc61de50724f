//! What slabs take from the allocator, and what they give back.

use flagstone_epoch::Domain;
use flagstone_slab::typed::Slab;

use super::{FLAGSTONE, Memory, SHARDED_SLAB};

/// Both slabs filled with so many values of each kind and emptied. `live` tells the bytes that the
/// program has from its allocator.
pub fn memory(values: usize, live: &dyn Fn() -> usize) -> Vec<Memory> {
    let mut out = Vec::new();
    out.extend(both::<u64>("u64", values, live, || 1));
    out.extend(both::<[u64; 4]>("[u64; 4]", values, live, || [1; 4]));
    out.extend(both::<std::num::NonZeroU64>("NonZeroU64", values, live, || {
        std::num::NonZeroU64::MIN
    }));
    out.extend(both::<String>("String", values, live, String::new));
    out
}

fn both<T: Send + Sync + 'static>(
    value: &str,
    values: usize,
    live: &dyn Fn() -> usize,
    make: impl Fn() -> T,
) -> [Memory; 2] {
    let row = |side: &str, before: usize, peak: usize, after: usize| Memory {
        value: value.to_owned(),
        side: side.to_owned(),
        values,
        bytes_per_value: (peak - before) as f64 / values as f64,
        bytes_after: after.saturating_sub(before),
    };
    let domain = Domain::new();
    let participant = domain.register();
    let mut keys = Vec::with_capacity(values);
    let before = live();
    let slab = Slab::new(&domain);
    keys.extend((0..values).map(|_| slab.insert(make(), &participant.pin())));
    let peak = live();
    for key in &keys {
        assert!(slab.remove(*key, &participant.pin()));
    }
    participant.collect();
    slab.park(&participant);
    let _ = slab.maintain();
    let ours = row(FLAGSTONE, before, peak, live());
    drop((keys, slab));
    participant.collect();

    let mut keys = Vec::with_capacity(values);
    let before = live();
    let slab = sharded_slab::Slab::new();
    keys.extend((0..values).map(|_| slab.insert(make()).expect("not full")));
    let peak = live();
    for key in &keys {
        assert!(slab.remove(*key));
    }
    [ours, row(SHARDED_SLAB, before, peak, live())]
}
