//! Faults, one per round, made while the clients go on: what each does, and what must hold meanwhile
//! and afterwards.
//!
//! Every wait is a poll up to [`PATIENCE`], which only bounds a failure. The clients' own checks go on
//! through every fault: a fault that harms them breaks `replies`, `handover` or `messages`.

use std::io;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::checks::Check;
use super::keys::content;
use super::scene::Scene;
use super::target::SUBSCRIBER_LIMIT;
use super::watch::{number, read_json};
use super::wire::{Frame, PATIENCE, Received, Wire, describe, is_oom, ok};

/// A fault.
pub struct Fault {
    /// Its name on the command line.
    pub name: &'static str,
    /// The check that it belongs to.
    pub check: Check,
    /// Makes it.
    pub run: fn(&Scene<'_>) -> Result<(), String>,
}

/// All of them, in the order of the rounds.
pub const FAULTS: [Fault; 5] = [
    Fault { name: "killed", check: Check::Killed, run: killed },
    Fault { name: "slow-subscribers", check: Check::SlowSubscribers, run: slow_subscribers },
    Fault { name: "half-open", check: Check::HalfOpen, run: half_open },
    Fault { name: "descriptors", check: Check::Descriptors, run: descriptors },
    Fault { name: "memory-cap", check: Check::MemoryCap, run: memory_cap },
];

/// Connections cut off in the middle of a command, per fault.
const CUT: usize = 60;
/// Subscribers that do not read, per fault.
const SLOW: usize = 4;
/// Half-open connections, per fault.
const HALF_OPEN: usize = 90;
/// Descriptors that are left when they run out, and connections that ask for one.
const LEFT: u64 = 8;
const ASKING: usize = 48;
/// Room below the memory cap, and the values that fill it.
const ROOM: u64 = 8 << 20;
const FILLER: usize = 64 << 10;
/// How far memory in use may pass the cap: buffers and tables that double.
const ABOVE_CAP: u64 = 8 << 20;

/// Asks until `ask` says yes.
pub fn poll(what: &str, mut ask: impl FnMut() -> io::Result<bool>) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask() {
            Ok(true) => return Ok(()),
            Ok(false) if Instant::now() < deadline => thread::sleep(Duration::from_millis(20)),
            Ok(false) => return Err(format!("{what}: not within {} s", PATIENCE.as_secs())),
            Err(error) => return Err(format!("{what}: {error}")),
        }
    }
}

fn io_error(error: io::Error) -> String {
    error.to_string()
}

fn connect(scene: &Scene<'_>) -> Result<Wire, String> {
    Wire::connect(scene.target.resp).map_err(io_error)
}

/// Clients that vanish within a command, by themselves and with their process; what they had begun
/// must not have happened, and the server must forget them.
fn killed(scene: &Scene<'_>) -> Result<(), String> {
    let mut control = connect(scene)?;
    let before = control.info("connected_clients").map_err(io_error)?;
    for n in 0..CUT {
        let mut wire = connect(scene)?;
        let half = format!("*3\r\n$3\r\nSET\r\n$8\r\nsoak:cut\r\n${}\r\n", 1 << (n % 20));
        wire.send_raw(half.as_bytes()).map_err(io_error)?;
        match n % 3 {
            // With the value's beginning on its way.
            0 => wire.send_raw(&vec![b'x'; (1 << (n % 20)) / 2]).map_err(io_error)?,
            // With a reply on its way to nobody.
            1 => wire.send_raw(b"").map_err(io_error)?,
            _ => {
                let mut other = connect(scene)?;
                other.queue(&[b"GET", b"soak:cut"]);
                other.queue(&[b"BLPOP", b"soak:nothing", b"0"]);
                other.flush().map_err(io_error)?;
                other.abort();
            }
        }
        if n % 2 == 0 { wire.abort() } else { drop(wire) }
    }
    let mut benchmark = Command::new("redis-benchmark")
        .args(["-h", &scene.target.resp.ip().to_string()])
        .args(["-p", &scene.target.resp.port().to_string()])
        .args(["-c", "20", "-P", "16", "-r", "5000", "-d", "200", "-n", "100000000"])
        .args(["-t", "lpush", "-q"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("redis-benchmark: {error}"))?;
    let loaded = poll("redis-benchmark to be under way", || {
        Ok(control.ask_words("LLEN mylist")? != Frame::Integer(0))
    });
    benchmark.kill().map_err(io_error)?;
    benchmark.wait().map_err(io_error)?;
    loaded?;
    scene.count("clients cut off", (CUT + CUT / 3 + 20) as u64);
    let reply = control.ask_words("EXISTS soak:cut").map_err(io_error)?;
    if reply != Frame::Integer(0) {
        return Err(format!("half a SET was carried out: EXISTS got {}", describe(&reply)));
    }
    // Waiting clients among the killed are gone as well: nobody takes this element.
    poll("waiting clients to be forgotten", || {
        control.ask_words("RPUSH soak:nothing x")?;
        Ok(control.ask_words("LPOP soak:nothing")? == Frame::BulkString(b"x".to_vec()))
    })?;
    poll("killed clients to be forgotten", || {
        // Others come and go meanwhile, by less than were killed.
        Ok(control.info("connected_clients")? <= before + CUT as u64 / 2)
    })?;
    control.ask_words("DEL mylist").map(drop).map_err(io_error)
}

/// Subscribers that never read are closed when too much waits for them.
fn slow_subscribers(scene: &Scene<'_>) -> Result<(), String> {
    const CHANNEL: &[u8] = b"soak:flood";
    let mut control = connect(scene)?;
    let evicted = control.info("evicted_subscribers").map_err(io_error)?;
    let mut slow = Vec::new();
    for _ in 0..SLOW {
        let mut wire = connect(scene)?;
        wire.ask(&[b"SUBSCRIBE", CHANNEL]).map_err(io_error)?;
        slow.push(wire);
    }
    // What the sockets' buffers take on both sides comes on top of the limit.
    let message = content(&[(3, 64 << 10)]);
    let most = 16 * (SUBSCRIBER_LIMIT / message.len());
    let mut sent = 0;
    loop {
        let reply = control.ask(&[b"PUBLISH", CHANNEL, &message]).map_err(io_error)?;
        sent += 1;
        match reply {
            Frame::Integer(0) => break,
            Frame::Integer(_) if sent < most => {}
            reply => {
                return Err(format!("after {sent} messages PUBLISH got {}", describe(&reply)));
            }
        }
    }
    poll("slow subscribers to be closed and counted", || {
        Ok(control.info("evicted_subscribers")? >= evicted + SLOW as u64)
    })?;
    for mut wire in slow {
        read_to_the_end(&mut wire)?;
    }
    scene.count("slow subscribers closed", SLOW as u64);
    Ok(())
}

/// Reads what still comes; the connection must end, in whatever way.
fn read_to_the_end(wire: &mut Wire) -> Result<(), String> {
    loop {
        match wire.receive_within(PATIENCE) {
            Ok(Received::Frame(_)) => {}
            Ok(Received::End) | Err(_) => return Ok(()),
            Ok(Received::Silence) => return Err(String::from("a closed subscriber stays open")),
        }
    }
}

/// Connections that say nothing, that stop within a command, and that only listen on.
fn half_open(scene: &Scene<'_>) -> Result<(), String> {
    let mut control = connect(scene)?;
    let mut silent = Vec::new();
    for n in 0..HALF_OPEN {
        let mut wire = connect(scene)?;
        match n % 3 {
            0 => {}
            1 => wire.send_raw(b"*2\r\n$3\r\nGET\r\n$100\r\nhalf a name").map_err(io_error)?,
            _ => {
                wire.queue(&[b"ECHO", b"the last word"]);
                wire.flush().map_err(io_error)?;
                wire.half_close().map_err(io_error)?;
                let reply = wire.receive().map_err(io_error)?;
                if reply != Frame::BulkString(b"the last word".to_vec()) {
                    return Err(format!("half-closed, ECHO got {}", describe(&reply)));
                }
                if wire.receive_within(PATIENCE).map_err(io_error)? != Received::End {
                    return Err(String::from("a half-closed connection stays open"));
                }
                continue;
            }
        }
        silent.push(wire);
    }
    let open = control.info("connected_clients").map_err(io_error)?;
    if open < silent.len() as u64 {
        return Err(format!("of {} half-open connections {open} are left", silent.len()));
    }
    scene.pulse.rest(Duration::from_millis(500));
    scene.count("half-open connections", HALF_OPEN as u64);
    for (n, wire) in silent.into_iter().enumerate() {
        if n % 2 == 0 { wire.abort() } else { drop(wire) }
    }
    poll("half-open connections to be forgotten", || {
        Ok(control.info("connected_clients")? <= open - HALF_OPEN as u64 / 2)
    })
}

/// Descriptors run out: who is there is served, who waits is served once there is room, and the
/// accept loop does not spin.
fn descriptors(scene: &Scene<'_>) -> Result<(), String> {
    let mut control = connect(scene)?;
    let errors_before = control.info("accept_errors").map_err(io_error)?;
    let admin_errors = || -> Result<i64, String> {
        let stats = read_json(scene)?;
        number(&stats, "/admin/accept_errors").ok_or(String::from("no admin.accept_errors"))
    };
    let admin_before = admin_errors()?;
    // The system gives out the least free number: those above the limit leave gaps below it.
    let open = scene.target.descriptors().map_err(io_error)?;
    let limited = scene.target.limit_descriptors(open as u64 + LEFT).map_err(io_error)?;
    let exhausted = Instant::now();
    let mut asking = Vec::new();
    for _ in 0..ASKING {
        let mut wire = connect(scene)?;
        wire.queue(&[b"PING"]);
        wire.flush().map_err(io_error)?;
        asking.push(wire);
    }
    poll("accepting to fail for want of descriptors", || {
        Ok(control.info("accept_errors")? > errors_before)
    })?;
    scene.pulse.rest(Duration::from_millis(800));
    // Who is there is served, also with what wants memory.
    let value = content(&[(9, 100_000)]);
    for _ in 0..20 {
        let reply = control.ask(&[b"SET", b"soak:exhausted", &value]).map_err(io_error)?;
        if reply != ok() && !is_oom(&reply) {
            return Err(format!("without descriptors SET got {}", describe(&reply)));
        }
    }
    control.ask_words("DEL soak:exhausted").map_err(io_error)?;
    // From 5 ms on the pause doubles, and every success shortens it again.
    let errors = control.info("accept_errors").map_err(io_error)? - errors_before;
    let spins = |errors: u64| {
        let seconds = exhausted.elapsed().as_secs_f64();
        (errors as f64 > 100.0 + 200.0 * seconds)
            .then(|| format!("accepting failed {errors} times in {seconds:.1} s: it spins"))
    };
    if let Some(spins) = spins(errors) {
        return Err(spins);
    }
    // The first half goes away: the system served them first, so others find room.
    let mut waiting = asking.split_off(ASKING / 2);
    drop(asking);
    pong(&mut waiting[0]).map_err(|error| format!("after clients have gone: {error}"))?;
    drop(limited);
    for wire in &mut waiting[1..] {
        pong(wire).map_err(|error| format!("with descriptors again: {error}"))?;
    }
    let admin = admin_errors()? - admin_before;
    if let Some(spins) = spins(admin.max(0) as u64) {
        return Err(format!("admin server: {spins}"));
    }
    scene.count("failed accepts", errors + admin.max(0) as u64);
    let mut fresh = connect(scene)?;
    fresh.queue(&[b"PING"]);
    fresh.flush().map_err(io_error)?;
    pong(&mut fresh)
}

fn pong(wire: &mut Wire) -> Result<(), String> {
    match wire.receive().map_err(io_error)? {
        Frame::SimpleString(text) if text == b"PONG" => Ok(()),
        reply => Err(format!("PING got {}", describe(&reply))),
    }
}

/// The memory cap is reached: writes are refused, reads go on, deleting makes room.
fn memory_cap(scene: &Scene<'_>) -> Result<(), String> {
    let mut control = connect(scene)?;
    let used = control.info("used_memory").map_err(io_error)?;
    let cap = used + ROOM;
    let outcome = fill_to_the_cap(scene, &mut control, cap);
    // Whatever happened: the clients need their memory back.
    let lifted = control.ask_words("CONFIG SET maxmemory 0").map_err(io_error)?;
    outcome?;
    if lifted == ok() { Ok(()) } else { Err(format!("CONFIG SET got {}", describe(&lifted))) }
}

fn fill_to_the_cap(scene: &Scene<'_>, control: &mut Wire, cap: u64) -> Result<(), String> {
    let set = control.ask_words(&format!("CONFIG SET maxmemory {cap}")).map_err(io_error)?;
    if set != ok() {
        return Err(format!("CONFIG SET got {}", describe(&set)));
    }
    let value = content(&[(5, FILLER)]);
    let most = 8 * ROOM as usize / FILLER;
    let mut stored = 0;
    loop {
        let key = format!("soak:filler:{stored}");
        match control.ask(&[b"SET", key.as_bytes(), &value]).map_err(io_error)? {
            reply if reply == ok() => stored += 1,
            reply if is_oom(&reply) => break,
            reply => return Err(format!("SET got {}", describe(&reply))),
        }
        if stored > most {
            return Err(format!("{stored} values of {FILLER} bytes fit into {ROOM}"));
        }
    }
    let used = control.info("used_memory").map_err(io_error)?;
    if used > cap + ABOVE_CAP {
        return Err(format!("{used} bytes in use at a cap of {cap}"));
    }
    if stored > 0 {
        let reply = control.ask(&[b"GET", b"soak:filler:0"]).map_err(io_error)?;
        if reply != Frame::BulkString(value.clone()) {
            return Err(format!("at the cap GET got {}", describe(&reply)));
        }
    }
    // For as long as clients take to meet it.
    scene.pulse.rest(Duration::from_millis(500));
    for n in 0..stored {
        let key = format!("soak:filler:{n}");
        let reply = control.ask(&[b"DEL", key.as_bytes()]).map_err(io_error)?;
        if reply != Frame::Integer(1) {
            return Err(format!("at the cap DEL got {}", describe(&reply)));
        }
    }
    if stored > 0 {
        poll("writes after room was made", || {
            Ok(control.ask(&[b"SET", b"soak:room", &value])? == ok())
        })?;
        control.ask_words("DEL soak:room").map_err(io_error)?;
    }
    Ok(())
}
