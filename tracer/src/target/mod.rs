//! Which processes to trace: names, PIDs, executables, late starters; their identity and resource attributes.

mod process;
mod resource;
mod selector;

pub use process::{MappedFile, Process, ProcessError};
pub use resource::{HostFacts, ended_process_info, process_info};
pub use selector::{Selector, SelectorError};
