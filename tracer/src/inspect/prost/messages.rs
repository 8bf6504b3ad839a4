//! The prost functions of a file.

use std::collections::{BTreeMap, HashMap, HashSet};

use tracer_common::map::Probe;

use crate::inspect::code::callees::{Callee, Callees};
use crate::inspect::code::entry::{ALL_ARGUMENTS, entry};
use crate::inspect::code::exits::{AfterCalls, exits};
use crate::inspect::code::flow::{ARGUMENTS, Flow};
use crate::inspect::code::function::Function;
use crate::inspect::code::references::Hits;
use crate::inspect::code::returns::Returns;
use crate::inspect::code::values::{self, Uses};
use crate::inspect::dwarf;
use crate::inspect::elf::image::Image;
use crate::inspect::elf::relocations::Relocations;
use crate::inspect::elf::symbols::{Symbols, demangle};
use crate::inspect::inlined::calls;
use crate::inspect::inlined::frame_bytes::Helpers;
use crate::inspect::plan::{FunctionEntry, MessageFn, Operation, ProbePlan, Remark, RemarkKind, TypeSource};
use crate::inspect::prost::buffers::{self, Guess};
use crate::inspect::prost::layout;
use crate::inspect::prost::merged::Encoders;
use crate::inspect::prost::names::{self, Method};
use crate::inspect::prost::types;

/// More prost functions than this are not planned.
const MAX_MESSAGES: usize = 65_536;

/// Methods by the addresses of their functions.
type Methods = BTreeMap<u64, Vec<Method>>;

/// What the names of the functions say.
#[derive(Debug, Default)]
pub(in crate::inspect) struct Catalog {
    /// Traced methods by address; several at one address were folded by the linker.
    methods: Methods,
    /// `encode` of tonic's encoders, by address.
    encoders: Methods,
    pub(in crate::inspect) errors: BTreeMap<u64, String>,
    pub(in crate::inspect) panics: BTreeMap<u64, String>,
    /// There is a symbol of prost.
    pub(in crate::inspect) has_prost: bool,
    /// There is a message type with its own functions.
    pub(in crate::inspect) has_messages: bool,
}

impl Catalog {
    pub(in crate::inspect) fn read(symbols: &Symbols<'_>) -> Self {
        let mut catalog = Self::default();
        for function in symbols.functions() {
            let mangled = symbols.name(function);
            if mangled.contains("rust_panic") {
                let name = if mangled == "rust_panic" { mangled.to_owned() } else { demangle(mangled) };
                if names::is_rust_panic(&name) {
                    catalog.panics.insert(function.address, name);
                }
            } else if mangled.contains("prost") {
                catalog.has_prost = true;
                let name = demangle(mangled);
                if names::makes_decode_error(&name) {
                    catalog.errors.insert(function.address, name);
                } else if let Some(method) = names::encoder(&name) {
                    if catalog.encoders.len() < MAX_MESSAGES {
                        let methods = catalog.encoders.entry(function.address).or_default();
                        if !methods.contains(&method) {
                            methods.push(method);
                        }
                    }
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

    /// Addresses of the methods that may be traced.
    pub(in crate::inspect) fn wanted(&self) -> HashSet<u64> {
        self.methods.keys().chain(self.encoders.keys()).copied().collect()
    }

    /// The traced methods: prost's, and the encoders in which prost's are inlined, unless the debug info says where.
    fn traced(
        &self,
        image: &Image<'_>,
        symbols: &Symbols<'_>,
        callees: &Callees<'_, '_>,
        said: &dwarf::Found,
    ) -> Methods {
        let mut traced = self.methods.clone();
        for (address, methods) in &self.encoders {
            let known = said.calls.iter().any(|call| call.function.0 == *address);
            let Some(function) = decode(image, symbols, *address).ok().filter(|_| !known) else { continue };
            let mut targets = function.instructions.iter().filter_map(|instruction| callees.target(instruction));
            if !targets.any(|target| self.methods.contains_key(&target)) {
                traced.insert(*address, methods.clone());
            }
        }
        traced
    }
}

/// Adds prost functions, decode errors and panics to the plan.
pub(in crate::inspect) fn plan<'a>(
    image: &Image<'a>,
    symbols: &Symbols<'a>,
    relocations: &Relocations,
    catalog: &Catalog,
    compiler_known: bool,
    inlined: dwarf::Found,
    plan: &mut ProbePlan,
) {
    let callees = Callees::new(image, symbols, relocations);
    let methods = catalog.traced(image, symbols, &callees, &inlined);
    let operations: HashMap<u64, Operation> =
        methods.iter().filter_map(|(address, methods)| Some((*address, methods.first()?.operation()?))).collect();
    let hits = Hits::scan(image, symbols, relocations, &operations.keys().copied().collect());
    let after_calls = AfterCalls::find(image, &hits, &operations);
    let mut open = relocations.taken.clone();
    open.extend(operations.keys().copied().filter(|address| symbols.exported(*address)));
    let planner = Planner {
        image,
        symbols,
        callees,
        after_calls,
        open,
        compiler_known,
        said: &inlined.functions,
        encoders: Encoders { symbols, codecs: &inlined.codecs },
    };
    let mut types = HashMap::new();
    let mut delegates = Vec::new();
    for (address, methods) in &methods {
        match planner.message(*address, methods) {
            Ok((message, delegate)) => {
                types.insert(*address, message.message_type.clone());
                delegates.push(delegate);
                plan.messages.push(message);
            }
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
                text: format!("{} functions with the same code share this address", methods.len()),
                remedy: Some("link with -C link-arg=-Wl,--icf=none".to_owned()),
            });
        }
    }
    inlined_calls(image, &planner.callees, compiler_known, inlined.calls, inlined.incomplete, plan);
    for (list, found) in [(&catalog.errors, &mut plan.errors), (&catalog.panics, &mut plan.panics)] {
        for (address, name) in list {
            match decode(image, symbols, *address)
                .and_then(|function| entry(image, &Flow::new(image, &function), ALL_ARGUMENTS))
            {
                Ok(entry) => found.push(FunctionEntry { name: name.clone(), entry }),
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

/// Adds the calls that are inlined, where there is debug info.
fn inlined_calls<'a>(
    image: &Image<'a>,
    callees: &Callees<'_, 'a>,
    compiler_known: bool,
    calls: Vec<dwarf::InlinedCall>,
    incomplete: bool,
    plan: &mut ProbePlan,
) {
    if incomplete {
        plan.remarks.push(Remark {
            kind: RemarkKind::Damaged,
            subject: None,
            text: "a part of the debug info cannot be read".to_owned(),
            remedy: None,
        });
    }
    let planned = calls::plan(image, calls, &Returns::new(image, callees), &Helpers::new(callees, compiler_known));
    plan.messages.extend(planned.messages);
    for (call, reason) in planned.refused {
        let place = call.line.map(|line| format!(" in {}:{line}", call.file.as_deref().unwrap_or("?")));
        plan.remarks.push(Remark {
            kind: RemarkKind::Untraceable,
            subject: Some(format!("{} of {}{}", call.operation.name(), call.message, place.unwrap_or_default())),
            text: format!("this inlined call cannot be probed: {reason}"),
            remedy: None,
        });
    }
}

fn decode<'a>(image: &Image<'a>, symbols: &Symbols<'_>, address: u64) -> Result<Function<'a>, &'static str> {
    /// Larger ones would take too long to analyse, in bytes.
    const MAX_SIZE: u64 = 256 << 10;
    match symbols.size_at(address) {
        0 => Err("its symbol has no size"),
        size if size > MAX_SIZE => Err("it is too large"),
        size => Function::decode(image, address, size).ok_or("its code cannot be decoded"),
    }
}

struct Planner<'i, 'a> {
    image: &'i Image<'a>,
    symbols: &'i Symbols<'a>,
    callees: Callees<'i, 'a>,
    after_calls: AfterCalls,
    /// Functions that are called from where nobody can see.
    open: HashSet<u64>,
    compiler_known: bool,
    /// What the debug info says of functions: message and buffer.
    said: &'i HashMap<u64, Option<(String, Option<String>)>>,
    encoders: Encoders<'i, 'a>,
}

impl<'a> Planner<'_, 'a> {
    /// Plans one function, and names the function that does the work for it, whose message is therefore the same.
    fn message(&self, address: u64, methods: &[Method]) -> Result<(MessageFn, Option<u64>), &'static str> {
        let image = self.image;
        let function = decode(image, self.symbols, address)?;
        let flow = Flow::new(image, &function);
        let operation = methods.first().and_then(Method::operation).ok_or("it has no name")?;
        let (exit_kind, exits) = exits(image, &flow, &self.after_calls, &self.open)?;
        let arguments = flow.live_arguments().map_or(ALL_ARGUMENTS, |(_, maybe)| maybe);
        let entry = entry(image, &flow, arguments)?;
        let mut message_type = same(methods.iter().map(|method| method.message.as_deref())).map(str::to_owned);
        let mut type_source = if message_type.is_some() { TypeSource::Symbol } else { TypeSource::Unknown };
        let mut buffer_type = same(methods.iter().map(|method| method.buffer.as_deref()));
        // What is behind two pointers is read only where the code itself follows both.
        let follows = |name: &&str| {
            !layout::is_behind(name) || buffers::follows(&self.uses(&flow), operation, self.callees.growth(&function))
        };
        let mut layout = buffer_type.filter(follows);
        let encoder = methods.iter().all(|method| method.encoder);
        let legacy = methods.iter().all(|method| method.message.is_none()) && !encoder;
        let said = self.said.get(&address).and_then(Option::as_ref).filter(|_| legacy);
        if let Some((message, buffer)) = said {
            (message_type, type_source) = (Some(message.clone()), TypeSource::DebugInfo);
            buffer_type = buffer.as_deref();
            layout = buffer_type.filter(follows);
        } else if legacy {
            let uses = self.uses(&flow);
            if let Some((name, source)) = types::message_type(image, &flow, &self.callees, &uses, operation) {
                (message_type, type_source) = (Some(name), source);
            }
            let guess =
                buffers::guess(&flow, operation, &uses, &self.dropped(&flow, &uses), self.callees.growth(&function));
            buffer_type = guess.and_then(Guess::name);
            layout = guess.map(Guess::layout);
        }
        if operation.is_encode()
            && let Some(named) = message_type.take()
        {
            let settled = self.encoders.message_type(&named, self.after_calls.calls(address));
            if settled.as_ref() != Some(&named) {
                type_source = if settled.is_some() { TypeSource::Callers } else { TypeSource::Unknown };
            }
            message_type = settled;
        }
        let same_operation = methods.iter().all(|method| method.operation() == Some(operation));
        let message = MessageFn {
            operation,
            message_type,
            type_source,
            buffer_type: buffer_type.map(str::to_owned),
            entry,
            exits,
            exit_kind,
            probe: if encoder {
                buffers::encoder_probe(&self.uses(&flow), self.callees.growth(&function), self.compiler_known)
            } else if same_operation {
                buffers::probe(&flow, operation, layout, self.compiler_known)
            } else {
                Probe { operation: operation.code(), ..Probe::default() }
            },
            call: None,
        };
        Ok((message, self.delegate(&function, operation)))
    }

    /// What a function does with its arguments, and which bytes the functions read that it calls.
    fn uses(&self, flow: &Flow<'_, '_>) -> Uses {
        let mut uses = values::uses(flow);
        let mut bytes = Vec::new();
        for call in uses.calls.iter().filter(|call| call.hands_on()) {
            let target = self.callees.target(&flow.function.instructions[call.index]);
            let Some(inner) = target.and_then(|target| self.callees.uses(target)) else { continue };
            bytes.extend(inner.bytes.iter().filter_map(|path| call.resolve(path)));
        }
        uses.bytes.extend(bytes);
        uses
    }

    /// Arguments that point to a value which the function drops, with the value's type.
    fn dropped(&self, flow: &Flow<'_, '_>, uses: &Uses) -> Vec<(u8, String)> {
        let mut dropped = Vec::new();
        for call in &uses.calls {
            let Some(argument) = (0..ARGUMENTS.len() as u8).find(|argument| call.this.is_argument(*argument)) else {
                continue;
            };
            let Some(target) = self.callees.target(&flow.function.instructions[call.index]) else {
                continue;
            };
            if let [Callee::Drop(name)] = &*self.callees.at(target) {
                dropped.push((argument, name.clone()));
            }
        }
        dropped
    }

    /// The only `merge` that a decode calls.
    fn delegate(&self, function: &Function<'_>, operation: Operation) -> Option<u64> {
        if operation.is_encode() {
            return None;
        }
        let mut found = None;
        for target in function.instructions.iter().filter_map(|instruction| self.callees.target(instruction)) {
            let merges = self.callees.at(target).iter().any(|callee| {
                matches!(callee, Callee::Method(method) if matches!(method.name.as_str(), "merge" | "merge_length_delimited"))
            });
            if merges && found.replace(target).is_some_and(|other| other != target) {
                return None;
            }
        }
        found
    }
}

/// The value if all agree on it.
fn same<'a>(mut values: impl Iterator<Item = Option<&'a str>>) -> Option<&'a str> {
    let first = values.next().flatten()?;
    values.all(|value| value == Some(first)).then_some(first)
}

fn subject(methods: &[Method], address: u64) -> String {
    let name = |method: &Method| {
        let message = method.message.as_ref().map(|message| format!("{message}::")).unwrap_or_default();
        format!("{message}{} at {address:#x}", method.name)
    };
    methods.first().map(name).unwrap_or_default()
}
