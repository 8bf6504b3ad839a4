//! Finds the eBPF object that the agent embeds. `cargo xtask build-ebpf` makes it; packagers can name another one.

use std::env;
use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-env-changed=TRACER_EBPF_OBJECT");
    let object = match env::var_os("TRACER_EBPF_OBJECT") {
        Some(path) => PathBuf::from(path),
        None => {
            PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../target/ebpf/tracer-ebpf")
        }
    };
    println!("cargo::rerun-if-changed={}", object.display());
    if object.is_file() {
        let object = object.canonicalize().expect("it exists");
        println!("cargo::rustc-env=TRACER_EBPF_OBJECT={}", object.display());
    } else {
        println!(
            "cargo::error=the eBPF programs are not built ({} is missing): run `cargo xtask build-ebpf` first",
            object.display()
        );
    }
}
