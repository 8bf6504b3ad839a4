//! prost's functions: which ones a file has, for which message type, and where a call finds its bytes.
//!
//! [`messages`] is the way in. What was inlined comes from [`super::dwarf`] and goes through [`super::inlined`].

pub mod buffers;
pub mod layout;
pub mod merged;
pub mod messages;
pub mod names;
pub mod types;
pub mod unseen;
