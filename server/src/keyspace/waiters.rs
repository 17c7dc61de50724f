//! Clients that wait for an element of a list: `BLPOP`, `BRPOP`.
//!
//! A waiting client has one [`Waiter`] and stands in the queue of each of its keys under the
//! waiter's ticket; tickets only grow, so a queue is in the order of arrival. A push serves the queue
//! under the shard's lock: it closes the waiter and puts the element in it in one step, so an
//! element goes to one client, and a client gets one element whatever the number of its keys. The
//! client leaves its other queues when it wakes; until then they skip it, because it is closed.
//!
//! Locks nest shard first, waiter second.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::sync::Notify;

use super::list::End;
use crate::fallible::{NoMemory, try_boxed};
use crate::sync::Mutex;

/// An element that left a list for a client.
#[derive(Debug, PartialEq, Eq)]
pub struct Popped {
    /// The list's key.
    pub key: Box<[u8]>,
    /// The element.
    pub element: Box<[u8]>,
    /// The end that it was taken from, and goes back to if nobody is there to take it.
    pub end: End,
}

impl Popped {
    /// Bytes of the reply that hands it over, at most.
    pub fn reply_room(&self) -> usize {
        const HEADS: usize = 3 * 32;
        self.key.len() + self.element.len() + HEADS
    }
}

/// One client that waits.
#[derive(Debug)]
pub struct Waiter {
    ticket: u64,
    end: End,
    slot: Mutex<Slot>,
    wake: Arc<Notify>,
}

#[derive(Debug)]
enum Slot {
    /// Waits.
    Open,
    /// Served; the client has not looked yet.
    Filled(Popped),
    /// There was an element, and no memory to hand it over: it stayed where it was.
    Refused,
    /// Does not wait any more.
    Closed,
}

impl Waiter {
    /// A waiter for elements from `end`, woken through `wake`.
    pub fn new(ticket: u64, end: End, wake: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self { ticket, end, slot: Mutex::new(Slot::Open), wake })
    }

    /// Its place in every queue.
    pub fn ticket(&self) -> u64 {
        self.ticket
    }

    /// The end that it takes from.
    pub fn end(&self) -> End {
        self.end
    }

    /// The element, once it was served, or that it could not be. The waiter is closed afterwards.
    pub fn served(&self) -> Option<Result<Popped, NoMemory>> {
        let mut slot = self.slot.lock();
        if matches!(*slot, Slot::Open) {
            return None;
        }
        match std::mem::replace(&mut *slot, Slot::Closed) {
            Slot::Filled(popped) => Some(Ok(popped)),
            Slot::Refused => Some(Err(NoMemory)),
            Slot::Open | Slot::Closed => None,
        }
    }

    /// Stops waiting. If an element came first, it is returned: the caller answers it or puts it back.
    #[must_use]
    pub fn close(&self) -> Option<Popped> {
        match std::mem::replace(&mut *self.slot.lock(), Slot::Closed) {
            Slot::Filled(popped) => Some(popped),
            Slot::Refused | Slot::Open | Slot::Closed => None,
        }
    }

    /// Hands over what `take` takes, if the client still waits; a client that it cannot be given to is
    /// told, and waits no longer.
    fn offer(&self, take: impl FnOnce() -> Result<Popped, NoMemory>) {
        let mut slot = self.slot.lock();
        if !matches!(*slot, Slot::Open) {
            return;
        }
        *slot = take().map_or_else(|NoMemory| Slot::Refused, Slot::Filled);
        drop(slot);
        self.wake.notify_one();
    }
}

/// The queues of one shard's keys.
#[derive(Debug, Default)]
pub struct Waiters {
    queues: HashMap<Box<[u8]>, BTreeMap<u64, Arc<Waiter>>>,
}

impl Waiters {
    /// Puts a client into the queue of `key`.
    ///
    /// # Errors
    /// There is no memory for a queue.
    pub fn try_join(&mut self, key: &[u8], waiter: &Arc<Waiter>) -> Result<(), NoMemory> {
        let queue = match self.queues.get_mut(key) {
            Some(queue) => queue,
            None => {
                self.queues.try_reserve(1)?;
                self.queues.entry(try_boxed(key)?).or_default()
            }
        };
        queue.insert(waiter.ticket, Arc::clone(waiter));
        Ok(())
    }

    /// Takes a client out of the queue of `key`.
    pub fn leave(&mut self, key: &[u8], ticket: u64) {
        if let Some(queue) = self.queues.get_mut(key) {
            queue.remove(&ticket);
            if queue.is_empty() {
                self.queues.remove(key);
                if self.queues.is_empty() {
                    self.queues = HashMap::new();
                }
            }
        }
    }

    /// Whether nobody waits for any key.
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// Gives elements to those who wait for `key`, first come first served, until `take` has no more
    /// or nobody waits. `take` pops from the end it is given; `more` tells whether there is something.
    pub fn serve(
        &mut self,
        key: &[u8],
        mut more: impl FnMut() -> bool,
        mut take: impl FnMut(End) -> Result<Popped, NoMemory>,
    ) {
        while let Some(queue) = self.queues.get_mut(key) {
            if !more() {
                return;
            }
            let Some((ticket, waiter)) = queue.pop_first() else {
                self.queues.remove(key);
                return;
            };
            waiter.offer(|| take(waiter.end));
            self.leave(key, ticket);
        }
    }

    /// Queues, one per key that somebody waits for.
    pub fn keys(&self) -> usize {
        self.queues.len()
    }
}
