//! The scripts that a user of bpftrace would write for the same spans.
//!
//! They have uretprobes: safe here, because the target does not panic, and fatal to one that does.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};

use super::{observer::Observer, target::Target};
use crate::{run, workspace};

/// Where the kernel lists its tracepoints.
const TRACEFS: &str = "/sys/kernel/tracing";

/// What is watched.
#[derive(Clone, Copy)]
pub enum Script {
    /// Start and duration of each encode and decode.
    Messages,
    /// Start, duration and command of each send that a receive answers.
    Redis,
}

impl Script {
    fn text(self, program: &Path, pid: u32) -> String {
        let program = program.display();
        match self {
            Self::Messages => ["encode", "decode"]
                .map(|operation| {
                    let function = format!("{program}:*prost*Message*{operation}17h*");
                    format!(
                        "uprobe:{function} {{ @{operation}[tid] = nsecs; }}\n\
                         uretprobe:{function} /@{operation}[tid]/ {{\n\
                         printf(\"{operation} %d %lu %lu\\n\", tid, @{operation}[tid], nsecs - @{operation}[tid]);\n\
                         delete(@{operation}[tid]); }}\n"
                    )
                })
                .concat(),
            Self::Redis => format!(
                "tracepoint:syscalls:sys_enter_sendto /pid == {pid}/ {{\n\
                 @start[tid] = nsecs; @command[tid] = str(args->buff, 32); }}\n\
                 tracepoint:syscalls:sys_exit_recvfrom /pid == {pid} && @start[tid]/ {{\n\
                 printf(\"%s %d %lu %lu\\n\", @command[tid], tid, @start[tid], nsecs - @start[tid]);\n\
                 delete(@start[tid]); delete(@command[tid]); }}\n"
            ),
        }
    }
}

/// Starts bpftrace on the target and waits until what the target does shows in its output.
pub fn attach(script: Script, program: &Path, target: &mut Target, dir: &Path, warm_up: &str) -> Result<Observer> {
    mount_tracefs()?;
    let bpftrace = workspace::find_program("bpftrace").context("bpftrace is not installed")?;
    let file = dir.join("script.bt");
    let pid = target.id();
    fs::write(&file, script.text(program, pid))?;
    let mut command = Command::new(bpftrace);
    command.args(["-p", &pid.to_string(), "-B", "line"]).arg(&file);
    // As much room for what is not yet printed as the agent has.
    command.env("BPFTRACE_PERF_RB_PAGES", "2048");
    let mut observer = Observer::start(&mut command, dir)?;
    observer.wait_until("bpftrace shows what the target does", |said| {
        target.cost(warm_up)?;
        // The other lines are bpftrace's own.
        Ok(said.lines().any(|line| line.starts_with("decode ") || line.starts_with("*2")))
    })?;
    Ok(observer)
}

/// Events that bpftrace says it has lost.
pub fn lost(said: &str) -> u64 {
    said.lines().filter_map(|line| line.strip_prefix("Lost ")?.split(' ').next()?.parse::<u64>().ok()).sum()
}

fn mount_tracefs() -> Result<()> {
    if !Path::new(TRACEFS).join("events").exists() {
        run::output(Command::new("mount").args(["-t", "tracefs", "tracefs", TRACEFS]))
            .context("bpftrace needs tracefs")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::lost;

    #[test]
    fn losses_are_added_up() {
        assert_eq!(lost("encode 1 2 3\nLost 12 events\nLost 3 events\n"), 15);
    }
}
