//! The gate: a heap does not go while somebody is inside without a borrow.
//!
//! The real [`Gate`] around a cell that stands for the heap. Two visitors, a thread that ends and a
//! reader of statistics, enter by generation or turn away; the owner closes, finds the heap empty, and
//! takes it down. The owner does not spin, as models must not: it looks a few times and gives up.
//!
//! control: gate_enter_fence: Causality violation
//! control: gate_close_fence: Causality violation
//! control: gate_leave: Causality violation
#![cfg(flagstone_loom)]

use flagstone_loom_tests::{model, spawn};
use flagstone_slab::model::Gate;
use loom::cell::UnsafeCell;
use loom::sync::Arc;

const GENERATION: usize = 7;

struct World {
    gate: Gate,
    /// Visits so far of each visitor; the owner takes the cells down.
    heap: [UnsafeCell<u32>; 2],
}

// SAFETY: the gate under test keeps the owner out while a visitor is inside; each visitor has a cell
// of its own. Loom checks that.
unsafe impl Sync for World {}

#[test]
fn a_heap_goes_only_when_nobody_is_inside() {
    model("slab_gate", || {
        let world =
            Arc::new(World { gate: Gate::new(), heap: [UnsafeCell::new(0), UnsafeCell::new(0)] });
        world.gate.open(GENERATION);
        let visitors = [0, 1].map(|cell| {
            let world = world.clone();
            spawn(move || {
                let entered = match cell {
                    0 => world.gate.enter(GENERATION),
                    _ => world.gate.enter_any(),
                };
                if entered {
                    // SAFETY: the claim under test: the owner is not taking the heap down.
                    world.heap[cell].with_mut(|visits| unsafe { *visits += 1 });
                    world.gate.leave();
                }
                entered
            })
        });
        assert!(!world.gate.enter(GENERATION + 1), "another generation's visitor is turned away");
        world.gate.close();
        let empty = (0..2).any(|_| world.gate.is_empty());
        let mut seen = 0;
        if empty {
            for cell in &world.heap {
                // SAFETY: the claim under test: nobody is inside, and nobody will be.
                seen += cell.with_mut(|visits| unsafe { std::mem::take(&mut *visits) });
            }
        }
        let visits = visitors.map(|visitor| u32::from(visitor.join().unwrap()));
        if empty {
            assert_eq!(seen, visits.iter().sum::<u32>(), "every visit was before the end");
            assert!(!world.gate.enter_any(), "a closed gate lets nobody in");
        }
        empty
    });
}
