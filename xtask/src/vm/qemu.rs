//! One boot: QEMU without KVM, its console in a log, one verdict line, a hard deadline.

use std::{
    fmt,
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

/// What `vm-init` starts its line with.
const VERDICT: &str = "TRACER-VM verdict=";

/// `panic=-1` and `-no-reboot` make QEMU exit when the kernel panics. On a busy host emulated time stands still for a
/// while, and the kernel's check of its timer would panic. A kernel that lets itself be preempted everywhere (since 5.12 a choice at
/// boot) is the harder one for programs. The libraries lie in /lib.
const KERNEL_ARGUMENTS: &str =
    "console=ttyS0 quiet panic=-1 oops=panic no_timer_check preempt=full LD_LIBRARY_PATH=/lib PATH=/";

/// Without cmpxchg16b: QEMU 7.2 computes wrong flags for it, and a third of the boots crashed in the allocator.
const CPU: &str = "max,-cx16";

/// How a boot ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The check said so, once.
    Passed,
    /// The check said no, or nothing, or not in time.
    Failed(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("PASS"),
            Self::Failed(reason) => write!(f, "FAIL: {reason}"),
        }
    }
}

/// Boots the kernel and reads its verdict. An error means that QEMU could not be run.
pub fn boot(kernel: &Path, initramfs: &Path, log: &Path, deadline: Duration) -> Result<Outcome> {
    let ends = Instant::now() + deadline;
    let mut log = File::create(log)?;
    let mut machine = Machine(start(kernel, initramfs, log.try_clone()?)?);
    let console = machine.0.stdout.take().context("the console is a pipe")?;
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || read_lines(console, &sender));
    let mut verdicts = Vec::new();
    let mut panic = None;
    loop {
        match lines.recv_timeout(ends.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                log.write_all(line.as_bytes())?;
                if let Some((_, verdict)) = line.split_once(VERDICT) {
                    verdicts.push(verdict.trim().to_owned());
                }
                if let Some(at) = line.find("Kernel panic") {
                    panic = Some(line[at..].trim().to_owned());
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                return Ok(Outcome::Failed(format!("not done after {} s", deadline.as_secs())));
            }
            // The console closes when the machine is off.
            Err(RecvTimeoutError::Disconnected) => return Ok(judge(&verdicts, panic)),
        }
    }
}

fn judge(verdicts: &[String], panic: Option<String>) -> Outcome {
    match (panic, verdicts) {
        (Some(panic), _) => Outcome::Failed(panic),
        (None, []) => Outcome::Failed("no verdict".to_owned()),
        (None, [one]) if one == "PASS" => Outcome::Passed,
        (None, [one]) => Outcome::Failed(one.strip_prefix("FAIL reason=").unwrap_or(one).to_owned()),
        (None, several) => Outcome::Failed(format!("{} verdicts", several.len())),
    }
}

fn start(kernel: &Path, initramfs: &Path, errors: File) -> Result<Child> {
    Command::new("qemu-system-x86_64")
        .args(["-accel", "tcg", "-cpu", CPU, "-smp", "2", "-m", "1024", "-nodefaults", "-display", "none"])
        .args(["-serial", "stdio", "-no-reboot", "-append", KERNEL_ARGUMENTS])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()
        .context("cannot run qemu-system-x86_64")
}

/// A console is no text file: bytes that are not UTF-8 must not end the reading.
fn read_lines(console: impl Read, lines: &mpsc::Sender<String>) {
    let mut console = BufReader::new(console);
    let mut line = Vec::new();
    while console.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        if lines.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
            return;
        }
        line.clear();
    }
}

/// A machine that is switched off when nobody waits for it any more.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // It has exited already when the boot went well; then both do nothing.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::{Outcome, judge};

    fn failed(reason: &str) -> Outcome {
        Outcome::Failed(reason.to_owned())
    }

    #[test]
    fn one_pass_and_nothing_else_passes() {
        assert_eq!(judge(&["PASS".into()], None), Outcome::Passed);
        assert_eq!(judge(&[], None), failed("no verdict"));
        assert_eq!(judge(&["PASS".into(), "PASS".into()], None), failed("2 verdicts"));
        assert_eq!(judge(&["FAIL reason=10 of 20 spans".into()], None), failed("10 of 20 spans"));
        assert_eq!(judge(&["PASS".into()], Some("Kernel panic - x".into())), failed("Kernel panic - x"));
    }
}
