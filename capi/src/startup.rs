//! What runs when the library is loaded and when the program exits.
//!
//! Owns the two entries in the library's tables of constructors and destructors. Memory can be
//! allocated long before the constructor runs: it only reads the settings and starts what they ask
//! for.

use flagstone_slab::Heap;

use crate::settings::Settings;
use crate::{exit_table, metrics, proof, scavenger};

/// Makes sure that the constructor's object file is part of a static link that uses the allocator.
pub(crate) fn keep() {
    std::hint::black_box((&raw const CONSTRUCTOR, &raw const DESTRUCTOR));
}

#[cfg_attr(all(flagstone_exported, not(test)), used)]
#[cfg_attr(
    all(flagstone_exported, not(test), target_os = "linux"),
    unsafe(link_section = ".init_array")
)]
static CONSTRUCTOR: extern "C" fn() = constructor;

extern "C" fn constructor() {
    crate::guarded((), || {
        let settings = Settings::from_env();
        if let Some(decay) = settings.decay {
            Heap::global().set_decay(decay);
        }
        scavenger::arrange(settings.scavenger);
        if let Some(path) = &settings.verify {
            proof::file(path);
        }
        if let Some(place) = &settings.metrics {
            metrics::arrange(place);
        }
        if settings.stats {
            exit_table::arrange();
        }
    });
}

/// Runs after the program's own destructors and `atexit` functions: the library was loaded first.
#[cfg_attr(all(flagstone_exported, not(test)), used)]
#[cfg_attr(
    all(flagstone_exported, not(test), target_os = "linux"),
    unsafe(link_section = ".fini_array")
)]
static DESTRUCTOR: extern "C" fn() = destructor;

extern "C" fn destructor() {
    crate::guarded((), || {
        metrics::clean_up();
        exit_table::print();
    });
}
