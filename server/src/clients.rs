//! The connected clients, as others see them: `CLIENT LIST`, `CLIENT KILL`, publishers, shutdown.
//!
//! A [`Client`] is shared between its connection's task and everybody else. The task writes its view
//! once per batch of requests; others read the view and leave things in the mailbox.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Notify;

use crate::mailbox::{Mailbox, Order};
use crate::resp::Protocol;
use crate::sync::{Counter, Flag, Mutex};

/// One connected client.
#[derive(Debug)]
pub struct Client {
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
    /// A client that just connected.
    pub fn new(id: u64, peer: SocketAddr, local: SocketAddr) -> Arc<Self> {
        let wake = Arc::new(Notify::new());
        let now = Instant::now();
        Arc::new(Self {
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
             cmd={} user=default resp={} lib-name={} lib-ver={}",
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

/// All connected clients, by number.
#[derive(Debug, Default)]
pub struct Clients {
    connected: Mutex<BTreeMap<u64, Arc<Client>>>,
    last_id: Counter,
}

impl Clients {
    /// Makes a client, unless there are `max` already.
    pub fn admit(&self, peer: SocketAddr, local: SocketAddr, max: u64) -> Option<Arc<Client>> {
        let mut connected = self.connected.lock();
        if connected.len() as u64 >= max {
            return None;
        }
        let client = Client::new(self.last_id.add(1) + 1, peer, local);
        connected.insert(client.id, Arc::clone(&client));
        Some(client)
    }

    /// Forgets a client.
    pub fn remove(&self, id: u64) {
        self.connected.lock().remove(&id);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.connected.lock().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The client of this number.
    pub fn get(&self, id: u64) -> Option<Arc<Client>> {
        self.connected.lock().get(&id).cloned()
    }

    /// All clients, in the order of their connecting.
    pub fn all(&self) -> Vec<Arc<Client>> {
        self.connected.lock().values().cloned().collect()
    }

    /// Leaves an order for every client.
    pub fn order_all(&self, order: Order) {
        for client in self.all() {
            client.mailbox.order(order);
        }
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
        let clients = Clients::default();
        let first = clients.admit(addr(), addr(), 2).unwrap();
        let second = clients.admit(addr(), addr(), 2).unwrap();
        assert!(clients.admit(addr(), addr(), 2).is_none());
        assert_ne!(first.id, second.id);
        clients.remove(first.id);
        assert!(clients.admit(addr(), addr(), 2).is_some());
        assert!(clients.get(first.id).is_none());
    }

    #[test]
    fn the_list_line_has_its_fields_once() {
        let client = Client::new(7, addr(), addr());
        client.view.lock().name = "worker".into();
        let line = client.describe();
        assert!(line.starts_with("id=7 addr=127.0.0.1:1 "));
        for field in [" name=worker ", " flags=N ", " db=0 ", " cmd=NULL ", " resp=2 "] {
            assert_eq!(line.matches(field).count(), 1, "{field} in {line}");
        }
    }
}
