//! The messages in a library that programs in other languages load.

use crate::messages::{round_one, round_three, round_two};

/// Runs some rounds of every call; returns how many calls it has made, 0 if one failed.
// SAFETY: nothing else of this name is linked into a program with this library.
#[unsafe(no_mangle)]
pub extern "C" fn test_rounds(rounds: u64) -> u64 {
    let mut log = Vec::new();
    let done = (0..rounds).try_for_each(|id| match id % 3 {
        0 => round_one(id, &mut log),
        1 => round_two(id, &mut log),
        _ => round_three(id, &mut log),
    });
    if done.is_ok() { log.len() as u64 } else { 0 }
}
