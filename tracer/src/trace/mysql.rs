//! Spans of MySQL commands: one CLIENT span per command of the protocol.

use std::borrow::Cow;
use std::sync::Arc;

use super::connection::{Asker, Connection};
use super::place::Place;
use super::span::{Attribute, Span, SpanKind, Status, Value};
use crate::protocol::mysql::{Command, Failure};
use crate::protocol::stream::Quality;

const DEFAULT_PORT: u32 = 3306;

/// The span of a command.
pub fn span(connection: &Connection, command: &Command<Asker>, place: &Place) -> Span {
    let mut attributes: Vec<Attribute> = Vec::with_capacity(14);
    let mut add = |name: &'static str, value: Value| attributes.push((Cow::Borrowed(name), value));
    add("db.system.name", Value::Str(if command.mariadb { "mariadb" } else { "mysql" }.into()));
    add("tracer.mysql.command", Value::Str(command.name.into()));
    let statement = command.statement.as_deref();
    if let Some(text) = statement.and_then(|statement| statement.text.clone()) {
        add("db.query.text", Value::Str(text.into()));
    }
    let summary = statement.and_then(|statement| statement.summary.clone());
    if let Some(summary) = &summary {
        add("db.query.summary", Value::Str(summary.clone().into()));
    }
    if let Some(statement) = statement.filter(|statement| statement.count >= 2) {
        add("db.operation.batch.size", Value::Int(i64::from(statement.count)));
    }
    if let Some(database) = &command.database {
        add("db.namespace", Value::Shared(Arc::clone(database)));
    }
    if let Some(rows) = command.rows {
        add("db.response.returned_rows", Value::Int(rows as i64));
    }
    if let Some(rows) = command.affected_rows {
        add("tracer.mysql.affected_rows", Value::Int(rows as i64));
    }
    add("tracer.mysql.request.size", Value::Int(command.request_bytes as i64));
    add("tracer.mysql.response.size", Value::Int(command.response_bytes as i64));
    match command.quality {
        Quality::Certain => {}
        Quality::OpenedBefore => add("tracer.mysql.pairing", Value::Str("opened_before".into())),
        Quality::Resynced => add("tracer.mysql.pairing", Value::Str("resynced".into())),
    }
    let mut status = Status::Unset;
    if let Some(failure) = &command.error {
        add("error.type", Value::Str(failure.kind().into()));
        if matches!(failure, Failure::Reply(_)) {
            add("db.response.status_code", Value::Str(failure.kind().into()));
        }
        status = Status::Error(failure.message().into());
    }
    connection.address_attributes(&mut attributes, DEFAULT_PORT);
    Span {
        process: connection.process,
        trace_id: place.context.trace_id,
        span_id: place.context.span_id,
        parent: place.parent,
        parent_remote: place.parent_remote,
        flags: place.context.flags,
        trace_state: place.context.trace_state.clone(),
        name: name(command, summary),
        kind: SpanKind::Client,
        start_ns: command.start_ns,
        end_ns: command.end_ns,
        attributes,
        status,
        links: Vec::new(),
        events: Vec::new(),
    }
}

/// The summary where the SQL is run; what does something else with a statement says so first.
fn name(command: &Command<Asker>, summary: Option<String>) -> Cow<'static, str> {
    match (command.name, summary) {
        ("QUERY" | "STMT_EXECUTE" | "STMT_BULK_EXECUTE", Some(summary)) => summary.into(),
        (name, Some(summary)) => format!("{name} {summary}").into(),
        (name, None) => name.into(),
    }
}
