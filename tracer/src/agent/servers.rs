//! The Redis servers among the targets: those asked for by name, and those that targets are found to talk to.
//!
//! Looking for a server reads /proc of every process, so a thread of its own does it; the answer is acted on between two
//! rounds of draining.

use crate::model::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use tracer_common::map::{Advice, TARGET_SERVER, TARGET_SOCKETS, Target, VERDICT_TRACKED};
use tracer_common::record::{self, FLAG_SERVER, PROTOCOL_RESP};

use super::adopt::Start;
use super::{Agent, AgentError, Known, Sink, chain};
use crate::capture::{Item, addresses};
use crate::target::{Found, Process, Wanted, find_server, process_info};

/// What the programs do for a server.
pub fn server() -> Target {
    Target { flags: TARGET_SOCKETS | TARGET_SERVER, ..Target::default() }
}

/// A peer that was not found on this host is looked for again after this long.
const AGAIN_NS: u64 = 1_000_000_000;
/// Peers that are remembered.
const MAX_PEERS: usize = 4096;

/// Who is looked for: the server's address and the client's network namespace.
type Key = (Option<(IpAddr, u16)>, u32);

/// Who has been looked for, and who does the looking.
#[derive(Debug)]
pub struct KnownServers {
    peers: HashMap<Key, Peer>,
    /// Servers that nobody asked for by name or number: a session does not last for them.
    found: HashSet<u32>,
    /// Connections to peers that have not been confirmed.
    unconfirmed: HashMap<u64, Key>,
    questions: Sender<(Key, Wanted)>,
    answers: Receiver<(Key, Wanted, Found)>,
}

impl KnownServers {
    /// Starts the thread that looks for servers. It ends with this value.
    pub fn start() -> Self {
        let (questions, asked) = channel::<(Key, Wanted)>();
        let (answered, answers) = channel();
        thread::spawn(move || {
            for (key, wanted) in asked {
                if answered.send((key, wanted, find_server(wanted))).is_err() {
                    return;
                }
            }
        });
        Self {
            peers: HashMap::default(),
            found: HashSet::default(),
            unconfirmed: HashMap::default(),
            questions,
            answers,
        }
    }

    /// The correlator has decided what a connection speaks.
    pub fn decided(&mut self, connection: u64, advice: Advice) {
        let Some(key) = self.unconfirmed.remove(&connection) else { return };
        if advice.verdict == VERDICT_TRACKED
            && let Some(peer) = self.peers.get_mut(&key)
        {
            peer.confirmed = true;
            peer.tell();
        }
    }

    /// A connection is gone.
    pub fn forget(&mut self, connection: u64) {
        self.unconfirmed.remove(&connection);
    }

    /// How many of the processes were found, not asked for.
    pub fn attached(&self, processes: &HashMap<u32, Known>) -> usize {
        self.found.iter().filter(|pid| processes.contains_key(pid)).count()
    }
}

#[derive(Debug, Default)]
struct Peer {
    pid: Option<u32>,
    looked_ns: u64,
    /// A question about it is on its way.
    asked: bool,
    /// What is to be said about it, once.
    news: Option<String>,
    told: bool,
    /// The correlator has understood a conversation with it: it does speak Redis.
    confirmed: bool,
}

impl Peer {
    /// Says what is known, once, and not of a peer that may speak something else.
    fn tell(&mut self) {
        if self.confirmed
            && !self.told
            && let Some(news) = self.news.take()
        {
            tracing::info!("{news}");
            self.told = true;
        }
    }
}

impl<S: Sink> Agent<S> {
    /// A connection of a target is followed: its server is looked for.
    pub(super) fn connected(&mut self, record: &record::Connection) {
        let is_client = record.head.flags & FLAG_SERVER == 0 && record.protocol == PROTOCOL_RESP;
        if !self.options.redis_servers || !is_client {
            return;
        }
        let (wanted, place) = match addresses(record) {
            Some((client, server)) => {
                let pid = record.head.pid;
                (Wanted::Tcp { server, client, netns: record.netns, pid }, Some((server.ip(), server.port())))
            }
            None => (Wanted::Unix, None),
        };
        let key = (place, record.netns);
        let known = &mut self.known_servers;
        if known.peers.len() >= MAX_PEERS && !known.peers.contains_key(&key) {
            known.peers.retain(|_, peer| peer.asked);
        }
        let peer = known.peers.entry(key).or_default();
        if !peer.confirmed && known.unconfirmed.len() < MAX_PEERS {
            known.unconfirmed.insert(record.connection, key);
        }
        let is_attached = peer.pid.is_some_and(|pid| self.processes.contains_key(&pid));
        let is_recent = peer.looked_ns != 0 && record.head.end_ns < peer.looked_ns.saturating_add(AGAIN_NS);
        if is_attached || is_recent || peer.asked {
            return;
        }
        (peer.looked_ns, peer.asked) = (record.head.end_ns, true);
        if known.questions.send((key, wanted)).is_err() {
            tracing::debug!("the thread that looks for Redis servers has ended");
        }
    }

    /// Attaches to the servers that were found, and says once what is not so.
    pub(super) fn attach_found_servers(&mut self) {
        while let Ok((key, wanted, found)) = self.known_servers.answers.try_recv() {
            let peer = self.known_servers.peers.entry(key).or_default();
            peer.asked = false;
            if let Wanted::Tcp { server, .. } = wanted {
                peer.news = news(server, &found);
                peer.tell();
            }
            let (Found::Servers(servers) | Found::Translated(servers)) = found else { continue };
            peer.pid = servers.first().map(|process| process.id.pid);
            for process in servers {
                if !self.processes.contains_key(&process.id.pid) {
                    self.known_servers.found.insert(process.id.pid);
                    if let Err(error) = self.adopt_server(&process, Start::Earlier) {
                        tracing::warn!("{}", chain(&error));
                    }
                }
            }
        }
    }

    /// Makes a Redis server a target: what its main thread does is recorded, nothing else.
    pub(super) fn adopt_server(&mut self, process: &Process, start: Start) -> Result<(), AgentError> {
        let info = process_info(process, &self.options.host);
        let pid = process.id.pid;
        let service = info.service.clone();
        self.sink.item(&Item::Process(info));
        self.know(process, start);
        self.programs.set_target(pid, server())?;
        self.suspect(process.id);
        self.announce(pid, &format!("tracing {service} (process {pid}) as a server: who waits for whom"));
        if self.options.selector.matches_executable(process) {
            self.watch_successors(process, server());
        }
        Ok(())
    }
}

/// What it means for the waits at a server that it is not simply a Redis server of this host.
fn news(address: SocketAddr, found: &Found) -> Option<String> {
    match found {
        Found::Servers(_) => None,
        Found::Translated(servers) => {
            let pids: Vec<String> = servers.iter().map(|server| server.id.pid.to_string()).collect();
            Some(format!("the Redis server of {address} is process {}, behind address translation", pids.join(", ")))
        }
        Found::Other(process) => Some(format!(
            "{address} is answered by {} (process {}), which is no Redis server that can be attached to: waits at the \
             server of this address are estimated from its clients' side",
            process.name(),
            process.id.pid
        )),
        Found::Nobody => Some(format!(
            "the Redis server of {address} is not on this host: waits there are estimated from its clients' side"
        )),
    }
}
