//! `cargo xtask screenshots`: the pictures of the browser view in `docs/`, of the order services and a real browser.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{
    build_ebpf,
    demo::{agent::Agent, service::Service},
    pipeline::{self, Chain, Load, Variant},
    run,
    setup::{self, Tool, packages},
    workspace,
};

/// What the pictures are of.
const LOAD: Load = Load { count: 2_000, rate: 200, burst: 20, window: None, first: 1 };

/// `cargo xtask screenshots`.
pub fn main() -> Result<()> {
    if !workspace::is_root() {
        bail!("the services are traced, which needs root: `sudo -E cargo xtask screenshots`");
    }
    let mut tools = setup::to_demo();
    tools.push(Box::new(packages::CHROMIUM));
    setup::ensure(&tools)?;
    build_ebpf::main()?;
    let mut build = workspace::cargo("build");
    run::visible(build.args(["--release", "--package", "tracer", "--bin", "tracer"]))?;
    pipeline::build(Variant::Shim)?;

    let dir = tempfile::tempdir()?;
    let spans = dir.path().join("order services");
    let chain = Chain::start(Variant::Shim, dir.path())?;
    let agent = Agent::start(&spans, None)?;
    let outcome = chain.send(LOAD)?;
    ensure!(outcome["filled"] == LOAD.count, "the services did not fill all orders: {outcome}");
    agent.finish()?;

    let mut view = Command::new(workspace::target().join("release/tracer"));
    view.current_dir(dir.path()).args(["view", "order services", "--web", "127.0.0.1:0"]);
    let mut view = Service::start(view.stdout(Stdio::piped()))?;
    let mut url = String::new();
    BufReader::new(view.stdout()?).read_line(&mut url)?;
    let url = url.trim();
    let trace = one_trace(&spans)?;
    for (name, hash) in [
        ("traces", "traces?service=ufes&name=decode+Order".to_owned()),
        ("trace", format!("trace/{trace}")),
        ("map", "map".to_owned()),
        ("latency", "latency?service=msg_order_engine&name=SET".to_owned()),
    ] {
        picture(dir.path(), &format!("{url}#{hash}"), &workspace::root().join(format!("docs/web-{name}.png")))?;
    }
    Ok(())
}

/// The trace of an order in the middle of the load.
fn one_trace(spans: &Path) -> Result<String> {
    let text = std::fs::read_to_string(spans)?;
    let lines: Vec<&str> = text.lines().collect();
    let line: Value = serde_json::from_str(lines.get(lines.len() / 2).context("there are no spans")?)?;
    let id = line.pointer("/resourceSpans/0/scopeSpans/0/spans/0/traceId").and_then(Value::as_str);
    Ok(id.context("a span without a trace")?.to_owned())
}

fn picture(dir: &Path, url: &str, into: &Path) -> Result<()> {
    let mut browser = Command::new(packages::CHROMIUM.find().context("chromium was just set up")?);
    // Chromium's own sandbox refuses to run as root.
    browser.args(["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"]);
    browser.args(["--window-size=1280,720", "--virtual-time-budget=20000"]);
    browser.arg(format!("--user-data-dir={}", dir.join("profile").display()));
    browser.arg(format!("--screenshot={}", into.display())).arg(url);
    run::output(&mut browser).with_context(|| format!("no picture {}", into.display()))?;
    Ok(())
}
