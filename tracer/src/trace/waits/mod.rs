//! Who made whom wait at a server: what its thread did while a command was on its way, and the spans that say so.

pub mod server;
pub mod spans;
