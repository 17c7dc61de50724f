//! Every way in which a heap's backing can fail, at every call: no crash, no leak, no lost contents.
//!
//! The longer sweeps are in `fault_stress`.

mod common;

use common::faulty::{Call, Until, sweep};

const STEPS: usize = 80;

// requirement: G7
#[test]
fn every_mapping_from_the_nth_on_fails() {
    let swept = sweep(Call::Map, Until::Healed, STEPS, 1);
    assert!(swept >= 7, "the work maps {swept} times only");
}

// requirement: G7
#[test]
fn one_mapping_fails() {
    let swept = sweep(Call::Map, Until::Next, STEPS, 1);
    assert!(swept >= 7, "the work maps {swept} times only");
}

#[test]
fn pages_are_not_taken_back() {
    assert!(sweep(Call::Purge, Until::Healed, STEPS, 4) >= 3);
    assert!(sweep(Call::Purge, Until::Next, STEPS, 4) >= 3);
}

#[test]
fn pages_are_not_moved() {
    assert!(sweep(Call::Remap, Until::Healed, STEPS, 1) >= 1);
    assert!(sweep(Call::Remap, Until::Next, STEPS, 1) >= 1);
}
