//! The command line: one file per subcommand. The only layer that knows clap, standard output and exit codes.

pub mod config;
