//! Spans of commands with what their servers did about them: the parts of the time, the server's span, links to blockers.
//!
//! Durations in attributes are seconds, as everywhere in the semantic conventions.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use crate::model::{Attribute, Link, ProcessId, Span, SpanContext, SpanKind, Text, TraceId, Value};
use crate::protocol::redis::Command;
use crate::trace::correlator::Correlator;
use crate::trace::database::connection::{Asker, Connection};
use crate::trace::database::durations::Series;
use crate::trace::database::redis;
use crate::trace::parents::position::Place;
use crate::trace::waits::server::{Blame, Done, Explained, Held, Holder, Interval, Slot, Split, Who, Work};

/// Longest story of a wait that is kept for the report.
const MAX_STORY: usize = 256;

/// A command that waited for others.
#[derive(Clone, Debug, PartialEq)]
pub struct Wait {
    /// `service.name` of the client.
    pub service: Arc<str>,
    /// Name of the command.
    pub operation: Cow<'static, str>,
    /// Address of the server.
    pub server: Arc<str>,
    /// Its trace.
    pub trace_id: TraceId,
    /// Start of the send.
    pub start_ns: u64,
    /// End of the reply.
    pub end_ns: u64,
    /// The parts of its time.
    pub split: Split,
    /// Made from the clients' side alone.
    pub estimate: bool,
    /// Who had the thread.
    pub blame: Blame<Who>,
    /// What the server did meanwhile, as far as it is known.
    pub story: Vec<(Slot, Option<Who>)>,
}

impl Correlator {
    /// Takes a command of a client until its server's side is known.
    pub(in crate::trace) fn hold(
        &mut self,
        connection: &Connection,
        command: &Command<Asker>,
        place: &Place,
        slow: bool,
    ) {
        let batch = command.multi.as_ref().or(command.pipeline.as_ref()).filter(|batch| batch.size >= 2);
        let span = place.is_sampled().then(|| redis::span(connection, command, place, slow));
        self.servers.hold(Box::new(Held {
            process: command.tag.process,
            service: self.servers.service(command.tag.process.pid).unwrap_or_default(),
            connection: connection.number,
            server: Arc::clone(&connection.server),
            operation: command.name.clone(),
            label: match batch {
                _ if command.transaction => "MULTI".into(),
                Some(batch) => batch.name().into(),
                None => command.name.clone(),
            },
            transaction: command.transaction,
            request_bytes: command.request_bytes,
            request_end: command.request_end,
            alone: command.alone,
            blocking: command.blocking,
            answered: !command.no_reply
                && !matches!(command.error, Some(crate::protocol::redis::Failure::ConnectionClosed)),
            start_ns: command.start_ns,
            sent_ns: command.sent_ns,
            end_ns: command.end_ns,
            context: place.context.clone(),
            span,
            number: 0,
        }));
    }

    /// Makes spans of the held commands about which all is known; of all of them at the end.
    pub(in crate::trace) fn look(&mut self, now_ns: u64, all: bool) {
        if !all && !self.servers.is_due(now_ns) {
            return;
        }
        let mut done = Vec::new();
        self.servers.look(now_ns, all, &mut done);
        for done in done {
            self.served(done);
        }
    }

    pub(in crate::trace) fn served(&mut self, done: Done) {
        let Done { mut held, explained, unmatched } = done;
        let series = Series {
            service: Arc::clone(&held.service),
            operation: held.operation.as_ref().into(),
            server: Arc::clone(&held.server),
        };
        let split = explained.as_ref().map(|explained| explained.split);
        self.durations.add(series, held.end_ns.saturating_sub(held.start_ns), split.as_ref());
        match &explained {
            Some(explained) if explained.estimate => self.counts.commands_estimated += 1,
            Some(_) => self.counts.commands_served += 1,
            None if unmatched => self.counts.commands_unmatched += 1,
            None => self.counts.commands_whole += 1,
        }
        let span = held.span.take();
        if let Some(explained) = &explained
            && !explained.blame.is_empty()
            && self.collects_waits
        {
            let wait = self.wait(&held, explained);
            self.output.waits.push(wait);
        }
        self.counts.spans += 1;
        let Some(mut span) = span else {
            self.counts.sampled_out += 1;
            return;
        };
        if let Some(explained) = &explained {
            parts(&mut span.attributes, explained);
            if !explained.blame.is_empty() {
                self.blame(&held, explained, &mut span);
            }
            if let Some(work) = explained.work.filter(|work| work.first) {
                self.server_span(&held, &span, &work);
            }
        }
        self.output.spans.push(span);
    }

    fn blame(&mut self, held: &Held, explained: &Explained, span: &mut Span) {
        let blame = &explained.blame;
        span.attributes.push(("tracer.redis.blocked_by".into(), Value::Str(text(blame).into())));
        for blocker in &blame.blockers {
            let Some((turn, _)) = blocker.longest else { continue };
            let context = match explained.work {
                Some(work) => self.blocker_context(work.pid, turn, &blocker.who),
                None => self.servers.answered_context(&held.server, turn),
            };
            let Some(context) = context else { continue };
            let attributes = vec![
                ("tracer.redis.blocked_by".into(), Value::Str(blocker.who.label.as_ref().into())),
                ("tracer.redis.blocked_by.service".into(), Value::Str(Arc::clone(&blocker.who.client).into())),
                ("tracer.redis.blocked_by.kind".into(), Value::Str(blocker.who.kind.name().into())),
                ("tracer.redis.blocked_by.duration".into(), seconds(blocker.ns)),
                ("tracer.redis.blocked_by.count".into(), Value::Int(blocker.turns as i64)),
            ];
            span.links.push(Link { context, attributes });
        }
        if let Some(&(own, _)) = blame.own.first() {
            let sum = blame.own.iter().map(|(_, ns)| ns).sum();
            span.attributes.push(("tracer.redis.blocked_by.server".into(), Value::Str(own.name().into())));
            span.attributes.push(("tracer.redis.blocked_by.server.duration".into(), seconds(sum)));
        }
        if blame.rest_ns > 0 {
            span.attributes.push(("tracer.redis.blocked_by.rest".into(), seconds(blame.rest_ns)));
        }
    }

    /// The span to link to. The work of a client that is not traced gets one when somebody waits for it.
    fn blocker_context(&mut self, pid: u32, turn: u64, who: &Who) -> Option<SpanContext> {
        let process = self.processes.get(&pid).copied();
        let (ids, sampler) = (&mut self.ids, &self.options.sampler);
        let mut made = None;
        let context = self.servers.turn_context(pid, turn, |label, client, interval| {
            let place = Place::below(None, ids, sampler);
            let attributes = vec![
                ("db.system.name".into(), Value::Str("redis".into())),
                ("db.operation.name".into(), Value::Str(label.into())),
                ("client.address".into(), Value::Str(client.into())),
                ("tracer.redis.kind".into(), Value::Str(who.kind.name().into())),
            ];
            made =
                process.map(|process| (place.clone(), work_span(process, label.into(), &place, interval, attributes)));
            place.context
        });
        if let Some((place, span)) = made {
            self.emit(&place, |_| span);
        }
        context
    }

    fn server_span(&mut self, held: &Held, client: &Span, work: &Work) {
        let Some(&process) = self.processes.get(&work.pid) else { return };
        let parent = SpanContext { remote: true, ..held.context.clone() };
        let mut context = parent.clone();
        context.span_id = self.ids.span();
        context.remote = false;
        let place = Place { context, parent: Some(parent.span_id), parent_remote: true };
        let kept = ["db.system.name", "db.operation.name", "db.namespace", "tracer.redis.batch.size"];
        let attributes = client.attributes.iter().filter(|(name, _)| kept.contains(&name.as_ref())).cloned().collect();
        let interval = Interval { start_ns: work.start_ns, end_ns: work.end_ns };
        let span = work_span(process, client.name.clone(), &place, interval, attributes);
        self.emit(&place, |_| span);
    }

    fn wait(&self, held: &Held, explained: &Explained) -> Wait {
        let within = Interval { start_ns: held.start_ns, end_ns: held.end_ns };
        let mut story = explained.work.map(|work| self.servers.story(work.pid, within)).unwrap_or_default();
        story.retain(|(slot, _)| slot.holder != Holder::Idle);
        if story.len() > MAX_STORY {
            story.sort_by_key(|(slot, _)| std::cmp::Reverse(slot.end_ns - slot.start_ns));
            story.truncate(MAX_STORY);
            story.sort_by_key(|(slot, _)| slot.start_ns);
        }
        Wait {
            service: Arc::clone(&held.service),
            operation: held.operation.clone(),
            server: Arc::clone(&held.server),
            trace_id: held.context.trace_id,
            start_ns: held.start_ns,
            end_ns: held.end_ns,
            split: explained.split,
            estimate: explained.estimate,
            blame: explained.blame.clone(),
            story,
        }
    }
}

/// Durations are in seconds in attributes.
pub(in crate::trace) fn seconds(ns: u64) -> Value {
    Value::Float(ns as f64 / 1e9)
}

fn parts(attributes: &mut Vec<Attribute>, explained: &Explained) {
    let Split { network_ns, queue_ns, service_ns } = explained.split;
    attributes.push(("tracer.redis.network".into(), seconds(network_ns)));
    attributes.push(("tracer.redis.queue".into(), seconds(queue_ns)));
    attributes.push(("tracer.redis.service".into(), seconds(service_ns)));
    if explained.estimate {
        attributes.push(("tracer.redis.estimate".into(), Value::Bool(true)));
    }
}

/// For people: `KEYS of scanner 412.300 ms, 3 x GET of web 1.200 ms, server (fork) 30.000 ms`.
fn text(blame: &Blame<Who>) -> String {
    let mut text = String::with_capacity(128);
    let mut add = |what: fmt::Arguments<'_>, ns: u64| {
        let separator = if text.is_empty() { "" } else { ", " };
        let us = (ns + 500) / 1000;
        let _ = write!(text, "{separator}{what} {}.{:03} ms", us / 1000, us % 1000);
    };
    for blocker in &blame.blockers {
        let Who { label, client, .. } = &blocker.who;
        match blocker.turns {
            0 | 1 => add(format_args!("{label} of {client}"), blocker.ns),
            turns => add(format_args!("{turns} x {label} of {client}"), blocker.ns),
        }
    }
    for &(own, ns) in &blame.own {
        add(format_args!("server ({})", own.name()), ns);
    }
    if blame.rest_ns > 0 {
        add(format_args!("others"), blame.rest_ns);
    }
    text
}

fn work_span(process: ProcessId, name: Text, place: &Place, of: Interval, attributes: Vec<Attribute>) -> Span {
    Span { attributes, ..place.span(process, name, SpanKind::Server, (of.start_ns, of.end_ns)) }
}
