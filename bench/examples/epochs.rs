//! Prints how guards and retiring compare with crossbeam-epoch's: `cargo run --release -p
//! flagstone-bench --example epochs [rounds]`.

use flagstone_bench::epochs;

fn main() {
    let rounds = std::env::args().nth(1).and_then(|arg| arg.parse().ok()).unwrap_or(301);
    for compared in epochs::all(rounds) {
        println!("{compared}");
    }
    for per_guard in [1, 8, 64, 1000] {
        let [ours, _, theirs] = epochs::backlog(per_guard, 200_000);
        println!("most waiting of 200000, {per_guard} per guard: {ours}, crossbeam {theirs}");
    }
}
