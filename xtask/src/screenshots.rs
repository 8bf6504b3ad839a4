//! `cargo xtask screenshots`: the pictures of the browser view in `docs/`, of the order services and a real browser.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{
    build_ebpf,
    demo::service::Service,
    pipeline::{self, Chain, Load, SERVICES, Variant},
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
    let (agent, live) = run_with_page(&spans)?;
    let outcome = chain.send(LOAD)?;
    ensure!(outcome["filled"] == LOAD.count, "the services did not fill all orders: {outcome}");
    picture(dir.path(), &live, "health", "health")?;
    agent.interrupt()?;

    let mut view = Command::new(program());
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
        ("redis", "redis".to_owned()),
    ] {
        picture(dir.path(), url, &hash, name)?;
    }
    Ok(())
}

fn program() -> PathBuf {
    workspace::target().join("release/tracer")
}

/// A live session of the services with its page; spans go to `file` as well. Returns the page's address.
fn run_with_page(file: &Path) -> Result<(Service, String)> {
    let mut agent = Command::new(program());
    agent.args(["run", "--web", "127.0.0.1:0", "--export", &format!("file:{}", file.display()), "--name"]);
    let mut agent = Service::start(agent.args(SERVICES).stderr(Stdio::piped()))?;
    let mut said = BufReader::new(agent.stderr()?).lines();
    let mut url = None;
    for line in said.by_ref() {
        let line = line?;
        url = url.or_else(|| line.split_whitespace().find(|word| word.starts_with("http://")).map(str::to_owned));
        if line.contains("Ctrl-C ends") && url.is_some() {
            break;
        }
    }
    // What it says must be read, or it would have to wait.
    thread::spawn(move || said.map_while(Result::ok).for_each(|line| eprintln!("{line}")));
    Ok((agent, url.context("the agent ended before it had a page")?))
}

/// The trace of an order in the middle of the load.
fn one_trace(spans: &Path) -> Result<String> {
    let text = std::fs::read_to_string(spans)?;
    let lines: Vec<&str> = text.lines().collect();
    let line: Value = serde_json::from_str(lines.get(lines.len() / 2).context("there are no spans")?)?;
    let id = line.pointer("/resourceSpans/0/scopeSpans/0/spans/0/traceId").and_then(Value::as_str);
    Ok(id.context("a span without a trace")?.to_owned())
}

/// A picture of the view of this name in `docs/`.
fn picture(dir: &Path, url: &str, hash: &str, name: &str) -> Result<()> {
    let into = workspace::root().join(format!("docs/web-{name}.png"));
    let mut browser = Command::new(packages::CHROMIUM.find().context("chromium was just set up")?);
    // Chromium's own sandbox refuses to run as root.
    browser.args(["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"]);
    browser.args(["--window-size=1280,720", "--virtual-time-budget=20000"]);
    browser.arg(format!("--user-data-dir={}", dir.join("profile").display()));
    browser.arg(format!("--screenshot={}", into.display())).arg(format!("{url}#{hash}"));
    run::output(&mut browser).with_context(|| format!("no picture {}", into.display()))?;
    Ok(())
}
