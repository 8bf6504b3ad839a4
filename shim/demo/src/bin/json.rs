//! JSON messages from one process to another over a Unix socket, each in a trace that both sides share.
//!
//! `json receiver SOCKET` and `json sender SOCKET COUNT`; either prints the trace id of each message as it sees it.

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use tracer_shim::{Carrier, Context, Span, trace_context};

/// The attribute gives the message the field for the trace context, the derive what goes with it.
#[trace_context]
#[derive(Debug, Span, Serialize, Deserialize)]
struct CrossProcessMsg {
    content: String,
    msg_id: u64,
}

fn send(socket: &str, count: u64) -> Result<()> {
    tracer_shim::init("sender-service", &[]);
    let mut stream = UnixStream::connect(socket).context("no receiver")?;
    for msg_id in 0..count {
        let span = Span::with_parent(Context::NONE, "sender").entered();
        let message = CrossProcessMsg { content: "Hello from sender!".to_owned(), msg_id, trace_context: None };
        serde_json::to_writer(&mut stream, &message.traced())?;
        stream.write_all(b"\n")?;
        println!("{msg_id} {}", span.context().trace_id());
    }
    Ok(())
}

fn receive(socket: &str) -> Result<()> {
    tracer_shim::init("receiver-service", &[]);
    let listener = UnixListener::bind(socket)?;
    println!("ready");
    let (stream, _) = listener.accept()?;
    for line in BufReader::new(stream).lines() {
        let message: CrossProcessMsg = serde_json::from_str(&line?)?;
        let span = message.create_span("process_cross_process_msg");
        let _entered = span.enter();
        // The work goes here; whatever it sends belongs to the sender's trace.
        println!("{} {}", message.msg_id, Context::current().trace_id());
    }
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["sender", socket, count] => send(socket, count.parse()?),
        ["receiver", socket] => receive(socket),
        _ => bail!("usage: json receiver SOCKET | json sender SOCKET COUNT"),
    }
}
