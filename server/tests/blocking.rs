//! BLPOP and BRPOP between real connections: order, hang-ups, time.

mod client_support;
mod wire;

use client_support::{Server, poll};
use std::collections::HashSet;
use std::time::{Duration, Instant};
use wire::Wire;

fn wait_for_blocked(observer: &mut Wire, clients: u64) {
    poll("blocked clients", || (observer.info_number("blocked_clients") == clients).then_some(()));
}

#[test]
fn clients_are_served_in_the_order_of_their_waiting() {
    let server = Server::start(&["--workers", "2"]);
    let mut pusher = Wire::connect(server.resp);
    let mut waiting = Vec::new();
    for n in 1..=10 {
        let mut wire = Wire::connect(server.resp);
        wire.post("BLPOP jobs other 0");
        wait_for_blocked(&mut pusher, n);
        waiting.push(wire);
    }
    for n in 0..5 {
        assert_eq!(pusher.run(&format!("RPUSH jobs {n}")), ":1");
    }
    // Five at once go to the next five.
    assert_eq!(pusher.run("RPUSH jobs 5 6 7 8 9"), ":5");
    for (n, wire) in waiting.iter_mut().enumerate() {
        assert_eq!(wire.reply(), format!("[jobs, {n}]"));
    }
    assert_eq!(pusher.run("EXISTS jobs"), ":0");
}

#[test]
fn waiting_is_over_in_time_and_zero_is_for_ever() {
    let server = Server::start(&[]);
    let mut brief = Wire::connect(server.resp);
    let mut patient = Wire::connect(server.resp);
    patient.post("BRPOP list 0");
    let start = Instant::now();
    assert_eq!(brief.run("BLPOP a b 0.2"), "nil");
    assert!(start.elapsed() >= Duration::from_millis(200), "{:?}", start.elapsed());
    assert!(patient.is_silent());
    brief.run("RPUSH list x");
    assert_eq!(patient.reply(), "[list, x]");
}

#[test]
fn what_is_sent_behind_a_wait_runs_after_it() {
    let server = Server::start(&[]);
    let mut wire = Wire::connect(server.resp);
    let mut other = Wire::connect(server.resp);
    wire.raw(b"BLPOP list 0\r\nSET after 1\r\nBLPOP list 0.05\r\nPING\r\n");
    wait_for_blocked(&mut other, 1);
    assert_eq!(other.run("EXISTS after"), ":0");
    other.run("RPUSH list x");
    assert_eq!(wire.reply(), "[list, x]");
    assert_eq!(wire.reply(), "+OK");
    assert_eq!(wire.reply(), "nil");
    assert_eq!(wire.reply(), "+PONG");
}

#[test]
fn a_client_that_hangs_up_gets_nothing_and_takes_nothing() {
    let server = Server::start(&[]);
    let mut other = Wire::connect(server.resp);
    let mut gone = Wire::connect(server.resp);
    gone.post("BLPOP list 0");
    wait_for_blocked(&mut other, 1);
    drop(gone);
    wait_for_blocked(&mut other, 0);
    assert_eq!(other.run("RPUSH list x"), ":1");
    assert_eq!(other.run("LRANGE list 0 -1"), "[x]");
}

/// Elements are handed over while clients come, go and lose patience: each element ends up with one
/// client or in the list, none twice, none nowhere.
#[test]
fn nothing_is_lost_or_doubled_under_churn() {
    const ELEMENTS: usize = 2000;
    const CONSUMERS: usize = 6;
    let server = Server::start(&["--workers", "4"]);
    let addr = server.resp;
    let consumers: Vec<_> = (0..CONSUMERS)
        .map(|id| {
            std::thread::spawn(move || {
                let mut got = Vec::new();
                let mut wire = Wire::connect(addr);
                loop {
                    let line = if id % 2 == 0 { "BLPOP a b 0.02" } else { "BRPOP b a 0.02" };
                    match wire.run(line).as_str() {
                        "nil" => {}
                        "[a, end]" | "[b, end]" => return got,
                        reply => {
                            let (_, element) = reply.split_once(", ").unwrap();
                            got.push(element.trim_end_matches(']').to_owned());
                        }
                    }
                }
            })
        })
        .collect();
    let mut pusher = Wire::connect(addr);
    for n in 0..ELEMENTS {
        let key = if n % 3 == 0 { "a" } else { "b" };
        let side = if n % 2 == 0 { "LPUSH" } else { "RPUSH" };
        pusher.run(&format!("{side} {key} {n}"));
    }
    poll("empty lists", || (pusher.run("EXISTS a b") == ":0").then_some(()));
    for _ in 0..CONSUMERS {
        pusher.run("RPUSH a end");
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut got: Vec<String> = Vec::new();
    for consumer in consumers {
        // Another may have taken two ends: give until everybody has one.
        while !consumer.is_finished() {
            std::thread::sleep(Duration::from_millis(5));
            if !consumer.is_finished() {
                pusher.run("RPUSH a end");
            }
        }
        got.extend(consumer.join().unwrap());
    }
    let distinct: HashSet<&String> = got.iter().collect();
    assert_eq!((got.len(), distinct.len()), (ELEMENTS, ELEMENTS));
}

#[test]
fn waits_are_ended_by_unblock_and_kill() {
    let server = Server::start(&[]);
    let mut other = Wire::connect(server.resp);
    let mut waiting = Wire::connect(server.resp);
    let id = waiting.int("CLIENT ID");
    waiting.post("BLPOP list 0");
    wait_for_blocked(&mut other, 1);
    assert_eq!(other.int(&format!("CLIENT UNBLOCK {id}")), 1);
    assert_eq!(waiting.reply(), "nil");
    waiting.post("BLPOP list 0");
    wait_for_blocked(&mut other, 1);
    assert_eq!(other.int(&format!("CLIENT UNBLOCK {id} ERROR")), 1);
    assert_eq!(waiting.reply(), "-UNBLOCKED client unblocked via CLIENT UNBLOCK");
    assert_eq!(other.int(&format!("CLIENT UNBLOCK {id}")), 0);
    waiting.post("BLPOP list 0");
    wait_for_blocked(&mut other, 1);
    assert_eq!(other.int(&format!("CLIENT KILL ID {id}")), 1);
    assert_eq!(waiting.reply_or_end(), None);
    wait_for_blocked(&mut other, 0);
}
