//! Puts `otel_thread_ctx_v1` into the dynamic symbol table of whatever is linked against this crate, where readers of
//! OTEP 4947 look for it, without linker flags from the user.
//!
//! Linkers export a symbol of an executable when a shared object on the command line refers to it. So: a stub shared
//! object that does nothing else. `--as-needed`, which rustc passes, keeps it out of the list of needed libraries.

use std::path::Path;
use std::process::Command;
use std::{env, fs, io};

const STUB: &str =
    "extern __thread void *otel_thread_ctx_v1;\nvoid *tracer_shim_stub(void) { return &otel_thread_ctx_v1; }\n";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = |key: &str| env::var(format!("CARGO_CFG_TARGET_{key}")).unwrap_or_default();
    let is_static = target("FEATURE").split(',').any(|feature| feature == "crt-static");
    if target("OS") != "linux" || target("ARCH") != "x86_64" || is_static {
        return;
    }
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    if let Err(error) = build_stub(Path::new(&out)) {
        println!("cargo::warning=otel_thread_ctx_v1 will not be in .dynsym: no stub library: {error}");
        return;
    }
    println!("cargo::rustc-link-search=native={out}");
    println!("cargo::rustc-link-lib=dylib=otelctxexport");
}

fn build_stub(out: &Path) -> io::Result<()> {
    let source = out.join("stub.c");
    fs::write(&source, STUB)?;
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let status = Command::new(compiler)
        .args(["-shared", "-fPIC", "-nostdlib", "-Wl,-soname,libotelctxexport.so", "-o"])
        .arg(out.join("libotelctxexport.so"))
        .arg(&source)
        .status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(status.to_string())) }
}
