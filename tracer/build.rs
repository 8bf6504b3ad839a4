//! Finds the eBPF objects that the agent embeds. `cargo xtask build-ebpf` makes them; packagers can name another one, which has the
//! one for old kernels beside it.

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
    let mut old = object.clone().into_os_string();
    old.push("-old-kernel");
    for (variable, object) in [("TRACER_EBPF_OBJECT", object), ("TRACER_EBPF_OLD_OBJECT", PathBuf::from(old))] {
        println!("cargo::rerun-if-changed={}", object.display());
        if object.is_file() {
            let object = object.canonicalize().expect("it exists");
            println!("cargo::rustc-env={variable}={}", object.display());
        } else {
            println!(
                "cargo::error=the eBPF programs are not built ({} is missing): run `cargo xtask build-ebpf` first",
                object.display()
            );
        }
    }
}
