//! The whole of it: a real typed slab over a real domain, a reader against a remover that inserts again.
//!
//! The value is a cell that loom watches. The inserter writes it, the reader reads it under its guard,
//! its drop writes it again; the next insertion may get the same slot. Constants are small: pages of
//! four slots, chunks of three.
//!
//! needs: crossbeam_loom
//! control: typed_reuse_at_once: Causality violation
#![cfg(all(flagstone_loom, crossbeam_loom))]

use flagstone_epoch::Domain;
use flagstone_loom_tests::{model_within, spawn};
use flagstone_slab::typed::Slab;
use loom::cell::UnsafeCell;
use loom::sync::Arc;

struct Value(UnsafeCell<u32>);

// SAFETY: the slab under test keeps writers and readers apart; loom checks every access.
unsafe impl Sync for Value {}
// SAFETY: as above.
unsafe impl Send for Value {}

impl Value {
    fn new(value: u32) -> Self {
        let cell = UnsafeCell::new(0);
        // SAFETY: nobody else has it.
        cell.with_mut(|inside| unsafe { *inside = value });
        Self(cell)
    }

    fn read(&self) -> u32 {
        // SAFETY: the claim under test: nobody writes while a reader's guard is held.
        self.0.with(|inside| unsafe { *inside })
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: the claim under test: no reader is left.
        self.0.with_mut(|inside| unsafe { *inside = 0 });
    }
}

// requirement: D6
#[test]
fn a_reader_never_sees_a_value_go() {
    model_within(1, "typed_slab", || {
        let domain = Domain::builder().batch_blocks(1).build().expect("in range");
        let slab = Arc::new(Slab::new(&domain));
        let participant = domain.register();
        let key = slab.insert(Value::new(1), &participant.pin());
        let reader = {
            let (slab, domain) = (Arc::clone(&slab), domain.clone());
            spawn(move || {
                let participant = domain.register();
                let guard = participant.pin();
                if let Some(value) = slab.get(key, &guard) {
                    assert_eq!(value.read(), 1, "another value, or none");
                }
                drop(guard);
            })
        };
        assert!(slab.remove(key, &participant.pin()));
        let reclaimed = participant.collect();
        let second = slab.insert(Value::new(2), &participant.pin());
        assert_ne!(key, second);
        reader.join().unwrap();
        reclaimed.blocks == 1
    });
}
