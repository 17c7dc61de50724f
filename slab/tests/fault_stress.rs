//! The longer sweeps over a backing's failures, for as long as `FLAGSTONE_STRESS_SECONDS` says (20 by
//! default): ever more work, and its every call in turn.
//!
//! ```text
//! cargo test -p flagstone-slab --test fault_stress -- --ignored
//! ```

mod common;

use std::time::{Duration, Instant};

use common::faulty::{Call, Until, sweep};

// requirement: G7
#[test]
#[ignore = "runs for FLAGSTONE_STRESS_SECONDS; by name, see the top"]
fn every_call_of_ever_more_work_fails() {
    let seconds = std::env::var("FLAGSTONE_STRESS_SECONDS").ok().and_then(|text| text.parse().ok());
    let deadline = Instant::now() + Duration::from_secs(seconds.unwrap_or(20));
    for steps in (100..).step_by(70) {
        let mut swept = 0;
        for call in [Call::Map, Call::Purge, Call::Remap] {
            for until in [Until::Healed, Until::Next] {
                swept += sweep(call, until, steps, 1);
                if Instant::now() >= deadline {
                    return;
                }
            }
        }
        println!("{steps} steps: {swept} failures survived");
    }
}
