//! Tasks of the project: `cargo xtask COMMAND`. Each subcommand is one module; every one fetches what it needs first.

mod bench;
mod build_ebpf;
mod demo;
mod dist;
mod fuzz;
mod lint;
mod matrix;
mod page;
mod pipeline;
mod run;
mod screenshots;
mod setup;
mod test;
mod tokio_table;
mod variant;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Tasks of the tracer project")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Fetch what the other tasks need: rust-src, bpf-linker, servers, QEMU, a collector
    Setup(setup::Args),
    /// Build the eBPF programs that the agent embeds
    BuildEbpf,
    /// Make what is installed elsewhere: a static binary, packages, their checksums
    Dist,
    /// Trace the order services in this terminal: trees, latencies of each hop, the slowest order
    Demo(demo::Args),
    /// Run the unit tests, and as root the end-to-end tests
    Test(test::Args),
    /// Measure what tracing costs: the agent, tracing-opentelemetry, bpftrace and the shim, as ratios
    Bench(bench::Args),
    /// Build a sample in every way and write what is seen of it into the README's table
    Matrix(matrix::Args),
    /// Run the fuzz targets of the parsers, ten million executions each
    Fuzz(fuzz::Args),
    /// Check format, clippy, generated code and the rules between the layers
    Lint(lint::Args),
    /// Build the page of the browser view from web/ (needs npm)
    Page,
    /// Take the pictures of the browser view in docs/ anew (root)
    Screenshots,
    /// Write anew where each tokio version keeps the id of the current task
    TokioTable,
    /// Run the end-to-end check on other kernels, in QEMU
    Vm(vm::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Setup(args) => setup::main(&args),
        Task::BuildEbpf => build_ebpf::main(),
        Task::Dist => dist::main(),
        Task::Demo(args) => demo::main(&args),
        Task::Test(args) => test::main(&args),
        Task::Bench(args) => bench::main(&args),
        Task::Matrix(args) => matrix::main(&args),
        Task::Fuzz(args) => fuzz::main(&args),
        Task::Lint(args) => lint::main(&args),
        Task::Page => page::main(),
        Task::Screenshots => screenshots::main(),
        Task::TokioTable => tokio_table::main(),
        Task::Vm(args) => vm::main(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Without a backtrace: the chain of causes says what went wrong with what.
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
