//! What a server's main thread did, without gaps that are not known to be gaps.
//!
//! A thread does one thing at a time, so its slots follow each other. A *turn* is what one read brought: the read and the
//! execution of it; the writes of the replies count for the turn as well, because meanwhile everybody else waits.

use std::borrow::Cow;
use std::collections::VecDeque;

use tracer_common::record::{STEP_BYTES, STEP_IDLE, STEP_READ, STEP_WRITE, Step};

use super::kind::Kind;
use crate::model::SpanContext;
use crate::trace::memory::Ages;

/// Slots kept: what has waited for longer is not explained.
const MAX_SLOTS: usize = 1 << 17;
/// About how many bytes a turn takes, with what its client knows of it.
const TURN_BYTES: usize = size_of::<Turn>() + size_of::<Asked>() + size_of::<u64>();
/// Time between two slots that is the cost of the loop and of being watched, nobody's doing.
const LOOP_NS: u64 = 100_000;

/// Calls that write to the append-only file.
const FILE_CALLS: [u16; 5] = [1, 20, 74, 75, 77];
/// Calls that make a child.
const FORK_CALLS: [u16; 4] = [56, 57, 58, 435];
/// Calls that take new connections.
const ACCEPT_CALLS: [u16; 2] = [43, 288];

/// Who had the thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Holder {
    /// The turn of a connection.
    Turn(u64),
    /// The server itself.
    Own(Own),
    /// Nobody: it waited for something to do.
    Idle,
}

/// What a server does for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Own {
    /// Writes and syncs a file: the append-only file, mostly.
    File,
    /// Makes a child that saves the data.
    Fork,
    /// Takes new connections.
    Accept,
    /// Another system call.
    Call,
    /// No system call and no command: expiry, eviction, resizing of tables.
    Background,
    /// It slept although there was something to read: no processor was free for it, or it was slow to wake.
    Wakeup,
}

impl Own {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Fork => "fork",
            Self::Accept => "accept",
            Self::Call => "call",
            Self::Background => "background",
            Self::Wakeup => "wakeup",
        }
    }

    fn of(call: u16) -> Self {
        if FILE_CALLS.contains(&call) {
            Self::File
        } else if FORK_CALLS.contains(&call) {
            Self::Fork
        } else if ACCEPT_CALLS.contains(&call) {
            Self::Accept
        } else {
            Self::Call
        }
    }
}

/// A piece of the thread's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its start.
    pub start_ns: u64,
    /// Its end.
    pub end_ns: u64,
    /// Whose it was.
    pub holder: Holder,
}

/// What one read brought.
#[derive(Clone, Debug)]
pub struct Turn {
    /// Connection, by its number at the server.
    pub connection: u64,
    /// Bytes before these on the connection.
    pub offset: u64,
    /// Bytes read.
    pub len: u64,
    /// Entry of the read.
    pub read_ns: u64,
    /// Exit of the read: the execution begins.
    pub start_ns: u64,
    /// End of the execution.
    pub done_ns: u64,
    /// Entry of the first write to the connection after that.
    pub write_ns: Option<u64>,
    /// The first bytes.
    pub bytes: [u8; STEP_BYTES],
    /// What its client, if that is traced, knows of it.
    pub asked: Option<Box<Asked>>,
}

/// A turn from its client's side.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The command, or what several of them are together.
    pub label: Cow<'static, str>,
    /// What kind of work that is.
    pub kind: Kind,
    /// The last of its commands is known too.
    pub complete: bool,
    /// The client's span, or that of the server where the client has none.
    pub context: SpanContext,
}

impl Turn {
    /// Nanoseconds of execution.
    pub fn execution_ns(&self) -> u64 {
        self.done_ns.saturating_sub(self.start_ns)
    }

    /// The bytes that were kept.
    pub fn first_bytes(&self) -> &[u8] {
        &self.bytes[..STEP_BYTES.min(usize::try_from(self.len).unwrap_or(STEP_BYTES))]
    }
}

/// The recent past of one server.
#[derive(Debug, Default)]
pub struct Timeline {
    slots: VecDeque<Slot>,
    turns: VecDeque<Turn>,
    /// Number of the first turn kept.
    first_turn: u64,
    /// End of the last step.
    last_ns: u64,
    /// Start of the first step: what came before is not known.
    pub began_ns: u64,
    /// Slots that were given up because there were too many.
    pub evicted: u64,
    /// When the server was gone.
    pub ended_ns: Option<u64>,
}

impl Timeline {
    /// Takes the next step of the thread; `last_turn` is the last one of the step's connection. Returns the number of the
    /// turn that it begins.
    pub fn push(&mut self, step: &Step, last_turn: Option<u64>) -> Option<u64> {
        // Hostile or damaged times: a thread's steps do not overlap.
        let start_ns = step.start_ns.max(self.last_ns);
        let end_ns = step.end_ns.max(start_ns);
        if self.last_ns > 0 && start_ns - self.last_ns >= LOOP_NS {
            self.slot(self.last_ns, start_ns, Holder::Own(Own::Background));
        }
        if self.last_ns == 0 {
            self.began_ns = start_ns;
        }
        self.last_ns = end_ns;
        match step.kind {
            STEP_READ => {
                let done_ns = step.done_ns.max(end_ns);
                self.last_ns = done_ns;
                let number = self.first_turn + self.turns.len() as u64;
                self.turns.push_back(Turn {
                    connection: step.connection,
                    offset: step.offset,
                    len: u64::from(step.len),
                    read_ns: start_ns,
                    start_ns: end_ns,
                    done_ns,
                    write_ns: None,
                    bytes: step.bytes,
                    asked: None,
                });
                self.slot(start_ns, done_ns, Holder::Turn(number));
                Some(number)
            }
            STEP_IDLE => {
                self.slot(start_ns, end_ns, Holder::Idle);
                None
            }
            STEP_WRITE => {
                let holder = last_turn.map_or(Holder::Own(Own::Call), Holder::Turn);
                self.slot(start_ns, end_ns, holder);
                None
            }
            _ => {
                self.own(start_ns, end_ns, Own::of(step.call));
                None
            }
        }
    }

    /// The server's own work, unless it is what a command asked for.
    fn own(&mut self, start_ns: u64, end_ns: u64, own: Own) {
        let saving = match self.slots.back().map(|slot| slot.holder) {
            Some(Holder::Turn(number)) => self.turn_mut(number).filter(|turn| does_file_work(turn.first_bytes())),
            _ => None,
        };
        if let Some(turn) = saving {
            turn.done_ns = end_ns;
            if let Some(slot) = self.slots.back_mut() {
                slot.end_ns = end_ns;
            }
        } else {
            self.slot(start_ns, end_ns, Holder::Own(own));
        }
    }

    fn slot(&mut self, start_ns: u64, end_ns: u64, holder: Holder) {
        if end_ns > start_ns {
            self.slots.push_back(Slot { start_ns, end_ns, holder });
        }
        if self.slots.len() > MAX_SLOTS {
            self.give_up_oldest();
        }
    }

    fn give_up_oldest(&mut self) {
        let Some(slot) = self.slots.pop_front() else { return };
        self.evicted += 1;
        if let Holder::Turn(number) = slot.holder {
            while self.first_turn < number && self.turns.pop_front().is_some() {
                self.first_turn += 1;
            }
        }
    }

    /// About how many bytes it takes.
    pub fn bytes(&self) -> usize {
        self.slots.len() * size_of::<Slot>() + self.turns.len() * TURN_BYTES
    }

    /// When each slot ended.
    pub fn ages(&self, ages: &mut Ages) {
        let turns = self.turns.len() * TURN_BYTES / self.slots.len().max(1);
        self.slots.iter().for_each(|slot| ages.add(slot.end_ns, size_of::<Slot>() + turns));
    }

    /// Gives up the slots that ended before `before_ns`; returns how many.
    pub fn evict(&mut self, before_ns: u64) -> u64 {
        let before = self.evicted;
        while self.slots.front().is_some_and(|slot| slot.end_ns < before_ns) {
            self.give_up_oldest();
        }
        self.slots.shrink_to_fit();
        self.turns.shrink_to_fit();
        self.evicted - before
    }

    /// A turn by its number.
    pub fn turn(&self, number: u64) -> Option<&Turn> {
        self.turns.get(usize::try_from(number.checked_sub(self.first_turn)?).ok()?)
    }

    /// The same, to be changed.
    pub fn turn_mut(&mut self, number: u64) -> Option<&mut Turn> {
        self.turns.get_mut(usize::try_from(number.checked_sub(self.first_turn)?).ok()?)
    }

    /// Number of the oldest turn kept.
    pub fn first_turn(&self) -> u64 {
        self.first_turn
    }

    /// Slots that have a part in `[from_ns, to_ns)`, in order.
    pub fn between(&self, from_ns: u64, to_ns: u64) -> impl Iterator<Item = Slot> + '_ {
        let first = self.slots.partition_point(|slot| slot.end_ns <= from_ns);
        self.slots.range(first..).take_while(move |slot| slot.start_ns < to_ns).copied()
    }

    /// End of the last step.
    pub fn last_ns(&self) -> u64 {
        self.last_ns
    }
}

/// Commands that work on files themselves.
fn does_file_work(bytes: &[u8]) -> bool {
    const NAMES: [&str; 4] = ["SAVE", "DEBUG", "CONFIG", "SHUTDOWN"];
    crate::protocol::redis::peek(bytes, bytes.len() as u64).is_some_and(|peek| {
        let name = peek.name.split(' ').next().unwrap_or_default().to_ascii_uppercase();
        NAMES.contains(&name.as_str())
    })
}
