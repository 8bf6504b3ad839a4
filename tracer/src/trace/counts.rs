//! What became of the records: each has one fate.

use crate::protocol::conversation::Protocol;
use crate::protocol::diagnostics::Diagnostics;
use crate::protocol::{PROTOCOLS, redis};

/// Counters of the correlator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records received, of every kind.
    pub records: u64,
    /// Records that were not understood.
    pub records_malformed: u64,
    /// Records of the programs about processes that start, fork or end.
    pub lifecycle: u64,
    /// Records of connections that are followed, or no longer.
    pub connections: u64,
    /// Message records received: each is one span, or in one of the next two.
    pub messages: u64,
    /// Messages of processes or probes that the agent knows nothing of.
    pub messages_unknown: u64,
    /// Message spans made.
    pub messages_traced: u64,
    /// Message records that were the packing of Redis commands, which makes no span.
    pub packs: u64,
    /// Packed commands that were never seen to be sent.
    pub packs_unsent: u64,
    /// Packed commands that were forgotten because there were too many.
    pub packs_dropped: u64,
    /// Decoded messages whose parent is known by the payload alone.
    pub payload_parents: u64,
    /// Decoded messages without a header of which equal ones were sent: they have a link instead of a parent.
    pub payload_ambiguous: u64,
    /// Decoded messages that are an answer to their own flow, known by the payload.
    pub payload_answers: u64,
    /// Records of tasks that make a gRPC call.
    pub grpc_calls: u64,
    /// Of these, the ones whose request was not found: whose the encode is, is told by other means or not at all.
    pub grpc_bodies_unknown: u64,
    /// Calls forgotten early because there were too many.
    pub grpc_calls_evicted: u64,
    /// Encoded requests whose parent is known because it was seen which task made the call.
    pub grpc_parents: u64,
    /// Decoded messages that are answers to calls of their own flow.
    pub grpc_answers: u64,
    /// Records of tasks that are spawned.
    pub task_spawns: u64,
    /// Of these, the ones whose id was not found.
    pub task_spawns_unknown: u64,
    /// Of these, the ones that were spawned in a flow, and go on in it.
    pub tasks_in_flows: u64,
    /// Encoded messages outside of any flow whose parent is known by what is in them.
    pub content_parents: u64,
    /// The same where what is in them belongs to several messages: they begin a trace.
    pub content_ambiguous: u64,
    /// Commands of workers whose parent is known by the encode that followed.
    pub lead_parents: u64,
    /// Parts of decoded messages forgotten early because there were too many to remember.
    pub contents_evicted: u64,
    /// Encoded messages forgotten early because there were too many to remember.
    pub payloads_evicted: u64,
    /// Messages that are still in an open flow; 0 at the end.
    pub messages_open: u64,
    /// Socket records received.
    pub sockets: u64,
    /// Socket records of unknown processes.
    pub sockets_unknown: u64,
    /// Socket records of connections that turned out to be something else.
    pub sockets_ignored: u64,
    /// Connections that turned out to be something else.
    pub connections_rejected: u64,
    /// Connections of which the programs' announcement did not arrive. They are followed all the same, and announced again.
    pub connections_unannounced: u64,
    /// Redis commands traced.
    pub commands: u64,
    /// Commands that waited for their reply when the agent ended.
    pub commands_open: u64,
    /// Commands whose time was taken apart with what their server did.
    pub commands_served: u64,
    /// Commands whose time was taken apart from the clients' side alone.
    pub commands_estimated: u64,
    /// Commands of an attached server whose side of them was not found.
    pub commands_unmatched: u64,
    /// Commands that have nothing to be taken apart: not answered, or parked at a server that is not attached to.
    pub commands_whole: u64,
    /// Commands that are still held; 0 at the end.
    pub served_open: u64,
    /// Steps of servers received.
    pub server_steps: u64,
    /// Pieces of servers' time lines that were given up because there were too many, or the memory budget was used up.
    pub timeline_evicted: u64,
    /// Records of shims received: each is one span, or in one of the next two.
    pub shim: u64,
    /// Shim records of unknown processes.
    pub shim_unknown: u64,
    /// Shim records that were not understood.
    pub shim_malformed: u64,
    /// Shim spans made.
    pub shim_traced: u64,
    /// Spans made: exported or handed to the exporters' queues, or sampled out.
    pub spans: u64,
    /// Spans that the sampler, here or in the caller, decided against.
    pub sampled_out: u64,
    /// Flows ended early because there were too many.
    pub flows_evicted: u64,
    /// Connections of which all but the connection itself was given up, because the memory budget was used up.
    pub connections_evicted: u64,
    /// Commands that waited for their worker's encode and did so no longer, for the same reason.
    pub leads_evicted: u64,
    /// Commands that were no longer held for what their server did, for the same reason.
    pub held_evicted: u64,
    /// Ends of encodes forgotten early, for the same reason.
    pub encodes_evicted: u64,
    /// Commands of others that estimates could no longer be made with, for the same reason.
    pub estimates_evicted: u64,
    /// Everything that was given up for this reason.
    pub state_evicted: u64,
    /// What the Redis trackers could not make spans of.
    pub redis: redis::Diagnostics,
    /// Of each protocol of databases, in the order of their table.
    pub databases: [Database; PROTOCOLS],
}

/// What became of the commands of a protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Database {
    /// Commands traced.
    pub commands: u64,
    /// What could not be made spans of.
    pub diagnostics: Diagnostics,
}

impl Counts {
    /// Of each protocol of databases, with its name.
    pub fn databases(&self) -> impl Iterator<Item = (&'static str, &Database)> {
        Protocol::<()>::ALL.iter().map(|protocol| protocol.name).zip(&self.databases)
    }
}
