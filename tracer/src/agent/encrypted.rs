//! Encrypted connections of targets: each is counted, and said once for each peer of a process.
//!
//! Clients of databases ask for TLS in the clear, so their connections are known for what they are. Of another encrypted
//! connection only its peer is known, and most are no business of ours (a collector, an HTTP API). The port tells which are: those
//! to a port of Redis are a loss, others are merely mentioned, and HTTPS is counted only.

use crate::model::HashMap;
use std::collections::BTreeSet;
use std::net::SocketAddr;

use tracer_common::record::{self, FLAG_ENCRYPTED};

use super::{Agent, Sink};
use crate::capture::addresses;

/// Peers of a process that are said; more are counted.
const MAX_PEERS: usize = 16;
/// Usual ports of Redis: 6380 is the one for TLS.
const REDIS_PORTS: [u16; 2] = [6379, 6380];
const HTTPS_PORT: u16 = 443;
const SEEN_NOT: &str = "its commands are not seen";

/// What has been said, by process number.
#[derive(Debug, Default)]
pub struct Encrypted {
    said: HashMap<u32, BTreeSet<String>>,
    redis: u64,
}

impl Encrypted {
    /// Connections to a port of Redis.
    pub fn redis(&self) -> u64 {
        self.redis
    }

    /// A process is no target any more.
    pub fn forget(&mut self, pid: u32) {
        self.said.remove(&pid);
    }

    /// A connection is encrypted: counts it, and returns what is to be said.
    fn add(&mut self, pid: u32, name: &str, peer: SocketAddr) -> Option<String> {
        let is_redis = REDIS_PORTS.contains(&peer.port());
        self.redis += u64::from(is_redis);
        if peer.port() == HTTPS_PORT {
            return None;
        }
        let what = if is_redis { SEEN_NOT } else { "if it speaks Redis, its commands are not seen" };
        self.say(pid, name, peer.to_string(), what)
    }

    /// What is to be said of an encrypted connection to a peer.
    fn say(&mut self, pid: u32, name: &str, peer: String, what: &str) -> Option<String> {
        let said = self.said.entry(pid).or_default();
        if said.len() > MAX_PEERS || !said.insert(peer.clone()) {
            return None;
        }
        Some(if said.len() > MAX_PEERS {
            format!(
                "process {pid} ({name}) has encrypted connections to more than {MAX_PEERS} peers: others are counted only"
            )
        } else {
            format!("process {pid} ({name}): its connection to {peer} is encrypted (TLS): {what}")
        })
    }
}

impl<S: Sink> Agent<S> {
    /// A connection of a target is followed, perhaps an encrypted one.
    pub(super) fn encrypted(&mut self, open: &record::Connection) {
        if open.head.flags & FLAG_ENCRYPTED == 0 {
            return;
        }
        let Some((_, peer)) = addresses(open) else { return };
        let name = self.program_name(open.head.pid);
        if let Some(news) = self.sockets.encrypted.add(open.head.pid, &name, peer) {
            tracing::warn!("{news}");
        }
    }

    /// A connection to a database turned out to be encrypted when its client asked for it.
    pub(super) fn encrypted_database(&mut self, pid: u32, server: &str) {
        let name = self.program_name(pid);
        if let Some(news) = self.sockets.encrypted.say(pid, &name, server.to_owned(), SEEN_NOT) {
            tracing::warn!("{news}");
        }
    }

    fn program_name(&self, pid: u32) -> String {
        let known = self.processes.get(&pid).and_then(|known| known.executable.file_name());
        known.map_or_else(|| "ended".to_owned(), |name| name.to_string_lossy().into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::{Encrypted, MAX_PEERS};

    #[test]
    fn a_peer_is_said_once_for_each_process() {
        let mut encrypted = Encrypted::default();
        let redis = "10.0.0.1:6379".parse().expect("an address");
        let said = encrypted.add(7, "shop", redis).expect("it is news");
        assert_eq!(
            said,
            "process 7 (shop): its connection to 10.0.0.1:6379 is encrypted (TLS): its commands are not seen"
        );
        assert_eq!(encrypted.add(7, "shop", redis), None);
        assert!(encrypted.add(8, "shop", redis).is_some());
        encrypted.forget(7);
        assert!(encrypted.add(7, "shop", redis).is_some());
        assert_eq!(encrypted.redis(), 4);
    }

    #[test]
    fn what_is_said_is_bounded_and_claims_no_more_than_is_known() {
        let mut encrypted = Encrypted::default();
        let peer = |port: usize| format!("[2001:db8::1]:{port}").parse().expect("an address");
        assert_eq!(encrypted.add(7, "shop", peer(443)), None);
        let first = encrypted.add(7, "shop", peer(7000)).expect("it is news");
        assert!(first.contains("if it speaks Redis"), "{first}");
        let said: Vec<String> = (7000..8000).filter_map(|port| encrypted.add(7, "shop", peer(port))).collect();
        assert_eq!(said.len(), MAX_PEERS, "one line says that there are more");
        assert!(said.last().is_some_and(|last| last.contains("counted only")), "{said:?}");
        assert_eq!(encrypted.redis(), 0);
    }
}
