//! Calls that the compiler inlined: the part of the surrounding function that runs during the call, with one entry and all exits.
//!
//! [`calls`] is the way in. Where a call cannot be told from its surroundings it is refused: a wrong span is worse than none.

pub mod calls;
pub mod copies;
pub mod frame_bytes;
pub mod region;
