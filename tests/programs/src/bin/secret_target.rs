//! A process that sends what a test wrote into a file, to the byte and to the call.
//!
//! `raw ADDRESS PATH`: PATH holds a JSON list of lists of numbers: the bytes of one write call each, on one connection; the answer
//! is how many bytes came back. `statements URL PATH`: PATH holds a JSON list of SQL texts, which are run one after the other, each
//! third one prepared; the answer is how many the server took. `messages PATH`: PATH holds a JSON list of texts, each of which
//! is encoded and decoded in a message.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use anyhow::{Context as _, Result, bail, ensure};
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts, OptsBuilder};
use prost::Message as _;
use serde_json::{Value, json};
use tracer_test_programs::converse;
use tracer_test_programs::messages::{Order, Report};

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    converse(|command, arguments| match (command, arguments) {
        ("raw", [address, path]) => raw(address, path),
        ("statements", [url, path]) => runtime.block_on(statements(url, path)),
        ("messages", [path]) => messages(path),
        _ => bail!("unknown command"),
    })
}

fn list<T: serde::de::DeserializeOwned>(path: &str) -> Result<Vec<T>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    Ok(serde_json::from_str(&text)?)
}

fn raw(address: &str, path: &str) -> Result<Value> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut replies = stream.try_clone()?;
    // The server stops reading when nobody takes its answers.
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        replies.read_to_end(&mut bytes).map(|_| bytes.len())
    });
    for piece in list::<Vec<u8>>(path)? {
        // A server that has heard enough closes the connection.
        if stream.write_all(&piece).is_err() {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
    match reader.join() {
        Ok(received) => Ok(json!(received.unwrap_or_default())),
        Err(_) => bail!("the reader panicked"),
    }
}

async fn statements(url: &str, path: &str) -> Result<Value> {
    let options =
        OptsBuilder::from_opts(Opts::from_url(url)?).max_allowed_packet(Some(16 << 20)).wait_timeout(Some(600));
    let mut connection = Conn::new(options.prefer_socket(false)).await?;
    let mut taken = 0;
    for (index, sql) in list::<String>(path)?.into_iter().enumerate() {
        let done = if index % 3 == 2 {
            match connection.prep(sql.as_str()).await {
                Ok(statement) => connection.close(statement).await,
                Err(error) => Err(error),
            }
        } else {
            connection.query_drop(sql).await
        };
        match done {
            Ok(()) => taken += 1,
            // Most of them name what is not there.
            Err(mysql_async::Error::Server(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    connection.disconnect().await?;
    Ok(json!(taken))
}

fn messages(path: &str) -> Result<Value> {
    let texts: Vec<String> = list(path)?;
    for (id, text) in (0..).zip(&texts) {
        let order = Order { id, symbol: text.clone(), note: text.as_bytes().to_vec(), ..Order::default() };
        let bytes = encode(&order);
        ensure!(Order::decode(bytes.as_slice())? == order);
        let report = Report { order_id: id, text: vec![text.clone()], price: 1.0 };
        ensure!(Report::decode(report.encode_to_vec().as_slice())? == report);
        // A message that ends in the middle of the text.
        ensure!(Order::decode(&bytes[..bytes.len() - 1]).is_err());
    }
    Ok(json!(texts.len()))
}

#[inline(never)]
fn encode(order: &Order) -> Vec<u8> {
    order.encode_to_vec()
}
