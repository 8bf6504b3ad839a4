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
    },
    /// A Unix socket, wherever it is bound.
    Unix,
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

/// The servers of this host that have the connection, in whatever network namespace they are. Sockets of a server whose
/// descriptors cannot be read are taken to be its own.
pub fn serving(wanted: Wanted) -> Vec<Process> {
    let mut servers: Vec<Process> = Process::all().into_iter().filter(is_redis_server).collect();
    servers.retain(|server| has(server, wanted));
    servers
}

fn has(server: &Process, wanted: Wanted) -> bool {
    let Ok(process) = procfs::process::Process::new(server.id.pid.cast_signed()) else { return false };
    let inodes: HashSet<u64> = match wanted {
        Wanted::Tcp { server: wanted, client, netns } => {
            let mut entries = process.tcp().unwrap_or_default();
            entries.extend(process.tcp6().unwrap_or_default());
            // The connection may be over already: who listens at its address, as the client sees it?
            let number = std::fs::metadata(format!("/proc/{}/ns/net", server.id.pid)).map(|file| file.ino());
            let listens = |entry: &TcpNetEntry| {
                let at = entry.local_address;
                let here = at.ip().is_unspecified() || at.ip().to_canonical() == wanted.ip().to_canonical();
                entry.state == TcpState::Listen && at.port() == wanted.port() && here
            };
            let is_near = number.is_ok_and(|number| number == u64::from(netns));
            let serves = |entry: &TcpNetEntry| {
                let is_it = same(entry.local_address, wanted) && same(entry.remote_address, client);
                (entry.state == TcpState::Established && is_it) || (is_near && listens(entry))
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
    if inodes.is_empty() {
        return false;
    }
    let Ok(descriptors) = process.fd() else { return true };
    descriptors
        .filter_map(Result::ok)
        .any(|descriptor| matches!(descriptor.target, FDTarget::Socket(inode) if inodes.contains(&inode)))
}

/// IPv4 addresses may be written as IPv6.
fn same(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port() && one.ip().to_canonical() == other.ip().to_canonical()
}
