//! `tracer ps`: what could be traced.

use std::collections::HashMap;

use anyhow::Result;
use comfy_table::{Table, presets};
use serde::Serialize;

use super::slow::slow;
use crate::inspect::{Limit, Limits, ProbePlan, inspect_file};
use crate::privilege::{self, TRACE};
use crate::target::{Descriptors, MappedFile, Process, shown_arguments};

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

/// A process, and what its files offer.
#[derive(Debug, Serialize)]
pub struct Row {
    pub pid: u32,
    pub name: String,
    pub rust: bool,
    pub prost_functions: usize,
    pub shim: bool,
    /// The program cannot be read, so it may be a Rust one.
    pub unreadable: bool,
    pub limits: Vec<&'static str>,
    pub note: String,
    /// Its command line, without what may be a credential.
    #[serde(skip)]
    pub arguments: Vec<String>,
}

/// Prints a table of processes.
pub fn main(args: &Args) -> Result<()> {
    let mut rows = rows();
    rows.retain(|row| args.all || row.rust || row.unreadable);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    if rows.is_empty() {
        println!("no Rust process is visible{}", others().unwrap_or_default());
        return Ok(());
    }
    println!("{}", table(rows));
    Ok(())
}

/// Why there may be more than what is seen.
pub fn others() -> Option<&'static str> {
    (!privilege::missing(&TRACE[2..]).is_empty()).then_some("; others are by CAP_SYS_PTRACE, try as root")
}

/// All processes but this one, those with the most to see first.
pub fn rows() -> Vec<Row> {
    let mut rows: Vec<Row> = slow("looking at what runs", || {
        let mut files = Files::default();
        let others = Process::all().into_iter().filter(|process| process.id.pid != std::process::id());
        others.filter_map(|process| row(&process, &mut files)).collect()
    });
    rows.sort_by_key(|row| (!row.shim && row.prost_functions == 0, row.pid));
    rows
}

/// As `tracer ps` shows them.
pub fn table(rows: Vec<Row>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["PID", "NAME", "PROST", "SHIM", "LIMITS", "NOTE"]);
    for row in rows {
        let shim = if row.shim { "yes" } else { "-" };
        let limits = if row.limits.is_empty() { "-".to_owned() } else { row.limits.join(", ") };
        let functions = row.prost_functions.to_string();
        table.add_row([row.pid.to_string(), row.name, functions, shim.to_owned(), limits, row.note]);
    }
    table
}

/// What files offer: most processes have the same libraries, and many the same program.
#[derive(Default)]
struct Files(HashMap<(u64, u64), FileView>);

#[derive(Clone, Default)]
struct FileView {
    rust: bool,
    prost_functions: usize,
    shim: bool,
    limits: Limits,
    remark: Option<String>,
}

impl Files {
    fn view(&mut self, file: &MappedFile) -> FileView {
        self.0.entry(file.key).or_insert_with(|| view(file)).clone()
    }
}

fn view(file: &MappedFile) -> FileView {
    match inspect_file(&file.path) {
        Ok(plan) if plan.is_rust => FileView {
            rust: true,
            prost_functions: plan.messages.len(),
            shim: ProbePlan::has_shim(&plan),
            limits: plan.limits(),
            remark: plan.remarks.into_iter().next().map(|remark| remark.text),
        },
        _ => FileView::default(),
    }
}

/// `None` if it cannot be looked at.
fn row(process: &Process, known: &mut Files) -> Option<Row> {
    let files = process.mapped_files();
    let unreadable = files.first()?.unreadable().filter(|_| Process::is_alive(process.id));
    let views: Vec<FileView> = files.iter().map(|file| known.view(file)).filter(|view| view.rust).collect();
    let mut limits = Limits::default();
    views.iter().for_each(|view| limits.extend(view.limits));
    if Descriptors::read(process.id.pid).uring {
        limits.add(Limit::Uring);
    }
    let note = match &unreadable {
        Some(why) => format!("its program cannot be read: {why}"),
        None => views.iter().find_map(|view| view.remark.clone()).unwrap_or_default(),
    };
    Some(Row {
        pid: process.id.pid,
        name: process.name(),
        rust: !views.is_empty(),
        prost_functions: views.iter().map(|view| view.prost_functions).sum(),
        shim: views.iter().any(|view| view.shim),
        limits: limits.iter().map(Limit::name).collect(),
        unreadable: unreadable.is_some(),
        note,
        arguments: shown_arguments(&process.name(), &process.arguments),
    })
}
