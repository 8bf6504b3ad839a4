//! What the captured bytes say: RESP, MySQL, trace headers. Pure and incremental: no I/O, no clock, no thread.
//!
//! Everything here reads bytes of programs that may be broken or hostile: whatever they hold, there is no panic, memory
//! is bounded, and what could not be understood is counted.

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

pub mod mysql;
pub mod parts;
pub mod redis;
pub mod resp;
pub mod stream;
pub mod trace_context;
pub mod traceparent;
