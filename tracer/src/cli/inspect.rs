//! `tracer inspect`: what can be probed, and what cannot and why.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::inspect::{inspect_file, render};
use crate::target::{MappedFile, Process};

/// Arguments of `tracer inspect`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// An executable or shared object, or the number of a process.
    #[arg(value_name = "FILE|PID")]
    what: PathBuf,
    /// As JSON, one object per file.
    #[arg(long)]
    json: bool,
}

/// Prints the plan of a file, or of everything that a process has mapped as code.
pub fn main(args: &Args) -> Result<()> {
    let pid = args.what.to_str().and_then(|text| text.parse::<u32>().ok()).filter(|_| !args.what.exists());
    match pid {
        Some(pid) => {
            let process = Process::read(pid)?;
            let files = process.mapped_files();
            if let Some(why) = files.first().and_then(MappedFile::unreadable) {
                bail!("the program of process {pid} ({}) cannot be read: {why}", process.name());
            }
            for (index, file) in files.iter().enumerate() {
                process_file(args, file, index == 0)?;
            }
            Ok(())
        }
        None => show(args, &args.what, &args.what, true),
    }
}

fn process_file(args: &Args, file: &MappedFile, is_executable: bool) -> Result<()> {
    match show(args, &file.path, &file.shown, is_executable) {
        Err(error) if !is_executable => {
            tracing::warn!("{}: {error:#}", file.shown.display());
            Ok(())
        }
        result => result,
    }
}

fn show(args: &Args, path: &Path, shown: &Path, always: bool) -> Result<()> {
    let plan = inspect_file(path)?;
    // Of a process's libraries only those with something to probe are of interest.
    if !always && plan.messages.is_empty() && plan.sockets.is_empty() && plan.notes.is_empty() {
        return Ok(());
    }
    if args.json {
        println!("{}", render::json(&plan)?);
    } else {
        println!("{}", shown.display());
        println!("{}", render::table(&plan, width()));
    }
    Ok(())
}

/// Columns of the terminal; wide when the output goes elsewhere.
fn width() -> u16 {
    if std::io::stdout().is_terminal() { comfy_table::Table::new().width().unwrap_or(100) } else { 160 }
}
