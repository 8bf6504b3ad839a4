//! What a tracker could not make a span of, by cause.

/// Counters. Every command that was parsed is either given out or in exactly one of the `commands_*` counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics {
    /// Connections that went over to TLS.
    pub connections_encrypted: u64,
    /// Connections that went over to compressed packets.
    pub connections_compressed: u64,
    /// Connections that speak a protocol of before MySQL 4.1, or became a replication stream.
    pub connections_unsupported: u64,
    /// Times that the position among the requests was lost: a gap in bytes that matter.
    pub requests_lost: u64,
    /// Times that the position among the replies was lost.
    pub replies_lost: u64,
    /// Times that requests were not what the protocol allows.
    pub requests_malformed: u64,
    /// Times that replies were not what the protocol allows.
    pub replies_malformed: u64,
    /// Commands given up because their replies are among lost bytes.
    pub commands_unpaired: u64,
    /// Commands passed over after a loss, until it was clear which reply would be whose.
    pub commands_unaligned: u64,
    /// Commands beyond the most that are kept waiting for a reply.
    pub commands_overflow: u64,
    /// Commands whose bytes were cut off by a loss or by the end of the connection.
    pub commands_truncated: u64,
    /// Reply packets to commands that were not seen.
    pub replies_unseen: u64,
    /// Prepared statements whose text was not kept because there were too many.
    pub statements_overflow: u64,
    /// Bytes passed over while the position in the stream was not known.
    pub bytes_skipped: u64,
    /// Bytes that came a second time or after later ones.
    pub bytes_stale: u64,
}

impl Diagnostics {
    /// Adds the counters of another connection.
    pub fn add(&mut self, other: &Self) {
        let Self {
            connections_encrypted,
            connections_compressed,
            connections_unsupported,
            requests_lost,
            replies_lost,
            requests_malformed,
            replies_malformed,
            commands_unpaired,
            commands_unaligned,
            commands_overflow,
            commands_truncated,
            replies_unseen,
            statements_overflow,
            bytes_skipped,
            bytes_stale,
        } = other;
        self.connections_encrypted += connections_encrypted;
        self.connections_compressed += connections_compressed;
        self.connections_unsupported += connections_unsupported;
        self.requests_lost += requests_lost;
        self.replies_lost += replies_lost;
        self.requests_malformed += requests_malformed;
        self.replies_malformed += replies_malformed;
        self.commands_unpaired += commands_unpaired;
        self.commands_unaligned += commands_unaligned;
        self.commands_overflow += commands_overflow;
        self.commands_truncated += commands_truncated;
        self.replies_unseen += replies_unseen;
        self.statements_overflow += statements_overflow;
        self.bytes_skipped += bytes_skipped;
        self.bytes_stale += bytes_stale;
    }
}
