//! The probe plan of a file: its form, what it lacks ([`remarks`], [`limits`]), and how it is printed ([`render`]).

pub mod limits;
pub mod remarks;
pub mod render;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use tracer_common::map::{self, Probe};

pub use crate::model::{CallPlace, Operation};

/// Where the names of a file's functions are from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SymbolSource {
    /// Only those that other objects may use are known: `.dynsym`.
    #[default]
    Dynamic,
    /// Its own `.symtab`.
    File,
    /// The `.symtab` of the file with its debug info.
    DebugFile,
    /// Mini debug info: `.gnu_debugdata`.
    DebugData,
}

/// Everything that can be probed in one file, and what cannot and why.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ProbePlan {
    /// The GNU build-id, by which plans can be cached.
    #[serde(serialize_with = "hex_option", deserialize_with = "from_hex")]
    pub build_id: Option<Vec<u8>>,
    /// The compiler, as `rustc version 1.95.0 (...)`, from `.comment`.
    pub producer: Option<String>,
    /// No symbols but the dynamic ones.
    pub stripped: bool,
    /// Where the names of its functions are from.
    pub symbols: SymbolSource,
    /// Has `.debug_info`.
    pub has_dwarf: bool,
    /// Address of the first executable segment: `mm_struct.start_code` of its processes, less what they are moved by.
    pub code_start: u64,
    /// Has code by rustc.
    pub is_rust: bool,
    /// An executable without an interpreter: its libc is inside.
    pub static_exe: bool,
    /// prost functions.
    pub messages: Vec<MessageFn>,
    /// Functions that pack Redis commands for a connection that many tasks share.
    pub packs: Vec<PackFn>,
    /// Functions by which a task makes a gRPC call.
    pub grpc_calls: Vec<FunctionEntry>,
    /// Functions by which a task is spawned.
    pub spawns: Vec<FunctionEntry>,
    /// Functions through which every prost decode error is made.
    pub errors: Vec<FunctionEntry>,
    /// The function through which every Rust panic goes.
    pub panics: Vec<FunctionEntry>,
    /// libc functions on descriptors.
    pub sockets: Vec<SocketFn>,
    /// USDT probes.
    pub notes: Vec<UsdtNote>,
    /// Thread-local variables that a probe can read.
    pub tls: TlsSymbols,
    /// What cannot be traced, and what would change it.
    pub remarks: Vec<Remark>,
}

impl ProbePlan {
    /// Every place that a probe may be attached to.
    pub fn sites(&self) -> impl Iterator<Item = &Site> {
        let messages = self.messages.iter().flat_map(|function| function.exits.iter().chain([&function.entry]));
        let calls = self
            .errors
            .iter()
            .chain(&self.panics)
            .chain(&self.grpc_calls)
            .chain(&self.spawns)
            .map(|function| &function.entry);
        let sockets = self.sockets.iter().flat_map(|function| function.exits.iter().chain([&function.entry]));
        let packs = self.packs.iter().flat_map(|function| function.exits.iter().chain([&function.entry]));
        messages.chain(calls).chain(sockets).chain(packs).chain(self.notes.iter().map(|note| &note.site))
    }
}

/// How the message type of a function is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TypeSource {
    /// The function's own symbol names it.
    Symbol,
    /// The functions it calls on the same message name it.
    Callees,
    /// The code that calls it names one or several; the compiler has merged the functions of messages that have the same shape.
    Callers,
    /// The name that it pushes on a decode error.
    ErrorString,
    /// The name in the debug info.
    DebugInfo,
    /// Not known.
    Unknown,
}

/// Where a function is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitKind {
    /// In its callers, behind each call: all of them are known.
    AfterCall,
    /// At its `ret` instructions and tail calls.
    Return,
    /// It is inlined: where control leaves its code.
    Inlined,
}

/// A prost function with its probe.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MessageFn {
    /// Which method.
    pub operation: Operation,
    /// The message type; a full path unless only the short name is known.
    pub message_type: Option<String>,
    /// How the type is known.
    pub type_source: TypeSource,
    /// The type of the buffer, where the method has one and it is known.
    pub buffer_type: Option<String>,
    /// Where a call begins.
    pub entry: Site,
    /// Where a call ends.
    pub exits: Vec<Site>,
    /// What kind of exits these are.
    pub exit_kind: ExitKind,
    /// How the eBPF program finds the bytes.
    #[serde(serialize_with = "probe", deserialize_with = "from_view")]
    pub probe: Probe,
    /// Where the call is in the source, if it is inlined: then this is not a function but one call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<CallPlace>,
}

/// A function that packs Redis commands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PackFn {
    /// The function's name.
    pub name: String,
    /// Where a call begins.
    pub entry: Site,
    /// Where a call ends.
    pub exits: Vec<Site>,
    /// What kind of exits these are.
    pub exit_kind: ExitKind,
    /// How the eBPF program finds the bytes.
    #[serde(serialize_with = "probe", deserialize_with = "from_view")]
    pub probe: Probe,
}

/// A place to attach a uprobe to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Site {
    /// Offset in the file, to attach to.
    pub offset: u64,
    /// Virtual address in the file's own numbering.
    pub address: u64,
    /// `rsp + sp_delta` is the address of the call's return address.
    pub sp_delta: i32,
    /// The kernel emulates the instruction, else it single-steps it, ten times dearer.
    pub cheap: bool,
}

/// The entry of a function whose call alone says something.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FunctionEntry {
    /// The function's name.
    pub name: String,
    /// Where a call begins.
    pub entry: Site,
}

/// A libc function on a descriptor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SocketFn {
    /// `send`, `read` and so on.
    pub name: String,
    /// Where a call begins, with its arguments in the registers.
    pub entry: Site,
    /// Where the result is in rax.
    pub exits: Vec<Site>,
}

/// A USDT probe from `.note.stapsdt`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UsdtNote {
    /// Provider.
    pub provider: String,
    /// Name.
    pub name: String,
    /// Where to attach.
    pub site: Site,
    /// The counter that tells the program that somebody listens.
    pub semaphore: Option<Semaphore>,
    /// Where the arguments are, as in the note (`8@%rax -4@$3`).
    pub arguments: String,
}

/// The semaphore of a USDT probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Semaphore {
    /// Offset in the file.
    pub offset: u64,
    /// Virtual address in the file's own numbering.
    pub address: u64,
}

/// Thread-local variables, and what is needed to find them at run time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TlsSymbols {
    /// `otel_thread_ctx_v1` (OTEP 4947).
    pub thread_context: Option<TlsSymbol>,
    /// tokio's `CONTEXT`.
    pub tokio_context: Option<TlsSymbol>,
    /// Offset in tokio's `CONTEXT` of the id of the current task, in bytes, if this version of tokio is known.
    pub task_id_offset: Option<u32>,
    /// Size of the TLS segment (`PT_TLS`) in memory, in bytes.
    pub segment_size: u64,
    /// Alignment of the TLS segment.
    pub segment_align: u64,
}

/// A thread-local variable.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TlsSymbol {
    /// The symbol's name.
    pub name: String,
    /// Offset in the TLS segment.
    pub offset: u64,
    /// Size in bytes.
    pub size: u64,
    /// In `.dynsym`, as OTEP 4947 asks.
    pub dynamic: bool,
    /// Offset from the thread pointer if the file is an executable: its TLS block has a fixed place.
    pub static_offset: Option<i64>,
    /// Virtual address of the TLSDESC pair; the second word is the offset from the thread pointer once resolved.
    pub descriptor: Option<u64>,
    /// Virtual address of the word that the loader sets to the module number.
    pub module_slot: Option<u64>,
}

/// Why something is not, or not fully, traced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remark {
    /// What kind of trouble.
    pub kind: RemarkKind,
    /// The function or part of the file.
    pub subject: Option<String>,
    /// What is so.
    pub text: String,
    /// What would change it.
    pub remedy: Option<String>,
}

/// Kind of a [`Remark`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemarkKind {
    /// There is no symbol table.
    Stripped,
    /// There is no code by rustc.
    NotRust,
    /// prost is there, but its functions are inlined.
    Inlined,
    /// A function cannot be probed.
    Untraceable,
    /// The message type is not known.
    UnknownType,
    /// The place of the bytes is not known.
    UnknownBuffer,
    /// Several functions share one address.
    Folded,
    /// tokio's tasks cannot be told apart.
    UnknownTask,
    /// What passes its encrypted connections is not read.
    Encrypted,
    /// A part of the file is damaged or too large.
    Damaged,
    /// Files with its split debug info are not there.
    MissingDebugInfo,
}

fn hex_option<S: Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
    bytes.as_ref().map(hex::encode).serialize(serializer)
}

fn from_hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(hex::decode).transpose().map_err(de::Error::custom)
}

/// [`Probe`] with names instead of numbers.
#[derive(Serialize, Deserialize)]
struct ProbeView {
    operation: String,
    buffer: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pointer: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    length: Option<String>,
    /// A second length, beside the pointer to the buffer.
    #[serde(default, skip_serializing_if = "is_zero")]
    limit: u8,
    encode_result: bool,
    #[serde(default)]
    inlined: bool,
}

const ARGUMENTS: [&str; 6] = ["rdi", "rsi", "rdx", "rcx", "r8", "r9"];

/// Says how the pointer and the length are found, as `[rdx+8]`.
pub(in crate::inspect) fn describe(probe: &Probe) -> (&'static str, Option<String>, Option<String>) {
    let register = |index: u8| *ARGUMENTS.get(usize::from(index)).unwrap_or(&"?");
    let mut base = register(probe.reg_a).to_owned();
    if probe.flags & map::PROBE_FRAME != 0 {
        base = format!("frame{:+}", probe.frame_offset);
    }
    for flag in [map::PROBE_FRAME_WORD, map::PROBE_BEHIND] {
        if probe.flags & flag != 0 {
            base = format!("[{base}]");
        }
    }
    let field = |offset: u8| Some(format!("[{base}+{offset}]"));
    match probe.buffer {
        map::BUFFER_SLICE => ("slice", Some(register(probe.reg_a).into()), Some(register(probe.reg_b).into())),
        map::BUFFER_INPUT => ("input", field(probe.ptr_offset), field(probe.len_offset)),
        map::BUFFER_OUTPUT => ("output", field(probe.ptr_offset), field(probe.len_offset)),
        map::BUFFER_RESULT => ("result", field(probe.ptr_offset), field(probe.len_offset)),
        _ => ("unknown", None, None),
    }
}

fn is_zero(offset: &u8) -> bool {
    *offset == 0
}

const FLAGS: [u8; 2] = [map::PROBE_ENCODE_RESULT, map::PROBE_INLINED];

fn probe<S: Serializer>(probe: &Probe, serializer: S) -> Result<S::Ok, S::Error> {
    let (buffer, pointer, length) = describe(probe);
    let [encode_result, inlined] = FLAGS.map(|flag| probe.flags & flag != 0);
    let operation = Operation::from_code(probe.operation).map_or("", Operation::name).to_owned();
    ProbeView {
        operation,
        buffer: buffer.to_owned(),
        pointer,
        length,
        limit: probe.limit_offset,
        encode_result,
        inlined,
    }
    .serialize(serializer)
}

fn from_view<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Probe, D::Error> {
    let view = ProbeView::deserialize(deserializer)?;
    view.probe().ok_or_else(|| de::Error::custom("no such probe"))
}

impl ProbeView {
    /// Inverse of [`describe`].
    fn probe(&self) -> Option<Probe> {
        // Functions that are none of prost's have no operation.
        let operation = if self.operation.is_empty() { 0 } else { Operation::from_name(&self.operation)?.code() };
        let mut probe = Probe { operation, ..Probe::default() };
        for (set, flag) in [self.encode_result, self.inlined].into_iter().zip(FLAGS) {
            probe.flags |= if set { flag } else { 0 };
        }
        let register = |name: &str| ARGUMENTS.iter().position(|argument| *argument == name).map(|index| index as u8);
        fn field(text: Option<&str>) -> Option<(&str, u8)> {
            let (base, offset) = text?.strip_prefix('[')?.strip_suffix(']')?.rsplit_once('+')?;
            Some((base, offset.parse().ok()?))
        }
        probe.buffer = match self.buffer.as_str() {
            "unknown" => return Some(probe),
            "slice" => {
                probe.reg_a = register(self.pointer.as_deref()?)?;
                probe.reg_b = register(self.length.as_deref()?)?;
                probe.buffer = map::BUFFER_SLICE;
                return Some(probe);
            }
            "input" => map::BUFFER_INPUT,
            "output" => map::BUFFER_OUTPUT,
            "result" => map::BUFFER_RESULT,
            _ => return None,
        };
        let mut base;
        (base, probe.ptr_offset) = field(self.pointer.as_deref())?;
        (_, probe.len_offset) = field(self.length.as_deref())?;
        let mut words = 0;
        while let Some(inner) = base.strip_prefix('[').and_then(|base| base.strip_suffix(']')) {
            (base, words) = (inner, words + 1);
        }
        match base.strip_prefix("frame") {
            Some(offset) => {
                probe.frame_offset = offset.parse().ok()?;
                probe.flags |= map::PROBE_FRAME | if words > 0 { map::PROBE_FRAME_WORD } else { 0 };
                words = words.max(1) - 1;
            }
            None => probe.reg_a = register(base)?,
        }
        probe.flags |= if words > 0 { map::PROBE_BEHIND } else { 0 };
        probe.limit_offset = self.limit;
        Some(probe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_survives_its_text() {
        let frame = map::PROBE_FRAME;
        for (buffer, reg_b, ptr_offset, len_offset, limit_offset, frame_flags, frame_offset) in [
            (map::BUFFER_UNKNOWN, 0, 0, 0, 0, 0, 0),
            (map::BUFFER_SLICE, 2, 0, 0, 0, 0, 0),
            (map::BUFFER_OUTPUT, 0, 8, 16, 0, 0, 0),
            (map::BUFFER_INPUT, 0, 0, 8, 8, 0, 0),
            (map::BUFFER_RESULT, 0, 8, 0, 0, frame, -328),
            (map::BUFFER_OUTPUT, 0, 0, 8, 0, frame | map::PROBE_FRAME_WORD, 16),
            (map::BUFFER_INPUT, 0, 0, 8, 8, frame | map::PROBE_FRAME_WORD, -8),
        ] {
            let reg_a = if buffer == map::BUFFER_UNKNOWN || frame_flags != 0 { 0 } else { 1 };
            let behind = frame_flags | if limit_offset == 0 { 0 } else { map::PROBE_BEHIND };
            let flags = map::PROBE_ENCODE_RESULT | map::PROBE_INLINED | behind;
            let operation = map::OP_DECODE;
            let one =
                Probe { operation, buffer, reg_a, reg_b, ptr_offset, len_offset, flags, limit_offset, frame_offset };
            let text =
                serde_json::to_string(&probe(&one, serde_json::value::Serializer).expect("a tree")).expect("text");
            let mut deserializer = serde_json::Deserializer::from_str(&text);
            assert_eq!(from_view(&mut deserializer).expect("its own text"), one);
        }
    }
}
