//! Which connection of a client is which of a server.
//!
//! TCP: the two addresses, and the network namespace where they are those of a loop-back device. Unix sockets: the sockets
//! name each other.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use tracer_common::record;

use crate::capture::addresses;

/// Connections that are remembered on each side.
const MAX_CONNECTIONS: usize = 1 << 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    Tcp {
        server: SocketAddr,
        client: SocketAddr,
        netns: u32,
    },
    /// The server's socket.
    Unix(u64),
}

/// A connection at a client.
#[derive(Debug)]
pub struct Client {
    key: Key,
    /// `service.name` of the client.
    service: Arc<str>,
    /// The same connection at its server.
    pub served: Option<u64>,
    /// Offset at the server of the client's first byte, once it is known.
    pub shift: Option<i64>,
}

/// A connection at a server.
#[derive(Debug)]
pub struct Served {
    key: Key,
    /// The server.
    pub pid: u32,
    /// The same connection at its client, if that is traced.
    pub client: Option<u64>,
    /// The client's service if it is traced, else its address.
    pub party: Arc<str>,
    /// Turns, oldest first.
    pub turns: VecDeque<u64>,
    /// Turns from this index on have no write yet.
    pub unwritten: usize,
}

/// Both sides.
#[derive(Debug, Default)]
pub struct Peers {
    /// By number.
    pub clients: HashMap<u64, Client>,
    /// By number.
    pub served: HashMap<u64, Served>,
    client_keys: HashMap<Key, u64>,
    served_keys: HashMap<Key, u64>,
    /// Closed connections that held commands may still ask for, with the time of the close.
    closed: VecDeque<(u64, u64)>,
}

impl Peers {
    /// A client's connection is followed.
    pub fn open_client(&mut self, record: &record::Connection, service: Arc<str>) {
        let key = match addresses(record) {
            Some((client, server)) => tcp(server, client, record.netns),
            None => Key::Unix(record.peer_sock),
        };
        if self.clients.len() >= MAX_CONNECTIONS {
            return;
        }
        let served = self.served_keys.get(&key).copied();
        self.client_keys.insert(key, record.connection);
        self.clients.insert(record.connection, Client { key, service: Arc::clone(&service), served, shift: None });
        if let Some(served) = served.and_then(|served| self.served.get_mut(&served)) {
            served.client = Some(record.connection);
            served.party = service;
        }
    }

    /// A server's connection is followed.
    pub fn open_served(&mut self, record: &record::Connection) {
        let (key, address) = match addresses(record) {
            Some((server, client)) => (tcp(server, client, record.netns), client.to_string()),
            None => (Key::Unix(record.sock), "unix socket".to_owned()),
        };
        if self.served.len() >= MAX_CONNECTIONS {
            return;
        }
        let client = self.client_keys.get(&key).copied();
        self.served_keys.insert(key, record.connection);
        let party = client.and_then(|client| self.clients.get(&client)).map(|client| Arc::clone(&client.service));
        let served = Served {
            key,
            pid: record.head.pid,
            client,
            party: party.unwrap_or_else(|| address.into()),
            turns: Default::default(),
            unwritten: 0,
        };
        self.served.insert(record.connection, served);
        if let Some(client) = client.and_then(|client| self.clients.get_mut(&client)) {
            client.served = Some(record.connection);
            client.shift = None;
        }
    }

    /// A connection is gone, of whichever side. Commands may still ask for it for a while.
    pub fn close(&mut self, number: u64, now_ns: u64) {
        if self.clients.contains_key(&number) || self.served.contains_key(&number) {
            self.closed.push_back((number, now_ns));
        }
    }

    /// Forgets what was closed before `until_ns`.
    pub fn expire(&mut self, until_ns: u64) {
        while let Some(&(number, closed_ns)) = self.closed.front()
            && (closed_ns < until_ns || self.closed.len() > MAX_CONNECTIONS)
        {
            self.closed.pop_front();
            let client = self.clients.remove(&number).map(|client| client.key);
            if client.is_some_and(|key| self.client_keys.get(&key) == Some(&number)) {
                client.map(|key| self.client_keys.remove(&key));
            }
            let served = self.served.remove(&number).map(|served| served.key);
            if served.is_some_and(|key| self.served_keys.get(&key) == Some(&number)) {
                served.map(|key| self.served_keys.remove(&key));
            }
        }
    }
}

fn tcp(server: SocketAddr, client: SocketAddr, netns: u32) -> Key {
    let local = server.ip().is_loopback() || client.ip().is_loopback();
    Key::Tcp { server, client, netns: if local { netns } else { 0 } }
}
