//! One connection's task: bytes in, commands, bytes out.
//!
//! A turn of the loop runs every request that has arrived and then waits, with one poll, for
//! whatever comes first of: the socket takes output, the socket has input, somebody left something
//! in the mailbox, a deadline. Replies of a whole pipeline leave in one write.
//!
//! | condition | what the loop does |
//! |---|---|
//! | output above `OUTPUT_FULL` | runs and reads nothing until the client takes its replies |
//! | output above its limit | closes: one reply was larger than the limit |
//! | client waits in `BLPOP` | runs nothing, reads on up to `READ_AHEAD` to notice a hang-up |
//! | mailbox above its limit | closes: the order to evict is in the mailbox |
//! | ordered to drain | goes on until nothing has arrived for `QUIET`, flushes, closes |
//!
//! While it waits for input the connection holds no buffers.

use std::future::{Future, pending, poll_fn};
use std::io::{self, IoSlice};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use crate::clients::Client;
use crate::commands::blocking::{answer_none, answer_unblocked, deliver};
use crate::commands::execute;
use crate::mailbox::Order;
use crate::resp::input::Input;
use crate::resp::scan::ProtocolError;
use crate::session::Session;
use crate::shared::Shared;

/// Bytes of unsent replies above which no further request is run.
const OUTPUT_FULL: usize = 1 << 20;

/// Bytes read ahead while the client waits for something.
const READ_AHEAD: usize = 64 * 1024;

/// Bytes of output below which messages of subscriptions are added to it.
const MESSAGES_BELOW: usize = 64 * 1024;

/// While draining, time without input after which the client is taken to have sent everything.
const QUIET: Duration = Duration::from_millis(100);

/// Longest time for which a closed connection is still read, so that the last replies arrive: closing
/// a socket with unread input makes the system throw away what was sent.
const LINGER: Duration = Duration::from_secs(1);

/// Chunks handed to the system in one write.
const CHUNKS: usize = 16;

/// Serves one client until either side is done. Whatever ends it, the client's subscriptions, its
/// place in queues and its entry among the clients are gone afterwards.
pub async fn serve(stream: TcpStream, client: Arc<Client>, shared: Arc<Shared>) {
    let mut connection = Connection {
        session: Session::new(client, &shared),
        input: Input::new(shared.settings.wire),
        stream,
        shared,
        hung_up: false,
        draining: false,
        last_active: Instant::now(),
    };
    let closing = connection.run().await;
    connection.leave();
    if let Closing::Finished = closing {
        connection.finish().await;
    }
}

struct Connection {
    stream: TcpStream,
    shared: Arc<Shared>,
    session: Session,
    input: Input,
    /// The client sends nothing more.
    hung_up: bool,
    draining: bool,
    /// When something was last read or written.
    last_active: Instant,
}

/// How the loop ended.
enum Closing {
    /// Everything was answered and sent.
    Finished,
    /// The connection is of no use any more.
    Broken,
}

/// What a wait ended with.
enum Event {
    Woken,
    Wrote(io::Result<usize>),
    Read(io::Result<usize>),
    DeadlinePassed,
}

impl Connection {
    async fn run(&mut self) -> Closing {
        loop {
            self.run_requests();
            if self.session.subscriptions() > 0 && self.session.out.len() < MESSAGES_BELOW {
                self.session.take_messages();
            }
            if self.session.out.is_starved() {
                // Not even the error had room: the client learns it from the connection's end.
                self.shared.stats.oom_refusals.add(1);
                return Closing::Broken;
            }
            if self.session.out.has_overflowed() {
                self.shared.stats.output_overflows.add(1);
                return Closing::Broken;
            }
            if self.session.out.is_empty() {
                self.session.output_written();
                let subscribed = self.session.subscriptions() > 0;
                let mailbox = &self.session.client.mailbox;
                if self.session.ending && (!subscribed || mailbox.close_if_empty()) {
                    return Closing::Finished;
                }
                if subscribed && mailbox.has_messages() {
                    continue;
                }
            }
            match self.wait().await {
                Event::Woken => {
                    if self.obey().is_err() {
                        return Closing::Broken;
                    }
                }
                Event::Wrote(Ok(n)) if n > 0 => {
                    self.shared.stats.stripe(self.session.client.id).sent.add(n as u64);
                    self.session.wrote(n);
                    self.last_active = Instant::now();
                }
                Event::Read(Ok(n)) if n > 0 => {
                    self.shared.stats.stripe(self.session.client.id).received.add(n as u64);
                    self.input.arrived(n);
                    self.last_active = Instant::now();
                }
                Event::Read(Ok(_)) => self.hang_up(),
                Event::Read(Err(error)) if error.kind() == io::ErrorKind::OutOfMemory => {
                    self.refuse(ProtocolError::OutOfMemory);
                }
                Event::Wrote(_) | Event::Read(Err(_)) => return Closing::Broken,
                Event::DeadlinePassed => self.give_up_waiting(),
            }
        }
    }

    /// Runs requests until none is whole, one has to wait, or the output is full.
    fn run_requests(&mut self) {
        if !self.may_run() || self.input.unread() == 0 {
            return;
        }
        self.session.start_batch(&self.shared);
        let shared = Arc::clone(&self.shared);
        shared.keyspace.with_participant(|participant| {
            let mut guard = participant.pin();
            while self.may_run() {
                match self.input.next_request() {
                    Ok(Some(args)) => execute(&shared, &mut self.session, &mut guard, args),
                    Ok(None) => break,
                    Err(error) => self.refuse(error),
                }
            }
        });
        // With nothing unread the buffer goes back as soon as the next read has to wait.
        let unread = self.input.unread();
        let held = if unread == 0 { 0 } else { self.input.held() };
        self.session.end_batch(&self.shared, unread, held);
    }

    /// Answers bytes that are no request, or one that there is no memory for, and ends.
    fn refuse(&mut self, error: ProtocolError) {
        let stats = &self.shared.stats;
        let counter = if error == ProtocolError::OutOfMemory {
            &stats.oom_refusals
        } else {
            &stats.protocol_errors
        };
        counter.add(1);
        self.session.reply().error(&error.to_string());
        self.session.ending = true;
    }

    fn may_run(&self) -> bool {
        !self.session.ending
            && self.session.blocked.is_none()
            && self.session.out.len() < OUTPUT_FULL
    }

    /// Waits for the first of everything that can happen.
    async fn wait(&mut self) -> Event {
        // A busy connection gives others their turn.
        tokio::task::consume_budget().await;
        let wants_input = !self.hung_up
            && !self.session.ending
            && if self.session.blocked.is_some() {
                self.input.unread() < READ_AHEAD
            } else {
                self.session.out.len() < OUTPUT_FULL
            };
        let deadline = self.deadline();
        let Self { stream, session, input, .. } = self;
        let client = Arc::clone(&session.client);
        let (mut reader, mut writer) = stream.split();
        let out = &mut session.out;
        if out.is_empty() {
            // Nothing to write: both buffers rest while the read waits.
            return tokio::select! {
                biased;
                () = client.wake.notified() => Event::Woken,
                n = read(&mut reader, input, || out.rest()), if wants_input => Event::Read(n),
                () = reach(deadline) => Event::DeadlinePassed,
            };
        }
        let mut slices = [IoSlice::new(&[]); CHUNKS];
        let filled = out.slices(&mut slices);
        tokio::select! {
            biased;
            () = client.wake.notified() => Event::Woken,
            n = writer.write_vectored(&slices[..filled]) => Event::Wrote(n),
            n = read(&mut reader, input, || {}), if wants_input => Event::Read(n),
            () = reach(deadline) => Event::DeadlinePassed,
        }
    }

    /// The next moment at which something is due without anybody's doing.
    fn deadline(&self) -> Option<Instant> {
        let blocked = self.session.blocked.as_ref();
        // While the output is full, what was received has not all been run.
        let has_run_all = blocked.is_some() || self.session.out.len() < OUTPUT_FULL;
        let quiet = (self.draining && has_run_all).then(|| self.last_active + QUIET);
        let idle = match self.shared.tunables.timeout.get() {
            0 => None,
            _ if blocked.is_some() || self.session.subscriptions() > 0 => None,
            seconds => Some(self.last_active + Duration::from_secs(seconds)),
        };
        let waiting = blocked.and_then(|blocked| blocked.deadline);
        [quiet, idle, waiting].into_iter().flatten().min()
    }

    /// A deadline has passed: whichever it was.
    fn give_up_waiting(&mut self) {
        let now = Instant::now();
        if let Some(blocked) = &self.session.blocked
            && blocked.deadline.is_some_and(|at| at <= now)
        {
            self.end_wait(WaitEnd::TimeOver);
            return;
        }
        if self.session.blocked.is_some() {
            // What was sent behind the wait is still run.
            self.end_wait(WaitEnd::ShutDown);
            self.last_active = now;
            return;
        }
        // The client was silent for long enough, or is to be drained and has sent everything.
        self.session.ending = true;
    }

    /// Looks into the mailbox and at the wait.
    fn obey(&mut self) -> Result<(), ()> {
        match self.session.client.mailbox.take_order() {
            Some(Order::Kill) => return Err(()),
            Some(Order::Evict) => {
                self.shared.stats.evicted_subscribers.add(1);
                return Err(());
            }
            Some(Order::Drain) => self.draining = true,
            Some(Order::UnblockTimeout) => self.end_wait(WaitEnd::TimeOver),
            Some(Order::UnblockError) => self.end_wait(WaitEnd::Unblocked),
            None => {}
        }
        if let Some(popped) = self.session.blocked.as_ref().and_then(|blocked| blocked.served()) {
            self.session.blocked = None;
            deliver(&self.shared, &mut self.session, popped);
            self.session.write_view();
        }
        Ok(())
    }

    /// Ends a wait, if there is one, and answers it: with an element that came at the last moment.
    fn end_wait(&mut self, why: WaitEnd) {
        let Some(blocked) = self.session.blocked.take() else { return };
        match (blocked.give_up(), why) {
            (Some(popped), _) => deliver(&self.shared, &mut self.session, Ok(popped)),
            (None, WaitEnd::TimeOver) => answer_none(&mut self.session),
            (None, WaitEnd::Unblocked) => answer_unblocked(&mut self.session),
            (None, WaitEnd::ShutDown) => {
                self.session.reply().error("UNBLOCKED the server is shutting down");
            }
        }
        self.session.write_view();
    }

    /// The client sends nothing more: what it sent was run, its replies are sent, that is all. A
    /// client that waits is gone; an element that it was just given goes back.
    fn hang_up(&mut self) {
        self.hung_up = true;
        self.session.blocked = None;
        self.session.ending = true;
    }

    /// Takes the client out of everything that knows it. May be called again.
    fn leave(&mut self) {
        self.session.client.mailbox.close();
        self.session.unsubscribe_all(&self.shared);
        self.session.blocked = None;
        let Shared { keyspace, clients, .. } = &*self.shared;
        keyspace.with_participant(|participant| {
            clients.remove(self.session.client.key, &participant.pin());
        });
    }

    /// Closes so that what was sent arrives: says that no more comes, and reads what still does until
    /// the client has hung up, too. A client that was silent has nothing on its way.
    async fn finish(&mut self) {
        if self.stream.shutdown().await.is_err() || self.hung_up {
            return;
        }
        if self.last_active.elapsed() > LINGER {
            return;
        }
        // On the heap: in the task it would count for every connection for all its life.
        let mut scratch = Vec::new();
        if scratch.try_reserve_exact(4096).is_err() {
            return;
        }
        scratch.resize(4096, 0);
        let rest = async { while matches!(self.stream.read(&mut scratch).await, Ok(1..)) {} };
        let _ = timeout(LINGER, rest).await;
    }
}

/// Why a wait ended without an element.
enum WaitEnd {
    TimeOver,
    Unblocked,
    ShutDown,
}

impl Drop for Connection {
    /// For a task that is dropped or panics; else everything is gone already.
    fn drop(&mut self) {
        self.leave();
    }
}

/// Reads into the input. Room is made for each attempt and given back while the attempt waits;
/// `rest` is called then, too.
fn read<'a>(
    reader: &'a mut tokio::net::tcp::ReadHalf<'_>,
    input: &'a mut Input,
    mut rest: impl FnMut() + 'a,
) -> impl Future<Output = io::Result<usize>> {
    poll_fn(move |cx| {
        let Ok(room) = input.room() else {
            return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
        };
        let attempt = pin!(reader.read_buf(room));
        let result = attempt.poll(cx);
        if result.is_pending() {
            input.rest();
            rest();
        }
        result
    })
}

/// Waits until `deadline`, or for ever.
async fn reach(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_task<F>(_: fn(TcpStream, Arc<Client>, Arc<Shared>) -> F) -> usize {
        size_of::<F>()
    }

    /// Every connection pays for its task, idle or not.
    #[test]
    fn a_connection_is_small() {
        let bytes = size_of_task(serve);
        assert!(bytes <= 1536, "{bytes}");
    }
}
