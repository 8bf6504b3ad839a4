//! `tracer`: parses arguments and calls the library.

fn main() -> std::process::ExitCode {
    tracer::cli::main()
}
