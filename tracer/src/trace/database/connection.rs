//! Connections of traced processes: whose they are, what they speak, what is held until that is known, and what the
//! programs should know of them.

use std::sync::Arc;

use tracer_common::map::{Advice, VERDICT_IGNORED, VERDICT_TRACKED};
use tracer_common::record::{
    self, DIRECTION_SENT, FLAG_FAILED, FLAG_FRESH, FLAG_SERVER, PROTOCOL_RESP, PROTOCOL_UNKNOWN, Socket,
};

use crate::capture::addresses;
use crate::model::{Attribute, ProcessId, SpanContext, Text, Value};
use crate::protocol::conversation::Protocol;
use crate::protocol::stream::{Chunk, Direction, Verdict};
use crate::trace::correlator::{Correlator, flow_key};
use crate::trace::database::tracker::{Commands, Speaks};
use crate::trace::memory::Ages;
use crate::trace::parents::flow::FlowKey;
use crate::trace::parents::pending_commands::{Lead, Waiting};
use crate::trace::parents::position::Place;

const AF_UNIX: u32 = 1;
/// The programs are told of a long value once this much of it is still to come.
const SKIP_STEP: u64 = 16 * 1024;
/// A connection whose process is gone is over after this long: the record of its end may be lost.
const ORPHANED_NS: u64 = 1_000_000_000;

/// About how many bytes an open connection takes by itself: it, its tracker, and the texts of its address.
pub(in crate::trace) const BYTES: usize = 2048;

/// Who asked: kept with a command until its reply.
#[derive(Clone, Debug)]
pub struct Asker {
    /// Parent of the command.
    pub parent: Option<SpanContext>,
    /// Whose flow it is in.
    pub flow: FlowKey,
    /// Whose span it is. Several processes can use one connection.
    pub process: ProcessId,
}

/// A connection of traced processes: a socket.
pub struct Connection {
    /// Its number.
    pub number: u64,
    /// Who used it last.
    user: u32,
    /// When that process ended, or became another program.
    orphaned_ns: Option<u64>,
    /// The record of its beginning has not come.
    unannounced: bool,
    speaks: Speaks,
    verdict: Verdict,
    advised: Advice,
    /// Address of the server, when it has one.
    pub address: Option<Text>,
    /// Port of the server.
    pub port: u32,
    /// Where the server is, for people and as a key.
    pub server: Arc<str>,
    /// It is a Unix socket.
    pub unix: bool,
    /// When something passed it last.
    used_ns: u64,
    /// About how many bytes it takes beside itself, when it was weighed last.
    bytes: usize,
}

impl Correlator {
    /// The programs follow a new connection.
    pub(in crate::trace) fn open(&mut self, record: &record::Connection) {
        if !self.processes.contains_key(&record.head.pid) {
            return;
        }
        let address = addresses(record).map(|(_, server)| server.ip().to_string());
        if record.head.flags & FLAG_SERVER != 0 {
            self.servers.open_served(record);
            return;
        }
        if record.protocol == PROTOCOL_UNKNOWN {
            return;
        }
        let fresh = record.head.flags & FLAG_FRESH != 0;
        if record.protocol == PROTOCOL_RESP {
            self.servers.open_client(record);
        }
        let connection = self.connection(record.connection, record.protocol, !fresh);
        connection.user = record.head.pid;
        connection.unannounced = false;
        connection.server = match &address {
            Some(address) => format!("{address}:{}", record.peer_port).into(),
            None => "unix".into(),
        };
        connection.address = address.map(Into::into);
        connection.port = record.peer_port;
        connection.unix = u32::from(record.family) == AF_UNIX;
    }

    /// Bytes of a connection.
    pub(in crate::trace) fn socket(&mut self, record: &Socket, bytes: &[u8]) {
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
        let asker = Asker { parent: if sent { self.ambient(&record.head, key) } else { None }, flow: key, process };
        if !self.connections.contains_key(&record.connection) {
            self.unannounced(record, bytes);
        }
        let Some(connection) = self.connections.get_mut(&record.connection) else { return };
        connection.user = process.pid;
        connection.orphaned_ns = None;
        connection.used_ns = record.head.end_ns;
        let chunk = Chunk {
            direction: if sent { Direction::Sent } else { Direction::Received },
            offset: record.offset,
            len: record.len,
            data: bytes,
            start_ns: record.head.start_ns,
            end_ns: record.head.end_ns,
        };
        let commands = connection.take(chunk, asker);
        let settled = connection.speaks.is_settled();
        let advice = connection.advice();
        let ignored = connection.verdict == Verdict::No;
        if !settled {
            self.unsettled.insert(record.connection);
        }
        if ignored && advice.is_some() && connection.speaks.is_encrypted() {
            self.output.encrypted.push((process.pid, Arc::clone(&connection.server)));
        }
        if let Some(advice) = advice {
            self.counts.connections_rejected += u64::from(ignored);
            self.output.advice.push((record.connection, advice));
        }
        if ignored {
            self.counts.sockets_ignored += 1;
        } else if sent && let Some(flow) = self.flows.get_mut(&key) {
            flow.touch(record.head.end_ns);
        }
        self.commands(record.connection, commands);
        self.weigh(record.connection);
    }

    /// Bytes of a connection of which nothing was heard before: the record of its beginning is lost.
    fn unannounced(&mut self, record: &Socket, bytes: &[u8]) {
        self.counts.connections_unannounced += 1;
        let direction = if record.direction == DIRECTION_SENT { Direction::Sent } else { Direction::Received };
        let begins = Protocol::<Asker>::of(record.protocol)
            .is_some_and(|(_, protocol)| record.offset == 0 && (protocol.begins)(direction, bytes));
        self.connection(record.connection, record.protocol, !begins).unannounced = true;
    }

    /// A process ended, or became another program. Its connections last if others have them as well: their end comes by a record of
    /// its own, unless that is lost.
    pub(in crate::trace) fn orphan_connections(&mut self, pid: u32, now_ns: u64) {
        for connection in self.connections.values_mut().filter(|connection| connection.user == pid) {
            if connection.orphaned_ns.is_none() {
                connection.orphaned_ns = Some(now_ns);
                self.orphans.push_back((now_ns, connection.number));
            }
        }
    }

    /// Ends the connections whose process is long gone; at the end, all whose process is gone.
    pub(in crate::trace) fn end_orphaned_connections(&mut self, now_ns: u64, all: bool) {
        let is_over = |orphaned_ns: u64| all || orphaned_ns.saturating_add(ORPHANED_NS) < now_ns;
        while let Some((orphaned_ns, number)) = self.orphans.pop_front_if(|(orphaned_ns, _)| is_over(*orphaned_ns)) {
            // Another process may have used it since.
            let orphaned = self.connections.get(&number).map(|connection| connection.orphaned_ns);
            if orphaned == Some(Some(orphaned_ns)) {
                self.end_connection(number, orphaned_ns);
            }
        }
    }

    /// A connection is gone: commands without a reply end here.
    pub(in crate::trace) fn end_connection(&mut self, number: u64, now_ns: u64) {
        self.servers.close(number);
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let commands = connection.speaks.close(now_ns);
        connection.speaks.count(&mut self.counts);
        if connection.verdict != Verdict::No {
            self.commands(number, commands);
        }
        self.end_leads_of_connection(number);
        if let Some(connection) = self.connections.remove(&number) {
            self.memory.connections -= connection.bytes;
        }
        self.output.closed.push(number);
    }

    /// How much a connection takes may have changed.
    fn weigh(&mut self, number: u64) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let before = std::mem::replace(&mut connection.bytes, connection.speaks.bytes());
        self.memory.connections = self.memory.connections + connection.bytes - before;
    }

    /// Gives up what connections hold that were not used since `before_ns`; returns how many did.
    pub(in crate::trace) fn evict_connections(&mut self, before_ns: u64) -> u64 {
        let unused =
            self.connections.values().filter(|connection| connection.bytes > 0 && connection.used_ns < before_ns);
        let numbers: Vec<u64> = unused.map(|connection| connection.number).collect();
        for &number in &numbers {
            let Some(connection) = self.connections.get_mut(&number) else { continue };
            let commands = connection.speaks.give_up(connection.verdict);
            connection.speaks.count(&mut self.counts);
            self.commands(number, commands);
            self.weigh(number);
        }
        numbers.len() as u64
    }

    /// The agent ends: what was answered is given out, what waits for a reply is counted.
    pub(in crate::trace) fn leave_connection(&mut self, number: u64) {
        self.flush_connection(number);
        self.end_leads_of_connection(number);
        let Some(mut connection) = self.connections.remove(&number) else { return };
        self.memory.connections -= connection.bytes;
        if connection.verdict == Verdict::Yes {
            self.counts.commands_open += connection.speaks.open_commands() as u64;
        }
        if connection.verdict == Verdict::Yes || connection.speaks.has_ended() {
            connection.speaks.count(&mut self.counts);
        }
    }

    /// Gives out commands that are held back because of an earlier loss, if nothing can change their meaning any more.
    pub(in crate::trace) fn flush_connection(&mut self, number: u64) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        if connection.verdict != Verdict::Yes || connection.speaks.open_commands() == 0 {
            return;
        }
        let commands = connection.speaks.flush();
        self.commands(number, commands);
        self.weigh(number);
    }

    fn connection(&mut self, number: u64, protocol: u16, opened_before: bool) -> &mut Connection {
        let query_text = self.options.query_text;
        self.connections.entry(number).or_insert_with(|| {
            Box::new(Connection {
                number,
                user: 0,
                orphaned_ns: None,
                unannounced: false,
                speaks: Speaks::new(protocol, query_text, opened_before),
                verdict: Verdict::Maybe,
                advised: Advice::default(),
                address: None,
                port: 0,
                server: Arc::default(),
                unix: false,
                used_ns: 0,
                bytes: 0,
            })
        })
    }

    /// The spans of commands that a connection has given out.
    fn commands(&mut self, number: u64, commands: Commands) {
        if commands.is_empty() {
            return;
        }
        // Out of the map once for all of them: making a span needs the rest of the correlator.
        let Some(connection) = self.connections.remove(&number) else { return };
        match commands {
            Commands::Redis(commands) => {
                for command in commands {
                    let asker = self.asker(&command);
                    self.asked(&connection, asker, Lead::Redis(command));
                }
            }
            Commands::Database(commands) => {
                for command in commands {
                    self.asked(&connection, command.tag.clone(), Lead::Database(command));
                }
            }
        }
        self.connections.insert(number, connection);
    }

    /// A command whose asker is known: its span, or it waits for the encode to come.
    fn asked(&mut self, connection: &Connection, asker: Asker, command: Lead) {
        let waiting = Waiting { connection: connection.number, command };
        let Some(Waiting { command, .. }) = self.lead(asker.flow, asker.parent.is_some(), waiting) else { return };
        if let Some(flow) = self.flows.get_mut(&asker.flow)
            && asker.parent.as_ref() == Some(flow.context())
        {
            // The flow lasts as long as the command.
            flow.extend(command.times().1);
        }
        self.command(connection, command, asker.parent);
    }

    /// The span of a command.
    pub(in crate::trace) fn command(&mut self, connection: &Connection, command: Lead, parent: Option<SpanContext>) {
        let place = Place::below(parent.as_ref(), &mut self.ids, &self.options.sampler);
        let (start_ns, end_ns) = command.times();
        let slow = self.is_slow(start_ns, end_ns);
        match command {
            Lead::Redis(command) => {
                self.counts.commands += 1;
                self.hold(connection, &command, &place, slow);
            }
            Lead::Database(command) => {
                let Speaks::Database { protocol, place: row, .. } = &connection.speaks else { return };
                self.counts.databases[*row].commands += 1;
                self.database(connection, protocol, &command, &place, slow);
            }
        }
    }

    /// The command took as long as the user calls slow.
    fn is_slow(&self, start_ns: u64, end_ns: u64) -> bool {
        self.options.slow_query_ns.is_some_and(|threshold| end_ns.saturating_sub(start_ns) >= threshold)
    }
}

impl Connection {
    /// Takes what a call passed, and gives out commands once it is known that they are some.
    fn take(&mut self, chunk: Chunk<'_>, asker: Asker) -> Commands {
        if self.verdict == Verdict::No {
            return self.speaks.none();
        }
        let (verdict, commands) = self.speaks.feed(chunk, asker, self.verdict);
        self.verdict = verdict;
        commands
    }

    /// When what it holds was used last.
    pub(in crate::trace) fn age(&self, ages: &mut Ages) {
        if self.bytes > 0 {
            ages.add(self.used_ns, self.bytes);
        }
    }

    /// Attributes that say where the server is; the port only when it is not the usual one.
    pub fn address_attributes(&self, attributes: &mut Vec<Attribute>, default_port: u32) {
        let mut add = |name: &'static str, value: Value| attributes.push((name.into(), value));
        if let Some(address) = &self.address {
            add("server.address", Value::Str(address.clone()));
            add("network.peer.address", Value::Str(address.clone()));
            add("network.peer.port", Value::Int(i64::from(self.port)));
            if self.port != default_port {
                add("server.port", Value::Int(i64::from(self.port)));
            }
        } else if self.unix {
            add("network.transport", Value::Str("unix".into()));
        }
    }

    /// What the programs should know by now and do not.
    fn advice(&mut self) -> Option<Advice> {
        let wanted = Advice {
            verdict: match self.verdict {
                Verdict::Yes => VERDICT_TRACKED,
                Verdict::No => VERDICT_IGNORED,
                Verdict::Maybe => 0,
            },
            sent: self.speaks.skip(Direction::Sent),
            received: self.speaks.skip(Direction::Received),
            announce: u32::from(self.unannounced),
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
