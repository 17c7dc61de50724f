//! Publication of a typed slab's pages and of its directory's levels, against a key that nobody issued.
//!
//! One thread adds a page; another asks for any number, without having been told anything. It finds
//! nothing, or a page whose slots are initialised.
//!
//! control: typed_page_publish: Causality violation
//! control: typed_page_lookup: Causality violation
//! control: typed_level: Causality violation
#![cfg(flagstone_loom)]

use std::ptr::NonNull;

use flagstone_loom_tests::{Crossing, model, spawn};
use flagstone_slab::model::{Directory, PagePointer};
use loom::cell::UnsafeCell;
use loom::sync::Arc;

/// Stands for the slots of a page.
struct Slots(UnsafeCell<u32>);

/// An entry whose own initialisation is seen, besides the page's.
struct Entry {
    page: PagePointer<Slots>,
    made: UnsafeCell<u32>,
}

impl Default for Entry {
    fn default() -> Self {
        let made = UnsafeCell::new(0);
        // SAFETY: nobody else has the entry.
        made.with_mut(|made| unsafe { *made = 1 });
        Self { page: PagePointer::new(), made }
    }
}

struct World {
    pages: Directory<Entry>,
    crossing: Crossing,
}

// SAFETY: the directory publishes entries and pages; loom checks every access to their cells.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

#[test]
fn a_forged_key_finds_nothing_or_an_initialised_page() {
    model("typed_page", || {
        let world = Arc::new(World { pages: Directory::new(), crossing: Crossing::new() });
        let adder = {
            let world = Arc::clone(&world);
            spawn(move || {
                // The level first, so that its publication does not cover the page's.
                let entry = world.pages.get_or_grow(3).expect("memory");
                world.crossing.pass();
                let slots = Box::new(Slots(UnsafeCell::new(0)));
                // SAFETY: not published yet.
                slots.0.with_mut(|word| unsafe { *word = 2 });
                let slots = NonNull::from(Box::leak(slots));
                entry.page.publish(slots);
                world.crossing.pass();
                slots.as_ptr() as usize
            })
        };
        world.crossing.look();
        let mut found = false;
        if let Some(entry) = world.pages.get(3) {
            // SAFETY: the claim under test: the entry is initialised, and nobody writes it.
            entry.made.with(|made| assert_eq!(unsafe { *made }, 1, "not initialised"));
            world.crossing.look();
            if let Some(slots) = entry.page.lookup() {
                // SAFETY: the claim under test: so is the page, which lives until the end.
                let word = unsafe { slots.as_ref() };
                // SAFETY: as above.
                word.0.with(|word| assert_eq!(unsafe { *word }, 2, "not initialised"));
                found = true;
            }
        }
        assert!(world.pages.get(0).is_none(), "nobody made that level");
        let slots = adder.join().unwrap() as *mut Slots;
        // SAFETY: leaked above; both threads are done with it.
        drop(unsafe { Box::from_raw(slots) });
        found
    });
}
