//! What cannot be seen of a program or of a process that runs it, in one sentence each: `tracer inspect`, `run` and `ps` say the same,
//! and the balance counts the processes.

use serde::Serialize;

use crate::inspect::plan::{ProbePlan, RemarkKind};

/// Something that limits what can be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// There is no symbol table.
    Stripped,
    /// prost calls are inlined, and no debug info says where.
    Inlined,
    /// What passes sockets by io_uring is not seen.
    Uring,
}

impl Limit {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Stripped, Self::Inlined, Self::Uring];

    /// For a column.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stripped => "stripped",
            Self::Inlined => "inlined",
            Self::Uring => "io_uring",
        }
    }

    /// Counts the targets with it.
    pub fn counter(self) -> &'static str {
        match self {
            Self::Stripped => "targets_stripped",
            Self::Inlined => "targets_inlined",
            Self::Uring => "targets_uring",
        }
    }

    /// What it means.
    pub fn text(self) -> &'static str {
        match self {
            Self::Stripped => "there is no symbol table, so prost functions cannot be found",
            Self::Inlined => "some encode and decode calls are inlined into other functions, and not seen",
            Self::Uring => {
                "it uses io_uring: what passes its sockets that way is not seen, so its commands are missing"
            }
        }
    }

    /// What would change it.
    pub fn remedy(self) -> Option<&'static str> {
        match self {
            Self::Stripped => Some("set strip = \"none\" in the Cargo profile"),
            Self::Inlined => {
                Some("set debug = \"line-tables-only\" in the Cargo profile, or lto = false and codegen-units above 1")
            }
            Self::Uring => None,
        }
    }
}

/// Any number of [`Limit`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits(u32);

impl Limits {
    /// This one too.
    pub fn add(&mut self, limit: Limit) {
        self.0 |= 1 << limit as u32;
    }

    /// Those too.
    pub fn extend(&mut self, others: Self) {
        self.0 |= others.0;
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Limit> {
        Limit::ALL.into_iter().filter(move |limit| self.0 & 1 << *limit as u32 != 0)
    }
}

impl ProbePlan {
    /// What cannot be seen of the program. The spans of its shim need no prost functions.
    pub fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        if self.has_shim() {
            return limits;
        }
        for remark in &self.remarks {
            match remark.kind {
                RemarkKind::Stripped => limits.add(Limit::Stripped),
                RemarkKind::Inlined => limits.add(Limit::Inlined),
                _ => {}
            }
        }
        limits
    }

    /// The program has the shim.
    pub fn has_shim(&self) -> bool {
        self.notes.iter().any(|note| note.provider == "tracer")
    }
}
