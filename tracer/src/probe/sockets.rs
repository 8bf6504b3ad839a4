//! Which tracepoints show the socket calls of targets: those of the socket layer where the kernel has them (Linux 6.3), else those
//! of all system calls, for which every process of the host pays.
//!
//! Of the system calls two things are needed beside the socket layer, and only then are their tracepoints attached: what a Redis
//! server does, and when a send began that is not of TCP (or of any, before Linux 6.16).

use aya::programs::{BtfTracePoint, RawTracePoint};
use aya::{Btf, Ebpf};

use super::KernelTypes;
use super::programs::{LoadError, program};

/// How the socket calls of targets should be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SocketProbe {
    /// The cheapest that the kernel has.
    #[default]
    Auto,
    /// By the tracepoints of the socket layer.
    Sockets,
    /// By the tracepoints of system calls.
    SystemCalls,
    /// Not at all.
    Off,
}

/// Runs in calls on sockets; the last one is of Linux 6.16 and later.
const SENT: (&str, &str) = ("socket_sent", "sock_send_length");
const RECEIVED: (&str, &str) = ("socket_received", "sock_recv_length");
const BEGINS: (&str, &str) = ("tcp_send_begins", "tcp_sendmsg_locked");
/// Sees TCP connections begin and end.
const TCP_STATE: (&str, &str) = ("tcp_state", "inet_sock_set_state");
/// Sees that a target makes an io_uring, where the kernel has it.
const URING: (&str, &str) = ("uring_created", "io_uring_create");
/// Is run, not attached.
pub(super) const SWEEP: &str = "sockets_gone";
/// Run in all system calls.
const ENTER: (&str, &str) = ("syscall_enter", "sys_enter");
const EXIT: (&str, &str) = ("syscall_exit", "sys_exit");

/// The tracepoints that are in use.
#[derive(Clone, Copy, Debug, Default)]
pub struct Watching {
    sockets: bool,
    begins: bool,
    enter: bool,
    exit: bool,
    uring: bool,
}

impl Watching {
    /// Chooses, before the programs are loaded: they are told which of them is to see what clients do.
    pub(super) fn choose(probe: SocketProbe, kernel: &KernelTypes) -> Self {
        let sockets = match probe {
            SocketProbe::Off | SocketProbe::SystemCalls => false,
            SocketProbe::Sockets => true,
            SocketProbe::Auto => kernel.has_tracepoint(SENT.1) && kernel.has_tracepoint(RECEIVED.1),
        };
        let begins = sockets && kernel.has_tracepoint(BEGINS.1);
        Self { sockets, begins, uring: kernel.has_tracepoint(URING.1), ..Self::default() }
    }

    /// Value of the programs' `TRANSFERS`.
    pub(super) fn transfers(self) -> u32 {
        u32::from(self.sockets)
    }

    /// Loads the programs, and attaches those that are needed in any case.
    pub(super) fn begin(&mut self, ebpf: &mut Ebpf) -> Result<(), LoadError> {
        let sweep: &mut RawTracePoint = program(ebpf, SWEEP)?;
        sweep.load().map_err(|source| LoadError::Program { name: SWEEP, source })?;
        let wanted = [
            (TCP_STATE, true),
            (SENT, self.sockets),
            (RECEIVED, self.sockets),
            (BEGINS, self.begins),
            (URING, self.uring),
        ];
        for ((name, tracepoint), _) in wanted.into_iter().filter(|(_, wanted)| *wanted) {
            let program: &mut RawTracePoint = program(ebpf, name)?;
            program.load().map_err(|source| LoadError::Program { name, source })?;
            program.attach(tracepoint).map_err(|source| LoadError::Program { name, source })?;
        }
        let btf = Btf::from_sys_fs().map_err(LoadError::Btf)?;
        for (name, tracepoint) in [ENTER, EXIT] {
            let program: &mut BtfTracePoint = program(ebpf, name)?;
            program.load(tracepoint, &btf).map_err(|source| LoadError::Program { name, source })?;
        }
        if !self.sockets {
            return self.system_calls(ebpf);
        }
        if self.begins { Ok(()) } else { self.sends_begin(ebpf) }
    }

    /// A server is a target: what it does is seen by its system calls.
    pub(super) fn system_calls(&mut self, ebpf: &mut Ebpf) -> Result<(), LoadError> {
        self.sends_begin(ebpf)?;
        if !self.exit {
            attach(ebpf, EXIT.0)?;
            self.exit = true;
        }
        Ok(())
    }

    /// A connection is not of TCP: the beginning of a send is that of its system call.
    pub(super) fn sends_begin(&mut self, ebpf: &mut Ebpf) -> Result<(), LoadError> {
        if !self.enter {
            attach(ebpf, ENTER.0)?;
            self.enter = true;
        }
        Ok(())
    }

    /// Unloads the programs.
    pub(super) fn stop(ebpf: &mut Ebpf) {
        // A program that was not loaded has nothing to unload.
        for (name, _) in [SENT, RECEIVED, BEGINS, TCP_STATE, URING] {
            let _ = program::<RawTracePoint>(ebpf, name).map(|program| program.unload());
        }
        for (name, _) in [ENTER, EXIT] {
            let _ = program::<BtfTracePoint>(ebpf, name).map(|program| program.unload());
        }
    }
}

impl std::fmt::Display for Watching {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match (self.sockets, self.begins) {
            (true, true) => "the socket layer (sock_send_length, sock_recv_length, tcp_sendmsg_locked)",
            (true, false) => "the socket layer (sock_send_length, sock_recv_length) and sys_enter",
            _ => {
                "system calls (sys_enter, sys_exit): every process of the host pays for them; Linux 6.3 has better ones"
            }
        })
    }
}

fn attach(ebpf: &mut Ebpf, name: &'static str) -> Result<(), LoadError> {
    let program: &mut BtfTracePoint = program(ebpf, name)?;
    program.attach().map_err(|source| LoadError::Program { name, source })?;
    Ok(())
}
