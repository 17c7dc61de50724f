//! Trees built and dropped: two boxes per node pair, freed in the order of the tree.
//!
//! After the binary-trees program of the benchmarks game, itself after Ellis and Kovac's GCBench.
//! One tree lives throughout while many short-lived ones of growing depth come and go.

use std::hint::black_box;

use super::{Outcome, Param, Params, Workload, param};
use crate::measure::Section;

const PARAMS: &[Param] = &[
    param("depth", 16, "depth of the deepest trees"),
    param("times", 3, "times that the whole series is built"),
];

/// The workload.
pub const WORKLOAD: Workload = Workload {
    name: "binary-trees",
    about: "binary trees built and dropped",
    params: PARAMS,
    work: "times",
    tiny: &[("depth", 6)],
    run,
};

const MIN_DEPTH: u32 = 4;

struct Node {
    children: Option<(Box<Node>, Box<Node>)>,
}

fn run(params: &Params) -> Outcome {
    let depth = (params.get("depth") as u32).max(MIN_DEPTH);
    let section = Section::start();
    let long_lived = build(depth);
    let mut nodes = 0u64;
    for _ in 0..params.get("times") {
        for at in (MIN_DEPTH..=depth).step_by(2) {
            for _ in 0..1u64 << (depth - at + MIN_DEPTH) {
                nodes += count(&black_box(build(at)));
            }
        }
    }
    nodes += count(&long_lived);
    drop(long_lived);
    Outcome { measured: section.stop(), operations: nodes, checksum: nodes, ..Outcome::default() }
}

fn build(depth: u32) -> Node {
    Node { children: (depth > 0).then(|| (Box::new(build(depth - 1)), Box::new(build(depth - 1)))) }
}

fn count(node: &Node) -> u64 {
    1 + node.children.as_ref().map_or(0, |(left, right)| count(left) + count(right))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_tree_of_depth_ten_has_2047_nodes() {
        assert_eq!(super::count(&super::build(10)), 2047);
    }
}
