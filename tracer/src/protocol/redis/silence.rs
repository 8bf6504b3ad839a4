//! `CLIENT REPLY`: which commands get no reply. Known from the requests alone.

use super::request::{Asks, Request};
use super::table::Effect;

/// Whether the server is silent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mode {
    #[default]
    Off,
    On,
    /// For the next command.
    Once,
}

/// State of one connection, as the requests have it.
#[derive(Debug, Default)]
pub(super) struct Silence {
    mode: Mode,
    /// MULTI was sent: `CLIENT REPLY` is queued, and its effect on the replies of EXEC is not followed.
    multi: bool,
}

impl Silence {
    /// Takes the next request. True when it gets no reply.
    pub(super) fn covers(&mut self, request: &Request) -> bool {
        match request.effect {
            Effect::Multi => self.multi = true,
            Effect::Exec | Effect::Discard => self.multi = false,
            Effect::Reset => *self = Self::default(),
            _ => {}
        }
        let asks = if self.multi { Asks::Reply } else { request.asks };
        let (mode, covered) = match (asks, self.mode) {
            (Asks::ReplyOn, _) => (Mode::Off, false),
            (Asks::ReplyOff, _) | (_, Mode::On) => (Mode::On, true),
            (Asks::ReplySkip, _) => (Mode::Once, true),
            (_, Mode::Once) => (Mode::Off, true),
            (_, Mode::Off) => (Mode::Off, false),
        };
        self.mode = mode;
        covered
    }

    /// Replies were switched off by a command that nobody saw.
    pub(super) fn begin(&mut self) {
        self.mode = Mode::On;
    }

    /// A reply came that no command waited for: the server did not obey.
    pub(super) fn heard(&mut self) {
        if self.mode == Mode::On {
            self.mode = Mode::Off;
        }
    }
}
