//! What a tracker could not make a span of, by cause.

crate::protocol::counters! {
    /// Counters. Every command that was parsed is either given out or in exactly one of the `commands_*` counters.
    Diagnostics {
        /// Times that the position among the requests was lost: a gap in framing bytes.
        requests_lost,
        /// Times that the position among the replies was lost: a gap in framing bytes.
        replies_lost,
        /// Times that requests were not RESP.
        requests_malformed,
        /// Times that replies were not RESP.
        replies_malformed,
        /// Commands given up because their replies are among lost bytes.
        commands_unpaired,
        /// Commands passed over after a loss, until it was clear which reply would be whose.
        commands_unaligned,
        /// Commands beyond the most that are kept waiting for a reply.
        commands_overflow,
        /// Commands whose bytes were cut off by a loss or by the end of the connection.
        commands_truncated,
        /// Replies to commands that were not seen.
        replies_unseen,
        /// Replies beyond the most that are kept waiting for a command.
        replies_overflow,
        /// Messages that answer nothing: pub/sub, invalidations, MONITOR lines.
        push_messages,
        /// Bytes passed over while the position in the stream was not known.
        bytes_skipped,
        /// Bytes that came a second time or after later ones.
        bytes_stale,
    }
}
