//! Spans frozen together, shared by all exporters.

use crate::model::HashMap;
use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};

use crate::model::{ProcessId, Resource, Span, Value};

/// Processes whose resource is kept; the one named first is forgotten first. Machines run some hundred services.
const MAX_RESOURCES: usize = 16_384;

/// Spans and what is needed to write them anywhere.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The spans, in the order they came.
    pub spans: Vec<Span>,
    /// The resource of each process that has a span here.
    pub resources: HashMap<ProcessId, Arc<Resource>>,
    /// Nanoseconds to add to the times of the spans.
    pub clock_offset_ns: i64,
}

impl Batch {
    /// Nanoseconds since 1970 of a monotonic time.
    pub fn unix_ns(&self, monotonic_ns: u64) -> u64 {
        monotonic_ns.saturating_add_signed(self.clock_offset_ns)
    }

    /// The resource of a process, empty when nobody told it.
    pub fn resource(&self, process: ProcessId) -> &Arc<Resource> {
        static UNKNOWN: LazyLock<Arc<Resource>> =
            LazyLock::new(|| Arc::new(Resource { process: ProcessId::default(), attributes: Vec::new() }));
        self.resources.get(&process).unwrap_or(&UNKNOWN)
    }
}

/// All spans of one process.
#[derive(Debug)]
pub(super) struct Group<'a> {
    pub(super) resource: &'a Arc<Resource>,
    /// Each with the batch that knows its wall-clock time.
    pub(super) spans: Vec<(&'a Batch, &'a Span)>,
}

/// The spans of each process together, processes in the order of their first span.
pub(super) fn by_process(batches: &[Arc<Batch>]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut places: HashMap<ProcessId, usize> = HashMap::default();
    let mut last = None;
    for batch in batches {
        for span in &batch.spans {
            // Spans of one process come in runs.
            let place = match last {
                Some((process, place)) if process == span.process => place,
                _ => *places.entry(span.process).or_insert_with(|| {
                    groups.push(Group { resource: batch.resource(span.process), spans: Vec::new() });
                    groups.len() - 1
                }),
            };
            last = Some((span.process, place));
            groups[place].spans.push((batch, span));
        }
    }
    groups
}

/// Text of `service.name`, for people.
pub fn service_name(resource: &Resource) -> &str {
    resource
        .attributes
        .iter()
        .find_map(|(key, value)| match value {
            Value::Str(text) if key == "service.name" => Some(text.as_str()),
            _ => None,
        })
        .unwrap_or("unknown_service")
}

/// The resources of all processes that were named, within a bound.
#[derive(Debug, Default)]
pub(super) struct Resources {
    known: HashMap<ProcessId, Arc<Resource>>,
    order: VecDeque<ProcessId>,
}

impl Resources {
    /// Adds or replaces.
    pub(super) fn insert(&mut self, resource: Resource) {
        let process = resource.process;
        if self.known.insert(process, Arc::new(resource)).is_none() {
            self.order.push_back(process);
        }
        if self.order.len() > MAX_RESOURCES
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// Freezes spans into a batch.
    pub(super) fn freeze(&self, spans: Vec<Span>, clock_offset_ns: i64) -> Batch {
        let mut resources = HashMap::default();
        for span in &spans {
            if !resources.contains_key(&span.process)
                && let Some(resource) = self.known.get(&span.process)
            {
                resources.insert(span.process, Arc::clone(resource));
            }
        }
        Batch { spans, resources, clock_offset_ns }
    }
}
