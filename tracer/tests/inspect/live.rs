//! Runs the sample with a breakpoint on every site of its plan, reads what an eBPF program would read there, and compares
//! with what the sample says it did.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use libc::{c_long, c_uint, pid_t, user_regs_struct};
use tracer::inspect::{MessageFn, Operation, ProbePlan, Site, inspect_file};
use tracer_common::map::{
    BUFFER_INPUT, BUFFER_OUTPUT, BUFFER_RESULT, BUFFER_SLICE, BUFFER_UNKNOWN, PROBE_BEHIND, PROBE_ENCODE_RESULT,
    PROBE_FRAME, PROBE_FRAME_WORD, PROBE_INLINED, Probe,
};

use crate::sample::{Build, FAT_LTO, FAT_LTO_LINES, LEGACY, V0};

#[test]
fn v0_calls_are_seen_as_they_are() {
    check(V0);
}

#[test]
fn legacy_calls_are_seen_as_they_are() {
    check(LEGACY);
}

#[test]
fn calls_that_were_not_inlined_are_seen_as_they_are() {
    check(FAT_LTO);
}

/// Each call site of the sample is passed once, or twice where the compiler has merged two equal functions.
#[test]
fn inlined_calls_are_seen_as_often_as_they_are_made() {
    let plan = FAT_LTO_LINES.plan();
    let (seen, truth) = run(&FAT_LTO_LINES.path(), &plan);
    let mut passed: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    let mut sites = 0;
    for (index, function) in plan.messages.iter().enumerate() {
        let Some(call) = &function.call else { continue };
        let count = seen.iter().filter(|call| call.function == index).count();
        assert!(matches!(count, 1 | 2), "{count} calls: {function:?}");
        passed.entry(call.function.as_deref().unwrap()).or_default().insert(count);
        sites += 1;
    }
    assert!(passed.values().all(|counts| counts.len() == 1), "{passed:?}");
    let refused = plan.remarks.iter().filter(|remark| remark.text.contains("inlined call")).count();
    assert!(sites > 50 && refused * 4 < sites, "{sites} sites, {refused} refused");
    // Of all functions: the same message has the same bytes, however it is encoded.
    check_payloads(&plan, &seen, &truth);
    let with_bytes = |function: &&MessageFn| function.call.is_some() && function.probe.buffer != BUFFER_UNKNOWN;
    let with_bytes = plan.messages.iter().filter(with_bytes).count();
    println!("{sites} inlined calls, {refused} refused, {with_bytes} with their bytes");
    assert!(with_bytes > 10, "{with_bytes} of {sites} with their bytes");
}

/// Sizes of each message, alone and with the length in front, as the sample prints them.
type Truth = BTreeMap<String, BTreeSet<(u64, u64)>>;

fn check(build: Build) {
    let plan = build.plan();
    let (seen, truth) = run(&build.path(), &plan);
    assert_eq!(truth.len(), 8, "{truth:?}");
    let called: BTreeSet<usize> = seen.iter().map(|call| call.function).collect();
    assert_eq!(called.len(), plan.messages.len(), "each function is called");
    check_payloads(&plan, &seen, &truth);
}

/// Fails unless what was read of the calls is what the sample says.
fn check_payloads(plan: &ProbePlan, seen: &[Call], truth: &Truth) {
    let mut payloads: BTreeMap<(&str, bool), BTreeSet<&[u8]>> = BTreeMap::new();
    for call in seen {
        let function = &plan.messages[call.function];
        let delimited = function.operation.name().contains("length_delimited");
        assert_ne!(call.failed, Some(true), "no encode fails: {function:?}");
        let Some(payload) = &call.payload else {
            continue;
        };
        let size = payload.len() as u64;
        if function.operation == Operation::Decode && payload[..] == [0x0f, 0xff] {
            continue;
        }
        let of_message = |message: &str| {
            truth[message].iter().any(|(alone, framed)| size == if delimited { *framed } else { *alone })
        };
        match message(function) {
            Some(message) => {
                assert!(of_message(message), "{size} bytes: {function:?}, {truth:?}");
                payloads.entry((message, delimited)).or_default().insert(payload);
            }
            None => assert!(truth.keys().any(|message| of_message(message)), "{size} bytes: {function:?}"),
        }
    }
    // The same value is encoded and decoded by all functions of a message: so are the same bytes.
    for ((message, delimited), payloads) in payloads {
        assert_eq!(payloads.len(), truth[message].len(), "{message}, delimited: {delimited}");
    }
}

/// The message as the sample prints it.
fn message(function: &MessageFn) -> Option<&str> {
    let message = function.message_type.as_deref()?;
    Some(message.strip_prefix("inspect_sample::").unwrap_or(message))
}

/// A call from its entry to its exit.
struct Call {
    function: usize,
    payload: Option<Vec<u8>>,
    failed: Option<bool>,
}

/// A call that has not ended yet.
struct Open {
    function: Function,
    return_slot: u64,
    arguments: [u64; 6],
    /// Address of the buffer's struct.
    buffer: u64,
    length: u64,
    payload: Option<Vec<u8>>,
}

/// A function of the plan of the sample, or of its libc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    Message(usize),
    Socket(usize),
}

/// What a breakpoint stands for.
struct Stop {
    function: Function,
    entry: bool,
    sp_delta: i64,
}

/// The breakpoints at each address.
#[derive(Default)]
struct Breakpoints {
    stops: HashMap<u64, Vec<Stop>>,
    saved: HashMap<u64, u64>,
}

impl Breakpoints {
    fn add(&mut self, tracee: &Tracee, base: u64, function: Function, entry: &Site, exits: &[Site]) {
        for (entry, site) in std::iter::once((true, entry)).chain(exits.iter().map(|exit| (false, exit))) {
            let address = base + site.address;
            self.saved.entry(address).or_insert_with(|| tracee.set_breakpoint(address));
            self.stops.entry(address).or_default().push(Stop { function, entry, sp_delta: site.sp_delta.into() });
        }
    }
}

/// Runs a program and follows the calls of its plan, and its writes.
fn run(path: &Path, plan: &ProbePlan) -> (Vec<Call>, Truth) {
    let tracee = Tracee::start(path);
    let base = tracee.base(path.to_str().unwrap()).unwrap().0;
    let mut breakpoints = Breakpoints::default();
    for (index, function) in plan.messages.iter().enumerate() {
        breakpoints.add(&tracee, base, Function::Message(index), &function.entry, &function.exits);
    }
    let mut sockets = Vec::new();
    let (mut open, mut calls, mut writes) = (Vec::<Open>::new(), Vec::new(), 0);
    while let Some(mut registers) = tracee.next_stop() {
        if sockets.is_empty() {
            let context = plan.tls.thread_context.as_ref().and_then(|variable| variable.static_offset);
            let context = registers.fs_base.wrapping_add_signed(context.unwrap());
            assert_eq!(tracee.word(context), Some(0x0123_4567_89ab_cdef), "the variable of the thread");
            // The loader has mapped libc by now.
            let (base, libc) = tracee.base("/libc.so.6").unwrap();
            sockets = inspect_file(libc.as_ref()).unwrap().sockets;
            for (index, function) in sockets.iter().enumerate() {
                breakpoints.add(&tracee, base, Function::Socket(index), &function.entry, &function.exits);
            }
        }
        let address = registers.rip - 1;
        for Stop { function, entry, sp_delta } in &breakpoints.stops[&address] {
            let return_slot = registers.rsp.wrapping_add_signed(*sp_delta);
            if *entry {
                let probe = match function {
                    Function::Message(index) => plan.messages[*index].probe,
                    Function::Socket(_) => Probe::default(),
                };
                if let Some(at) = open.iter().position(|call| call.return_slot == return_slot) {
                    let beside = probe.flags & PROBE_INLINED != 0 && open[at].function != *function;
                    assert!(beside, "no exit was seen of {:?}", open[at].function);
                    // As the eBPF program does it: the next inlined call of a function ends the one before.
                    let before = open.remove(at);
                    if let Function::Message(index) = before.function {
                        calls.push(tracee.leave(before, index, plan.messages[index].probe));
                    }
                }
                open.push(tracee.enter(*function, probe, return_slot, &registers));
                continue;
            }
            let ended = |call: &Open| call.function == *function && call.return_slot == return_slot;
            let Some(at) = open.iter().position(ended) else {
                continue;
            };
            let call = open.remove(at);
            match call.function {
                Function::Message(index) => calls.push(tracee.leave(call, index, plan.messages[index].probe)),
                Function::Socket(index) if sockets[index].name == "write" => {
                    assert_eq!(registers.rax, call.arguments[2], "all bytes are written");
                    writes += 1;
                }
                Function::Socket(_) => {}
            }
        }
        tracee.step_over(&mut registers, breakpoints.saved[&address]);
    }
    assert!(open.is_empty(), "{} calls have no exit", open.len());
    let (lines, truth) = tracee.printed();
    assert_eq!(writes, lines, "one write for each line");
    (calls, truth)
}

/// A program under ptrace.
struct Tracee {
    child: Child,
    memory: File,
}

impl Tracee {
    fn start(path: &Path) -> Self {
        let mut command = Command::new(path);
        command.stdout(Stdio::piped());
        // SAFETY: PTRACE_TRACEME is one system call: it touches no memory of the child and takes no lock.
        unsafe {
            command.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        let child = command.spawn().unwrap();
        let mut tracee = Self { memory: File::open(format!("/proc/{}/mem", child.id())).unwrap(), child };
        assert_eq!(tracee.wait(), Some(libc::SIGTRAP), "stops behind exec");
        // The memory of the process before exec is not the one that is read here.
        tracee.memory = File::open(format!("/proc/{}/mem", tracee.child.id())).unwrap();
        tracee
    }

    /// Where the file whose path ends so is mapped, and its path.
    fn base(&self, path: &str) -> Option<(u64, String)> {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.child.id())).unwrap();
        let first = maps.lines().find(|line| line.ends_with(path))?;
        let base = u64::from_str_radix(first.split('-').next()?, 16).ok()?;
        Some((base, first.split_whitespace().nth(5)?.to_owned()))
    }

    fn ptrace(&self, request: c_uint, address: u64, data: u64) -> c_long {
        // SAFETY: the requests used here take plain numbers, except GETREGS and SETREGS, whose callers pass a pointer to
        // a live `user_regs_struct`.
        unsafe { libc::ptrace(request, self.child.id() as pid_t, address, data) }
    }

    /// Waits for the next stop and gives its signal; none when the program has ended.
    fn wait(&self) -> Option<i32> {
        let mut status = 0;
        // SAFETY: `status` is a live integer.
        let pid = unsafe { libc::waitpid(self.child.id() as pid_t, &mut status, 0) };
        assert_eq!(pid, self.child.id() as pid_t);
        if libc::WIFSTOPPED(status) {
            return Some(libc::WSTOPSIG(status));
        }
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "the sample ends well: {status:#x}");
        None
    }

    /// Lets it run to the next breakpoint.
    fn next_stop(&self) -> Option<user_regs_struct> {
        assert_eq!(self.ptrace(libc::PTRACE_CONT, 0, 0), 0);
        assert_eq!(self.wait()?, libc::SIGTRAP);
        // SAFETY: all-zero bytes are a valid value of this struct of integers.
        let mut registers: user_regs_struct = unsafe { std::mem::zeroed() };
        assert_eq!(self.ptrace(libc::PTRACE_GETREGS, 0, &raw mut registers as u64), 0);
        Some(registers)
    }

    fn set_breakpoint(&self, address: u64) -> u64 {
        let word = self.word(address).unwrap();
        self.ptrace(libc::PTRACE_POKETEXT, address, word & !0xff | 0xcc);
        word & 0xff
    }

    /// Executes the instruction under a breakpoint.
    fn step_over(&self, registers: &mut user_regs_struct, saved: u64) {
        registers.rip -= 1;
        let word = self.word(registers.rip).unwrap();
        self.ptrace(libc::PTRACE_POKETEXT, registers.rip, word & !0xff | saved);
        self.ptrace(libc::PTRACE_SETREGS, 0, &raw mut *registers as u64);
        self.ptrace(libc::PTRACE_SINGLESTEP, 0, 0);
        assert_eq!(self.wait(), Some(libc::SIGTRAP));
        let word = self.word(registers.rip).unwrap();
        self.ptrace(libc::PTRACE_POKETEXT, registers.rip, word & !0xff | 0xcc);
    }

    fn word(&self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.memory.read_exact_at(&mut bytes, address).ok()?;
        Some(u64::from_le_bytes(bytes))
    }

    fn bytes(&self, address: u64, length: u64) -> Option<Vec<u8>> {
        const MOST: u64 = 1 << 16;
        assert!(length < MOST, "a message of {length} bytes");
        let mut bytes = vec![0; length as usize];
        self.memory.read_exact_at(&mut bytes, address).ok()?;
        Some(bytes)
    }

    fn enter(&self, function: Function, probe: Probe, return_slot: u64, registers: &user_regs_struct) -> Open {
        let arguments = [registers.rdi, registers.rsi, registers.rdx, registers.rcx, registers.r8, registers.r9];
        let mut buffer = arguments[usize::from(probe.reg_a)];
        if probe.flags & PROBE_FRAME != 0 {
            buffer = return_slot.wrapping_add_signed(probe.frame_offset.into());
            if probe.flags & PROBE_FRAME_WORD != 0 {
                buffer = self.word(buffer).unwrap();
            }
        }
        let payload = match probe.buffer {
            BUFFER_SLICE => self.bytes(buffer, arguments[usize::from(probe.reg_b)]),
            BUFFER_INPUT => self.view(buffer, probe).and_then(|(pointer, length)| self.bytes(pointer, length)),
            _ => None,
        };
        let length = match probe.buffer {
            BUFFER_OUTPUT => self.view(buffer, probe).unwrap().1,
            _ => 0,
        };
        Open { function, return_slot, arguments, buffer, length, payload }
    }

    fn leave(&self, call: Open, function: usize, probe: Probe) -> Call {
        let payload = match probe.buffer {
            BUFFER_OUTPUT | BUFFER_RESULT => {
                let (pointer, length) = self.view(call.buffer, probe).unwrap();
                self.bytes(pointer + call.length, length - call.length)
            }
            _ => call.payload,
        };
        let fails = probe.flags & PROBE_ENCODE_RESULT != 0;
        let failed = fails.then(|| self.word(call.arguments[0]).unwrap() & 0xffff_ffff == 1);
        Call { function, payload, failed }
    }

    /// Pointer and length of a buffer struct, as the eBPF program reads them.
    fn view(&self, address: u64, probe: Probe) -> Option<(u64, u64)> {
        let (mut buffer, mut limit) = (address, u64::MAX);
        if probe.flags & PROBE_BEHIND != 0 {
            buffer = self.word(address)?;
            if probe.limit_offset != 0 {
                limit = self.word(address + u64::from(probe.limit_offset))?;
            }
        }
        let length = self.word(buffer + u64::from(probe.len_offset))?;
        Some((self.word(buffer + u64::from(probe.ptr_offset))?, length.min(limit)))
    }

    /// Number of lines it has printed, and what they say.
    fn printed(mut self) -> (usize, Truth) {
        let mut text = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        let mut truth = Truth::new();
        for line in text.lines() {
            let [message, alone, framed] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            truth.entry(message.to_owned()).or_default().insert((alone.parse().unwrap(), framed.parse().unwrap()));
        }
        (text.lines().count(), truth)
    }
}
