//! The thread that plans: reading a large program takes seconds, and the ring buffer does not wait.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};

use super::guard::GuardedFile;
use super::plans::Plans;
use crate::inspect::{InspectError, ProbePlan};

/// A file to be planned.
#[derive(Debug)]
struct Job {
    /// Gone if nobody wants the plan any more.
    file: Weak<GuardedFile>,
    /// Where debug info is looked for.
    path: PathBuf,
}

/// A file and its plan.
pub type Planned = (Arc<GuardedFile>, Result<ProbePlan, InspectError>);

/// Plans files one after the other.
#[derive(Debug)]
pub struct Planner {
    jobs: Sender<Job>,
    plans: Receiver<Planned>,
}

impl Planner {
    /// Starts the thread; it ends when the value is dropped.
    pub fn start(plans: Plans) -> io::Result<Self> {
        let (jobs, wanted) = channel::<Job>();
        let (made, receiver) = channel();
        std::thread::Builder::new().name("planner".to_owned()).spawn(move || {
            for job in wanted {
                let Some(file) = job.file.upgrade() else { continue };
                let plan = plans.plan(file.file(), &job.path);
                if made.send((file, plan)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { jobs, plans: receiver })
    }

    /// Has a file planned.
    pub fn plan(&self, file: &Arc<GuardedFile>, path: PathBuf) {
        // The thread lives as long as this value.
        let _ = self.jobs.send(Job { file: Arc::downgrade(file), path });
    }

    /// The next plan that is ready.
    pub fn planned(&self) -> Option<Planned> {
        self.plans.try_recv().ok()
    }
}
