//! Spans of Redis commands: one CLIENT span per command.

use std::borrow::Cow;

use smol_str::ToSmolStr;

use crate::model::{Attribute, Span, SpanKind, Status, Value};
use crate::protocol::redis::{Command, Failure, span_name};
use crate::trace::database::connection::{Asker, Connection};
use crate::trace::parents::position::Place;

const DEFAULT_PORT: u32 = 6379;

/// The span of a command.
pub fn span(connection: &Connection, command: &Command<Asker>, place: &Place, slow: bool) -> Span {
    let mut attributes: Vec<Attribute> = Vec::with_capacity(16);
    let mut add = |name: &'static str, value: Value| attributes.push((Cow::Borrowed(name), value));
    add("db.system.name", Value::Str("redis".into()));
    add("db.operation.name", Value::Str(command.name.as_ref().into()));
    if let Some(text) = &command.query_text {
        add("db.query.text", Value::Str(text.clone()));
    }
    if let Some(database) = command.database {
        add("db.namespace", Value::Str(database.to_smolstr()));
    }
    let batch = command.multi.as_ref().or(command.pipeline.as_ref());
    if let Some(batch) = batch.filter(|batch| batch.size >= 2) {
        add("tracer.redis.batch.name", Value::Str(batch.name().into()));
        add("tracer.redis.batch.index", Value::Int(i64::from(batch.index)));
        add("tracer.redis.batch.size", Value::Int(i64::from(batch.size)));
    }
    add("tracer.redis.request.size", Value::Int(command.request_bytes as i64));
    add("tracer.redis.response.size", Value::Int(command.response_bytes as i64));
    if let Some(doubt) = command.quality.doubt() {
        add("tracer.redis.pairing", Value::Str(doubt.into()));
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
        status = Status::Error(failure.message().into());
    }
    connection.address_attributes(&mut attributes, DEFAULT_PORT);
    let times = (command.start_ns, command.end_ns);
    Span {
        attributes,
        status,
        ..place.span(command.tag.process, span_name(command).as_ref().into(), SpanKind::Client, times)
    }
}
