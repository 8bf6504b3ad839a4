//! Makes commands of the messages of a client.

use std::sync::Arc;

use super::message::{Fields, Message};
use super::steps::{Answer, Lost, Step, Steps};
use crate::protocol::command::Command;
use crate::protocol::conversation::Begun;
use crate::protocol::sql::{Dialect, Reading, Shown, Statement};

/// Names of what leads to an Execute, the least telling one first. Whoever sends no Execute has sent a command of the last one.
const PARTS: [&str; 4] = [CLOSE, "DESCRIBE", "BIND", "PARSE"];
const CLOSE: &str = "CLOSE";

/// Messages of the extended protocol that will be a command.
#[derive(Debug)]
struct Unit<T> {
    begun: Begun<T>,
    name: &'static str,
    statement: Option<Arc<Statement>>,
    bytes: u64,
}

/// One connection, once it takes commands.
#[derive(Debug)]
pub(super) struct Session<T> {
    shown: Shown,
    pub steps: Steps<T>,
    unit: Option<Unit<T>>,
    pub database: Option<Arc<str>>,
}

impl<T: Clone> Session<T> {
    pub(super) fn new(shown: Shown) -> Self {
        Self { shown, steps: Steps::new(), unit: None, database: None }
    }

    /// Takes a message, which was sent by `sent_ns`.
    pub(super) fn request(
        &mut self,
        message: &Message<'_>,
        begun: Begun<T>,
        sent_ns: u64,
        out: &mut Vec<Command<T>>,
    ) -> Result<(), Lost> {
        match message.kind {
            b'd' => self.steps.more_sent(message.wire, sent_ns),
            b'c' | b'f' => {
                self.steps.more_sent(message.wire, sent_ns);
                self.steps.copied();
            }
            b'H' => self.flush(sent_ns, out),
            b'S' => return self.sync(message, begun, sent_ns, out),
            b'Q' | b'F' => return self.query(message, begun, sent_ns, out),
            b'P' | b'B' | b'D' | b'C' | b'E' => return self.extended(message, begun, sent_ns, out),
            // The end, or an answer to a challenge.
            _ => {}
        }
        Ok(())
    }

    /// How the next text is to be read. What waits may change it.
    fn reading(&self) -> Reading {
        let settings = self.steps.settings;
        let idle = self.steps.is_idle();
        Reading {
            dialect: Dialect::Postgres,
            backslash: settings.backslash.filter(|_| idle),
            ascii_safe: settings.ascii_safe && idle,
        }
    }

    /// The SQL that begins here; `is_whole`: all of it is there.
    fn sql(&self, text: &[u8], is_whole: bool) -> Arc<Statement> {
        let end = memchr::memchr(0, text);
        let complete = is_whole || end.is_some();
        Arc::new(Statement::new(&text[..end.unwrap_or(text.len())], complete, self.shown, self.reading()))
    }

    fn query(
        &mut self,
        message: &Message<'_>,
        begun: Begun<T>,
        sent_ns: u64,
        out: &mut Vec<Command<T>>,
    ) -> Result<(), Lost> {
        self.flush(sent_ns, out);
        let (name, statement) = match message.kind {
            b'Q' => ("QUERY", Some(self.sql(message.head, message.is_whole()))),
            _ => ("FUNCTION_CALL", None),
        };
        let earliest_ns = begun.earliest_ns;
        let command = self.command(Unit { begun, name, statement, bytes: message.wire }, sent_ns);
        if self.steps.is_skipping() {
            self.steps.skip(*command, out);
            return Ok(());
        }
        self.steps.push(Step { answer: Answer::Query, command: Some(command), earliest_ns }, out)
    }

    /// A part of the extended protocol.
    fn extended(
        &mut self,
        message: &Message<'_>,
        begun: Begun<T>,
        sent_ns: u64,
        out: &mut Vec<Command<T>>,
    ) -> Result<(), Lost> {
        let earliest_ns = begun.earliest_ns;
        let (name, answer, statement) = self.part(message);
        let mut unit = self.unit.take().unwrap_or(Unit { begun, name, statement: None, bytes: 0 });
        unit.bytes += message.wire;
        // What is passed over has not changed what a name stands for.
        let is_skipping = self.steps.is_skipping();
        unit.statement = if is_skipping { unit.statement.or(statement) } else { statement.or(unit.statement) };
        let rank = |name: &str| PARTS.iter().position(|part| *part == name);
        if rank(name) > rank(unit.name) {
            unit.name = name;
        }
        let command = if message.kind == b'E' {
            unit.name = name;
            Some(self.command(unit, sent_ns))
        } else {
            self.unit = Some(unit);
            None
        };
        match command {
            Some(command) if is_skipping => self.steps.skip(*command, out),
            None if is_skipping => {}
            command => return self.steps.push(Step { answer, command, earliest_ns }, out),
        }
        Ok(())
    }

    /// Name, answer and statement of a part.
    fn part(&mut self, message: &Message<'_>) -> (&'static str, Answer, Option<Arc<Statement>>) {
        let mut fields = Fields(message.head);
        match message.kind {
            b'P' => {
                let Some(name) = fields.text() else { return ("PARSE", Answer::Parse(None), None) };
                let statement = self.sql(fields.0, message.is_whole());
                // The server passes over it.
                if self.steps.is_skipping() {
                    return ("PARSE", Answer::Parse(None), Some(statement));
                }
                let (preparing, room) = self.steps.statements.prepare(name, &statement);
                self.steps.diagnostics.statements_overflow += u64::from(!room);
                ("PARSE", Answer::Parse(Some(preparing)), Some(statement))
            }
            b'B' => {
                let is_skipping = self.steps.is_skipping();
                let names = fields.text().and_then(|portal| Some((portal, fields.text()?)));
                let statements = &mut self.steps.statements;
                let bound = |(portal, name)| {
                    if is_skipping { statements.get(b'S', name) } else { statements.bind(portal, name) }
                };
                ("BIND", Answer::Bind, names.and_then(bound))
            }
            b'E' => {
                let statement = fields.text().and_then(|portal| self.steps.statements.get(b'P', portal));
                ("EXECUTE", Answer::Execute, statement)
            }
            kind => {
                let named = fields.u8().and_then(|what| Some((what, fields.text()?)));
                let is_skipping = self.steps.is_skipping();
                let statements = &mut self.steps.statements;
                if kind == b'C' {
                    let closes = named.filter(|_| !is_skipping);
                    (CLOSE, Answer::Close, closes.and_then(|(what, name)| statements.close(what, name)))
                } else {
                    ("DESCRIBE", Answer::Describe, named.and_then(|(what, name)| statements.get(what, name)))
                }
            }
        }
    }

    /// The client waits for an answer to what it has sent, without a Sync.
    fn flush(&mut self, sent_ns: u64, out: &mut Vec<Command<T>>) {
        let Some(unit) = self.unit.take() else { return };
        let command = self.command(unit, sent_ns);
        if self.steps.is_skipping() {
            self.steps.skip(*command, out);
        } else {
            self.steps.attach(command, out);
        }
    }

    fn sync(
        &mut self,
        message: &Message<'_>,
        begun: Begun<T>,
        sent_ns: u64,
        out: &mut Vec<Command<T>>,
    ) -> Result<(), Lost> {
        if self.steps.is_copying() {
            self.steps.more_sent(message.wire, sent_ns);
            return Ok(());
        }
        let earliest_ns = begun.earliest_ns;
        let mut bytes = message.wire;
        let mut unit = self.unit.take();
        // A portal that is closed behind its Execute is part of that.
        let mut command =
            if unit.as_ref().is_none_or(|unit| unit.name == CLOSE) { self.steps.take_last() } else { None };
        if command.is_some() {
            bytes += unit.take().map_or(0, |unit| unit.bytes);
        } else if unit.is_none() && !self.steps.is_skipping() {
            // It asks for nothing else than an answer.
            unit = Some(Unit { begun, name: "SYNC", statement: None, bytes: 0 });
        }
        if let Some(unit) = unit {
            command = Some(self.command(unit, sent_ns));
        }
        if let Some(command) = &mut command {
            command.request_bytes += bytes;
            command.sent_ns = sent_ns;
        }
        self.steps.push(Step { answer: Answer::Sync, command, earliest_ns }, out)
    }

    /// The connection was made to cancel a command of another one. Nothing answers.
    pub(super) fn cancel(&self, message: &Message<'_>, begun: Begun<T>, sent_ns: u64, out: &mut Vec<Command<T>>) {
        out.push(*self.command(Unit { begun, name: "CANCEL", statement: None, bytes: message.wire }, sent_ns));
    }

    /// Takes a message whose end, with what follows it, was not captured. False if nobody can say what it belongs to.
    pub(super) fn torn(
        &mut self,
        message: &Message<'_>,
        begun: Begun<T>,
        sent_ns: u64,
        out: &mut Vec<Command<T>>,
    ) -> bool {
        match message.kind {
            b'd' if self.steps.is_copying() => {
                self.steps.more_sent(message.wire, sent_ns);
                self.steps.answer_until_ready();
                true
            }
            b'Q' | b'F' => self.query(message, begun, sent_ns, out).is_ok(),
            b'P' | b'B' if !self.steps.is_skipping() => {
                let earliest_ns = begun.earliest_ns;
                let (name, _, statement) = self.part(message);
                let mut unit = self.unit.take().unwrap_or(Unit { begun, name, statement: None, bytes: 0 });
                unit.bytes += message.wire;
                unit.statement = statement.or(unit.statement);
                // Who binds executes.
                unit.name = if name == "BIND" { "EXECUTE" } else { name };
                let command = self.command(unit, sent_ns);
                self.steps.push(Step { answer: Answer::Query, command: Some(command), earliest_ns }, out).is_ok()
            }
            _ => false,
        }
    }

    fn command(&self, unit: Unit<T>, sent_ns: u64) -> Box<Command<T>> {
        let Unit { begun: Begun { tag, start_ns, quality, .. }, name, statement, bytes } = unit;
        Box::new(Command {
            tag,
            system: "postgresql",
            name,
            runs: matches!(name, "QUERY" | "EXECUTE"),
            statement,
            database: self.database.clone(),
            request_bytes: bytes,
            response_bytes: 0,
            start_ns,
            sent_ns,
            end_ns: sent_ns,
            rows: None,
            affected_rows: None,
            error: None,
            quality,
        })
    }

    /// A message that cannot be followed to its answer: only what it does to statements is noted.
    pub(super) fn pass_over(&mut self, message: &Message<'_>) {
        if matches!(message.kind, b'P' | b'B' | b'C') {
            self.part(message);
        }
    }

    /// The answers to what waits are lost.
    pub(super) fn give_up(&mut self) {
        self.steps.diagnostics.commands_truncated += u64::from(self.unit.take().is_some());
        self.steps.give_up();
    }

    /// The connection ended.
    pub(super) fn close(&mut self, now_ns: u64, out: &mut Vec<Command<T>>) {
        self.steps.diagnostics.commands_truncated += u64::from(self.unit.take().is_some());
        self.steps.close(now_ns, out);
    }
}
