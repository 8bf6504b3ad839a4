//! The gRPC service, without a .proto file.

fn main() {
    let codec = if cfg!(feature = "tonic-prost") { "tonic_prost::ProstCodec" } else { "tonic::codec::ProstCodec" };
    let echo = tonic_build::manual::Method::builder()
        .name("echo")
        .route_name("Echo")
        .input_type("crate::Ping")
        .output_type("crate::Pong")
        .codec_path(codec)
        .build();
    let service = tonic_build::manual::Service::builder().name("Echo").package("versions").method(echo).build();
    tonic_build::manual::Builder::new().compile(&[service]);
    println!("cargo:rerun-if-changed=../build.rs");
}
