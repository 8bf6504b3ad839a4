//! The only owner of kernel objects: loads the eBPF programs, attaches and detaches them, reads their maps.
//!
//! Nothing here outlives the process: maps, programs and links are file descriptors, and the kernel drops them when the
//! agent ends in any way.

pub mod descriptors;
mod events;
pub mod features;
mod identify;
mod kernel;
mod link;
mod multi;
mod programs;
mod sockets;

pub use events::Events;
pub use kernel::{KernelError, has_tracepoint, kernel_offsets};
pub use link::{Attached, Link, LinkError, Program, Site, Target as LinkTarget};
pub use programs::{LoadError, Options, Programs};
pub use sockets::{SocketProbe, Watching};
