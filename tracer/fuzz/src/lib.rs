//! What the fuzz targets share: the parsers, and files to hide the input in.

// By path: the rest of the agent would only make the build long.
#[path = "../../src/inspect/mod.rs"]
pub mod inspect;

#[expect(dead_code, reason = "the agent uses more of it")]
#[path = "../../src/files.rs"]
mod files;

#[path = "../../src/model/mod.rs"]
pub mod model;

pub mod elf;
