//! The file itself: sections, symbols, relocations, notes, and the parts of it that were split off or packed.
//!
//! All other rooms of `inspect` read files through this one. It knows nothing of code, Rust or prost.

pub mod debug_data;
pub mod debug_file;
pub mod image;
pub mod loader;
pub mod notes;
pub mod relocations;
pub mod source;
pub mod symbols;
