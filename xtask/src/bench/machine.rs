//! What the figures were measured on.

use std::{fs, thread, time::Duration};

use anyhow::{Context, Result};

/// Release of the running kernel.
pub fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {}", release.trim())
}

/// Model and number of the processors.
pub fn cpus() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let value = |key: &str| {
        info.lines().find_map(|line| line.strip_prefix(key)?.split_once(": ")).map(|(_, value)| value.to_owned())
    };
    let model = value("model name").unwrap_or_else(|| "unknown processor".to_owned());
    let virtual_machine =
        info.lines().any(|line| line.starts_with("flags") && line.split(' ').any(|flag| flag == "hypervisor"));
    let number = thread::available_parallelism().map_or(1, usize::from);
    let place = if virtual_machine { ", virtual" } else { "" };
    format!("{number} x {model}{place}")
}

/// Processes that wanted a processor over the last minute: the figures of a busy machine are noisy.
pub fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or_default().to_owned()
}

/// How long all processors together have worked since the start.
pub fn busy() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    let ticks: Vec<u64> = line.split_whitespace().skip(1).map_while(|word| word.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq; what the host has taken away is nobody's work.
    let busy = ticks.iter().take(7).sum::<u64>() - ticks.iter().skip(3).take(2).sum::<u64>();
    // SAFETY: it reads a number.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Ok(Duration::from_secs_f64(busy as f64 / per_second as f64))
}
