//! `tracer ps`: what could be traced.

use anyhow::Result;
use comfy_table::{Table, presets};
use serde::Serialize;

use crate::inspect::{Limit, Limits, ProbePlan, inspect_file};
use crate::privilege::{self, TRACE};
use crate::target::{Descriptors, Process};

/// Arguments of `tracer ps`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also processes that are not in Rust.
    #[arg(short, long)]
    all: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Row {
    pid: u32,
    name: String,
    rust: bool,
    prost_functions: usize,
    shim: bool,
    /// The program cannot be read, so it may be a Rust one.
    unreadable: bool,
    limits: Vec<&'static str>,
    note: String,
}

/// Prints a table of processes.
pub fn main(args: &Args) -> Result<()> {
    let mut rows: Vec<Row> =
        Process::all().iter().filter_map(row).filter(|row| args.all || row.rust || row.unreadable).collect();
    rows.sort_by_key(|row| (row.prost_functions == 0, row.pid));
    if args.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    if rows.is_empty() {
        println!(
            "no Rust process is visible{}",
            if privilege::missing(&TRACE[2..]).is_empty() { "" } else { "; others are by CAP_SYS_PTRACE, try as root" }
        );
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["PID", "NAME", "PROST", "SHIM", "LIMITS", "NOTE"]);
    for row in rows {
        let shim = if row.shim { "yes" } else { "-" };
        let limits = if row.limits.is_empty() { "-".to_owned() } else { row.limits.join(", ") };
        let functions = row.prost_functions.to_string();
        table.add_row([row.pid.to_string(), row.name, functions, shim.to_owned(), limits, row.note]);
    }
    println!("{table}");
    Ok(())
}

/// A process and what its files offer; `None` if it cannot be looked at.
fn row(process: &Process) -> Option<Row> {
    let files = process.mapped_files();
    let unreadable = files.first()?.unreadable().filter(|_| Process::is_alive(process.id));
    let plans: Vec<ProbePlan> =
        files.iter().filter_map(|file| inspect_file(&file.path).ok()).filter(|plan| plan.is_rust).collect();
    let mut limits = Limits::default();
    plans.iter().for_each(|plan| limits.extend(plan.limits()));
    if Descriptors::read(process.id.pid).uring {
        limits.add(Limit::Uring);
    }
    let remark = plans.iter().flat_map(|plan| &plan.remarks).next();
    let note = match &unreadable {
        Some(why) => format!("its program cannot be read: {why}"),
        None => remark.map_or_else(String::new, |remark| remark.text.clone()),
    };
    Some(Row {
        pid: process.id.pid,
        name: process.name(),
        rust: !plans.is_empty(),
        prost_functions: plans.iter().map(|plan| plan.messages.len()).sum(),
        shim: plans.iter().any(ProbePlan::has_shim),
        limits: limits.iter().map(Limit::name).collect(),
        unreadable: unreadable.is_some(),
        note,
    })
}
