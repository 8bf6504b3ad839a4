//! Spans to OTLP, files and the terminal.
