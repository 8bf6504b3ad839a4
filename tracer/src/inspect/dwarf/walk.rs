//! The entries of a unit: methods that are inlined somewhere, and the places where they are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use gimli::constants as dw;

use super::lines::Lines;
use super::names::{MethodName, Name};
use super::origin::is_message_file;
use super::unit::{Attributes, Ranges, Sections, Text, Unit};
use super::{Found, InlinedCall, MAX_CALLS, Scope};

/// More inlined functions than this in one call are not the work of a compiler.
const MAX_SCOPES: usize = 1 << 16;
/// Names of inlined functions matter down to this depth.
const NAMED_DEPTH: u16 = 3;

/// Finds the abstract instances of methods.
pub(super) fn methods(
    unit: &Unit<'_>,
    names: &HashMap<u64, Rc<Name>>,
    methods: &mut BTreeMap<u64, (u64, Rc<Name>)>,
    found: &mut Found,
) -> Option<()> {
    let mut entries = unit.entries()?;
    let mut links = Vec::new();
    let mut function = |ranges, name: &Name| {
        let Ranges::Pair(start, end) = ranges else { return };
        if start >= end {
            return;
        }
        let Found { functions, codecs, .. } = &mut *found;
        match name {
            Name::Codec(message) => add_codec(codecs, vec![(start, end)], message),
            Name::Method(method) => {
                let said = Some((method.message.clone(), method.buffer.clone()));
                let known = functions.entry(start).or_insert_with(|| said.clone());
                // The linker has folded functions of different types.
                if *known != said {
                    *known = None;
                }
            }
        }
    };
    while !entries.is_empty() {
        let offset = unit.offset + entries.next_offset().0 as u64;
        let Some(abbreviation) = entries.read_abbreviation().ok()? else { continue };
        if abbreviation.tag() != dw::DW_TAG_subprogram {
            entries.skip_attributes(abbreviation.attributes()).ok()?;
            continue;
        }
        let attributes = unit.attributes(&mut entries, abbreviation.attributes())?;
        let method = match &attributes.name {
            Some(Text::At(at)) => names.get(at).cloned(),
            Some(Text::Inline(name)) => Name::parse(name).map(Rc::new),
            None => None,
        };
        if let Some(method) = method {
            function(attributes.ranges, &method);
            methods.insert(offset, (unit.offset, method));
        } else if let Some(origin) = attributes.origin {
            links.push((offset, origin, attributes.ranges));
        }
    }
    // The abstract instance of a declared function has no name of its own.
    for (offset, origin, ranges) in links {
        if let Some((_, method)) = methods.get(&origin).cloned() {
            function(ranges, &method);
            methods.insert(offset, (unit.offset, method));
        }
    }
    Some(())
}

/// A part of tonic's code that encodes messages of one type.
fn add_codec(codecs: &mut Vec<(Vec<(u64, u64)>, String)>, ranges: Vec<(u64, u64)>, message: &str) {
    if codecs.len() < MAX_CALLS {
        codecs.push((ranges, message.to_owned()));
    }
}

/// A call whose names are still offsets.
pub(super) struct RawCall {
    call: InlinedCall,
    caller: u64,
    /// Of each scope.
    origins: Vec<Option<u64>>,
}

impl RawCall {
    /// The entries whose names are needed.
    pub(super) fn references(&self) -> impl Iterator<Item = u64> {
        let named = self.call.scopes.iter().zip(&self.origins);
        named
            .filter_map(|(scope, origin)| origin.filter(|_| scope.depth <= NAMED_DEPTH))
            .chain(std::iter::once(self.caller))
    }

    pub(super) fn named(mut self, texts: &HashMap<u64, String>) -> InlinedCall {
        for (scope, origin) in self.call.scopes.iter_mut().zip(&self.origins) {
            let name = origin.and_then(|origin| texts.get(&origin));
            scope.name = name.map(|name| base_name(name).to_owned());
        }
        self.call.caller = texts.get(&self.caller).cloned();
        self.call
    }
}

/// The last part of a path, without generics.
fn base_name(name: &str) -> &str {
    if let Some((_, method)) = name.rsplit_once(">::") {
        return method.split("::<").next().unwrap_or(method);
    }
    let plain = name.split('<').next().unwrap_or(name);
    plain.trim_end_matches(':').rsplit("::").next().unwrap_or(plain)
}

/// An entry whose children are being read.
struct Open {
    depth: isize,
    entry: u64,
    /// Start and end of a function.
    function: Option<(u64, u64)>,
    /// Index of the call that it is, or is part of, and how deep.
    call: Option<(usize, u16)>,
    /// It is a method of prost, so what is inlined into it is part of it.
    method: bool,
}

/// Finds the inlined calls.
pub(super) fn calls(
    sections: &Sections<'_>,
    unit: &Unit<'_>,
    methods: &BTreeMap<u64, (u64, Rc<Name>)>,
    codecs: &mut Vec<(Vec<(u64, u64)>, String)>,
    found: &mut Vec<RawCall>,
) -> Option<()> {
    let first = found.len();
    let mut files = Vec::new();
    let mut stack: Vec<Open> = Vec::new();
    let mut entries = unit.entries()?;
    while !entries.is_empty() {
        let entry = unit.offset + entries.next_offset().0 as u64;
        let depth = entries.next_depth();
        let Some(abbreviation) = entries.read_abbreviation().ok()? else { continue };
        while stack.last().is_some_and(|open| open.depth >= depth) {
            stack.pop();
        }
        let tag = abbreviation.tag();
        if tag != dw::DW_TAG_subprogram && tag != dw::DW_TAG_inlined_subroutine {
            entries.skip_attributes(abbreviation.attributes()).ok()?;
            continue;
        }
        let attributes = unit.attributes(&mut entries, abbreviation.attributes())?;
        let named = |entry| methods.get(&entry).map(|(_, name)| &**name);
        let known = match attributes.origin.and_then(named) {
            Some(Name::Method(method)) => Some(method),
            Some(Name::Codec(message)) if tag == dw::DW_TAG_inlined_subroutine => {
                add_codec(codecs, unit.ranges(attributes.ranges).unwrap_or_default(), message);
                None
            }
            _ => None,
        };
        let mut open = Open { depth, entry, function: None, call: None, method: false };
        if tag == dw::DW_TAG_subprogram {
            if let Ranges::Pair(start, end) = attributes.ranges {
                open.function = Some((start, end)).filter(|_| start < end);
            }
            open.method = known.is_some() || matches!(named(entry), Some(Name::Method(_)));
        } else if let Some(parent) = stack.last() {
            (open.function, open.method) = (parent.function, parent.method);
            match (parent.call, known, parent.function) {
                (Some((call, depth)), _, _) => {
                    open.call = Some((call, depth + 1));
                    let raw = &mut found[call];
                    if depth == 0 {
                        files.push((call, false, attributes.call_file));
                    }
                    if raw.call.scopes.len() < MAX_SCOPES {
                        sections.fuel.spend(size_of::<Scope>())?;
                        let ranges = unit.ranges(attributes.ranges).unwrap_or_default();
                        raw.call.scopes.push(Scope { depth: depth + 1, name: None, ranges });
                        raw.origins.push(attributes.origin);
                    }
                }
                (None, Some(method), Some(function)) if !parent.method && found.len() < MAX_CALLS => {
                    if let Some(call) = raw_call(unit, &attributes, method, function) {
                        open.call = Some((found.len(), 0));
                        files.push((found.len(), true, attributes.call_file));
                        found.push(RawCall { call, caller: parent.entry, origins: Vec::new() });
                    }
                }
                _ => {}
            }
        }
        if abbreviation.has_children() {
            stack.push(open);
        }
    }
    keep_prost(sections, unit, first, &files, found);
    Some(())
}

fn raw_call(
    unit: &Unit<'_>,
    attributes: &Attributes,
    method: &MethodName,
    function: (u64, u64),
) -> Option<InlinedCall> {
    let mut ranges = unit.ranges(attributes.ranges).filter(|ranges| !ranges.is_empty())?;
    // The first range is where it begins, unless the entry says otherwise.
    if let Some(entry) = attributes.entry
        && let Some(at) = ranges.iter().position(|(start, end)| (*start..*end).contains(&entry))
    {
        ranges.swap(0, at);
    }
    Some(InlinedCall {
        operation: method.operation,
        message: method.message.clone(),
        buffer: method.buffer.clone(),
        function,
        caller: None,
        file: None,
        line: attributes.call_line,
        ranges,
        nowhere: Rc::default(),
        scopes: Vec::new(),
    })
}

/// Fills in file names, and drops calls of functions that only have the same name.
fn keep_prost(
    sections: &Sections<'_>,
    unit: &Unit<'_>,
    first: usize,
    files: &[(usize, bool, Option<u64>)],
    found: &mut Vec<RawCall>,
) {
    if found.len() == first {
        return;
    }
    let Some(lines) = Lines::read(sections, unit) else {
        found.truncate(first);
        return;
    };
    let mut calls = found.split_off(first);
    let mut inside = vec![None; calls.len()];
    for (call, own, file) in files {
        if !own {
            inside[call - first] = inside[call - first].or(*file);
        }
    }
    // Nothing is inlined into some: the lines of their code tell whose they are.
    let bare = calls.iter().zip(&inside).filter(|(_, inside)| inside.is_none());
    let starts: BTreeSet<u64> = bare.filter_map(|(call, _)| Some(call.call.ranges.first()?.0)).collect();
    let functions: BTreeSet<(u64, u64)> = calls.iter().map(|call| call.call.function).collect();
    let (at, nowhere) = lines.at(&starts, &functions);
    let nowhere: Rc<[(u64, u64)]> = nowhere.into();
    for call in &mut calls {
        call.call.nowhere = Rc::clone(&nowhere);
    }
    for (call, inside) in calls.iter().zip(&mut inside) {
        *inside = inside.or_else(|| at.get(&call.call.ranges.first()?.0).copied());
    }
    let mut numbers: Vec<u64> = files.iter().filter_map(|(_, _, file)| *file).chain(at.into_values()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let paths: HashMap<u64, String> =
        numbers.iter().copied().zip(lines.paths(sections, &numbers)).filter_map(|(n, path)| Some((n, path?))).collect();
    for (call, own, file) in files {
        if *own {
            calls[call - first].call.file = file.and_then(|file| paths.get(&file).cloned());
        }
    }
    let prost = |file: Option<u64>| file.and_then(|file| paths.get(&file)).is_some_and(|path| is_message_file(path));
    found.extend(calls.into_iter().zip(inside).filter(|(_, inside)| prost(*inside)).map(|(call, _)| call));
}
