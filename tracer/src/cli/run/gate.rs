//! The start of a command: a process that waits until the probes are attached before it becomes the command's program.
//!
//! It is started first of all, so it has what the agent was started with (but for what the agent's unit or file gave to the
//! agent alone), and neither the agent's filter nor its `no_new_privs`: `sudo` works in a command. It is the agent's
//! binary; then it takes the user's name if there is one ([`User`]), and becomes the program.

use std::convert::Infallible;
use std::fs::File;
use std::io::{PipeWriter, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command};

use anyhow::{Context as _, Result, bail};

use crate::agent::{Agent, Sink};
use crate::cli::config::process_env;
use crate::cli::exit;
use crate::privilege::{self, User, sudo_user};

/// First argument of the agent's own binary when it is the gate of a command.
pub const GATE: &str = "__gate";

/// A command that has not begun. If this is dropped, it never will.
pub struct Gate {
    child: Child,
    key: PipeWriter,
    executable: PathBuf,
    command: Vec<String>,
}

impl Gate {
    /// Starts the process, as another user if one is named. `None` if there is no command.
    ///
    /// # Errors
    /// When there is no such program or user, or no right to become that user.
    pub fn close(command: &[String], user: Option<&str>) -> Result<Option<Self>> {
        let Some((program, arguments)) = command.split_first() else {
            if user.is_some() {
                bail!("--user is for a command: `tracer run --user NAME -- COMMAND`");
            }
            return Ok(None);
        };
        let executable = find(program).with_context(|| format!("cannot start {program}: there is no such program"))?;
        match user {
            Some(name) if !name.parse::<User>()?.is_current() => privilege::require(&privilege::CHANGE_USER)?,
            Some(_) => {}
            None => {
                if let Some(caller) = sudo_user(process_env) {
                    tracing::info!("{program} runs as root; `--user {caller}` runs it as you");
                }
            }
        }
        let (gate, key) = std::io::pipe().context("cannot make a pipe")?;
        // The child inherits this end.
        rustix::io::fcntl_setfd(&gate, rustix::io::FdFlags::empty()).context("cannot share a pipe")?;
        let child = Command::new("/proc/self/exe")
            .arg(GATE)
            .arg(gate.as_raw_fd().to_string())
            .arg(user.unwrap_or_default())
            .arg(program)
            .args(arguments)
            // The agent is the service; its command would speak for it.
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC")
            .env_remove("WATCHDOG_PID")
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        Ok(Some(Self { child, key, executable, command: command.to_vec() }))
    }

    /// The program as the user named it.
    pub fn name(&self) -> &str {
        self.command.first().map_or("", String::as_str)
    }

    /// Attaches to the program and to those that its arguments name, and lets the command begin.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn open<S: Sink>(mut self, agent: &mut Agent<S>) -> Result<Child> {
        agent.expect_command(&self.executable, self.command.get(1..).unwrap_or_default());
        agent.follow(self.child.id()).context("cannot trace the command")?;
        self.key.write_all(b"!").context("the command ended before it began")?;
        Ok(self.child)
    }
}

/// The gate: waits for the agent's word, then becomes the program.
pub fn main(arguments: &[String]) -> Result<Infallible> {
    let [fd, user, program, rest @ ..] = arguments else { bail!("{GATE} is for the agent itself") };
    let fd: i32 = fd.parse().context("the gate has no pipe")?;
    // SAFETY: the descriptor was inherited from the agent for this purpose, and nothing else here owns it.
    let mut pipe = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    if pipe.read(&mut [0]).context("the gate's pipe")? == 0 {
        // The agent has failed, and said why.
        std::process::exit(exit::FAILED.into());
    }
    drop(pipe);
    privilege::clean_for_command().context("cannot give up capabilities")?;
    let mut command = Command::new(program);
    if !user.is_empty() {
        let user: User = user.parse()?;
        user.become_this().with_context(|| format!("cannot start {program} as another user"))?;
        command.envs(user.environment());
    }
    Err(command.args(rest).exec()).with_context(|| format!("cannot start {program}"))
}

/// The file of a program, as the shell would find it.
fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|path| path.is_file());
    }
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(program)).find(|path| path.is_file())
}
