//! Machine code: one function at a time, its control flow, who calls it, and what its registers and stack hold.
//!
//! [`entry`] and [`exits`] choose the instructions on which a probe may stand. Nothing here knows which function is of interest or why.

pub mod callees;
pub mod entry;
pub mod exits;
pub mod flow;
pub mod frames;
pub mod fuel;
pub mod function;
pub mod references;
pub mod returns;
pub mod values;
