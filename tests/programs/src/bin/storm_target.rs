//! Threads that interrupt each other in the middle of a probe, on one processor.
//!
//! `storm N`: a thread of ordinary priority makes N messages there and back, while two of real-time priority wake up as often as
//! they can, on the same processor, and do the same. Answers with the number of calls of each kind. A program of the kernel that keeps
//! anything of a run where the next one on that processor finds it does not survive this.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use prost::Message as _;
use serde_json::json;
use tracer_test_programs::messages::{Order, order};
use tracer_test_programs::{converse, number};

/// Between the messages of a thread of high priority: short, and not a divisor of anything.
const PAUSES: [Duration; 2] = [Duration::from_micros(170), Duration::from_micros(390)];

fn main() -> Result<()> {
    converse(|command, arguments| match command {
        "storm" => {
            let calls = storm(number(arguments, 0)? as u64)?;
            Ok(json!({ "decode": calls, "encode": calls }))
        }
        _ => bail!("unknown command"),
    })
}

fn storm(count: u64) -> Result<u64> {
    let over = Arc::new(AtomicBool::new(false));
    let urgent: Vec<_> = PAUSES
        .into_iter()
        .enumerate()
        .map(|(number, pause)| {
            let over = Arc::clone(&over);
            thread::spawn(move || -> Result<u64> {
                pin()?;
                real_time(10 + number as i32)?;
                let mut calls = 0;
                while !over.load(Ordering::Relaxed) {
                    message(calls)?;
                    calls += 1;
                    thread::sleep(pause);
                }
                Ok(calls)
            })
        })
        .collect();
    let ordinary = thread::spawn(move || -> Result<()> {
        pin()?;
        (0..count).try_for_each(message)
    });
    let result = ordinary.join().ok().context("the thread panicked")?;
    over.store(true, Ordering::Relaxed);
    let mut calls = count;
    for thread in urgent {
        calls += thread.join().ok().context("a thread panicked")??;
    }
    result?;
    Ok(calls)
}

#[inline(never)]
fn message(id: u64) -> Result<()> {
    let bytes = order(id).encode_to_vec();
    ensure!(Order::decode(bytes.as_slice())?.id == id);
    Ok(())
}

/// Runs the current thread on the first processor only.
fn pin() -> Result<()> {
    // SAFETY: a set of zeros is an empty one, and the call reads it only.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(0, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    ensure!(result == 0, "sched_setaffinity: {}", std::io::Error::last_os_error());
    Ok(())
}

fn real_time(priority: i32) -> Result<()> {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: the call reads the parameters only.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) };
    ensure!(result == 0, "sched_setscheduler: {}", std::io::Error::last_os_error());
    Ok(())
}
