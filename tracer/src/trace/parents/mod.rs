//! Which span is the parent: flows of tasks and threads, the process that sent the same bytes, and parts that messages share.
//!
//! The order of these rules is in the first lines of [`super`]; [`super::message`] applies them to messages, and [`pending_commands`]
//! decides the parent of a database command. Nothing here makes a span.

pub mod content;
pub mod deadlines;
pub mod flow;
pub mod flows;
pub mod grpc_calls;
pub mod payload;
pub mod pending_commands;
pub mod position;
pub mod redis_packing;
pub mod spawns;
pub mod transit;
