//! libFuzzer's entry to every target: `FLAGSTONE_FUZZ_TARGET` names the one to run.
//!
//! One program for all, because linking each of its own would take longer than a run in CI.
#![no_main]

use std::sync::LazyLock;

use flagstone_fuzz::Target;
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name =
        std::env::var("FLAGSTONE_FUZZ_TARGET").expect("FLAGSTONE_FUZZ_TARGET names a target");
    flagstone_fuzz::target(&name).unwrap_or_else(|| panic!("no target is named {name}"))
});

fuzz_target!(|data: &[u8]| (TARGET.run)(data));
