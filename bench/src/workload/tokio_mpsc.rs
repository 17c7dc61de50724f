//! Messages between Tokio tasks: `Bytes` of 64 B to 256 KiB through bounded channels.
//!
//! Ours; what asynchronous servers do all day (requirement Z4). A producer fills a buffer, freezes
//! it and sends a header slice and a body slice of it; a consumer, on whatever worker, looks at both
//! and drops them. Large messages decide whether an allocator returns pages too eagerly.

use bytes::{Bytes, BytesMut};
use tokio::runtime::Builder;
use tokio::sync::mpsc;

use super::{Outcome, Param, Params, Workload, param};
use crate::measure::Section;
use crate::rng::Rng;

const PARAMS: &[Param] = &[
    param("workers", 2, "threads of the runtime"),
    param("channels", 4, "channels, each with a producer and a consumer task"),
    param("queue", 32, "messages that a channel holds"),
    param("messages", 600_000, "messages per channel"),
    param("min", 64, "smallest message in bytes"),
    param("max", 4_096, "largest message in bytes"),
];

/// The workload.
pub const WORKLOAD: Workload = Workload {
    name: "tokio-mpsc",
    about: "Bytes through Tokio channels",
    params: PARAMS,
    work: "messages",
    tiny: &[("channels", 2), ("messages", 100)],
    run,
};

const SEED: u64 = 0x746f_6b69;
/// Bytes of a message that its consumer looks at first.
const HEADER: usize = 16;

struct Message {
    header: Bytes,
    body: Bytes,
}

fn run(params: &Params) -> Outcome {
    let (min, max) = (params.count("min").max(HEADER + 1), params.count("max"));
    let (channels, messages) = (params.get("channels"), params.get("messages"));
    let runtime = Builder::new_multi_thread()
        .worker_threads(params.count("workers"))
        .build()
        .expect("a runtime without drivers starts");

    let section = Section::start();
    let mut consumers = Vec::new();
    for channel in 0..channels {
        let (sender, receiver) = mpsc::channel(params.count("queue"));
        runtime.spawn(produce(sender, Rng::part(SEED, channel), messages, min, max));
        consumers.push(runtime.spawn(consume(receiver)));
    }
    let checksum = runtime.block_on(async {
        let mut sum = 0u64;
        for consumer in consumers {
            let (count, bytes) = consumer.await.expect("a consumer panicked");
            assert_eq!(count, messages, "messages were lost");
            sum = sum.wrapping_add(bytes);
        }
        sum
    });
    let measured = section.stop();
    drop(runtime);
    Outcome { measured, operations: channels * messages, checksum, ..Outcome::default() }
}

async fn produce(
    sender: mpsc::Sender<Message>,
    mut rng: Rng,
    messages: u64,
    min: usize,
    max: usize,
) {
    for number in 0..messages {
        let size = rng.range(min, max);
        let mut buffer = BytesMut::with_capacity(size);
        buffer.extend_from_slice(&(size as u64).to_le_bytes());
        buffer.extend_from_slice(&number.to_le_bytes());
        buffer.resize(size, number as u8);
        let mut body = buffer.freeze();
        let header = body.split_to(HEADER);
        if sender.send(Message { header, body }).await.is_err() {
            return; // the consumer panicked, and the run fails on its account
        }
    }
}

/// Returns how many messages came, and the sum of their sizes.
async fn consume(mut receiver: mpsc::Receiver<Message>) -> (u64, u64) {
    let (mut count, mut bytes) = (0, 0u64);
    while let Some(Message { header, body }) = receiver.recv().await {
        let size = HEADER + body.len();
        assert_eq!(header[..8], (size as u64).to_le_bytes(), "a message lost its size");
        assert!(body[0] == count as u8 && body[body.len() - 1] == count as u8, "a body changed");
        bytes = bytes.wrapping_add(size as u64);
        count += 1;
    }
    (count, bytes)
}
