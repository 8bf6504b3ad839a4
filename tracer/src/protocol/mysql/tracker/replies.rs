//! What the server sends.

use std::sync::Arc;

use super::super::classify::begins_reply;
use super::super::dialect::Dialect;
use super::super::handshake::{Greeting, Login, greeting, login};
use super::super::packet::{Packet, Packets};
use super::super::session::{KEPT, Lost, Received};
use super::{Phase, Tracker};
use crate::protocol::command::Command;
use crate::protocol::stream::{Chunk, Piece};

impl<T: Clone> Tracker<T> {
    pub(super) fn feed_replies(&mut self, chunk: &Chunk<'_>, piece: Piece<'_>, out: &mut Vec<Command<T>>) {
        if self.torn_reply {
            self.session.tear_reply(piece.missing + piece.data.len() as u64 + piece.rest);
            return;
        }
        self.pass_reply_bytes(piece.missing, chunk, out);
        if self.torn_reply {
            self.session.tear_reply(piece.data.len() as u64 + piece.rest);
            return;
        }
        if !self.received.synced {
            let joined = piece.missing == 0 && piece.stale == 0;
            let due = self.session.due().filter(|(earliest_ns, _)| self.aligned && *earliest_ns <= chunk.end_ns);
            self.received.synced =
                joined && due.is_some_and(|(_, seq)| seq.is_some_and(|seq| begins_reply(piece.data, seq)));
        }
        if self.received.synced {
            self.parse_replies(piece.data, chunk, out);
        } else {
            self.pass_over(piece.data.len() as u64);
            // These may have been the replies of the commands that wait.
            self.unalign();
        }
        self.pass_reply_bytes(piece.rest, chunk, out);
        self.received.announce(self.replies.body_left());
    }

    /// `len` bytes of replies were not captured.
    fn pass_reply_bytes(&mut self, len: u64, chunk: &Chunk<'_>, out: &mut Vec<Command<T>>) {
        if len == 0 {
        } else if !self.received.synced {
            self.pass_over(len);
        } else if self.replies.gap(len) {
            self.parse_replies(&[], chunk, out);
        } else if self.phase == Phase::Commands && self.session.tear_reply(len) {
            // In rows: the end of the reply is when the client goes on.
            self.session.tear_reply(self.replies.abandon());
            self.torn_reply = true;
            self.received.synced = false;
        } else {
            self.session.diagnostics.replies_lost += 1;
            self.pass_over(len);
            self.lose();
        }
    }

    fn parse_replies(&mut self, data: &[u8], chunk: &Chunk<'_>, out: &mut Vec<Command<T>>) {
        let mut data = data;
        let mut replies = std::mem::replace(&mut self.replies, Packets::new(0));
        let result = loop {
            match replies.next(&mut data) {
                Ok(Some(packet)) => {
                    self.last_received = packet.last_seq;
                    let taken = self.received_packet(&packet, chunk, out);
                    if taken.is_err() || self.phase == Phase::Over {
                        break taken;
                    }
                }
                Ok(None) => break Ok(()),
                Err(_) => {
                    self.session.diagnostics.replies_malformed += 1;
                    break Err(Lost);
                }
            }
            if self.phase != Phase::Greeting {
                replies.keep_less(KEPT);
            }
        };
        if result.is_ok() && data.is_empty() && replies.is_between() {
            self.session.pause(self.last_received, chunk.end_ns, out);
        }
        self.replies = replies;
        if result.is_err() {
            self.pass_over(data.len() as u64);
            self.lose();
        }
    }

    fn received_packet(
        &mut self,
        packet: &Packet<'_>,
        chunk: &Chunk<'_>,
        out: &mut Vec<Command<T>>,
    ) -> Result<(), Lost> {
        let received = Received { packet: *packet, end_ns: chunk.end_ns };
        match self.phase {
            Phase::Greeting => match greeting(packet) {
                Some(greeting) => {
                    self.mariadb = greeting.mariadb;
                    let Greeting { capabilities, ascii_safe, .. } = greeting;
                    self.phase = Phase::Login { capabilities, ascii_safe };
                }
                // `Too many connections`: the client will go away.
                None if packet.head.first() == Some(&0xff) => self.phase = Phase::Over,
                None => self.end(|diagnostics| diagnostics.connections_unsupported += 1),
            },
            Phase::Login { .. } => return self.session.keep(&received),
            Phase::Authentication => self.authenticate(packet.head.first().copied().unwrap_or(0xfe)),
            Phase::Commands => return self.session.reply(&received, out),
            Phase::Over => {}
        }
        Ok(())
    }

    pub(super) fn log_in(&mut self, packet: &Packet<'_>, server: u64, server_is_ascii_safe: bool) {
        match login(packet, server) {
            Login::Encrypted => self.end(|diagnostics| diagnostics.connections_encrypted += 1),
            Login::Compressed => self.end(|diagnostics| diagnostics.connections_compressed += 1),
            Login::Unsupported => self.end(|diagnostics| diagnostics.connections_unsupported += 1),
            Login::Plain { capabilities, database, ascii_safe } => {
                // The server's own comes back when the session is reset.
                self.session.ascii_safe = ascii_safe && server_is_ascii_safe;
                self.session.dialect = Dialect::new(capabilities);
                self.session.database = database.map(Arc::from);
                self.phase = Phase::Authentication;
            }
        }
    }

    /// What the server said before the record of the client's answer was there.
    pub(super) fn authenticate_early(&mut self) {
        while self.phase == Phase::Authentication
            && let Some(first) = self.session.pop_early()
        {
            self.authenticate(first);
        }
    }

    /// First byte of a packet in the authentication: accepted, or refused, or more is asked for.
    fn authenticate(&mut self, first: u8) {
        match first {
            0x00 => self.phase = Phase::Commands,
            0xff => self.phase = Phase::Over,
            _ => {}
        }
    }
}
