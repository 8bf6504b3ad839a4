//! Spans of prost calls.

use std::sync::Arc;

use opentelemetry_semantic_conventions::attribute;
use tracer_common::record::{FLAG_ERROR, FLAG_PANIC, FLAG_UNWOUND, Message, SIZE_UNKNOWN};

use crate::model::CallPlace;
use crate::model::{Attribute, FLAG_SAMPLED, Link, ProcessId, Span, SpanContext, SpanKind, Status, Text, Value};
use crate::model::{CallOf, Operation, ProbeInfo};
use crate::protocol::trace_context::find_trace_context;
use crate::trace::correlator::{Correlator, flow_key, thread_context};
use crate::trace::parents::content::Source;
use crate::trace::parents::flow::{Begun, Flow, FlowKey, Worker};
use crate::trace::parents::grpc_calls::Call;
use crate::trace::parents::payload::{ANY_RECEIVER, Origin, Print};
use crate::trace::parents::position::Place;

/// What a probed function encodes or decodes, with the span names made once.
#[derive(Debug)]
pub struct MessageType {
    operation: Text,
    encodes: bool,
    delimited: bool,
    /// Not a message: Redis commands.
    packs: bool,
    full_name: Option<Text>,
    span_name: Text,
    process_name: Text,
    /// `code.*` of an inlined call.
    code: Vec<Attribute>,
}

impl MessageType {
    /// From what the probe plan says.
    pub fn new(probe: &ProbeInfo) -> Self {
        let (operation, packs) = match probe.call_of {
            CallOf::Message(operation) => (Some(operation), false),
            CallOf::RedisPacking => (None, true),
        };
        let encodes = operation.is_some_and(Operation::is_encode);
        let short = probe.message_type.as_deref().map_or_else(|| "unknown".to_owned(), short_names);
        Self {
            operation: operation.map_or("", Operation::name).into(),
            encodes,
            packs,
            delimited: operation.is_some_and(Operation::is_length_delimited),
            full_name: probe.message_type.as_deref().map(Into::into),
            span_name: format!("{} {short}", if encodes { "encode" } else { "decode" }).into(),
            process_name: format!("process {short}").into(),
            code: probe.call.as_ref().map(code).unwrap_or_default(),
        }
    }
}

/// Where a call is in the source, by the semantic conventions.
fn code(call: &CallPlace) -> Vec<Attribute> {
    let text = |name: &'static str, value: &Option<String>| {
        value.as_deref().map(|value| (name.into(), Value::Str(value.into())))
    };
    let line = call.line.map(|line| (attribute::CODE_LINE_NUMBER.into(), Value::Int(line.into())));
    let names = [(attribute::CODE_FUNCTION_NAME, &call.function), (attribute::CODE_FILE_PATH, &call.file)];
    names.into_iter().filter_map(|(name, value)| text(name, value)).chain(line).collect()
}

/// Of each of the types of which it is one: `tgt::Ping or tgt::Pong` is `Ping or Pong`.
fn short_names(full: &str) -> String {
    full.split(" or ").map(short_name).collect::<Vec<&str>>().join(" or ")
}

/// `tgt::Order` is `Order`; generic arguments keep their paths.
pub(super) fn short_name(full: &str) -> &str {
    let end = full.find('<').unwrap_or(full.len());
    let start = full[..end].rfind("::").map_or(0, |at| at + 2);
    &full[start..]
}

/// A decode that waits in its flow.
#[derive(Clone, Debug)]
pub struct Decoded {
    process: ProcessId,
    record: Message,
    size: Option<u64>,
    kind: Arc<MessageType>,
    /// How the parent is known, if nothing names it.
    by: Option<By>,
    /// What it comes from, or may come from.
    links: Vec<Link>,
}

/// What names a parent in place of a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// Another process has encoded the same bytes.
    Payload,
    /// Another worker of the process has decoded a part of them.
    Content,
}

impl By {
    fn name(self) -> &'static str {
        match self {
            Self::Payload => "payload",
            Self::Content => "content",
        }
    }
}

/// What a call's bytes and its thread say.
struct Seen<'a> {
    key: FlowKey,
    header: Option<SpanContext>,
    print: Option<Print>,
    prefix: &'a [u8],
}

impl Correlator {
    /// One prost call.
    pub(super) fn message(&mut self, record: &Message, payload: &[u8]) {
        self.counts.messages += 1;
        let probe = self.probes.get(record.probe as usize).cloned().flatten();
        let (Some(&process), Some(kind)) = (self.processes.get(&record.head.pid), probe) else {
            self.counts.messages_unknown += 1;
            return;
        };
        if kind.packs {
            self.counts.packs += 1;
            return self.pack(record, &payload[..payload.len().min(record.prefix_len as usize)]);
        }
        self.counts.messages_traced += 1;
        let key = flow_key(&record.head);
        let (prefix, tail) = payload.split_at_checked(record.prefix_len as usize).unwrap_or((payload, &[]));
        let body = Body::new(record, prefix, kind.delimited);
        let header = find_trace_context(body.prefix, tail, body.size).map(|header| SpanContext {
            trace_id: header.trace_id,
            span_id: header.span_id,
            flags: if header.sampled { FLAG_SAMPLED } else { 0 },
            remote: !kind.encodes,
            trace_state: "".into(),
        });
        let seen = Seen { key, header, print: Print::of(body.size, body.prefix, tail), prefix: body.prefix };
        let call = Decoded { process, record: *record, size: body.size, kind, by: None, links: Vec::new() };
        if call.kind.encodes {
            self.encoded(call, &seen);
        } else {
            self.decoded(call, seen);
        }
    }

    fn encoded(&mut self, mut call: Decoded, seen: &Seen<'_>) {
        let (pid, head) = (call.process.pid, call.record.head);
        let mut parent = thread_context(&head).or_else(|| seen.header.clone());
        let asked = if parent.is_none() { self.request_of(&call.record, seen.key) } else { None };
        let over_grpc = asked.is_some();
        if let Some(asked) = asked {
            parent = asked.parent;
        } else if parent.is_none() {
            let flow = self.flows.get(&seen.key).map(|flow| flow.context().clone());
            // A thread has its flow by chance where it works for many tasks; a task has its own.
            let certain = flow.is_some() && matches!(seen.key.worker, Worker::Task(_));
            let source = if certain { None } else { self.contents.encoded(pid, seen.prefix, head.start_ns) };
            if flow.is_none() {
                let message = match &source {
                    Some(Source::Message(context, decoded_ns)) => Some((context, *decoded_ns)),
                    _ => None,
                };
                self.led(seen.key, (head.start_ns, head.end_ns), message);
            }
            parent = match source {
                Some(Source::Message(context, _)) if flow.as_ref() != Some(&context) => {
                    self.counts.content_parents += 1;
                    call.by = Some(By::Content);
                    Some(context)
                }
                Some(Source::Ambiguous) if flow.is_none() => {
                    self.counts.content_ambiguous += 1;
                    None
                }
                _ => flow,
            };
        }
        // What belongs elsewhere is no activity of the thread's flow.
        if call.by.is_none()
            && let Some(flow) = self.flows.get_mut(&seen.key)
        {
            flow.touch(head.end_ns);
        }
        let place = Place::below(parent.as_ref(), &mut self.ids, &self.options.sampler);
        if let Some(print) = seen.print {
            // A call may be to the process itself.
            let sender = if over_grpc { ANY_RECEIVER } else { pid };
            self.payloads.sent(print, sender, place.context.clone(), head.end_ns);
        }
        self.emit(&place, |_| call_span(&call, &place, SpanKind::Producer));
    }

    /// The call whose request is encoded, in a task that handles no message.
    fn request_of(&mut self, record: &Message, key: FlowKey) -> Option<Call> {
        if record.buffer == 0 || self.flows.get(&key).is_some_and(|flow| !flow.is_spawned()) {
            return None;
        }
        let head = &record.head;
        let call = self.grpc_calls.encoded(head.pid, record.buffer, record.probe, head.start_ns)?;
        if call.key != key {
            self.works_for_others(key);
        }
        if let Some(flow) = self.flows.get_mut(&call.key)
            && call.parent.as_ref() == Some(flow.context())
        {
            flow.touch(head.end_ns);
        }
        self.counts.grpc_parents += u64::from(call.parent.is_some());
        Some(call)
    }

    fn decoded(&mut self, mut call: Decoded, seen: Seen<'_>) {
        let (pid, head) = (call.process.pid, call.record.head);
        let mut parent = thread_context(&head).or(seen.header);
        if parent.is_none()
            && let Some(print) = seen.print
        {
            match self.payloads.received(print, pid, head.start_ns) {
                Some(Origin::Parent(context)) => {
                    call.by = Some(By::Payload);
                    parent = Some(context);
                }
                Some(Origin::Ambiguous(link)) => {
                    self.counts.payload_ambiguous += 1;
                    call.links.push(link);
                }
                None => {}
            }
        }
        // An answer to what the flow has asked for: the flow goes on.
        if let Some(flow) = self.flows.get_mut(&seen.key) {
            let by_payload = call.by.is_some() && parent.as_ref().is_some_and(|origin| is_in(flow, origin));
            let own = match &flow.begun {
                Begun::Decode(decode) => Some(decode.record.probe),
                Begun::Spawn => None,
            };
            let by_call = call.record.buffer != 0 && flow.asked.answers(call.record.probe, own);
            if by_payload || by_call {
                let count = if by_call { &mut self.counts.grpc_answers } else { &mut self.counts.payload_answers };
                *count += 1;
                call.links.extend(parent.map(|context| Link { context, attributes: Vec::new() }));
                flow.touch(head.end_ns);
                let context = flow.context().clone();
                let place = Place::below(Some(&context), &mut self.ids, &self.options.sampler);
                self.emit(&place, |_| call_span(&call, &place, SpanKind::Internal));
                return;
            }
        }
        self.counts.payload_parents += u64::from(call.by.is_some());
        let place = Place::below(parent.as_ref(), &mut self.ids, &self.options.sampler);
        self.contents.decoded(pid, seen.prefix, &place.context, head.end_ns);
        self.begin_flow(seen.key, Flow::of_message(place, call, head.end_ns));
    }

    /// The spans of a flow that is over.
    pub(super) fn process_spans(&mut self, flow: Flow<Decoded>) {
        let Begun::Decode(decode) = &flow.begun else { return };
        let outer = || call_span(decode, &flow.place, SpanKind::Consumer);
        if flow.children == 0 {
            self.emit(&flow.place, |_| outer());
            return;
        }
        self.emit(&flow.place, |_| Span {
            name: decode.kind.process_name.clone(),
            end_ns: flow.last_ns,
            status: Status::Unset,
            ..outer()
        });
        let decode = Decoded { by: None, links: Vec::new(), ..decode.clone() };
        let place = Place::below(Some(flow.context()), &mut self.ids, &self.options.sampler);
        self.emit(&place, |_| call_span(&decode, &place, SpanKind::Internal));
    }
}

/// Whether a span is in the trace of a flow.
fn is_in(flow: &Flow<Decoded>, context: &SpanContext) -> bool {
    flow.context().trace_id == context.trace_id
}

/// The message without its length prefix.
struct Body<'a> {
    prefix: &'a [u8],
    size: Option<u64>,
}

impl<'a> Body<'a> {
    fn new(record: &Message, prefix: &'a [u8], delimited: bool) -> Self {
        let size = (record.size != SIZE_UNKNOWN).then_some(record.size);
        if delimited
            && let Some((body, used)) = varint(prefix)
            && size.is_some_and(|size| body <= size)
        {
            return Self { prefix: &prefix[used..], size: Some(body) };
        }
        Self { prefix, size }
    }
}

/// Value and length of the varint at the start.
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

fn call_span(call: &Decoded, place: &Place, kind: SpanKind) -> Span {
    let head = &call.record.head;
    let mut attributes: Vec<Attribute> = Vec::with_capacity(4 + call.kind.code.len());
    attributes.push(("tracer.message.operation".into(), Value::Str(call.kind.operation.clone())));
    if let Some(name) = &call.kind.full_name {
        attributes.push(("tracer.message.type".into(), Value::Str(name.clone())));
    }
    if let Some(size) = call.size {
        attributes.push(("tracer.message.size".into(), Value::Int(size as i64)));
    }
    attributes.extend_from_slice(&call.kind.code);
    let error = match head.flags & (FLAG_ERROR | FLAG_PANIC | FLAG_UNWOUND) {
        0 => None,
        flags if flags & FLAG_PANIC != 0 => Some(("panic", "the call panicked")),
        flags if flags & FLAG_UNWOUND != 0 => Some(("unwound", "the call never returned")),
        _ if call.kind.encodes => Some(("EncodeError", "the buffer is too small")),
        _ => Some(("DecodeError", "the bytes are not a valid message")),
    };
    if let Some(how) = call.by {
        attributes.push(("tracer.link".into(), Value::Str(how.name().into())));
    }
    if let Some((error, _)) = error {
        attributes.push(("error.type".into(), Value::Str(error.into())));
    }
    let name = call.kind.span_name.clone();
    Span {
        attributes,
        status: error.map_or(Status::Unset, |(_, text)| Status::Error(text.into())),
        links: call.links.clone(),
        ..place.span(call.process, name, kind, (head.start_ns, head.end_ns))
    }
}
