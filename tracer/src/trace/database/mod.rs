//! Commands of databases: the bytes of a connection in, spans and durations out.
//!
//! The protocols themselves are in [`crate::protocol`]; a connection learns here which one it speaks ([`tracker`]).

pub mod command;
pub mod connection;
pub mod durations;
pub mod redis;
pub mod tracker;
