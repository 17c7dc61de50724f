//! Hash-map churn: a cache of string keys and byte values that grow, are replaced and removed.
//!
//! Ours. The mixture of a key-value server: tables that double, keys of 12 to 40 bytes that live
//! long, values of skewed sizes that are appended to.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};

use super::{Outcome, Param, Params, Workload, param};
use crate::measure::Section;
use crate::rng::Rng;

const PARAMS: &[Param] = &[
    param("keys", 60_000, "different keys, half of them present on average"),
    param("steps", 1_500_000, "inserts, appends, look-ups and removals"),
    param("max", 2_048, "largest value inserted, in bytes; sizes are skewed to small ones"),
];

/// The workload.
pub const WORKLOAD: Workload = Workload {
    name: "hash-map",
    about: "hash-map churn: strings to growing byte values",
    params: PARAMS,
    work: "steps",
    tiny: &[("keys", 100), ("steps", 5_000)],
    run,
};

const SEED: u64 = 0x6d61_7073;

fn run(params: &Params) -> Outcome {
    let (keys, max) = (params.count("keys"), params.count("max"));
    let steps = params.get("steps");
    let mut rng = Rng::new(SEED);

    let section = Section::start();
    // Hashed with fixed keys: the standard hasher's differ from one process to the next.
    let mut map: HashMap<String, Vec<u8>, BuildHasherDefault<DefaultHasher>> = HashMap::default();
    let mut checksum = 0u64;
    for step in 0..steps {
        let key = rng.below(keys);
        let name = format!("session:{key:0width$}", width = 4 + key % 28);
        match rng.below(8) {
            0..3 => {
                let value = vec![key as u8; rng.skewed(8, max)];
                map.insert(name, value);
            }
            3..6 => {
                if let Some(value) = map.remove(&name) {
                    checksum = checksum.wrapping_add(value.len() as u64 ^ step);
                    assert_eq!(value[value.len() - 1], key as u8, "a value lost its contents");
                }
            }
            6 => {
                if let Some(value) = map.get_mut(&name) {
                    value.extend_from_slice(&[key as u8; 48]);
                }
            }
            _ => {
                if let Some(value) = map.get(&name) {
                    checksum = checksum.wrapping_add(u64::from(value[0]));
                }
            }
        }
    }
    checksum = checksum.wrapping_add(map.len() as u64);
    drop(map);
    Outcome { measured: section.stop(), operations: steps, checksum, ..Outcome::default() }
}
