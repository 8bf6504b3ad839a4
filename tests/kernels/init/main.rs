//! The first process of the machine that `cargo xtask vm` boots: it sets the machine up, runs the check, prints one
//! verdict line and switches off. Should it die, the kernel panics, which the host sees too.

mod check;
mod machine;

use std::{path::Path, process::Command};

use anyhow::{Context, Result, bail};

fn main() {
    let verdict = machine::set_up().and_then(|()| {
        println!("TRACER-VM kernel={} btf={}", machine::release()?, Path::new("/sys/kernel/btf/vmlinux").exists());
        run()
    });
    match verdict {
        Ok(()) => println!("TRACER-VM verdict=PASS"),
        // One line, whatever the error holds.
        Err(error) => println!("TRACER-VM verdict=FAIL reason={}", format!("{error:#}").replace('\n', "; ")),
    }
    machine::power_off();
}

/// The program that was packed, else the end-to-end check.
fn run() -> Result<()> {
    if !Path::new("/program").exists() {
        return check::run();
    }
    let status = Command::new("/program").status().context("/program")?;
    if !status.success() {
        bail!("/program: {status}");
    }
    Ok(())
}
