//! The process that is measured: one command per line, one answer per command.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Service;

/// A running `bench_target`; dropping it kills it.
pub struct Target {
    service: Service,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// What one time of a work takes, in nanoseconds: the median of many batches.
pub struct Cost {
    /// From start to end.
    pub ns: f64,
    /// With a processor.
    pub cpu_ns: f64,
}

impl Target {
    /// Starts it and waits until it is ready.
    pub fn start(program: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        let mut service = Service::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let input = service.stdin()?;
        let output = BufReader::new(service.stdout()?);
        let mut target = Self { service, input, output };
        let line = target.line()?;
        ensure!(line == "ready", "the target said {line:?}");
        Ok(target)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.service.id()
    }

    /// Does the work and says what one time of it took.
    pub fn cost(&mut self, work: &str) -> Result<Cost> {
        let answer = self.ask(work)?;
        let figure = |key: &str| answer[key].as_f64().with_context(|| format!("no {key:?} in {answer}"));
        Ok(Cost { ns: figure("ns")?, cpu_ns: figure("cpu_ns")? })
    }

    /// The answer to a command.
    pub fn ask(&mut self, command: &str) -> Result<Value> {
        writeln!(self.input, "{command}")?;
        let line = self.line().with_context(|| format!("the target ended at {command:?}"))?;
        Ok(serde_json::from_str(&line)?)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(!line.is_empty(), "it closed its standard output");
        Ok(line.trim_end().to_owned())
    }
}
