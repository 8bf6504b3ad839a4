//! The agent: from uprobes in running Rust processes to OTLP spans.
//!
//! The modules follow the way of the data: [`target`] finds processes, [`inspect`] plans what to probe in their binaries,
//! [`probe`] owns the kernel objects, [`capture`] turns ring-buffer records into events, [`protocol`] reads what the
//! events carry, [`trace`] makes spans of them and [`export`] sends the spans away, or [`web`] shows them in a browser. [`agent`] runs them together on a live
//! system, with the rights that [`privilege`] leaves it. They share the words of [`model`]. [`cli`] is the only layer that knows the command line and
//! standard output. See `ARCHITECTURE.md`.

#![recursion_limit = "256"]

pub mod agent;
pub mod capture;
pub mod cli;
pub mod export;
mod files;
pub mod inspect;
pub mod model;
pub mod output_file;
pub mod privilege;
pub mod probe;
pub mod protocol;
pub mod target;
pub mod trace;
pub mod web;
