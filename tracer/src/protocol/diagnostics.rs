//! What could not be made a span of, by cause, on the connections of a database.

crate::protocol::counters! {
    /// Counters. Every command that was parsed is either given out or in exactly one of the `commands_*` counters.
    Diagnostics {
        /// Connections that went over to TLS.
        connections_encrypted,
        /// Connections that went over to a compressed form.
        connections_compressed,
        /// Connections that speak a variant that is not known, or became a replication stream.
        connections_unsupported,
        /// Times that the position among the requests was lost: a gap in bytes that matter.
        requests_lost,
        /// Times that the position among the replies was lost.
        replies_lost,
        /// Times that requests were not what the protocol allows.
        requests_malformed,
        /// Times that replies were not what the protocol allows.
        replies_malformed,
        /// Commands given up because their replies are among lost bytes.
        commands_unpaired,
        /// Commands passed over after a loss, until it was clear which reply would be whose.
        commands_unaligned,
        /// Commands beyond the most that are kept waiting for a reply.
        commands_overflow,
        /// Commands whose bytes were cut off by a loss or by the end of the connection.
        commands_truncated,
        /// Messages of replies to commands that were not seen.
        replies_unseen,
        /// Prepared statements whose text was not kept because there were too many.
        statements_overflow,
        /// Bytes passed over while the position in the stream was not known.
        bytes_skipped,
        /// Bytes that came a second time or after later ones.
        bytes_stale,
    }
}

impl Diagnostics {
    /// Those that are a loss to who wants to see every command, by name.
    pub fn losses(&self) -> [(&'static str, u64); 7] {
        [
            ("connections_encrypted", self.connections_encrypted),
            ("connections_compressed", self.connections_compressed),
            ("connections_unsupported", self.connections_unsupported),
            ("commands_unpaired", self.commands_unpaired),
            ("commands_unaligned", self.commands_unaligned),
            ("commands_overflow", self.commands_overflow),
            ("commands_truncated", self.commands_truncated),
        ]
    }
}
