//! Generated types of the `.proto` files beside this crate's manifest. `cargo xtask lint` regenerates them and compares.

#[expect(missing_docs, reason = "generated code carries the comments of the .proto file")]
pub mod tracer {
    include!("tracer.rs");
}

#[expect(missing_docs, reason = "generated code carries the comments of the .proto file")]
#[cfg_attr(
    feature = "grpc",
    expect(unused_qualifications, clippy::allow_attributes_without_reason, reason = "generated code takes no chances")
)]
pub mod order {
    include!("order.rs");
}
