//! Pairs what a client has sent with what the server answers, in order.
//!
//! Answers carry no name: the oldest step that waits is answered next. One that finds none is kept for a while, because records of
//! calls are written when the calls end: an answer may have been read by one thread before another has left the send call.

use std::collections::VecDeque;

use super::message::Message;
use super::reply::{error, tag};
use super::startup::Settings;
use super::statements::{Preparing, Statements};
use crate::protocol::command::{Command, Failure};
use crate::protocol::diagnostics::Diagnostics;
use crate::protocol::stream::Quality;

/// Most steps that wait for an answer.
const MAX_WAITING: usize = 1 << 14;
/// Most messages that wait for a step.
const MAX_EARLY: usize = 1 << 12;
/// Bytes kept of a message of the server: enough for tags, SQLSTATEs and settings.
pub(super) const KEPT: usize = 128;
/// About how many bytes a statement takes: its text is at most 2 KiB, and mostly much shorter.
const TEXT: usize = 1024;

/// What the server answers.
#[derive(Debug)]
pub(super) enum Answer {
    /// A statement is prepared, which is forgotten if the server refuses it.
    Parse(Option<Preparing>),
    Bind,
    Describe,
    Execute,
    Close,
    /// It is ready for the next query.
    Sync,
    /// Anything, up to when it is ready for the next query.
    Query,
}

/// A message that waits for its answer.
#[derive(Debug)]
pub(super) struct Step<T> {
    pub answer: Answer,
    /// The command that ends with it.
    pub command: Option<Box<Command<T>>>,
    /// It was not sent before this.
    pub earliest_ns: u64,
}

/// A message that waits for its step.
#[derive(Debug)]
struct Early {
    kind: u8,
    len: u64,
    wire: u64,
    head: [u8; KEPT],
    kept: u8,
    end_ns: u64,
}

/// What the answers to a command say, so far.
#[derive(Debug, Default)]
struct Tally {
    bytes: u64,
    rows: Option<u64>,
    affected_rows: Option<u64>,
    error: Option<Failure>,
}

/// Which answer is whose cannot be told any more.
#[derive(Debug)]
pub(super) struct Lost;

/// The steps of one connection.
#[derive(Debug)]
pub(super) struct Steps<T> {
    waiting: VecDeque<Step<T>>,
    early: VecDeque<Early>,
    tally: Tally,
    /// The server takes data (COPY FROM STDIN), and passes over each Sync until it has all.
    copying: bool,
    /// The server gives data (COPY TO STDOUT).
    copied_out: bool,
    /// After an error the server passes over everything up to a Sync, which was not sent yet.
    skipping: bool,
    pub settings: Settings,
    pub statements: Statements,
    /// Commands that were answered.
    pub understood: u64,
    pub diagnostics: Diagnostics,
}

impl<T> Steps<T> {
    pub(super) fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            early: VecDeque::new(),
            tally: Tally::default(),
            copying: false,
            copied_out: false,
            skipping: false,
            settings: Settings::default(),
            statements: Statements::default(),
            understood: 0,
            diagnostics: Diagnostics::default(),
        }
    }

    /// Nothing waits.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn is_copying(&self) -> bool {
        self.copying
    }

    pub(super) fn is_skipping(&self) -> bool {
        self.skipping
    }

    /// Commands that wait.
    pub(super) fn commands(&self) -> usize {
        self.waiting.iter().filter(|step| step.command.is_some()).count()
    }

    /// Before when the oldest step that waits was not sent.
    pub(super) fn due(&self) -> Option<u64> {
        self.waiting.front().map(|step| step.earliest_ns)
    }

    /// About how many bytes it takes beside itself.
    pub(super) fn bytes(&self) -> usize {
        let waiting = self.waiting.capacity() * size_of::<Step<T>>() + self.waiting.len() * size_of::<Command<T>>();
        waiting + self.early.capacity() * size_of::<Early>() + self.statements.len() * TEXT
    }

    /// Takes a step.
    pub(super) fn push(&mut self, step: Step<T>, out: &mut Vec<Command<T>>) -> Result<(), Lost> {
        if self.waiting.len() == MAX_WAITING {
            self.diagnostics.commands_overflow += u64::from(step.command.is_some());
            return Err(Lost);
        }
        if matches!(step.answer, Answer::Sync) {
            self.skipping = false;
        }
        self.waiting.push_back(step);
        while !self.waiting.is_empty()
            && let Some(early) = self.early.pop_front()
        {
            let Early { kind, len, wire, head, kept, end_ns } = early;
            let message = Message { kind, len, wire, head: &head[..usize::from(kept)] };
            self.answer(&message, end_ns, out)?;
        }
        Ok(())
    }

    /// Takes the command back that would end before a Sync: it ends with the answer to that.
    pub(super) fn take_last(&mut self) -> Option<Box<Command<T>>> {
        let mut batch =
            self.waiting.iter_mut().rev().take_while(|step| !matches!(step.answer, Answer::Sync | Answer::Query));
        batch.find_map(|step| step.command.take())
    }

    /// A command ends with the last step that was taken, or has ended already.
    pub(super) fn attach(&mut self, command: Box<Command<T>>, out: &mut Vec<Command<T>>) {
        match self.waiting.back_mut() {
            Some(Step { answer: Answer::Sync | Answer::Query, .. }) | None => self.give(*command, out),
            Some(step) => step.command = Some(command),
        }
    }

    /// A command that the server passes over, because one before it has failed, or that has just failed.
    pub(super) fn skip(&mut self, command: Command<T>, out: &mut Vec<Command<T>>) {
        self.give(command, out);
        self.tally.error = Some(Failure::Skipped);
    }

    /// A request goes on: data of a COPY, or bytes that were not looked at.
    pub(super) fn more_sent(&mut self, len: u64, end_ns: u64) {
        if let Some(command) = self.waiting.iter_mut().find_map(|step| step.command.as_mut()) {
            command.request_bytes = command.request_bytes.saturating_add(len);
            command.sent_ns = command.sent_ns.max(end_ns);
        }
    }

    /// All data of a COPY was sent.
    pub(super) fn copied(&mut self) {
        self.copying = false;
    }

    /// What else the client has sent is not known: the answer goes up to when the server is ready.
    pub(super) fn answer_until_ready(&mut self) {
        self.copying = false;
        if let Some(step) = self.waiting.front_mut() {
            step.answer = Answer::Query;
        }
    }

    /// Takes a message of the server.
    pub(super) fn reply(&mut self, message: &Message<'_>, end_ns: u64, out: &mut Vec<Command<T>>) -> Result<(), Lost> {
        match message.kind {
            b'S' => self.settings.set(message.head),
            // A notice, a notification: of nobody's command.
            b'N' | b'A' => {}
            _ if !self.waiting.is_empty() => return self.answer(message, end_ns, out),
            _ => return self.keep(message, end_ns),
        }
        Ok(())
    }

    fn keep(&mut self, message: &Message<'_>, end_ns: u64) -> Result<(), Lost> {
        if self.early.len() == MAX_EARLY {
            return Err(Lost);
        }
        let kept = message.head.len().min(KEPT);
        let mut head = [0; KEPT];
        head[..kept].copy_from_slice(&message.head[..kept]);
        let Message { kind, len, wire, .. } = *message;
        self.early.push_back(Early { kind, len, wire, head, kept: kept as u8, end_ns });
        Ok(())
    }

    fn answer(&mut self, message: &Message<'_>, end_ns: u64, out: &mut Vec<Command<T>>) -> Result<(), Lost> {
        let Some(front) = self.waiting.front() else { return Ok(()) };
        if end_ns < front.earliest_ns {
            self.diagnostics.replies_unseen += 1;
            return Ok(());
        }
        self.tally.bytes = self.tally.bytes.saturating_add(message.wire);
        match (&front.answer, message.kind) {
            (_, b'E') => self.failed(error(message.head), end_ns, out),
            (Answer::Parse(_), b'1')
            | (Answer::Bind, b'2')
            | (Answer::Close, b'3')
            | (Answer::Describe, b'T' | b'n')
            | (Answer::Execute, b's' | b'I')
            | (Answer::Sync | Answer::Query, b'Z') => self.finish(end_ns, out),
            // Of a statement the parameters come first.
            (Answer::Describe, b't') => {}
            (Answer::Query, b'T') => drop(self.tally.rows.get_or_insert(0)),
            (Answer::Execute | Answer::Query, b'D') => *self.tally.rows.get_or_insert(0) += 1,
            (Answer::Execute, b'C') => {
                self.done(message.head);
                self.finish(end_ns, out);
            }
            (Answer::Query, b'C') => self.done(message.head),
            (Answer::Execute | Answer::Query, b'G') => self.copy_in(),
            (Answer::Execute | Answer::Query, b'H' | b'W') => self.copied_out = true,
            (Answer::Execute | Answer::Query, b'd' | b'c') => {}
            (Answer::Query, b'1' | b'2' | b'3' | b't' | b'n' | b's' | b'I' | b'V') => {}
            _ => {
                self.diagnostics.replies_malformed += 1;
                return Err(Lost);
            }
        }
        Ok(())
    }

    /// One statement of a command is done.
    fn done(&mut self, body: &[u8]) {
        let copied_out = std::mem::take(&mut self.copied_out);
        let Tally { rows, affected_rows, .. } = &mut self.tally;
        match tag(body) {
            (b"INSERT" | b"UPDATE" | b"DELETE" | b"MERGE", Some(count)) => *affected_rows.get_or_insert(0) += count,
            (b"COPY", Some(count)) if copied_out => *rows.get_or_insert(0) += count,
            (b"COPY", Some(count)) => *affected_rows.get_or_insert(0) += count,
            // The rows were counted; there may be none.
            (b"SELECT" | b"FETCH", _) => drop(rows.get_or_insert(0)),
            _ => {}
        }
    }

    /// The server takes data. It passes over what was sent to synchronise with it before.
    fn copy_in(&mut self) {
        self.copying = true;
        while self.waiting.get(1).is_some_and(|step| matches!(step.answer, Answer::Sync)) {
            let command = self.waiting.remove(1).and_then(|step| step.command);
            match self.waiting.front_mut() {
                Some(front) if front.command.is_none() => front.command = command,
                _ => self.diagnostics.commands_unpaired += u64::from(command.is_some()),
            }
        }
    }

    fn failed(&mut self, error: Failure, end_ns: u64, out: &mut Vec<Command<T>>) {
        self.copying = false;
        self.tally.error.get_or_insert(error);
        if matches!(self.waiting.front(), Some(Step { answer: Answer::Sync | Answer::Query, .. })) {
            // The server will say when it is ready.
            return;
        }
        while let Some(step) = self.waiting.front_mut()
            && !matches!(step.answer, Answer::Sync)
        {
            if let Answer::Parse(preparing) = &mut step.answer
                && let Some(preparing) = preparing.take()
            {
                self.statements.refused(preparing);
            }
            let is_command = step.command.is_some();
            self.finish(end_ns, out);
            if is_command {
                self.tally.error = Some(Failure::Skipped);
            }
        }
        self.skipping = self.waiting.is_empty();
    }

    /// The oldest step has its answer.
    fn finish(&mut self, end_ns: u64, out: &mut Vec<Command<T>>) {
        let Some(Step { answer, command, earliest_ns }) = self.waiting.pop_front() else { return };
        if let Some(mut command) = command {
            // Its beginning may not have been seen: it was before the answer.
            command.start_ns = command.start_ns.min(end_ns.max(earliest_ns));
            command.end_ns = end_ns;
            self.give(*command, out);
        }
        if matches!(answer, Answer::Sync | Answer::Query) {
            self.tally = Tally::default();
        }
    }

    fn give(&mut self, mut command: Command<T>, out: &mut Vec<Command<T>>) {
        let Tally { bytes, rows, affected_rows, error } = std::mem::take(&mut self.tally);
        self.understood += 1;
        command.end_ns = command.end_ns.max(command.start_ns);
        (command.response_bytes, command.rows, command.affected_rows, command.error) =
            (bytes, rows, affected_rows, error);
        out.push(command);
    }

    /// The answer to the only command that waits goes on, in messages whose bounds are not known. False if it is not the only one.
    pub(super) fn tear(&mut self, len: u64) -> bool {
        if self.commands() != 1 {
            return false;
        }
        self.tally.bytes = self.tally.bytes.saturating_add(len);
        if let Some(command) = self.waiting.iter_mut().find_map(|step| step.command.as_mut()) {
            command.quality = Quality::Resynced;
        }
        true
    }

    /// The client goes on: what was torn was complete at `end_ns`.
    pub(super) fn finish_torn(&mut self, end_ns: u64, out: &mut Vec<Command<T>>) {
        // How many rows there were is not known.
        self.tally.rows = None;
        while !self.waiting.is_empty() {
            self.finish(end_ns, out);
        }
        self.forget();
    }

    /// The answers to the commands that wait are lost.
    pub(super) fn give_up(&mut self) {
        self.diagnostics.commands_unpaired += self.commands() as u64;
        self.diagnostics.replies_unseen += self.early.len() as u64;
        self.forget();
        // What was lost may have changed them.
        self.settings = Settings::default();
    }

    fn forget(&mut self) {
        self.waiting = VecDeque::new();
        self.early = VecDeque::new();
        self.tally = Tally::default();
        (self.copying, self.copied_out, self.skipping) = (false, false, false);
    }

    /// The connection ended.
    pub(super) fn close(&mut self, now_ns: u64, out: &mut Vec<Command<T>>) {
        for mut command in std::mem::take(&mut self.waiting).into_iter().filter_map(|step| step.command) {
            command.end_ns = now_ns.max(command.sent_ns);
            self.tally.error.get_or_insert(Failure::ConnectionClosed);
            self.give(*command, out);
        }
        self.diagnostics.replies_unseen += self.early.len() as u64;
        self.forget();
    }
}
