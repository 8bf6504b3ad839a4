//! Which connection of a client is which of a server.
//!
//! TCP: the two addresses, and the network namespace where they are those of a loop-back device. Behind destination address
//! translation (DNAT: a Kubernetes service, a published port of a container) the two sides know the server by different
//! addresses, but the client's is the same on both: it decides where no connection has both addresses. Unix sockets: the
//! sockets name each other.

use crate::model::HashMap;
use std::collections::VecDeque;
use std::hash::Hash;
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

/// The client's address of a TCP connection, and the network namespace if it is a loop-back one.
type Source = (SocketAddr, u32);

/// A connection at a client.
#[derive(Debug)]
pub struct Client {
    key: Key,
    source: Option<Source>,
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
    source: Option<Source>,
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
    client_sources: HashMap<Source, u64>,
    served_sources: HashMap<Source, u64>,
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
        let source = source(record, |(client, _)| client);
        let exact = self.served_keys.get(&key).copied();
        let translated = || source.and_then(|source| self.served_without_client(source));
        let served = exact.or_else(translated);
        self.client_keys.insert(key, record.connection);
        self.client_sources.extend(source.map(|source| (source, record.connection)));
        let client = Client { key, source, service: Arc::clone(&service), served, shift: None };
        self.clients.insert(record.connection, client);
        if let Some(served) = served.and_then(|served| self.served.get_mut(&served)) {
            let before = served.client.replace(record.connection);
            served.party = service;
            self.part(before, record.connection);
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
        let source = source(record, |(_, client)| client);
        let exact = self.client_keys.get(&key).copied();
        let translated = || source.and_then(|source| self.client_without_server(source));
        let client = exact.or_else(translated);
        self.served_keys.insert(key, record.connection);
        self.served_sources.extend(source.map(|source| (source, record.connection)));
        let party = client.and_then(|client| self.clients.get(&client)).map(|client| Arc::clone(&client.service));
        let served = Served {
            key,
            source,
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

    /// A server's connection from this address whose other side is not known.
    fn served_without_client(&self, source: Source) -> Option<u64> {
        let number = *self.served_sources.get(&source)?;
        self.served.get(&number).is_some_and(|served| served.client.is_none()).then_some(number)
    }

    /// A client's connection from this address whose other side is not known.
    fn client_without_server(&self, source: Source) -> Option<u64> {
        let number = *self.client_sources.get(&source)?;
        self.clients.get(&number).is_some_and(|client| client.served.is_none()).then_some(number)
    }

    /// A client has lost its server to another client, which has both addresses of the connection.
    fn part(&mut self, before: Option<u64>, now: u64) {
        if let Some(before) = before.filter(|before| *before != now)
            && let Some(client) = self.clients.get_mut(&before)
        {
            client.served = None;
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
            if let Some(client) = self.clients.remove(&number) {
                remove(&mut self.client_keys, &client.key, number);
                if let Some(source) = client.source {
                    remove(&mut self.client_sources, &source, number);
                }
            }
            if let Some(served) = self.served.remove(&number) {
                remove(&mut self.served_keys, &served.key, number);
                if let Some(source) = served.source {
                    remove(&mut self.served_sources, &source, number);
                }
            }
        }
    }
}

/// Forgets a key unless a later connection has it now.
fn remove<K: Eq + Hash>(keys: &mut HashMap<K, u64>, key: &K, number: u64) {
    if keys.get(key) == Some(&number) {
        keys.remove(key);
    }
}

/// The client's address in a record of either side.
fn source(record: &record::Connection, client: impl FnOnce((SocketAddr, SocketAddr)) -> SocketAddr) -> Option<Source> {
    let client = client(addresses(record)?);
    Some((client, if client.ip().is_loopback() { record.netns } else { 0 }))
}

fn tcp(server: SocketAddr, client: SocketAddr, netns: u32) -> Key {
    let local = server.ip().is_loopback() || client.ip().is_loopback();
    Key::Tcp { server, client, netns: if local { netns } else { 0 } }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: ([u8; 4], u32) = ([10, 0, 0, 1], 50_000);
    const SERVICE: ([u8; 4], u32) = ([10, 96, 0, 9], 6379);
    const SERVER: ([u8; 4], u32) = ([10, 0, 0, 2], 6380);

    fn record(connection: u64, local: ([u8; 4], u32), peer: ([u8; 4], u32)) -> record::Connection {
        let mut record = record::Connection { connection, family: 2, ..record::Connection::default() };
        record.local_addr[..4].copy_from_slice(&local.0);
        record.peer_addr[..4].copy_from_slice(&peer.0);
        (record.local_port, record.peer_port) = (local.1, peer.1);
        record
    }

    fn pair(peers: &Peers, client: u64, served: u64) -> (Option<u64>, Option<u64>) {
        (peers.clients[&client].served, peers.served[&served].client)
    }

    #[test]
    fn translated_addresses_meet_by_the_clients_address_whoever_is_first() {
        let (client, served) = (record(1, CLIENT, SERVICE), record(2, SERVER, CLIENT));
        let mut peers = Peers::default();
        peers.open_client(&client, "svc".into());
        peers.open_served(&served);
        assert_eq!(pair(&peers, 1, 2), (Some(2), Some(1)));
        let mut peers = Peers::default();
        peers.open_served(&served);
        peers.open_client(&client, "svc".into());
        assert_eq!(pair(&peers, 1, 2), (Some(2), Some(1)));
        assert_eq!(&*peers.served[&2].party, "svc");
    }

    #[test]
    fn a_connection_with_both_addresses_wins() {
        let mut peers = Peers::default();
        // The same client port, towards another address: allowed, and not this server's connection.
        peers.open_client(&record(1, CLIENT, SERVICE), "other".into());
        peers.open_served(&record(2, SERVER, CLIENT));
        peers.open_client(&record(3, CLIENT, SERVER), "svc".into());
        assert_eq!(pair(&peers, 3, 2), (Some(2), Some(3)));
        assert_eq!(peers.clients[&1].served, None);
    }

    #[test]
    fn loopback_clients_of_different_namespaces_do_not_meet() {
        let near = ([127, 0, 0, 1], 50_000);
        let mut peers = Peers::default();
        peers.open_client(&record::Connection { netns: 7, ..record(1, near, SERVICE) }, "svc".into());
        peers.open_served(&record::Connection { netns: 8, ..record(2, SERVER, near) });
        assert_eq!(pair(&peers, 1, 2), (None, None));
    }

    #[test]
    fn what_has_ended_is_forgotten() {
        let mut peers = Peers::default();
        peers.open_client(&record(1, CLIENT, SERVICE), "svc".into());
        peers.open_served(&record(2, SERVER, CLIENT));
        peers.close(1, 5);
        peers.close(2, 5);
        peers.expire(6);
        let left = (peers.clients.len(), peers.served.len(), peers.client_keys.len(), peers.served_keys.len());
        assert_eq!((left, peers.client_sources.len(), peers.served_sources.len()), ((0, 0, 0, 0), 0, 0));
    }
}
