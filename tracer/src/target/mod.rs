//! Which processes to trace: names, PIDs, executables, late starters; their identity and resource attributes.

mod arguments;
mod container;
mod descriptors;
mod kubernetes;
mod language;
mod mapped;
mod process;
mod process_context;
mod redis_server;
mod resource;
mod sampling_page;
mod selector;
mod started;

pub use arguments::shown_arguments;
pub use descriptors::Descriptors;
pub use mapped::MappedFile;
pub use process::{Process, ProcessError};
pub use process_context::published_attributes;
pub use redis_server::{Found, Wanted, find_server, is_redis_server, is_redis_server_name};
pub use resource::{HostFacts, ended_process_info, process_info};
pub use sampling_page::{Sampling, SamplingError, set_sampling};
pub use selector::{Selector, SelectorError};
pub use started::is_loader;
