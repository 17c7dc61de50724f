//! JSON trees parsed and dropped: maps, vectors and strings of a web service's documents.
//!
//! Ours, with `serde_json`. A few documents stay alive while new ones replace them; with
//! `hand_over`, one thread parses and another one looks at the trees and drops them, as a service
//! does that passes requests on.

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::mpsc::sync_channel;
use std::thread;

use serde_json::Value;

use super::{Outcome, Param, Params, Workload, param};
use crate::measure::Section;
use crate::rng::Rng;

const PARAMS: &[Param] = &[
    param("records", 400, "records per document"),
    param("documents", 600, "documents parsed"),
    param("alive", 8, "documents alive at once"),
    param("hand_over", 0, "1 to drop the trees on another thread"),
];

/// The workload.
pub const WORKLOAD: Workload = Workload {
    name: "json",
    about: "JSON trees parsed and dropped",
    params: PARAMS,
    work: "documents",
    tiny: &[("records", 10), ("documents", 12), ("alive", 3), ("hand_over", 1)],
    run,
};

const SEED: u64 = 0x6a73_6f6e;
/// Different texts, parsed in turn.
const TEXTS: u64 = 4;

fn run(params: &Params) -> Outcome {
    let records = params.count("records");
    let texts: Vec<String> =
        (0..TEXTS).map(|part| document(&mut Rng::part(SEED, part), records)).collect();
    let (documents, alive) = (params.count("documents"), params.count("alive"));
    let hand_over = params.get("hand_over") != 0;

    let section = Section::start();
    let parse = |number: usize| -> Value {
        let text = black_box(&texts[number % texts.len()]);
        serde_json::from_str(text).expect("the text was written as JSON")
    };
    let nodes = if hand_over {
        thread::scope(|scope| {
            let (sender, receiver) = sync_channel(alive);
            let reader = scope.spawn(move || receiver.iter().map(|tree| nodes(&tree)).sum());
            for number in 0..documents {
                sender.send(parse(number)).expect("the reader receives until the end");
            }
            drop(sender);
            reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    } else {
        let mut held: Vec<Value> = vec![Value::Null; alive];
        let mut total = 0;
        for number in 0..documents {
            let tree = parse(number);
            total += nodes(&tree);
            held[number % alive] = tree;
        }
        total
    };
    Outcome {
        measured: section.stop(),
        operations: documents as u64,
        checksum: nodes,
        ..Outcome::default()
    }
}

fn nodes(value: &Value) -> u64 {
    match value {
        Value::Array(items) => 1 + items.iter().map(nodes).sum::<u64>(),
        Value::Object(fields) => 1 + fields.values().map(nodes).sum::<u64>(),
        Value::String(text) => 1 + text.len() as u64,
        _ => 1,
    }
}

fn document(rng: &mut Rng, records: usize) -> String {
    let mut text = String::from("[");
    for id in 0..records {
        let separator = if id == 0 { "" } else { "," };
        let words: Vec<String> = (0..rng.range(1, 6))
            .map(|_| format!("\"{:0width$x}\"", rng.next(), width = rng.range(4, 40)))
            .collect();
        write!(
            text,
            "{separator}{{\"id\":{id},\"name\":\"user-{:08x}\",\"active\":{},\"score\":{}.5,\
             \"tags\":[{}],\"address\":{{\"street\":\"{:016x} street\",\"zip\":\"{:05}\",\
             \"geo\":[{},{}]}},\"note\":null}}",
            rng.next() as u32,
            rng.one_in(2),
            rng.below(1000),
            words.join(","),
            rng.next(),
            rng.below(100_000),
            rng.below(180),
            rng.below(90),
        )
        .expect("writing to a string does not fail");
    }
    text.push(']');
    text
}
