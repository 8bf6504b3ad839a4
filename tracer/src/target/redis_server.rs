//! Redis servers of this host: which processes are some, and which of them serves a given connection.
//!
//! Only processes with the name of a server that executes commands on one thread are considered: others that speak the
//! protocol (proxies, multi-threaded stores) would be misunderstood.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;

use procfs::net::{TcpNetEntry, TcpState, UnixState};
use procfs::process::FDTarget;

use super::Process;

/// Names of the commands.
const NAMES: [&str; 2] = ["redis-server", "valkey-server"];

/// One end of a connection that a client has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// TCP: the server's address and the client's.
    Tcp {
        /// The server's.
        server: SocketAddr,
        /// The client's.
        client: SocketAddr,
        /// Network namespace of the client.
        netns: u32,
        /// A process of the client, in which its network namespace can be looked at.
        pid: u32,
    },
    /// A Unix socket, wherever it is bound.
    Unix,
}

/// Who has the other end of a connection.
#[derive(Debug)]
pub enum Found {
    /// Redis servers at the address that the client uses.
    Servers(Vec<Process>),
    /// Redis servers that know themselves by another address: it is translated on the way (DNAT).
    Translated(Vec<Process>),
    /// Another program of this host that listens at the address: a proxy, or a store that is not single-threaded.
    Other(Process),
    /// Nobody on this host.
    Nobody,
}

/// Whether an executable of this name is a server.
pub fn is_redis_server_name(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Whether the process is a server by its name. Its children, which write files, are none.
pub fn is_redis_server(process: &Process) -> bool {
    // The program can be a link to one of another name (Debian: redis-check-rdb), so the command's name counts too.
    let named = NAMES.iter().any(|name| process.comm == *name) || is_redis_server_name(&process.name());
    let title = process.arguments.first().map_or("", String::as_str);
    named && !["redis-rdb", "redis-aof", "valkey-rdb", "valkey-aof"].iter().any(|child| title.starts_with(child))
}

/// Looks for the other end of a connection among the processes of this host, in whatever network namespace they are. Sockets
/// of a server whose descriptors cannot be read are taken to be its own.
pub fn find_server(wanted: Wanted) -> Found {
    let (servers, others): (Vec<Process>, Vec<Process>) = Process::all().into_iter().partition(is_redis_server);
    let (found, rest): (Vec<Process>, Vec<Process>) =
        servers.into_iter().partition(|server| has_socket(server, wanted, Address::AsWanted));
    if !found.is_empty() {
        return Found::Servers(found);
    }
    if wanted == Wanted::Unix {
        return Found::Nobody;
    }
    let translated: Vec<Process> =
        rest.into_iter().filter(|server| has_socket(server, wanted, Address::Translated)).collect();
    if !translated.is_empty() {
        return Found::Translated(translated);
    }
    let listening = listeners(wanted);
    let other = others.into_iter().find(|process| !listening.is_empty() && owns(process, &listening) == Some(true));
    other.map_or(Found::Nobody, Found::Other)
}

/// The sockets that listen at the server's address in the client's network namespace. It is looked at once, not through each
/// process: a host can have thousands of them.
fn listeners(wanted: Wanted) -> HashSet<u64> {
    let Wanted::Tcp { server, pid, .. } = wanted else { return HashSet::new() };
    let Ok(client) = procfs::process::Process::new(pid.cast_signed()) else { return HashSet::new() };
    let mut entries = client.tcp().unwrap_or_default();
    entries.extend(client.tcp6().unwrap_or_default());
    entries.into_iter().filter(|entry| listens(entry, server)).map(|entry| entry.inode).collect()
}

/// Whether it is the socket that accepts connections to this address.
fn listens(entry: &TcpNetEntry, server: SocketAddr) -> bool {
    let at = entry.local_address;
    let here = at.ip().is_unspecified() || at.ip().to_canonical() == server.ip().to_canonical();
    entry.state == TcpState::Listen && at.port() == server.port() && here
}

/// Whether a process has one of these sockets; none if it may not be looked at.
fn owns(process: &Process, sockets: &HashSet<u64>) -> Option<bool> {
    let descriptors = procfs::process::Process::new(process.id.pid.cast_signed()).ok()?.fd().ok()?;
    let mut targets = descriptors.filter_map(Result::ok).map(|descriptor| descriptor.target);
    Some(targets.any(|target| matches!(target, FDTarget::Socket(inode) if sockets.contains(&inode))))
}

/// By which address the server has to know itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Address {
    /// The one that the client has connected to.
    AsWanted,
    /// Any: only the client's address is the same on both sides.
    Translated,
}

fn has_socket(server: &Process, wanted: Wanted, address: Address) -> bool {
    let Ok(process) = procfs::process::Process::new(server.id.pid.cast_signed()) else { return false };
    let inodes: HashSet<u64> = match wanted {
        Wanted::Tcp { server: wanted, client, netns, .. } => {
            let mut entries = process.tcp().unwrap_or_default();
            entries.extend(process.tcp6().unwrap_or_default());
            // The connection may be over already: who listens at its address, as the client sees it?
            let number = std::fs::metadata(format!("/proc/{}/ns/net", server.id.pid)).map(|file| file.ino());
            let is_near = number.is_ok_and(|number| number == u64::from(netns));
            let serves = |entry: &TcpNetEntry| {
                let from_client = entry.state == TcpState::Established && same(entry.remote_address, client);
                match address {
                    Address::AsWanted => {
                        (from_client && same(entry.local_address, wanted)) || (is_near && listens(entry, wanted))
                    }
                    // A loop-back address means another host in each namespace.
                    Address::Translated => from_client && (is_near || !client.ip().is_loopback()),
                }
            };
            entries.into_iter().filter(serves).map(|entry| entry.inode).collect()
        }
        Wanted::Unix => process
            .unix()
            .unwrap_or_default()
            .into_iter()
            .filter(|entry| entry.state == UnixState::UNCONNECTED && entry.path.is_some())
            .map(|entry| entry.inode)
            .collect(),
    };
    !inodes.is_empty() && owns(server, &inodes).unwrap_or(true)
}

/// IPv4 addresses may be written as IPv6.
fn same(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port() && one.ip().to_canonical() == other.ip().to_canonical()
}
