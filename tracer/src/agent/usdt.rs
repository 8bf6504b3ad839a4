//! Where to attach to the shim's USDT site: a `nop`, a `nop10` and a `nop5`, one for each way in which kernels optimise a probe.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use tracer_common::map::TaskFlow;
use tracer_shim::record::{FLOW_LEN, FLOWS_VERSION};

use crate::inspect::{ProbePlan, UsdtNote};
use crate::privilege::UPROBE;

const _: () = assert!(size_of::<TaskFlow>() == FLOW_LEN);

/// The site as the shim emits it. Any other site gets its probe on the noted instruction: a nop5 that the shim did not emit
/// may have live data below rsp, which the kernel's optimised probe overwrites.
const SITE: [u8; 16] = [0x90, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00, 0x0f, 0x1f, 0x44, 0x00, 0x00];

/// The shim's notes in a plan.
pub fn shim_notes(plan: &ProbePlan) -> impl Iterator<Item = &UsdtNote> {
    plan.notes
        .iter()
        .filter(|note| note.provider == "tracer" && note.name == "span" && note.arguments == "8@%rdi 8@%rsi")
}

/// The shim's table of task flows: where its address is, and the number of its slots less one, from the page of the semaphore,
/// which is at `semaphore` in the process. The address is not to be had here: the loader of a process that has just been
/// started writes it later.
///
/// `memory` is the process's own, in /proc. The process may say anything: what the programs read there is checked like all of its memory.
pub fn task_flows(memory: &Path, semaphore: u64) -> Option<(u64, u64)> {
    let mut page = [0; 8];
    File::open(memory).ok()?.read_exact_at(&mut page, semaphore).ok()?;
    let [_, _, v0, v1, s0, s1, s2, s3] = page;
    let slots = u32::from_le_bytes([s0, s1, s2, s3]);
    let known = u16::from_le_bytes([v0, v1]) == FLOWS_VERSION && slots.is_power_of_two();
    known.then(|| (semaphore.wrapping_add(page.len() as u64), u64::from(slots - 1)))
}

/// File offset of the best place of a site on the running kernel.
pub fn best_offset(file: &File, note: &UsdtNote) -> u64 {
    let mut bytes = [0; SITE.len()];
    let read = file.read_exact_at(&mut bytes, note.site.offset);
    if read.is_ok() && bytes == SITE { note.site.offset + optimised() } else { note.site.offset }
}

/// Which of the three instructions the running kernel optimises.
///
/// The system call `uprobe` is the kernel's own way back from an optimised probe. Called from anywhere else it fails with
/// ENXIO where a nop5 is optimised (Linux 6.18), with EPROTO where a nop10 is, and with ENOSYS where nothing is.
fn optimised() -> u64 {
    // SAFETY: the call takes no arguments and, not coming from a probe, does nothing but fail.
    let result = unsafe { libc::syscall(UPROBE) };
    match (result, std::io::Error::last_os_error().raw_os_error()) {
        (-1, Some(libc::ENXIO)) => 11,
        (-1, Some(libc::EPROTO)) => 1,
        _ => 0,
    }
}
