//! The agent's processor time per span, without the kernel's part: a recording, replayed to no exporter.

use std::{
    fs,
    mem::MaybeUninit,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{observer::Observer, read_json, target::Target};
use crate::{
    pipeline::{Chain, SERVICES, Variant},
    workspace,
};

/// One replay.
pub struct Replay {
    /// What was recorded.
    pub name: &'static str,
    /// Spans that the replay made.
    pub spans: u64,
    /// Its processor time, in the program and in the kernel, in nanoseconds.
    pub cpu_ns: u64,
    /// What the balance says was lost.
    pub lost: Value,
}

impl Replay {
    /// Processor time per span.
    pub fn per_span(&self) -> f64 {
        self.cpu_ns as f64 / self.spans as f64
    }
}

/// Records a target's work, and replays it.
pub fn measure(name: &'static str, work: &str, agent: &Path, program: &Path, dir: &Path) -> Result<Replay> {
    let mut target = Target::start(program)?;
    let pid = target.id();
    let recording = record(name, &[pid], agent, dir, || target.cost(work).map(drop))?;
    replay(name, agent, &recording, dir)
}

/// Records orders through the services, and replays them.
pub fn measure_orders(name: &'static str, variant: Variant, agent: &Path, dir: &Path) -> Result<Replay> {
    let scratch = tempfile::tempdir_in(dir)?;
    let chain = Chain::start(variant, scratch.path())?;
    let pids: Vec<u32> = SERVICES.iter().filter_map(|name| chain.id(name)).collect();
    let recording = record(name, &pids, agent, dir, || super::pipeline::saturate(&chain).map(drop))?;
    replay(name, agent, &recording, dir)
}

/// Records what these processes do meanwhile. The recording stays, for those who want to know where the time goes.
fn record(name: &str, pids: &[u32], agent: &Path, dir: &Path, work: impl FnOnce() -> Result<()>) -> Result<PathBuf> {
    let recordings = workspace::target().join("bench");
    fs::create_dir_all(&recordings)?;
    let recording = recordings.join(name.replace([' ', ','], "-") + ".recording");
    if recording.exists() {
        fs::remove_file(&recording)?;
    }
    let recorder = Observer::agent(agent, dir, "record", pids, |command| {
        command.arg("--output").arg(&recording);
    })?;
    work()?;
    recorder.end()?;
    Ok(recording)
}

fn replay(name: &'static str, agent: &Path, recording: &Path, dir: &Path) -> Result<Replay> {
    let stats = dir.join("replay.json");
    let mut replay = Command::new(agent);
    replay.arg("replay").arg(recording);
    replay.args(["--export", "none", "--stats-json"]).arg(&stats);
    let cpu_ns = processor_time(&mut replay)?;
    let stats = read_json(&stats)?;
    let spans = stats["produced"].as_u64().context("no \"produced\" in the balance")?;
    ensure!(spans > 0, "{name}: the recording has no spans");
    Ok(Replay { name, spans, cpu_ns, lost: stats["lost"].clone() })
}

/// Runs the command quietly; user and system time that it took, in nanoseconds.
fn processor_time(command: &mut Command) -> Result<u64> {
    let log = workspace::target().join("replay.log");
    let file = fs::File::create(&log)?;
    let child =
        command.stdout(file.try_clone()?).stderr(file).spawn().with_context(|| format!("cannot run {command:?}"))?;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    let mut status = 0;
    // SAFETY: the child is ours and nobody else waits for it; both places are live.
    let waited = unsafe { libc::wait4(i32::try_from(child.id())?, &raw mut status, 0, usage.as_mut_ptr()) };
    ensure!(waited > 0, "wait4: {}", std::io::Error::last_os_error());
    ensure!(status == 0, "{command:?}: {}", fs::read_to_string(&log)?.trim());
    // SAFETY: the kernel has filled it, and all zeroes are a value, too.
    let usage = unsafe { usage.assume_init() };
    let nanos = |time: libc::timeval| time.tv_sec as u64 * 1_000_000_000 + time.tv_usec as u64 * 1_000;
    Ok(nanos(usage.ru_utime) + nanos(usage.ru_stime))
}
