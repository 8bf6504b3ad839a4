//! The state between events and spans.

use crate::model::HashMap;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use tracer_common::map::Advice;
use tracer_common::record::{FLAG_CONTEXT, FLAG_NOTICED, FLAG_THREADS_LEFT, Head};

use crate::capture::{Event, Item};
use crate::model::ResourceValue;
use crate::model::{Attribute, ProcessId, Resource, Span, SpanContext, SpanId, TraceId, Value};
use crate::model::{ProbeInfo, ProcessInfo};
use crate::protocol::redis::QueryText;
use crate::trace::counts::Counts;
use crate::trace::database::connection::Connection;
use crate::trace::database::durations::Durations;
use crate::trace::ids::Ids;
use crate::trace::memory::Memory;
use crate::trace::message::{Decoded, MessageType};
use crate::trace::parents::content::Contents;
use crate::trace::parents::flow::{Flow, FlowKey, Worker};
use crate::trace::parents::flows::Flows;
use crate::trace::parents::grpc_calls::GrpcCalls;
use crate::trace::parents::payload::Payloads;
use crate::trace::parents::pending_commands::Leads;
use crate::trace::parents::position::Place;
use crate::trace::parents::redis_packing::Packs;
use crate::trace::parents::transit::Encodes;
use crate::trace::sampler::Sampler;
use crate::trace::waits::server::Servers;
use crate::trace::waits::spans::Wait;

/// Flows kept at once; a process that decodes on ever new tasks does not fill the memory.
const MAX_FLOWS: usize = 200_000;
/// How often flows and connections are looked through.
const TICK_NS: u64 = 100_000_000;

/// What can be chosen.
#[derive(Clone, Debug)]
pub struct Options {
    /// Seed of the ids.
    pub seed: u64,
    /// Which traces are kept.
    pub sampler: Sampler,
    /// How much of a command is shown.
    pub query_text: QueryText,
    /// Nanoseconds from which on a command is marked as slow.
    pub slow_query_ns: Option<u64>,
    /// Bytes that all state may take, with the spans that wait for exporters.
    pub memory_budget: usize,
}

/// What the correlator has to say; the caller empties it.
#[derive(Debug, Default)]
pub struct Output {
    /// Finished spans that are to be exported.
    pub spans: Vec<Span>,
    /// Resources of processes, each before its first span.
    pub resources: Vec<Resource>,
    /// What the eBPF programs should know of connections.
    pub advice: Vec<(u64, Advice)>,
    /// Connections that are gone.
    pub closed: Vec<u64>,
    /// Servers of databases whose connections turned out to be encrypted, with the process that uses them.
    pub encrypted: Vec<(u32, Arc<str>)>,
    /// Commands that waited for others, if [`Correlator::collect_waits`] asked for them.
    pub waits: Vec<Wait>,
}

/// Turns events into spans.
pub struct Correlator {
    pub(super) options: Options,
    pub(super) ids: Ids,
    pub(super) counts: Counts,
    pub(super) output: Output,
    pub(super) processes: HashMap<u32, ProcessId>,
    pub(super) probes: Vec<Option<Arc<MessageType>>>,
    pub(super) flows: Flows<Decoded>,
    pub(super) connections: HashMap<u64, Box<Connection>>,
    /// Connections that have passed something since the last tick, and may hold commands back.
    pub(super) unsettled: BTreeSet<u64>,
    /// Connections whose process is gone, with the time of that, in its order.
    pub(super) orphans: VecDeque<(u64, u64)>,
    pub(super) encodes: Encodes,
    pub(super) servers: Servers,
    pub(super) durations: Durations,
    pub(super) collects_waits: bool,
    pub(super) packs: Packs,
    pub(super) grpc_calls: GrpcCalls,
    pub(super) payloads: Payloads,
    pub(super) contents: Contents,
    pub(super) leads: Leads,
    pub(super) memory: Memory,
    ticked_ns: u64,
    #[cfg(test)]
    flushes: u64,
}

impl Correlator {
    /// Without any knowledge of processes and probes.
    pub fn new(options: Options) -> Self {
        Self {
            ids: Ids::new(options.seed),
            counts: Counts::default(),
            output: Output::default(),
            processes: HashMap::default(),
            probes: Vec::new(),
            flows: Flows::default(),
            connections: HashMap::default(),
            unsettled: BTreeSet::new(),
            orphans: VecDeque::new(),
            encodes: Encodes::default(),
            servers: Servers::default(),
            durations: Durations::default(),
            collects_waits: false,
            packs: Packs::default(),
            grpc_calls: GrpcCalls::default(),
            payloads: Payloads::default(),
            contents: Contents::default(),
            leads: Leads::default(),
            memory: Memory::new(options.memory_budget),
            ticked_ns: 0,
            options,
            #[cfg(test)]
            flushes: 0,
        }
    }

    /// Takes one step.
    pub fn feed(&mut self, item: &Item<'_>) {
        match item {
            Item::Process(process) => self.process(process),
            Item::Probe(probe) => self.probe(probe),
            Item::Record(bytes) => {
                self.counts.records += 1;
                match Event::read(bytes) {
                    Ok(event) => self.event(event),
                    Err(_) => self.counts.records_malformed += 1,
                }
            }
        }
    }

    /// Ends flows in which nothing has happened for long; `now_ns` is a time of the records' clock.
    pub fn tick(&mut self, now_ns: u64) {
        self.look(now_ns, false);
        if now_ns < self.ticked_ns.saturating_add(TICK_NS) {
            return;
        }
        self.ticked_ns = now_ns;
        self.counts.packs_unsent += self.packs.expire(now_ns);
        self.expire_leads(now_ns);
        self.end_orphaned_connections(now_ns, false);
        for connection in std::mem::take(&mut self.unsettled) {
            #[cfg(test)]
            {
                self.flushes += 1;
            }
            self.flush_connection(connection);
        }
        while let Some(flow) = self.flows.remove_idle(now_ns) {
            self.process_spans(flow);
        }
    }

    /// Ends everything; no more events will come.
    pub fn finish(&mut self) {
        self.end_leads();
        self.end_orphaned_connections(0, true);
        let connections: Vec<u64> = self.connections.keys().copied().collect();
        for connection in connections {
            self.leave_connection(connection);
        }
        self.look(0, true);
        for flow in self.flows.remove_all() {
            self.process_spans(flow);
        }
    }

    /// Keeps what is needed for a report of who waited for whom.
    pub fn collect_waits(&mut self) {
        self.collects_waits = true;
    }

    /// How long commands took, sampled or not.
    pub fn durations(&self) -> &Durations {
        &self.durations
    }

    /// What there is to export and to tell the programs.
    pub fn output(&mut self) -> &mut Output {
        &mut self.output
    }

    /// What became of the records so far.
    pub fn counts(&self) -> Counts {
        let mut counts = self.counts;
        counts.messages_open = self.flows.messages() as u64;
        counts.served_open = (self.servers.held() + self.leads.waiting()) as u64;
        counts.timeline_evicted = self.servers.evicted();
        counts.estimates_evicted = self.servers.estimates_evicted;
        counts.payloads_evicted = self.payloads.evicted;
        counts.grpc_calls_evicted = self.grpc_calls.evicted;
        counts.contents_evicted = self.contents.evicted;
        counts
    }

    /// How often flows and connections of targets were looked at to see whether something is due.
    #[cfg(test)]
    pub(super) fn looks(&self) -> u64 {
        self.flows.looks + self.flushes
    }

    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Message(record, payload) => self.message(&record, payload),
            Event::Socket(record, bytes) => self.socket(&record, bytes),
            Event::Open(record) => {
                self.counts.connections += 1;
                self.open(&record);
            }
            Event::Close(record) => {
                self.counts.connections += 1;
                self.end_connection(record.connection, record.head.end_ns);
            }
            Event::Exec(record) | Event::Exit(record) => {
                self.counts.lifecycle += u64::from(record.head.flags & FLAG_NOTICED == 0);
                if record.head.flags & FLAG_THREADS_LEFT == 0 {
                    self.end_process(record.head.pid, record.at_ns);
                }
            }
            Event::GrpcCall(record) => self.grpc_call(&record),
            Event::TaskSpawn(record) => self.task_spawn(&record),
            Event::Shim(head, bytes) => self.shim(&head, bytes),
            Event::Steps(head, bytes) => self.counts.server_steps += self.servers.steps(head.pid, bytes),
            Event::Fork(_) | Event::Uring(_) | Event::Loaded(_) => self.counts.lifecycle += 1,
        }
        self.look(0, false);
        self.keep_within_budget();
    }

    fn process(&mut self, process: &ProcessInfo) {
        let before = self.processes.insert(process.id.pid, process.id);
        if before.is_some_and(|before| before != process.id) {
            self.end_process_state(process.id.pid, 0);
        }
        let mut attributes: Vec<Attribute> = vec![("service.name".into(), Value::Str(process.service.clone().into()))];
        attributes.extend(process.attributes.iter().map(|(name, value)| {
            let value = match value {
                ResourceValue::Str(text) => Value::Str(text.clone().into()),
                ResourceValue::Int(number) => Value::Int(*number),
                ResourceValue::List(texts) => Value::List(texts.clone()),
            };
            (name.clone().into(), value)
        }));
        self.servers.name_process(process.id.pid, process.service.as_str().into());
        self.output.resources.push(Resource { process: process.id, attributes });
    }

    fn probe(&mut self, probe: &ProbeInfo) {
        let index = probe.index as usize;
        if self.probes.len() <= index {
            self.probes.resize(index + 1, None);
        }
        self.probes[index] = Some(Arc::new(MessageType::new(probe)));
    }

    /// A process ended or changed its program: what it had open is over.
    fn end_process(&mut self, pid: u32, now_ns: u64) {
        // Every process of the host that begins a program comes here.
        if self.processes.remove(&pid).is_some() || self.servers.has_timeline(pid) {
            self.end_process_state(pid, now_ns);
        }
    }

    fn end_process_state(&mut self, pid: u32, now_ns: u64) {
        self.end_leads_of_process(pid);
        self.servers.end_process(pid);
        self.orphan_connections(pid, now_ns);
        for flow in self.flows.remove_process(pid) {
            self.process_spans(flow);
        }
    }

    /// Starts a flow in place of the worker's previous one.
    pub(super) fn begin_flow(&mut self, key: FlowKey, flow: Flow<Decoded>) {
        self.end_flow(key);
        self.end_lead(key);
        if self.flows.len() >= MAX_FLOWS
            && let Some(oldest) = self.flows.remove_oldest()
        {
            self.counts.flows_evicted += 1;
            self.process_spans(oldest);
        }
        self.flows.insert(key, flow);
    }

    pub(super) fn end_flow(&mut self, key: FlowKey) {
        if let Some(flow) = self.flows.remove(&key) {
            self.process_spans(flow);
        }
    }

    /// The parent by the thread's context or the worker's flow.
    pub(super) fn ambient(&self, head: &Head, key: FlowKey) -> Option<SpanContext> {
        thread_context(head).or_else(|| self.flows.get(&key).map(|flow| flow.context().clone()))
    }

    /// Counts a span and keeps it if its trace is sampled. `make` builds what only kept spans need.
    pub(super) fn emit(&mut self, place: &Place, make: impl FnOnce(&Self) -> Span) {
        self.counts.spans += 1;
        if place.is_sampled() {
            let span = make(self);
            self.output.spans.push(span);
        } else {
            self.counts.sampled_out += 1;
        }
    }
}

/// The worker that a record is of.
pub(super) fn flow_key(head: &Head) -> FlowKey {
    let worker = if head.task_id != 0 { Worker::Task(head.task_id) } else { Worker::Thread(head.tid) };
    FlowKey { pid: head.pid, worker }
}

/// The context that was active on the thread.
pub(super) fn thread_context(head: &Head) -> Option<SpanContext> {
    let (trace_id, span_id) = (TraceId(head.trace_id), SpanId(head.span_id));
    (head.flags & FLAG_CONTEXT != 0 && trace_id.is_valid() && span_id.is_valid()).then(|| SpanContext {
        trace_id,
        span_id,
        flags: head.trace_flags as u8,
        remote: false,
        trace_state: "".into(),
    })
}
