//! The command line: one file per subcommand. The only layer that knows clap, standard output and exit codes.

mod blame;
mod bug_report;
pub mod config;
mod doctor;
mod health;
mod inspect;
mod namespace;
mod options;
mod overview;
mod ps;
mod record;
mod replay;
mod run;
mod sample;
mod sandbox;
mod slow;
mod suggest;
mod top;
mod view;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand};

use crate::agent::AgentError;
use crate::privilege::MissingCapabilities;
use crate::probe::LoadError;
use crate::target::ProcessError;

/// Traces running Rust services: prost messages and Redis commands as OTLP spans, without a change to them.
#[derive(Debug, Parser)]
#[command(name = "tracer", version, max_term_width = 100)]
struct Cli {
    /// Say more: what is attached, what is passed over; twice for every detail.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Say nothing but errors.
    #[arg(short, long, global = true)]
    quiet: bool,
    // Without one: what runs here and could be traced.
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Attach to processes and export their spans.
    Run(Box<run::Args>),
    /// Watch services live: rate, errors, latency and Redis waiting by operation.
    Top(Box<top::Args>),
    /// List the processes that could be traced, and what of them.
    Ps(ps::Args),
    /// Show what can be probed in a file or process, and what cannot and why.
    Inspect(inspect::Args),
    /// Check kernel and privileges, with the remedy for each lack.
    Doctor(doctor::Args),
    /// Capture events into a file.
    Record(Box<record::Args>),
    /// Make the spans of a recorded capture; needs no privileges.
    Replay(Box<replay::Args>),
    /// Report who made whom wait at Redis servers, from a recording.
    Blame(Box<blame::Args>),
    /// Show a recording, or spans that were exported to a file, in the browser.
    View(view::Args),
    /// Change which traces running services with the shim record, without a restart.
    Sample(sample::Args),
    /// Check a configuration file, or print the schema of such files.
    #[command(subcommand)]
    Config(config::check::Args),
    /// Write a file for a bug report: version, kernel, what `doctor` and `ps` say, the configuration without its values.
    BugReport(bug_report::Args),
    /// Print a completion script for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual's pages into a folder, for packages.
    #[command(hide = true)]
    Man {
        /// The folder, which must be there.
        folder: std::path::PathBuf,
    },
}

/// Exit codes, the same for every subcommand.
mod exit {
    pub const FAILED: u8 = 1;
    pub const USAGE: u8 = 2;
    pub const NO_TARGET: u8 = 3;
    pub const NO_PRIVILEGE: u8 = 4;
}

/// Parses the arguments, does what they say, and tells how it went.
pub fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|first| first == run::gate::GATE) {
        return match run::gate::main(&arguments[2..]) {
            Ok(never) => match never {},
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::from(exit::FAILED)
            }
        };
    }
    let cli = Cli::parse();
    log_to_stderr(&cli);
    let Some(command) = cli.command else {
        return overview();
    };
    let result = match command {
        Command::Run(args) => run::main(*args),
        Command::Top(args) => top::main(*args),
        Command::Ps(args) => ps::main(&args),
        Command::Inspect(args) => inspect::main(&args),
        Command::Doctor(args) => doctor::main(&args),
        Command::Record(args) => record::main(*args),
        Command::Replay(args) => replay::main(*args),
        Command::Blame(args) => blame::main(&args),
        Command::View(args) => view::main(args),
        Command::Sample(args) => sample::main(&args),
        Command::Config(args) => config::check::main(&args),
        Command::BugReport(args) => bug_report::main(&args),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "tracer", &mut std::io::stdout());
            Ok(())
        }
        Command::Man { folder } => {
            let pages = clap_mangen::generate_to(Cli::command(), &folder);
            pages.with_context(|| format!("cannot write pages into {}", folder.display()))
        }
    };
    sandbox::report_refusals();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(exit_code(&error))
        }
    }
}

/// What could be traced; where that is nothing, the help that clap would give.
fn overview() -> ExitCode {
    if overview::main() {
        return ExitCode::SUCCESS;
    }
    eprint!("{}", Cli::command().render_help());
    ExitCode::from(exit::USAGE)
}

fn log_to_stderr(cli: &Cli) {
    let level = match (cli.quiet, cli.verbose) {
        (true, _) => "error",
        (_, 0) => "info",
        (_, 1) => "debug",
        _ => "trace",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("TRACER_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(format!("error,tracer={level}")));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| top::news::Log)
        .with_ansi(colour)
        .with_target(false)
        .without_time()
        .init();
}

/// Something that was asked for and is not there.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NoTarget(String);

/// A privilege or kernel feature that is missing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NoPrivilege(String);

fn exit_code(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if let Some(ProcessError::NotFound(_)) = cause.downcast_ref() {
            return exit::NO_TARGET;
        }
        if cause.is::<NoTarget>() {
            return exit::NO_TARGET;
        }
        let privilege = cause.is::<NoPrivilege>()
            || cause.is::<MissingCapabilities>()
            || matches!(cause.downcast_ref(), Some(ProcessError::Permission { .. }))
            || matches!(
                cause.downcast_ref(),
                Some(LoadError::Permission(_) | LoadError::Kernel(_) | LoadError::NoUprobes(_))
            );
        if privilege {
            return exit::NO_PRIVILEGE;
        }
        // Transparent wrappers hide what they hold from the chain.
        match cause.downcast_ref::<AgentError>() {
            Some(AgentError::Process(ProcessError::NotFound(_))) => return exit::NO_TARGET,
            Some(
                AgentError::Process(ProcessError::Permission { .. })
                | AgentError::Load(LoadError::Permission(_) | LoadError::Kernel(_) | LoadError::NoUprobes(_)),
            ) => return exit::NO_PRIVILEGE,
            _ => {}
        }
    }
    exit::FAILED
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

/// In another PID namespace than the first, strangers would be traced: said before anything else is tried.
fn require_process_numbers() -> anyhow::Result<()> {
    match namespace::foreign() {
        Some(reason) => {
            Err(NoPrivilege(format!("tracer cannot tell processes apart in this PID namespace, {reason}")).into())
        }
        None => Ok(()),
    }
}
