//! What others leave for a connection: messages of its subscriptions, and orders.
//!
//! Publishers post and never wait. A mailbox has an [`OutputLimit`]; who would pass it is evicted
//! instead: the messages are dropped and the connection is told to close. Bytes count from the post
//! until the socket has taken them, so a connection that has moved messages into its own output does
//! not look empty.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::settings::OutputLimit;
use crate::sync::Mutex;

/// What a connection is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Stop waiting in `BLPOP` as if the time were over.
    UnblockTimeout,
    /// Stop waiting in `BLPOP` with an error.
    UnblockError,
    /// Finish what was received, flush, close: the server shuts down.
    Drain,
    /// Close now: `CLIENT KILL`, or the server's patience is over.
    Kill,
    /// Close now: the client did not read what was sent to it.
    Evict,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Post {
    /// It will be sent.
    Taken,
    /// It was one too many, or there is no memory to keep it: the client is evicted with this very message.
    Evicted,
    /// The connection is being closed.
    Closed,
}

/// One connection's mailbox.
#[derive(Debug)]
pub struct Mailbox {
    contents: Mutex<Contents>,
    wake: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Contents {
    messages: VecDeque<Bytes>,
    /// Bytes of messages posted and not yet written to the socket.
    bytes: usize,
    over_soft_since: Option<Instant>,
    order: Option<Order>,
    closed: bool,
}

impl Mailbox {
    /// An empty mailbox that wakes its connection through `wake`.
    pub fn new(wake: Arc<Notify>) -> Self {
        Self { contents: Mutex::default(), wake }
    }

    /// Leaves a message.
    pub fn post(&self, message: Bytes, limit: OutputLimit) -> Post {
        let mut contents = self.contents.lock();
        if contents.closed {
            return Post::Closed;
        }
        contents.bytes += message.len();
        if contents.is_over(limit) || contents.messages.try_reserve(1).is_err() {
            contents.evict();
            drop(contents);
            self.wake.notify_one();
            return Post::Evicted;
        }
        contents.messages.push_back(message);
        // Who finds messages there has been woken for them and has not looked yet.
        let first = contents.messages.len() == 1;
        drop(contents);
        if first {
            self.wake.notify_one();
        }
        Post::Taken
    }

    /// Evicts a client that has been over its soft limit for too long, though nobody posts any more.
    /// True if it was.
    pub fn evict_if_over(&self, limit: OutputLimit) -> bool {
        let mut contents = self.contents.lock();
        if contents.closed || contents.bytes == 0 || !contents.is_over(limit) {
            return false;
        }
        contents.evict();
        drop(contents);
        self.wake.notify_one();
        true
    }

    /// Evicts a client that a message cannot be given to, so that it does not miss one unawares.
    #[cold]
    pub fn evict(&self) -> Post {
        let mut contents = self.contents.lock();
        if contents.closed {
            return Post::Closed;
        }
        contents.evict();
        drop(contents);
        self.wake.notify_one();
        Post::Evicted
    }

    /// Leaves an order. A later one replaces an earlier one of less weight: nothing revokes a close.
    pub fn order(&self, order: Order) {
        let mut contents = self.contents.lock();
        if contents.order.is_none_or(|before| weight(before) < weight(order)) {
            contents.order = Some(order);
        }
        if matches!(order, Order::Kill) {
            contents.closed = true;
        }
        drop(contents);
        self.wake.notify_one();
    }

    /// Takes the order, if there is one.
    pub fn take_order(&self) -> Option<Order> {
        self.contents.lock().order.take()
    }

    /// Takes messages in order until `take` says that it has enough.
    pub fn take_messages(&self, mut take: impl FnMut(Bytes) -> bool) {
        let mut contents = self.contents.lock();
        while let Some(message) = contents.messages.pop_front() {
            if !take(message) {
                break;
            }
        }
        if contents.messages.is_empty() && contents.messages.capacity() > 64 {
            contents.messages = VecDeque::new();
        }
    }

    /// Whether messages wait.
    pub fn has_messages(&self) -> bool {
        !self.contents.lock().messages.is_empty()
    }

    /// Tells that `bytes` of taken messages have been written to the socket.
    pub fn written(&self, bytes: usize) {
        let mut contents = self.contents.lock();
        contents.bytes = contents.bytes.saturating_sub(bytes);
    }

    /// Messages and bytes that wait, those in the connection's own output included in the bytes.
    pub fn waiting(&self) -> (usize, usize) {
        let contents = self.contents.lock();
        (contents.messages.len(), contents.bytes)
    }

    /// Takes nothing any more, unless messages wait: their publishers were told that they were taken.
    /// False if some do.
    #[must_use]
    pub fn close_if_empty(&self) -> bool {
        let mut contents = self.contents.lock();
        contents.closed |= contents.messages.is_empty();
        contents.closed
    }

    /// Takes nothing any more. The connection calls it when it ends.
    pub fn close(&self) {
        let mut contents = self.contents.lock();
        contents.closed = true;
        contents.messages = VecDeque::new();
    }
}

impl Contents {
    fn is_over(&mut self, limit: OutputLimit) -> bool {
        if limit.hard != 0 && self.bytes as u64 > limit.hard {
            return true;
        }
        if limit.soft == 0 || self.bytes as u64 <= limit.soft {
            self.over_soft_since = None;
            return false;
        }
        let now = Instant::now();
        let since = *self.over_soft_since.get_or_insert(now);
        now.duration_since(since) > Duration::from_secs(limit.soft_seconds)
    }

    fn evict(&mut self) {
        self.messages = VecDeque::new();
        self.closed = true;
        self.order = Some(Order::Evict);
    }
}

fn weight(order: Order) -> u8 {
    match order {
        Order::UnblockTimeout | Order::UnblockError => 0,
        Order::Drain => 1,
        Order::Kill | Order::Evict => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: OutputLimit = OutputLimit { hard: 100, soft: 50, soft_seconds: 3600 };

    fn mailbox() -> Mailbox {
        Mailbox::new(Arc::new(Notify::new()))
    }

    fn message(n: usize) -> Bytes {
        vec![b'x'; n].into()
    }

    #[test]
    fn past_the_hard_limit_the_client_is_evicted_and_memory_freed() {
        let mailbox = mailbox();
        assert_eq!(mailbox.post(message(100), LIMIT), Post::Taken);
        assert_eq!(mailbox.post(message(1), LIMIT), Post::Evicted);
        assert_eq!(mailbox.post(message(1), LIMIT), Post::Closed);
        assert_eq!(mailbox.waiting().0, 0);
        assert_eq!(mailbox.take_order(), Some(Order::Evict));
    }

    #[test]
    fn taken_messages_count_until_they_are_written() {
        let mailbox = mailbox();
        assert_eq!(mailbox.post(message(80), LIMIT), Post::Taken);
        mailbox.take_messages(|_| true);
        assert_eq!(mailbox.waiting(), (0, 80));
        mailbox.written(80);
        assert_eq!(mailbox.post(message(80), LIMIT), Post::Taken);
        mailbox.take_messages(|_| true);
        assert_eq!(mailbox.post(message(80), LIMIT), Post::Evicted);
    }

    #[test]
    fn the_soft_limit_has_patience_and_then_evicts_without_a_post() {
        let mailbox = mailbox();
        assert_eq!(mailbox.post(message(60), LIMIT), Post::Taken);
        assert!(!mailbox.evict_if_over(LIMIT));
        let impatient = OutputLimit { soft_seconds: 0, ..LIMIT };
        // The first look started the clock; any time at all is now too long.
        let deadline = Instant::now() + Duration::from_secs(10);
        while !mailbox.evict_if_over(impatient) {
            assert!(Instant::now() < deadline, "never evicted");
        }
        assert_eq!(mailbox.take_order(), Some(Order::Evict));
    }

    #[test]
    fn a_client_that_catches_up_starts_a_new_soft_period() {
        let mailbox = mailbox();
        assert_eq!(mailbox.post(message(60), LIMIT), Post::Taken);
        mailbox.take_messages(|_| true);
        mailbox.written(60);
        assert_eq!(mailbox.post(message(1), LIMIT), Post::Taken);
        assert!(mailbox.contents.lock().over_soft_since.is_none());
    }

    #[test]
    fn no_order_revokes_a_close() {
        let mailbox = mailbox();
        mailbox.order(Order::UnblockError);
        mailbox.order(Order::Drain);
        mailbox.order(Order::Kill);
        mailbox.order(Order::UnblockTimeout);
        assert_eq!(mailbox.take_order(), Some(Order::Kill));
        assert_eq!(mailbox.take_order(), None);
        assert_eq!(mailbox.post(message(1), LIMIT), Post::Closed);
    }

    #[test]
    fn a_mailbox_with_messages_does_not_close() {
        let mailbox = mailbox();
        assert_eq!(mailbox.post(message(1), LIMIT), Post::Taken);
        assert!(!mailbox.close_if_empty());
        assert_eq!(mailbox.post(message(1), LIMIT), Post::Taken, "it is as it was");
        mailbox.take_messages(|_| true);
        assert!(mailbox.close_if_empty());
        assert_eq!(mailbox.post(message(1), LIMIT), Post::Closed);
    }

    #[test]
    fn messages_come_out_in_order_in_portions() {
        let mailbox = mailbox();
        for byte in 0..5u8 {
            assert_eq!(mailbox.post(vec![byte].into(), LIMIT), Post::Taken);
        }
        let mut seen = Vec::new();
        mailbox.take_messages(|m| {
            seen.push(m[0]);
            seen.len() < 3
        });
        assert_eq!(seen, [0, 1, 2]);
        assert!(mailbox.has_messages());
        mailbox.take_messages(|m| {
            seen.push(m[0]);
            true
        });
        assert_eq!(seen, [0, 1, 2, 3, 4]);
    }
}
