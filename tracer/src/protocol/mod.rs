//! What the captured bytes say: RESP, protocols of databases, trace headers. Pure and incremental: no I/O, no clock, no thread.
//!
//! Everything here reads bytes of programs that may be broken or hostile: whatever they hold, there is no panic, memory
//! is bounded, and what could not be understood is counted.
//!
//! A protocol of a database is a folder that follows a [`conversation`], and a row of the table below.

use std::fmt::Debug;

use conversation::Protocol;

/// A struct of counters that can be added to another one: each is named once.
macro_rules! counters {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $counter:ident,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$doc])* pub $counter: u64,)*
        }

        impl $name {
            /// Adds the counters of another connection.
            pub fn add(&mut self, other: &Self) {
                $(self.$counter += other.$counter;)*
            }
        }
    };
}
pub(crate) use counters;

pub mod command;
pub mod conversation;
pub mod diagnostics;
pub mod mysql;
pub mod parts;
pub mod postgres;
pub mod redis;
pub mod resp;
pub mod sql;
pub mod stream;
pub mod trace_context;
pub mod traceparent;

impl<T: Clone + Debug + 'static> Protocol<T> {
    /// The protocols of databases. Redis is none of them: its commands are held for what their server says of them, they are
    /// known again when a task packs them, and it has replies that answer nothing.
    pub const ALL: &'static [Self] = &[mysql::protocol(), postgres::protocol()];
}

/// How many there are.
pub const PROTOCOLS: usize = Protocol::<()>::ALL.len();
