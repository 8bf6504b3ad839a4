//! Connections of traced processes: whose they are, what they speak, what is held until that is known, and what the
//! programs should know of them.

use std::sync::Arc;

use tracer_common::map::{Advice, VERDICT_IGNORED, VERDICT_TRACKED};
use tracer_common::record::{self, DIRECTION_SENT, FLAG_FAILED, FLAG_FRESH, FLAG_SERVER, Socket};

use super::correlator::{Correlator, flow_key};
use super::flow::FlowKey;
use super::place::Place;
use super::span::{ProcessId, SpanContext};
use crate::capture::addresses;
use crate::protocol::redis::{Chunk, Command, Direction, Role, Tracker, Verdict, looks_like_redis, looks_like_replies};

const AF_UNIX: u32 = 1;
/// The programs are told of a long value once this much of it is still to come.
const SKIP_STEP: u64 = 16 * 1024;

/// Who asked: kept with a command until its reply.
#[derive(Clone, Debug)]
pub struct Asker {
    /// Parent of the command.
    pub parent: Option<SpanContext>,
    /// Whose flow it is in.
    pub flow: FlowKey,
}

/// A connection of a traced process.
pub struct Connection {
    /// Its number.
    pub number: u64,
    /// Whose it is.
    pub process: ProcessId,
    tracker: Tracker<Asker>,
    verdict: Verdict,
    advised: Advice,
    /// Address of the server, when it has one.
    pub address: Option<Arc<str>>,
    /// Port of the server.
    pub port: u32,
    /// Where the server is, for people and as a key.
    pub server: Arc<str>,
    /// It is a Unix socket.
    pub unix: bool,
    /// Commands that wait for the verdict.
    held: Vec<Command<Asker>>,
}

impl Correlator {
    /// The programs follow a new connection.
    pub(super) fn open(&mut self, record: &record::Connection) {
        let Some(&process) = self.processes.get(&record.head.pid) else { return };
        let address = addresses(record).map(|(_, server)| server.ip().to_string());
        if record.head.flags & FLAG_SERVER != 0 {
            self.servers.open_served(record);
            return;
        }
        self.servers.open_client(record);
        let fresh = record.head.flags & FLAG_FRESH != 0;
        let connection = self.connection(record.connection, process, !fresh);
        connection.server = match &address {
            Some(address) => format!("{address}:{}", record.peer_port).into(),
            None => "unix".into(),
        };
        connection.address = address.map(Into::into);
        connection.port = record.peer_port;
        connection.unix = record.family == AF_UNIX;
    }

    /// Bytes of a connection.
    pub(super) fn socket(&mut self, record: &Socket, bytes: &[u8]) {
        self.counts.sockets += 1;
        let Some(&process) = self.processes.get(&record.head.pid) else {
            self.counts.sockets_unknown += 1;
            return;
        };
        if record.head.flags & FLAG_FAILED != 0 {
            self.end_connection(record.connection, record.head.end_ns);
            return;
        }
        let key = flow_key(&record.head);
        let sent = record.direction == DIRECTION_SENT;
        let asker = Asker { parent: if sent { self.ambient(&record.head, key) } else { None }, flow: key };
        let connection = self.connection(record.connection, process, true);
        connection.judge(sent, bytes);
        if connection.verdict == Verdict::No {
            let news = connection.advised.verdict != VERDICT_IGNORED;
            connection.advised.verdict = VERDICT_IGNORED;
            connection.held.clear();
            let advice = connection.advised;
            self.counts.sockets_ignored += 1;
            if news {
                self.counts.connections_rejected += 1;
                self.output.advice.push((record.connection, advice));
            }
            return;
        }
        let chunk = Chunk {
            direction: if sent { Direction::Sent } else { Direction::Received },
            offset: record.offset,
            len: record.len,
            data: bytes,
            start_ns: record.head.start_ns,
            end_ns: record.head.end_ns,
        };
        let mut commands = std::mem::take(&mut connection.held);
        connection.tracker.feed(chunk, asker, &mut commands);
        let advice = connection.advice();
        if connection.verdict == Verdict::Maybe {
            connection.held = commands;
            commands = Vec::new();
        }
        if let Some(advice) = advice {
            self.output.advice.push((record.connection, advice));
        }
        if sent && let Some(flow) = self.flows.get_mut(&key) {
            flow.touch(record.head.end_ns);
        }
        self.commands(record.connection, &commands);
    }

    /// A connection is gone: commands without a reply end here.
    pub(super) fn end_connection(&mut self, number: u64, now_ns: u64) {
        self.servers.close(number);
        let Some(mut connection) = self.connections.remove(&number) else { return };
        let mut commands = std::mem::take(&mut connection.held);
        connection.tracker.close(now_ns, &mut commands);
        self.counts.redis.add(&connection.tracker.diagnostics());
        if connection.verdict != Verdict::No {
            for command in commands {
                self.command_span(&connection, &command);
            }
        }
        self.output.closed.push(number);
    }

    /// The agent ends: what was answered is given out, what waits for a reply is counted.
    pub(super) fn leave_connection(&mut self, number: u64) {
        self.flush_connection(number);
        if let Some(mut connection) = self.connections.remove(&number)
            && connection.verdict == Verdict::Yes
        {
            self.counts.commands_open += connection.tracker.open_commands() as u64;
            self.counts.redis.add(&connection.tracker.diagnostics());
        }
    }

    /// Gives out commands that are held back because of an earlier loss, if nothing can change their meaning any more.
    pub(super) fn flush_connection(&mut self, number: u64) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        if connection.verdict != Verdict::Yes || connection.tracker.open_commands() == 0 {
            return;
        }
        let mut commands = Vec::new();
        connection.tracker.flush(&mut commands);
        self.commands(number, &commands);
    }

    fn connection(&mut self, number: u64, process: ProcessId, opened_before: bool) -> &mut Connection {
        let query_text = self.options.query_text;
        self.connections.entry(number).or_insert_with(|| Connection {
            number,
            process,
            tracker: Tracker::with(Role::Client, query_text, opened_before),
            verdict: Verdict::Maybe,
            advised: Advice::default(),
            address: None,
            port: 0,
            server: Arc::default(),
            unix: false,
            held: Vec::new(),
        })
    }

    /// The spans of commands that a connection has given out.
    fn commands(&mut self, number: u64, commands: &[Command<Asker>]) {
        if commands.is_empty() {
            return;
        }
        // Out of the map once for all of them: making a span needs the rest of the correlator.
        if let Some(connection) = self.connections.remove(&number) {
            for command in commands {
                self.command_span(&connection, command);
            }
            self.connections.insert(number, connection);
        }
    }

    fn command_span(&mut self, connection: &Connection, command: &Command<Asker>) {
        self.counts.commands += 1;
        let asker = self.asker(connection.process.pid, command);
        if let Some(flow) = self.flows.get_mut(&asker.flow)
            && asker.parent.as_ref() == Some(flow.context())
        {
            flow.extend(command.end_ns);
        }
        let place = Place::below(asker.parent.as_ref(), &mut self.ids, &self.options.sampler);
        self.hold(connection, command, &place);
    }
}

impl Connection {
    /// Decides, as soon as the bytes allow, whether this is Redis.
    fn judge(&mut self, sent: bool, bytes: &[u8]) {
        if self.verdict != Verdict::Maybe || bytes.is_empty() {
            return;
        }
        self.verdict = if sent { looks_like_redis(bytes) } else { looks_like_replies(bytes) };
    }

    /// What the programs should know by now and do not.
    fn advice(&mut self) -> Option<Advice> {
        let wanted = Advice {
            verdict: if self.verdict == Verdict::Yes { VERDICT_TRACKED } else { 0 },
            sent: self.tracker.skip(Direction::Sent),
            received: self.tracker.skip(Direction::Received),
            reserved: 0,
        };
        let news = wanted.verdict != self.advised.verdict
            || wanted.sent > self.advised.sent + SKIP_STEP
            || wanted.received > self.advised.received + SKIP_STEP;
        news.then(|| {
            self.advised = wanted;
            wanted
        })
    }
}
