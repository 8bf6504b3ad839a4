//! Records of the eBPF programs, read from bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytemuck::{AnyBitPattern, pod_read_unaligned};
use tracer_common::record::{self, Connection, GrpcCall, Head, Lifecycle, Message, Short, Socket, TaskSpawn};

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// A record that is not as long as it says, or of an unknown kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed record")]
pub struct Malformed;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A prost call, with what was kept of its bytes.
    Message(Message, &'a [u8]),
    /// Bytes that passed a socket, or the failure of a call.
    Socket(Socket, &'a [u8]),
    /// A connection is followed from now on.
    Open(Connection),
    /// A connection is gone.
    Close(Connection),
    /// A process runs another program.
    Exec(Lifecycle),
    /// A process ended.
    Exit(Lifecycle),
    /// A target forked.
    Fork(Lifecycle),
    /// A target has made an io_uring.
    Uring(Lifecycle),
    /// A target has loaded libraries.
    Loaded(Lifecycle),
    /// A task makes a gRPC call.
    GrpcCall(GrpcCall),
    /// A task is spawned.
    TaskSpawn(TaskSpawn),
    /// A span of the shim.
    Shim(Short, &'a [u8]),
    /// What the main thread of a server did: whole [`record::Step`]s.
    Steps(Head, &'a [u8]),
}

impl<'a> Event<'a> {
    /// Reads one record. Bytes behind its payload are ignored: the ring buffer hands out fixed sizes.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (short, rest) = fixed::<Short>(bytes)?;
        match short.kind {
            record::KIND_SHIM => {
                return Ok(Self::Shim(short, rest.get(..short.payload_len as usize).ok_or(Malformed)?));
            }
            record::KIND_EXEC => return Ok(Self::Exec(fixed(bytes)?.0)),
            record::KIND_EXIT => return Ok(Self::Exit(fixed(bytes)?.0)),
            record::KIND_FORK => return Ok(Self::Fork(fixed(bytes)?.0)),
            record::KIND_URING => return Ok(Self::Uring(fixed(bytes)?.0)),
            record::KIND_LOADED => return Ok(Self::Loaded(fixed(bytes)?.0)),
            _ => {}
        }
        let head: Head = fixed(bytes)?.0;
        Ok(match head.kind {
            record::KIND_MESSAGE => {
                let (message, rest) = fixed::<Message>(bytes)?;
                Self::Message(message, payload(head, rest)?)
            }
            record::KIND_SOCKET => {
                let (socket, rest) = fixed::<Socket>(bytes)?;
                Self::Socket(socket, payload(head, rest)?)
            }
            record::KIND_GRPC_CALL => Self::GrpcCall(fixed(bytes)?.0),
            record::KIND_TASK_SPAWN => Self::TaskSpawn(fixed(bytes)?.0),
            record::KIND_OPEN => Self::Open(fixed(bytes)?.0),
            record::KIND_CLOSE => Self::Close(fixed(bytes)?.0),
            record::KIND_STEPS if (head.payload_len as usize).is_multiple_of(size_of::<record::Step>()) => {
                Self::Steps(head, payload(head, fixed::<Head>(bytes)?.1)?)
            }
            _ => return Err(Malformed),
        })
    }
}

/// The steps of a record.
pub fn steps(bytes: &[u8]) -> impl Iterator<Item = record::Step> {
    bytes.chunks_exact(size_of::<record::Step>()).map(pod_read_unaligned)
}

/// Local and peer address of a TCP connection; IPv4 in IPv6 is IPv4.
pub fn addresses(record: &Connection) -> Option<(SocketAddr, SocketAddr)> {
    let address = |bytes: [u8; 16], port: u32| {
        let ip = match record.family {
            AF_INET => {
                let [a, b, c, d, ..] = bytes;
                IpAddr::V4(Ipv4Addr::new(a, b, c, d))
            }
            AF_INET6 => Ipv6Addr::from(bytes).to_canonical(),
            _ => return None,
        };
        Some(SocketAddr::new(ip, u16::try_from(port).ok()?))
    };
    Some((address(record.local_addr, record.local_port)?, address(record.peer_addr, record.peer_port)?))
}

fn fixed<T: AnyBitPattern>(bytes: &[u8]) -> Result<(T, &[u8]), Malformed> {
    let (fixed, rest) = bytes.split_at_checked(size_of::<T>()).ok_or(Malformed)?;
    Ok((pod_read_unaligned(fixed), rest))
}

fn payload(head: Head, rest: &[u8]) -> Result<&[u8], Malformed> {
    rest.get(..head.payload_len as usize).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use super::{Event, Malformed};
    use tracer_common::record::{Head, KIND_MESSAGE, Message};

    #[test]
    fn reads_a_message_and_ignores_what_follows() {
        let head = Head { kind: KIND_MESSAGE, payload_len: 3, ..Head::default() };
        let message = Message { head, size: 3, prefix_len: 3, ..Message::default() };
        let mut bytes = bytemuck::bytes_of(&message).to_vec();
        bytes.extend(b"abcdefgh");
        assert_eq!(Event::read(&bytes), Ok(Event::Message(message, b"abc")));
    }

    #[test]
    fn a_short_record_is_malformed() {
        let head = Head { kind: KIND_MESSAGE, payload_len: 9, ..Head::default() };
        let message = Message { head, ..Message::default() };
        let bytes = bytemuck::bytes_of(&message);
        for len in 0..=bytes.len() {
            assert_eq!(Event::read(&bytes[..len]), Err(Malformed));
        }
    }
}
