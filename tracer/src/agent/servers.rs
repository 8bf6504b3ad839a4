//! The Redis servers among the targets: those asked for by name, and those that targets are found to talk to.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use tracer_common::map::{TARGET_SERVER, TARGET_SOCKETS, Target};
use tracer_common::record::{self, FLAG_SERVER};

use super::{Agent, AgentError, Sink, chain};
use crate::capture::{Item, addresses};
use crate::target::{Process, Wanted, process_info, serving};
use crate::trace::span::ProcessId;

/// What the programs do for a server.
pub fn server() -> Target {
    Target { flags: TARGET_SOCKETS | TARGET_SERVER, ..Target::default() }
}

/// A peer that was not found on this host is looked for again after this long.
const AGAIN_NS: u64 = 1_000_000_000;
/// Peers that are remembered.
const MAX_PEERS: usize = 4096;

/// Who has been looked for: the server's address and the client's network namespace.
#[derive(Debug, Default)]
pub struct KnownServers {
    peers: HashMap<(Option<(IpAddr, u16)>, u32), Peer>,
    /// Servers that nobody asked for by name or number: a session does not last for them.
    found: HashSet<u32>,
}

impl KnownServers {
    /// How many of the processes were found, not asked for.
    pub fn attached(&self, processes: &HashMap<u32, ProcessId>) -> usize {
        self.found.iter().filter(|pid| processes.contains_key(pid)).count()
    }
}

#[derive(Clone, Copy, Debug)]
struct Peer {
    pid: Option<u32>,
    looked_ns: u64,
}

impl<S: Sink> Agent<S> {
    /// A connection of a target is followed: its server is attached to, if it is on this host.
    pub(super) fn connected(&mut self, record: &record::Connection) {
        if !self.options.redis_servers || record.head.flags & FLAG_SERVER != 0 {
            return;
        }
        let wanted = match addresses(record) {
            Some((local, peer)) => Wanted::Tcp { server: peer, client: local, netns: record.netns },
            None => Wanted::Unix,
        };
        let place = match wanted {
            Wanted::Tcp { server, .. } => Some((server.ip(), server.port())),
            Wanted::Unix => None,
        };
        let key = (place, record.netns);
        if let Some(peer) = self.known_servers.peers.get(&key)
            && (peer.pid.is_some_and(|pid| self.processes.contains_key(&pid))
                || record.head.end_ns < peer.looked_ns.saturating_add(AGAIN_NS))
        {
            return;
        }
        if self.known_servers.peers.len() >= MAX_PEERS {
            self.known_servers.peers.clear();
        }
        let found = serving(wanted);
        let pid = found.first().map(|process| process.id.pid);
        self.known_servers.peers.insert(key, Peer { pid, looked_ns: record.head.end_ns });
        for process in found {
            if !self.processes.contains_key(&process.id.pid) {
                self.known_servers.found.insert(process.id.pid);
                if let Err(error) = self.adopt_server(&process) {
                    tracing::warn!("{}", chain(&error));
                }
            }
        }
        if pid.is_none()
            && let Some((_, server)) = addresses(record)
        {
            tracing::debug!("no Redis server of this host has the connection to {server}: waits are estimated");
        }
    }

    /// Makes a Redis server a target: what its main thread does is recorded, nothing else.
    pub(super) fn adopt_server(&mut self, process: &Process) -> Result<(), AgentError> {
        let info = process_info(process, &self.options.host);
        let pid = process.id.pid;
        let service = info.service.clone();
        self.sink.item(&Item::Process(info));
        self.processes.insert(pid, process.id);
        self.programs.set_target(pid, server())?;
        tracing::info!("tracing {service} (process {pid}) as a server: who waits for whom");
        if self.options.selector.matches_successors(process)
            && let Some(executable) = process.executable()
        {
            self.attachments.watch(&executable, Some(pid), server(), &mut self.programs)?;
        }
        Ok(())
    }
}
