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
mod map_sizes;
mod multi;
mod programs;
mod sockets;

pub use events::{Events, Mark};
pub use kernel::{KernelError, KernelTypes};
pub use link::{Attached, Link, LinkError, Program, Site, Target as LinkTarget, Way};
pub use map_sizes::{MapSizes, MapSizesError};
pub use programs::{LoadError, Options, Programs, uprobes_need_admin};
pub use sockets::{SocketProbe, Watching};
