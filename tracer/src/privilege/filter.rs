//! The seccomp filter: the system calls of a session, and no others.
//!
//! A call that is not in the list ([`super::calls`]) fails with EPERM and is counted; the session goes on and says which call
//! it was ([`refused`]). Killing the process instead would end a user's trace because a library has a new version.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::calls::{BPF_COMMANDS, CALLS, IOCTLS, PRCTLS};

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// It could not be compiled.
    #[error("the list of system calls does not make a filter")]
    Compile(#[from] BackendError),
    /// The kernel refused it.
    #[error("the kernel takes no seccomp filter")]
    Apply(#[from] seccompiler::Error),
    /// Nobody would hear of a refused call.
    #[error("SIGSYS cannot be caught")]
    Signal(#[source] io::Error),
}

/// Leaves only the calls of a session to all threads of this process, for good.
///
/// # Errors
/// When the kernel has no seccomp filters.
pub fn filter() -> Result<(), FilterError> {
    let programs = programs()?;
    catch_sigsys().map_err(FilterError::Signal)?;
    for program in &programs {
        seccompiler::apply_filter_all_threads(program)?;
    }
    Ok(())
}

/// Whether the kernel has what [`filter`] needs.
pub fn is_supported() -> bool {
    let trap: u32 = libc::SECCOMP_RET_TRAP;
    // SAFETY: the kernel reads the four bytes of `trap`, which live through the call.
    unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const trap) == 0 }
}

/// The calls that were refused so far, by number, and how often any was.
pub fn refused() -> (Vec<usize>, u64) {
    let numbers = REFUSED.iter().enumerate().flat_map(|(word, bits)| {
        let bits = bits.load(Ordering::Relaxed);
        (0..64).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| word * 64 + bit)
    });
    (numbers.collect(), TIMES.load(Ordering::Relaxed))
}

/// Two filters, as each has one answer to what does not fit. The first is for starting processes, to which libraries are told
/// that the kernel cannot: they do it with all signals blocked, where SIGSYS would kill. `clone3` is refused for threads as well,
/// because its flags are in memory, where no filter can read them; glibc takes `clone` then.
fn programs() -> Result<[BpfProgram; 2], BackendError> {
    let no_processes = SeccompFilter::new(
        [
            (libc::SYS_clone3, vec![]),
            (libc::SYS_clone, vec![rule(0, SeccompCmpOp::MaskedEq(libc::CLONE_THREAD as u64), 0)?]),
        ]
        .into(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS as u32),
        TargetArch::x86_64,
    )?;
    let one_of = |argument: u8, values: &[u64]| -> Result<Vec<SeccompRule>, BackendError> {
        values.iter().map(|&value| rule(argument, SeccompCmpOp::Eq, value)).collect()
    };
    let mut calls: Vec<(c_long, Vec<SeccompRule>)> = CALLS.iter().map(|&call| (call, vec![])).collect();
    calls.extend([
        (libc::SYS_bpf, one_of(0, &BPF_COMMANDS)?),
        (libc::SYS_ioctl, one_of(1, &IOCTLS)?),
        (libc::SYS_prctl, one_of(0, &PRCTLS)?),
        // To itself: `abort`.
        (libc::SYS_tgkill, one_of(0, &[u64::from(std::process::id())])?),
        // Its own limits.
        (libc::SYS_prlimit64, one_of(0, &[0])?),
    ]);
    let calls =
        SeccompFilter::new(calls.into_iter().collect(), SeccompAction::Trap, SeccompAction::Allow, TargetArch::x86_64)?;
    Ok([no_processes.try_into()?, calls.try_into()?])
}

/// One argument is compared; all that are have 32 bits that count.
fn rule(argument: u8, comparison: SeccompCmpOp, value: u64) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(argument, SeccompCmpArgLen::Dword, comparison, value)?])
}

/// One bit for each system call number.
static REFUSED: [AtomicU64; 16] = [const { AtomicU64::new(0) }; 16];
static TIMES: AtomicU64 = AtomicU64::new(0);

/// Numbers from here on are of calls that are newer than this list. A library that tries one expects to hear that there is
/// none.
const NEWER: usize = 470;

fn catch_sigsys() -> io::Result<()> {
    // SAFETY: all zeros are a valid `sigaction`: no flags and an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = refuse as extern "C" fn(_, _, _) as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER | libc::SA_RESTART | libc::SA_ONSTACK;
    // SAFETY: `refuse` has the signature that SA_SIGINFO asks for and is async-signal-safe: it changes only atomics and its
    // own frame.
    let result = unsafe { libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Runs in place of a call that the filter does not have, in the thread that made it.
extern "C" fn refuse(_signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    /// `si_code` of a SIGSYS that a filter sent.
    const SYS_SECCOMP: libc::c_int = 1;
    // SAFETY: the kernel passes a valid `siginfo_t` to a handler with SA_SIGINFO.
    if unsafe { (*info).si_code } != SYS_SECCOMP {
        return;
    }
    // SAFETY: and a valid `ucontext_t`, which is this handler's alone while it runs.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    // The register holds the number again, and what it holds at the end is the result of the call.
    let result = &mut registers[libc::REG_RAX as usize];
    let number = *result as usize;
    if let Some(word) = REFUSED.get(number / 64) {
        word.fetch_or(1 << (number % 64), Ordering::Relaxed);
    }
    TIMES.fetch_add(1, Ordering::Relaxed);
    *result = -i64::from(if number < NEWER { libc::EPERM } else { libc::ENOSYS });
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// The result of a call without arguments.
    fn call(number: c_long) -> Result<c_long, Option<i32>> {
        // SAFETY: the calls of this test take no arguments, or refuse zeros.
        let result = unsafe { libc::syscall(number, 0, 0, 0, 0, 0, 0) };
        if result < 0 { Err(io::Error::last_os_error().raw_os_error()) } else { Ok(result) }
    }

    /// In one thread, which ends with its filters: other tests run in this process.
    #[test]
    fn what_is_not_in_the_list_is_refused_and_counted() {
        std::thread::spawn(|| {
            catch_sigsys().expect("SIGSYS can be caught");
            for program in programs().expect("the list makes filters") {
                seccompiler::apply_filter(&program).expect("the kernel has seccomp filters");
            }
            let (_, before) = refused();
            let forbidden = [
                libc::SYS_ptrace,
                libc::SYS_execve,
                libc::SYS_fork,
                libc::SYS_kill,
                libc::SYS_listen,
                libc::SYS_setuid,
                libc::SYS_process_vm_writev,
                libc::SYS_mount,
                libc::SYS_setns,
                libc::SYS_init_module,
            ];
            for number in forbidden {
                assert_eq!(call(number), Err(Some(libc::EPERM)), "{number}");
            }
            assert_eq!(call(1000), Err(Some(libc::ENOSYS)), "a call that does not exist yet");
            let (numbers, times) = refused();
            assert!(forbidden.iter().all(|&number| numbers.contains(&(number as usize))), "{numbers:?}");
            assert_eq!(times - before, forbidden.len() as u64 + 1);

            // SAFETY: arguments that the kernel refuses if the filter does not.
            let load = unsafe { libc::syscall(libc::SYS_bpf, 5, 0, 0) };
            assert_eq!((load, io::Error::last_os_error().raw_os_error()), (-1, Some(libc::EPERM)));
            let one: u8 = b'x';
            // SAFETY: as above; `one` lives through the call.
            let typed = unsafe { libc::ioctl(0, libc::TIOCSTI, &raw const one) };
            assert_eq!((typed, io::Error::last_os_error().raw_os_error()), (-1, Some(libc::EPERM)));
            let (_, now) = refused();
            assert_eq!(now - times, 2);

            assert!(call(libc::SYS_getpid).is_ok_and(|pid| pid == c_long::from(std::process::id())));
            std::thread::spawn(|| ()).join().expect("threads can be started");
            assert!(std::process::Command::new("true").status().is_err(), "processes cannot");
        })
        .join()
        .expect("every call had its answer");
    }
}
