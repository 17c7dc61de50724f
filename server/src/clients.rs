//! The connected clients, as others see them: `CLIENT LIST`, `CLIENT KILL`, publishers, shutdown.
//!
//! Clients are values of a typed slab. Others know a client by its [`Key`] and find it under a guard; once
//! it has gone its key is a miss, whoever still has it. Its connection's task, which lives across
//! `.await`s and can hold no guard, has a count of its own. The task writes its view once per batch of
//! requests; others read the view and leave things in the mailbox.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use flagstone::epoch::{Domain, Guard};
use flagstone::typed::{Key, Slab, Stats};
use tokio::sync::Notify;

use crate::mailbox::{Mailbox, Order};
use crate::resp::Protocol;
use crate::sync::{Counter, Flag, Level, Mutex};

/// One connected client.
#[derive(Debug)]
pub struct Client {
    /// What others know it by.
    pub key: Key,
    /// Its number; no two clients of a server's life have the same.
    pub id: u64,
    /// Where it connects from.
    pub peer: SocketAddr,
    /// Where it connected to.
    pub local: SocketAddr,
    /// When it connected.
    pub since: Instant,
    /// What others leave for it.
    pub mailbox: Mailbox,
    /// Wakes its connection.
    pub wake: Arc<Notify>,
    /// Whether its messages are to be RESP3 pushes.
    pub speaks_resp3: Flag,
    /// What its connection last said about itself.
    pub view: Mutex<View>,
}

/// What a connection says about itself.
#[derive(Clone, Debug)]
pub struct View {
    /// `CLIENT SETNAME`.
    pub name: String,
    /// `CLIENT SETINFO LIB-NAME`.
    pub lib_name: String,
    /// `CLIENT SETINFO LIB-VER`.
    pub lib_ver: String,
    /// Chosen database.
    pub db: usize,
    /// Protocol version.
    pub protocol: Protocol,
    /// Channels subscribed to.
    pub channels: usize,
    /// Patterns subscribed to.
    pub patterns: usize,
    /// Whether it waits in `BLPOP` or `BRPOP`.
    pub blocked: bool,
    /// Whether `CLIENT NO-EVICT` is on.
    pub no_evict: bool,
    /// Bytes received and not yet run.
    pub unread: usize,
    /// Bytes that the read buffer holds.
    pub input_held: usize,
    /// Bytes that the reply queue holds.
    pub output_held: usize,
    /// The last command.
    pub command: &'static str,
    /// When it was run.
    pub active: Instant,
}

impl Client {
    fn new(key: Key, id: u64, peer: SocketAddr, local: SocketAddr) -> Arc<Self> {
        let wake = Arc::new(Notify::new());
        let now = Instant::now();
        Arc::new(Self {
            key,
            id,
            peer,
            local,
            since: now,
            mailbox: Mailbox::new(Arc::clone(&wake)),
            wake,
            speaks_resp3: Flag::new(),
            view: Mutex::new(View {
                name: String::new(),
                lib_name: String::new(),
                lib_ver: String::new(),
                db: 0,
                protocol: Protocol::default(),
                channels: 0,
                patterns: 0,
                blocked: false,
                no_evict: false,
                unread: 0,
                input_held: 0,
                output_held: 0,
                command: "NULL",
                active: now,
            }),
        })
    }

    /// The line that `CLIENT LIST` shows.
    pub fn describe(&self) -> String {
        let view = self.view.lock().clone();
        let (messages, message_bytes) = self.mailbox.waiting();
        let mut flags = String::new();
        if view.channels + view.patterns > 0 {
            flags.push('P');
        }
        if view.blocked {
            flags.push('b');
        }
        if view.no_evict {
            flags.push('e');
        }
        if flags.is_empty() {
            flags.push('N');
        }
        format!(
            "id={} addr={} laddr={} name={} age={} idle={} flags={flags} db={} sub={} psub={} \
             multi=-1 qbuf={} qbuf-free={} obl={} oll={messages} omem={} tot-mem={} events=r \
             cmd={} user=default resp={} lib-name={} lib-ver={} key={}",
            self.id,
            self.peer,
            self.local,
            view.name,
            self.since.elapsed().as_secs(),
            view.active.elapsed().as_secs(),
            view.db,
            view.channels,
            view.patterns,
            view.unread,
            view.input_held.saturating_sub(view.unread),
            view.output_held,
            message_bytes,
            view.input_held + view.output_held + message_bytes,
            view.command,
            view.protocol.version(),
            view.lib_name,
            view.lib_ver,
            self.key,
        )
    }

    /// Bytes that the connection holds: read buffer, reply queue, messages that wait.
    pub fn held(&self) -> u64 {
        let (_, messages) = self.mailbox.waiting();
        let view = self.view.lock();
        (view.input_held + view.output_held + messages) as u64
    }

    /// Whether it has a subscription.
    pub fn is_subscriber(&self) -> bool {
        let view = self.view.lock();
        view.channels + view.patterns > 0
    }
}

/// All connected clients.
#[derive(Debug)]
pub struct Clients {
    slab: Arc<Slab<Arc<Client>>>,
    /// How many were admitted and are not gone: what the limit is compared with.
    connected: Level,
    last_id: Counter,
}

impl Clients {
    /// No clients; guards of `domain` protect those that come.
    pub fn new(domain: &Domain) -> Self {
        let slab = Slab::<()>::builder().build_shared(domain);
        Self { slab, connected: Level::new(), last_id: Counter::new() }
    }

    /// Makes a client, unless there are `max` already.
    pub fn admit(
        &self,
        peer: SocketAddr,
        local: SocketAddr,
        max: u64,
        guard: &Guard<'_>,
    ) -> Option<Arc<Client>> {
        if self.connected.add(1) as u64 >= max {
            self.connected.add(-1);
            return None;
        }
        let entry = self.slab.vacant_entry(guard);
        let client = Client::new(entry.key(), self.last_id.add(1) + 1, peer, local);
        entry.insert(Arc::clone(&client));
        Some(client)
    }

    /// Forgets a client. True if it was there.
    pub fn remove(&self, key: Key, guard: &Guard<'_>) -> bool {
        let removed = self.slab.remove(key, guard);
        if removed {
            self.connected.add(-1);
        }
        removed
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.connected.get().max(0) as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The client of this key, if it has not gone.
    pub fn get<'g>(&'g self, key: Key, guard: &'g Guard<'_>) -> Option<&'g Arc<Client>> {
        self.slab.get(key, guard)
    }

    /// The client of this number. Looks at all of them.
    pub fn by_id<'g>(&'g self, id: u64, guard: &'g Guard<'_>) -> Option<&'g Arc<Client>> {
        self.slab.iter(guard).map(|(_, client)| client).find(|client| client.id == id)
    }

    /// All clients, in the order of their connecting.
    pub fn all<'g>(&'g self, guard: &'g Guard<'_>) -> Vec<&'g Arc<Client>> {
        let mut all: Vec<_> = self.slab.iter(guard).map(|(_, client)| client).collect();
        all.sort_unstable_by_key(|client| client.id);
        all
    }

    /// Leaves an order for every client.
    pub fn order_all(&self, order: Order, guard: &Guard<'_>) {
        for (_, client) in self.slab.iter(guard) {
            client.mailbox.order(order);
        }
    }

    /// Figures of the slab.
    pub fn stats(&self) -> Stats {
        self.slab.stats()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 1))
    }

    #[test]
    fn no_more_clients_than_allowed() {
        let domain = Domain::new();
        let clients = Clients::new(&domain);
        let participant = domain.register();
        let guard = participant.pin();
        let admit = || clients.admit(addr(), addr(), 2, &guard);
        let (first, second) = (admit().unwrap(), admit().unwrap());
        assert!(admit().is_none());
        assert_ne!(first.id, second.id);
        assert!(clients.remove(first.key, &guard));
        assert!(!clients.remove(first.key, &guard), "once");
        let third = admit().unwrap();
        // Its key names nobody else, whatever became of its slot.
        assert!(clients.get(first.key, &guard).is_none());
        assert_eq!(clients.get(third.key, &guard).map(|client| client.id), Some(third.id));
        assert_eq!(clients.by_id(second.id, &guard).map(|client| client.key), Some(second.key));
        assert!(clients.by_id(first.id, &guard).is_none());
        let ids: Vec<u64> = clients.all(&guard).iter().map(|client| client.id).collect();
        assert_eq!((ids, clients.len()), (vec![second.id, third.id], 2));
    }

    #[test]
    fn the_list_line_has_its_fields_once() {
        let domain = Domain::new();
        let clients = Clients::new(&domain);
        let participant = domain.register();
        let client = clients.admit(addr(), addr(), 1, &participant.pin()).unwrap();
        client.view.lock().name = "worker".into();
        let line = client.describe();
        assert!(line.starts_with("id=1 addr=127.0.0.1:1 "));
        assert!(line.ends_with(&format!(" key={}", client.key)), "{line}");
        for field in [" name=worker ", " flags=N ", " db=0 ", " cmd=NULL ", " resp=2 "] {
            assert_eq!(line.matches(field).count(), 1, "{field} in {line}");
        }
    }
}
