//! Generated types of the `.proto` files beside this crate's manifest. `cargo xtask lint` regenerates them and compares.

#[expect(missing_docs, reason = "generated code carries the comments of the .proto file")]
pub mod tracer {
    include!("tracer.rs");
}
