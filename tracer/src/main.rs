//! `tracer`: parses arguments and calls the library.

/// Spans are made by one thread and dropped by another, which the allocators of glibc and musl are slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    tracer::cli::main()
}
