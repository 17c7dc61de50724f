//! Pops that may wait: `BLPOP` and `BRPOP` on a database.
//!
//! Looking at the lists and joining their queues happens under the locks of all keys together, so
//! no push can come between. An element that was handed to a client which is gone goes back to
//! where it came from ([`Db::put_back`]).

use std::sync::Arc;

use flagstone::epoch::Guard;

use super::Db;
use super::expiry::Millis;
use super::list::End;
use super::shard::Key;
use super::waiters::{Popped, Waiter};
use crate::fallible::NoMemory;

/// What a pop that may wait came to.
#[derive(Debug)]
#[must_use]
pub enum PopOrWait {
    /// A list had an element.
    Popped(Popped),
    /// No list had one; the client stands in the queue of every key.
    Waiting(Arc<Waiter>),
    /// The first key that is there holds another type.
    WrongType,
}

impl Db {
    /// Pops from the first of `keys` whose list has an element; else makes a waiter and joins it to
    /// every key.
    ///
    /// # Errors
    /// There is no memory for either. Nothing was popped, and nobody waits.
    pub fn pop_or_wait(
        &self,
        keys: &[Key<'_>],
        end: End,
        now: Millis,
        guard: &Guard<'_>,
        waiter: impl FnOnce() -> Result<Arc<Waiter>, NoMemory>,
    ) -> Result<PopOrWait, NoMemory> {
        let mut shards = self.lock_many(keys, guard);
        for key in keys {
            let shard = shards.of(key);
            match shard.peek(key, now).map(|entry| entry.value().as_list().is_some()) {
                None => {}
                Some(false) => return Ok(PopOrWait::WrongType),
                Some(true) => {
                    let popped = shard.try_pop_for(key, end, now)?;
                    return Ok(PopOrWait::Popped(popped.expect("a list is never empty")));
                }
            }
        }
        let waiter = waiter()?;
        for (joined, key) in keys.iter().enumerate() {
            if let Err(refused) = shards.of(key).waiters.try_join(key.bytes, &waiter) {
                for key in &keys[..joined] {
                    shards.of(key).waiters.leave(key.bytes, waiter.ticket());
                }
                return Err(refused);
            }
        }
        Ok(PopOrWait::Waiting(waiter))
    }

    /// Takes a waiter out of the queues of `keys`.
    pub fn leave<'a>(&self, keys: impl Iterator<Item = &'a [u8]>, ticket: u64, guard: &Guard<'_>) {
        for bytes in keys {
            let key = self.key(bytes);
            self.lock(&key, guard).waiters.leave(bytes, ticket);
        }
    }

    /// Puts an element back at the end that it was taken from; who waits for it is served. If the key
    /// has come to hold another type meanwhile there is no list to go back to, and without memory the list
    /// may have no room: the element is returned.
    #[must_use = "an element that could not go back is lost with this"]
    pub fn put_back(
        &self,
        mut popped: Popped,
        now: Millis,
        guard: &Guard<'_>,
    ) -> Result<(), Popped> {
        let key = self.key(&popped.key);
        let element = std::slice::from_mut(&mut popped.element);
        match self.lock(&key, guard).try_push(&key, popped.end, now, element) {
            Ok(Some(_)) => Ok(()),
            Ok(None) | Err(NoMemory) => Err(popped),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Keyspace;
    use super::super::entry::Entry;
    use super::*;
    use tokio::sync::Notify;

    fn wait(keyspace: &Keyspace, keys: &[&[u8]], end: End) -> Arc<Waiter> {
        let db = keyspace.db(0);
        let hashed: Vec<_> = keys.iter().map(|key| db.key(key)).collect();
        let make = || Ok(Waiter::new(keyspace.next_ticket(), end, Arc::new(Notify::new())));
        keyspace.with_participant(|p| match db.pop_or_wait(&hashed, end, 0, &p.pin(), make) {
            Ok(PopOrWait::Waiting(waiter)) => waiter,
            other => panic!("not waiting: {other:?}"),
        })
    }

    fn push(keyspace: &Keyspace, key: &[u8], elements: &[&[u8]]) -> usize {
        let db = keyspace.db(0);
        let key = db.key(key);
        let mut elements: Vec<Box<[u8]>> = elements.iter().map(|e| Box::from(*e)).collect();
        keyspace
            .with_participant(|p| {
                db.lock(&key, &p.pin()).try_push(&key, End::Right, 0, &mut elements)
            })
            .unwrap()
            .unwrap()
    }

    fn text(popped: Option<Result<Popped, NoMemory>>) -> Option<(String, String)> {
        popped.map(|popped| {
            let p = popped.unwrap();
            (String::from_utf8_lossy(&p.key).into(), String::from_utf8_lossy(&p.element).into())
        })
    }

    #[test]
    fn first_come_first_served_across_keys() {
        let keyspace = Keyspace::new(1, 4);
        let first = wait(&keyspace, &[b"a", b"b"], End::Left);
        let second = wait(&keyspace, &[b"b"], End::Left);
        let third = wait(&keyspace, &[b"b", b"a"], End::Right);
        assert_eq!(push(&keyspace, b"b", &[b"1", b"2", b"3"]), 3);
        assert_eq!(text(first.served()), Some(("b".into(), "1".into())));
        assert_eq!(text(second.served()), Some(("b".into(), "2".into())));
        assert_eq!(text(third.served()), Some(("b".into(), "3".into())));
        assert!(keyspace.db(0).is_empty(), "a list that was served empty goes");
        // The first still stands in the queue of `a`, closed: it is skipped and swept.
        assert_eq!(push(&keyspace, b"a", &[b"4"]), 1);
        assert_eq!(keyspace.db(0).len(), 1);
        assert_eq!(keyspace.figures().waited_for, 0);
    }

    #[test]
    fn one_client_gets_one_element() {
        let keyspace = Keyspace::new(1, 4);
        let waiter = wait(&keyspace, &[b"a", b"a", b"b"], End::Left);
        push(&keyspace, b"a", &[b"1", b"2"]);
        push(&keyspace, b"b", &[b"3"]);
        assert_eq!(text(waiter.served()), Some(("a".into(), "1".into())));
        assert_eq!(text(waiter.served()), None);
        assert_eq!(keyspace.db(0).len(), 2);
    }

    #[test]
    fn an_element_for_a_client_that_is_gone_goes_back_and_on() {
        let keyspace = Keyspace::new(1, 4);
        let db = keyspace.db(0);
        let gone = wait(&keyspace, &[b"a"], End::Left);
        push(&keyspace, b"a", &[b"1"]);
        let next = wait(&keyspace, &[b"a"], End::Left);
        let popped = gone.close().expect("it was served");
        keyspace.with_participant(|p| db.put_back(popped, 0, &p.pin())).unwrap();
        assert_eq!(text(next.served()), Some(("a".into(), "1".into())));
    }

    #[test]
    fn a_closed_waiter_is_not_served() {
        let keyspace = Keyspace::new(1, 4);
        let waiter = wait(&keyspace, &[b"a"], End::Left);
        assert!(waiter.close().is_none());
        push(&keyspace, b"a", &[b"1"]);
        assert_eq!(keyspace.db(0).len(), 1);
        let keys = [b"a".as_slice()];
        keyspace.with_participant(|p| {
            keyspace.db(0).leave(keys.into_iter(), waiter.ticket(), &p.pin());
        });
        assert_eq!(keyspace.figures().waited_for, 0);
    }

    #[test]
    fn another_type_is_refused_and_nothing_goes_back_onto_it() {
        let keyspace = Keyspace::new(1, 4);
        let db = keyspace.db(0);
        let waiter = wait(&keyspace, &[b"a"], End::Left);
        push(&keyspace, b"a", &[b"1"]);
        let key = db.key(b"a");
        let participant = keyspace.domain().register();
        let guard = participant.pin();
        db.lock(&key, &guard).set(&key, Entry::try_string(&key, b"text", None).unwrap(), 0);
        let never = || unreachable!("nobody may wait");
        let refused = db.pop_or_wait(&[key], End::Left, 0, &guard, never);
        assert!(matches!(refused, Ok(PopOrWait::WrongType)));
        let popped = waiter.close().unwrap();
        assert_eq!(db.put_back(popped, 0, &guard).unwrap_err().element.as_ref(), b"1");
    }
}
