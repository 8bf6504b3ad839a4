//! Spans of commands of databases: one CLIENT span per command of the protocol.

use std::borrow::Cow;
use std::sync::Arc;

use smol_str::format_smolstr;

use crate::model::{Attribute, Span, SpanKind, Status, Text, Value};
use crate::protocol::command::{Command, Failure};
use crate::protocol::conversation::Protocol;
use crate::trace::correlator::Correlator;
use crate::trace::database::connection::{Asker, Connection};
use crate::trace::database::durations::Series;
use crate::trace::parents::position::Place;

impl Correlator {
    /// One command of a database.
    pub(in crate::trace) fn database(
        &mut self,
        connection: &Connection,
        protocol: &Protocol<Asker>,
        command: &Command<Asker>,
        place: &Place,
        slow: bool,
    ) {
        let name = name(command);
        let series = Series {
            service: self.servers.service(command.tag.process.pid).unwrap_or_default(),
            operation: name.clone(),
            server: Arc::clone(&connection.server),
        };
        self.durations.add(series, command.end_ns.saturating_sub(command.start_ns), None);
        self.emit(place, |_| span(connection, protocol, command, name, place, slow));
    }
}

/// The span of a command.
fn span(
    connection: &Connection,
    protocol: &Protocol<Asker>,
    command: &Command<Asker>,
    name: Text,
    place: &Place,
    slow: bool,
) -> Span {
    let names = &protocol.attributes;
    let mut attributes: Vec<Attribute> = Vec::with_capacity(14);
    let mut add = |name: &'static str, value: Value| attributes.push((Cow::Borrowed(name), value));
    add("db.system.name", Value::Str(command.system.into()));
    add(names.command, Value::Str(command.name.into()));
    let statement = command.statement.as_deref();
    if let Some(text) = statement.and_then(|statement| statement.text.clone()) {
        add("db.query.text", Value::Str(text));
    }
    if let Some(summary) = statement.and_then(|statement| statement.summary.clone()) {
        add("db.query.summary", Value::Str(summary));
    }
    if let Some(statement) = statement.filter(|statement| statement.count >= 2) {
        add("db.operation.batch.size", Value::Int(i64::from(statement.count)));
    }
    if let Some(database) = &command.database {
        add("db.namespace", Value::Str(Arc::clone(database).into()));
    }
    if let Some(rows) = command.rows {
        add("db.response.returned_rows", Value::Int(rows as i64));
    }
    if let Some(rows) = command.affected_rows {
        add(names.affected_rows, Value::Int(rows as i64));
    }
    add(names.request_size, Value::Int(command.request_bytes as i64));
    add(names.response_size, Value::Int(command.response_bytes as i64));
    if let Some(doubt) = command.quality.doubt() {
        add(names.pairing, Value::Str(doubt.into()));
    }
    if slow {
        add("tracer.slow", Value::Bool(true));
    }
    let mut status = Status::Unset;
    if let Some(failure) = &command.error {
        add("error.type", Value::Str(failure.kind().into()));
        if matches!(failure, Failure::Reply(_)) {
            add("db.response.status_code", Value::Str(failure.kind().into()));
        }
        status = Status::Error(failure.message().to_owned().into());
    }
    connection.address_attributes(&mut attributes, protocol.port.into());
    let times = (command.start_ns, command.end_ns);
    Span { attributes, status, ..place.span(command.tag.process, name, SpanKind::Client, times) }
}

/// The summary where the SQL is run; what does something else with a statement says so first.
fn name(command: &Command<Asker>) -> Text {
    let summary = command.statement.as_deref().and_then(|statement| statement.summary.as_ref());
    match summary {
        Some(summary) if command.runs => summary.clone(),
        Some(summary) => format_smolstr!("{} {summary}", command.name),
        None => command.name.into(),
    }
}
