//! `tracer` without arguments: what runs here and could be traced, and the command that does it.

use std::collections::BTreeMap;

use super::ps::{self, Row};
use crate::privilege::{self, TRACE};

/// Programs that are shown.
const MOST: usize = 8;

/// Prints the programs; false if there are none.
pub fn main() -> bool {
    let programs = programs(ps::rows());
    let Some(first) = programs.first() else { return false };
    println!("These programs run here and could be traced:\n");
    let width = programs.iter().take(MOST).map(|program| program.name.chars().count()).max().unwrap_or(0);
    for program in programs.iter().take(MOST) {
        println!("  {:width$}  {}", program.name, program.offer());
    }
    if let Some(more) = programs.len().checked_sub(MOST).filter(|more| *more > 0) {
        println!("  and {more} more: `tracer ps`");
    }
    let sudo = if privilege::missing(&TRACE).is_empty() { "" } else { "sudo " };
    let name = quoted(&first.name);
    println!("\nTo see what they do:\n");
    println!("  {sudo}tracer run -n {name}      # traces, in this terminal");
    println!("  {sudo}tracer top -n {name}      # rates and latencies, live");
    println!(
        "\n`tracer doctor` checks this machine, `tracer --help` tells the rest{}.",
        ps::others().unwrap_or_default()
    );
    true
}

/// All processes of a name.
struct Program {
    name: String,
    pids: Vec<u32>,
    prost_functions: usize,
    shim: bool,
}

impl Program {
    fn offer(&self) -> String {
        let processes = match self.pids.as_slice() {
            [pid] => format!("process {pid}"),
            pids => format!("{} processes", pids.len()),
        };
        let what = match (self.shim, self.prost_functions) {
            (true, _) => "has the shim: exact traces".to_owned(),
            (false, 0) => "Redis and MySQL commands only".to_owned(),
            (false, 1) => "1 prost function".to_owned(),
            (false, functions) => format!("{functions} prost functions"),
        };
        format!("{processes}, {what}")
    }
}

/// Those with the most to see first.
fn programs(rows: Vec<Row>) -> Vec<Program> {
    let mut programs: BTreeMap<String, Program> = BTreeMap::new();
    for row in rows.into_iter().filter(|row| row.rust) {
        let empty = Program { name: row.name.clone(), pids: Vec::new(), prost_functions: 0, shim: false };
        let program = programs.entry(row.name).or_insert(empty);
        program.pids.push(row.pid);
        program.prost_functions = program.prost_functions.max(row.prost_functions);
        program.shim |= row.shim;
    }
    let mut programs: Vec<Program> = programs.into_values().collect();
    programs.sort_by_key(|program| (!program.shim, program.prost_functions == 0));
    programs
}

/// For a shell, and as a name that is not a pattern.
fn quoted(name: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "._+-".contains(letter);
    if name.chars().all(is_plain) { name.to_owned() } else { "NAME".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::{Row, programs};

    fn row(pid: u32, name: &str, prost_functions: usize, shim: bool) -> Row {
        let (limits, note, arguments) = Default::default();
        Row {
            pid,
            name: name.to_owned(),
            rust: true,
            prost_functions,
            shim,
            unreadable: false,
            limits,
            note,
            arguments,
        }
    }

    #[test]
    fn processes_of_a_name_are_one_program_and_the_best_is_first() {
        let rows = vec![row(1, "a", 0, false), row(2, "b", 3, false), row(3, "b", 3, false), row(4, "c", 0, true)];
        let programs = programs(rows);
        let shown: Vec<String> =
            programs.iter().map(|program| format!("{} {}", program.name, program.offer())).collect();
        let wanted = [
            "c process 4, has the shim: exact traces",
            "b 2 processes, 3 prost functions",
            "a process 1, Redis and MySQL commands only",
        ];
        assert_eq!(shown, wanted);
    }
}
