//! The prost functions of a file.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::buffers;
use super::code::Function;
use super::entry::entry;
use super::exits::{AfterCalls, exits};
use super::flow::Flow;
use super::image::Image;
use super::layout;
use super::names::{self, Method};
use super::plan::{FunctionEntry, MessageFn, Operation, ProbePlan, Remark, RemarkKind, TypeSource};
use super::references::Hits;
use super::relocations::Relocations;
use super::symbols::{Symbols, demangle};

/// More prost functions than this are not planned.
const MAX_MESSAGES: usize = 65_536;

/// What the names of the functions say.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    /// Traced methods by address; several at one address were folded by the linker.
    methods: BTreeMap<u64, Vec<Method>>,
    pub(super) errors: BTreeMap<u64, String>,
    pub(super) panics: BTreeMap<u64, String>,
    /// There is a symbol of prost.
    pub(super) has_prost: bool,
    /// There is a message type with its own functions.
    pub(super) has_messages: bool,
}

impl Catalog {
    pub(super) fn read(symbols: &Symbols<'_>) -> Self {
        let mut catalog = Self::default();
        for function in symbols.functions() {
            let mangled = symbols.name(function);
            if mangled.contains("rust_panic") {
                let name = if mangled == "rust_panic" {
                    mangled.to_owned()
                } else {
                    demangle(mangled)
                };
                if names::is_rust_panic(&name) {
                    catalog.panics.insert(function.address, name);
                }
            } else if mangled.contains("prost") {
                catalog.has_prost = true;
                let name = demangle(mangled);
                if names::makes_decode_error(&name) {
                    catalog.errors.insert(function.address, name);
                } else if let Some(method) = names::method(&name) {
                    catalog.has_messages |= method.message.is_some();
                    if method.operation().is_some() && catalog.methods.len() < MAX_MESSAGES {
                        let methods = catalog.methods.entry(function.address).or_default();
                        if !methods.contains(&method) {
                            methods.push(method);
                        }
                    }
                }
            }
        }
        catalog
    }

    /// Addresses of the traced methods.
    pub(super) fn wanted(&self) -> HashSet<u64> {
        self.methods.keys().copied().collect()
    }
}

/// Adds prost functions, decode errors and panics to the plan.
pub(super) fn plan(
    image: &Image<'_>,
    symbols: &Symbols<'_>,
    relocations: &Relocations,
    catalog: &Catalog,
    plan: &mut ProbePlan,
) {
    let operations: HashMap<u64, Operation> = catalog
        .methods
        .iter()
        .filter_map(|(address, methods)| Some((*address, methods.first()?.operation()?)))
        .collect();
    let hits = Hits::scan(image, symbols, relocations, &catalog.wanted());
    let after_calls = AfterCalls::find(image, &hits, &operations);
    let mut open = relocations.taken.clone();
    open.extend(
        operations
            .keys()
            .copied()
            .filter(|address| symbols.exported(*address)),
    );
    let layouts_known = plan.producer.as_deref().is_some_and(layout::known_compiler);
    for (address, methods) in &catalog.methods {
        match message(
            image,
            symbols,
            &after_calls,
            &open,
            *address,
            methods,
            layouts_known,
        ) {
            Ok(message) => plan.messages.push(message),
            Err(reason) => plan.remarks.push(Remark {
                kind: RemarkKind::Untraceable,
                subject: Some(subject(methods, *address)),
                text: format!("cannot be probed: {reason}"),
                remedy: None,
            }),
        }
        if methods.len() > 1 {
            plan.remarks.push(Remark {
                kind: RemarkKind::Folded,
                subject: Some(subject(methods, *address)),
                text: format!(
                    "{} functions with the same code share this address",
                    methods.len()
                ),
                remedy: Some("link with -C link-arg=-Wl,--icf=none".to_owned()),
            });
        }
    }
    for (list, found) in [
        (&catalog.errors, &mut plan.errors),
        (&catalog.panics, &mut plan.panics),
    ] {
        for (address, name) in list {
            match decode(image, symbols, *address)
                .and_then(|function| entry(image, &Flow::new(image, &function)))
            {
                Ok(entry) => found.push(FunctionEntry {
                    name: name.clone(),
                    entry,
                }),
                Err(reason) => plan.remarks.push(Remark {
                    kind: RemarkKind::Untraceable,
                    subject: Some(name.clone()),
                    text: format!("cannot be probed: {reason}"),
                    remedy: None,
                }),
            }
        }
    }
}

fn decode<'a>(
    image: &Image<'a>,
    symbols: &Symbols<'_>,
    address: u64,
) -> Result<Function<'a>, &'static str> {
    /// Larger ones would take too long to analyse, in bytes.
    const MAX_SIZE: u64 = 256 << 10;
    match symbols.size_at(address) {
        0 => Err("its symbol has no size"),
        size if size > MAX_SIZE => Err("it is too large"),
        size => Function::decode(image, address, size).ok_or("its code cannot be decoded"),
    }
}

fn message(
    image: &Image<'_>,
    symbols: &Symbols<'_>,
    after_calls: &AfterCalls,
    open: &HashSet<u64>,
    address: u64,
    methods: &[Method],
    layouts_known: bool,
) -> Result<MessageFn, &'static str> {
    let function = decode(image, symbols, address)?;
    let flow = Flow::new(image, &function);
    let operation = methods
        .first()
        .and_then(Method::operation)
        .ok_or("it has no name")?;
    let (exit_kind, exits) = exits(image, &flow, after_calls, open)?;
    let message_type = same(methods.iter().map(|method| method.message.as_deref()));
    let buffer_type = same(methods.iter().map(|method| method.buffer.as_deref()));
    let same_operation = methods
        .iter()
        .all(|method| method.operation() == Some(operation));
    let known = buffer_type.filter(|_| layouts_known && same_operation);
    Ok(MessageFn {
        operation,
        message_type: message_type.map(str::to_owned),
        type_source: if message_type.is_some() {
            TypeSource::Symbol
        } else {
            TypeSource::Unknown
        },
        buffer_type: buffer_type.map(str::to_owned),
        entry: entry(image, &flow)?,
        exits,
        exit_kind,
        probe: buffers::probe(&flow, operation, known),
    })
}

/// The value if all agree on it.
fn same<'a>(mut values: impl Iterator<Item = Option<&'a str>>) -> Option<&'a str> {
    let first = values.next().flatten()?;
    values.all(|value| value == Some(first)).then_some(first)
}

fn subject(methods: &[Method], address: u64) -> String {
    let name = |method: &Method| {
        let message = method
            .message
            .as_ref()
            .map(|message| format!("{message}::"))
            .unwrap_or_default();
        format!("{message}{} at {address:#x}", method.name)
    };
    methods.first().map(name).unwrap_or_default()
}
