//! The server's side of commands: what each of them waited for, and who had the server's thread meanwhile.
//!
//! A client's command is held until what the server did about it is known: the turn that read its last byte (found by the
//! offset in the stream, which is the same on both sides) and the write that followed. Then its time is taken apart
//! ([`split`]), and the slots of the server's [`timeline`] within its wait say who is to [`blame`]. For servers that
//! are not attached to, the replies of all clients of this host give an [`estimate`].
//!
//! Pure and deterministic, as all of [`crate::trace`].

mod blame;
mod command;
mod estimate;
mod kind;
mod peers;
mod split;
#[cfg(test)]
mod tests;
mod timeline;

use std::collections::VecDeque;
use std::sync::Arc;

use tracer_common::record::{self, STEP_READ, STEP_WRITE};

pub use blame::{Blame, Blocker};
pub use command::{Done, Explained, Held, Who, Work};
use estimate::Line;
pub use kind::Kind;
use peers::Peers;
pub use split::{Interval, Split};
use split::{Times, split};
pub use timeline::Own;
use timeline::{Asked, Timeline, Turn};
pub use timeline::{Holder, Slot};

use crate::capture::steps;
use crate::model::{HashMap, SpanContext};
use crate::trace::memory::Ages;

/// How long a command is held at most for what the server did about it, in time of the records.
const PATIENCE_NS: u64 = 1_000_000_000;
/// How long it is held at most for the names of its blockers.
const NAMES_NS: u64 = 10_000_000_000;
/// How long a command of a server that is not attached to is held: replies of other connections come within this.
const ESTIMATE_NS: u64 = 20_000_000;
/// How long connections and processes that are gone are remembered; longer than any command is held.
const FORGET_NS: u64 = 15_000_000_000;
/// How often held commands are looked at.
const LOOK_NS: u64 = 2_000_000;
/// Commands held at once.
const MAX_HELD: usize = 1 << 17;
/// Servers that are not attached to and are estimated.
const MAX_LINES: usize = 256;
/// Turns of one connection that are remembered.
const MAX_TURNS: usize = 1 << 14;
/// A blocker of less than this is not waited for.
const WORTH_NS: u64 = 50_000;
/// About how many bytes a command takes that is held, with its span.
const HELD_BYTES: usize = size_of::<(Held, Found)>() + 1024;
/// The same of a connection.
const PEER_BYTES: usize = 512;

#[derive(Debug)]
struct Found {
    pid: u32,
    turn: u64,
    split: Split,
    waits: [Interval; 2],
    first: bool,
    /// It is the last of its turn.
    last: bool,
}

/// All servers, and the commands that wait to be explained.
#[derive(Debug, Default)]
pub struct Servers {
    timelines: HashMap<u32, Timeline>,
    lines: HashMap<Arc<str>, Line<Answered>>,
    peers: Peers,
    services: HashMap<u32, Arc<str>>,
    /// Processes that have ended, whose names held commands may still ask for: when, which, and the name.
    ended: VecDeque<(u64, u32, Arc<str>)>,
    held: VecDeque<Box<Held>>,
    named: VecDeque<(Box<Held>, Found)>,
    numbers: u64,
    now_ns: u64,
    looked_ns: u64,
    /// What time lines and estimates took when they were looked at last.
    past_bytes: usize,
    /// Commands that estimates could no longer be made with.
    pub estimates_evicted: u64,
}

/// A command of a server that is not attached to.
#[derive(Clone, Debug)]
struct Answered {
    connection: u64,
    who: Who,
    context: SpanContext,
}

impl Servers {
    /// A client's connection is followed.
    pub fn open_client(&mut self, record: &record::Connection) {
        let service = self.service(record.head.pid).unwrap_or_default();
        self.peers.open_client(record, service);
    }

    /// A server's connection is followed.
    pub fn open_served(&mut self, record: &record::Connection) {
        self.timelines.entry(record.head.pid).or_default();
        self.peers.open_served(record);
    }

    /// A connection is gone, of whichever side.
    pub fn close(&mut self, number: u64) {
        self.peers.close(number, self.now_ns);
    }

    /// Name of a process.
    pub fn name_process(&mut self, pid: u32, service: Arc<str>) {
        self.services.insert(pid, service);
    }

    /// `service.name` of a process, once it was told.
    pub fn service(&self, pid: u32) -> Option<Arc<str>> {
        self.services.get(&pid).map(Arc::clone)
    }

    /// Whether a process was seen as a server.
    pub fn has_timeline(&self, pid: u32) -> bool {
        self.timelines.contains_key(&pid)
    }

    /// A process is gone. What it did is still asked for by the commands of its last moments.
    pub fn end_process(&mut self, pid: u32) {
        if let Some(service) = self.service(pid) {
            self.ended.push_back((self.now_ns, pid, service));
        }
        let Some(timeline) = self.timelines.get_mut(&pid) else { return };
        timeline.ended_ns = Some(self.now_ns);
        let gone: Vec<u64> =
            self.peers.served.iter().filter(|(_, served)| served.pid == pid).map(|(number, _)| *number).collect();
        for number in gone {
            self.peers.close(number, self.now_ns);
        }
    }

    /// What the main thread of a server did. Returns how many steps that were.
    pub fn steps(&mut self, pid: u32, bytes: &[u8]) -> u64 {
        let timeline = self.timelines.entry(pid).or_default();
        let mut count = 0;
        for step in steps(bytes) {
            count += 1;
            let mut served = self.peers.served.get_mut(&step.connection);
            let last = served.as_ref().and_then(|served| served.turns.back().copied());
            let turn = timeline.push(&step, last);
            let Some(served) = served.as_mut() else { continue };
            match (step.kind, turn) {
                (STEP_READ, Some(turn)) => {
                    served.turns.push_back(turn);
                    if served.turns.len() > MAX_TURNS {
                        served.turns.pop_front();
                        served.unwritten = served.unwritten.saturating_sub(1);
                    }
                }
                (STEP_WRITE, _) => {
                    for &turn in served.turns.iter().skip(served.unwritten) {
                        if let Some(turn) = timeline.turn_mut(turn) {
                            turn.write_ns.get_or_insert(step.start_ns);
                        }
                    }
                    served.unwritten = served.turns.len();
                }
                _ => {}
            }
        }
        self.now_ns = self.now_ns.max(timeline.last_ns());
        count
    }

    /// Takes a command of a client. What can be said about it comes out of [`Servers::look`].
    pub fn hold(&mut self, mut held: Box<Held>) {
        self.numbers += 1;
        held.number = self.numbers;
        self.now_ns = self.now_ns.max(held.end_ns);
        if held.answered && !held.blocking && !self.is_attached(held.connection) {
            let kind = if held.transaction {
                Kind::Transaction
            } else {
                Kind::of(&held.operation, held.end_ns.saturating_sub(held.start_ns))
            };
            let who = Who { client: Arc::clone(&held.service), label: held.label.clone(), kind };
            let answered = Answered { connection: held.connection, who, context: held.context.clone() };
            if self.lines.len() >= MAX_LINES && !self.lines.contains_key(&held.server) {
                self.lines.clear();
            }
            let line = self.lines.entry(Arc::clone(&held.server)).or_default();
            line.add(held.start_ns, held.end_ns, held.number, answered);
        }
        self.held.push_back(held);
    }

    /// Whether held commands should be looked at by now.
    pub fn is_due(&self, now_ns: u64) -> bool {
        self.now_ns.max(now_ns) >= self.looked_ns.saturating_add(LOOK_NS) || self.held() >= MAX_HELD
    }

    /// Commands held.
    pub fn held(&self) -> usize {
        self.held.len() + self.named.len()
    }

    /// Gives out the commands about which nothing more will be known; at the end (`all`) every one.
    pub fn look(&mut self, now_ns: u64, all: bool, out: &mut Vec<Done>) {
        self.give_out(now_ns, if all { u64::MAX } else { 0 }, out);
        self.past_bytes = self.timelines.values().map(Timeline::bytes).sum::<usize>()
            + self.lines.values().map(Line::bytes).sum::<usize>();
    }

    /// About how many bytes all of it takes.
    pub fn bytes(&self) -> usize {
        let peers = self.peers.clients.len() + self.peers.served.len();
        self.past_bytes + self.held() * HELD_BYTES + peers * PEER_BYTES
    }

    /// When commands and what servers did ended.
    pub fn ages(&self, ages: &mut Ages) {
        self.timelines.values().for_each(|timeline| timeline.ages(ages));
        self.lines.values().for_each(|line| line.ages(ages));
        let held = self.held.iter().chain(self.named.iter().map(|(held, _)| held));
        held.for_each(|held| ages.add(held.end_ns, HELD_BYTES));
    }

    /// Gives out the commands, and gives up what else is known, of before `before_ns`. Returns how much of the latter.
    pub fn evict(&mut self, before_ns: u64, out: &mut Vec<Done>) -> u64 {
        self.give_out(0, before_ns, out);
        let pieces: u64 = self.timelines.values_mut().map(|timeline| timeline.evict(before_ns)).sum();
        let estimates: u64 = self.lines.values_mut().map(|line| line.evict(before_ns)).sum();
        self.lines.retain(|_, line| line.bytes() > 0);
        self.estimates_evicted += estimates;
        self.past_bytes = self.timelines.values().map(Timeline::bytes).sum::<usize>()
            + self.lines.values().map(Line::bytes).sum::<usize>();
        pieces + estimates
    }

    /// Gives out the commands about which nothing more will be known, and all that ended before `before_ns`.
    fn give_out(&mut self, now_ns: u64, before_ns: u64, out: &mut Vec<Done>) {
        self.now_ns = self.now_ns.max(now_ns);
        self.looked_ns = self.now_ns;
        let until = self.now_ns.saturating_sub(FORGET_NS);
        self.peers.expire(until);
        while let Some((_, pid, name)) = self.ended.pop_front_if(|(ended_ns, ..)| *ended_ns < until) {
            // Its number may be that of another process by now.
            if self.services.get(&pid).is_some_and(|known| Arc::ptr_eq(known, &name)) {
                self.services.remove(&pid);
            }
        }
        self.timelines.retain(|_, timeline| timeline.ended_ns.is_none_or(|ended| ended >= until));
        let crowded = self.held() >= MAX_HELD;
        for _ in 0..self.held.len() {
            let Some(held) = self.held.pop_front() else { break };
            let age = self.now_ns.saturating_sub(held.end_ns);
            let now = crowded || held.end_ns < before_ns;
            if !held.answered {
                out.push(Done { held, explained: None, unmatched: false });
            } else if let Some(found) = self.find(&held) {
                self.ask(&held, &found);
                self.named.push_back((held, found));
            } else if !self.is_attached(held.connection) || self.was_before(&held) {
                if age >= ESTIMATE_NS || now {
                    let explained = self.estimate(&held);
                    out.push(Done { held, explained, unmatched: false });
                } else {
                    self.held.push_back(held);
                }
            } else if age >= PATIENCE_NS || now {
                out.push(Done { held, explained: None, unmatched: true });
            } else {
                self.held.push_back(held);
            }
        }
        for _ in 0..self.named.len() {
            let Some((held, found)) = self.named.pop_front() else { break };
            let late = crowded || held.end_ns < before_ns || self.now_ns.saturating_sub(held.end_ns) >= NAMES_NS;
            if late || self.are_named(&held, &found) {
                let explained = Some(self.explain(&held, &found));
                out.push(Done { held, explained, unmatched: false });
            } else {
                self.named.push_back((held, found));
            }
        }
    }

    /// The context by which a blocker's turn is linked to; `make` gives one to turns of clients that are not traced.
    pub fn turn_context(
        &mut self,
        pid: u32,
        number: u64,
        make: impl FnOnce(&str, &str, Interval) -> SpanContext,
    ) -> Option<SpanContext> {
        let timeline = self.timelines.get_mut(&pid)?;
        let turn = timeline.turn_mut(number)?;
        if turn.asked.is_none() {
            // The span of a traced client comes when it has its reply.
            let served = self.peers.served.get(&turn.connection).filter(|served| served.client.is_none())?;
            let (label, kind) = kind::by_bytes(turn.first_bytes(), turn.len, turn.execution_ns());
            let interval = Interval { start_ns: turn.start_ns, end_ns: turn.done_ns };
            let context = make(&label, &served.party, interval);
            turn.asked = Some(Box::new(Asked { label, kind, complete: true, context }));
        }
        turn.asked.as_ref().map(|asked| asked.context.clone())
    }

    /// The context of a command of a server that is not attached to.
    pub fn answered_context(&self, server: &str, number: u64) -> Option<SpanContext> {
        Some(self.lines.get(server)?.who(number)?.context.clone())
    }

    /// What had the thread of a server, with the names of those whose turns they were.
    pub fn story(&self, pid: u32, within: Interval) -> Vec<(Slot, Option<Who>)> {
        let Some(timeline) = self.timelines.get(&pid) else { return Vec::new() };
        let named = |slot: Slot| {
            let who = match slot.holder {
                Holder::Turn(number) => timeline.turn(number).and_then(|turn| self.who(turn)),
                _ => None,
            };
            (slot, who)
        };
        timeline.between(within.start_ns, within.end_ns).map(named).collect()
    }

    /// Slots that were given up because there were too many.
    pub fn evicted(&self) -> u64 {
        self.timelines.values().map(|timeline| timeline.evicted).sum()
    }

    fn is_attached(&self, connection: u64) -> bool {
        self.peers.clients.get(&connection).is_some_and(|client| client.served.is_some())
    }

    /// Whether the command was sent before its server was attached to.
    fn was_before(&self, held: &Held) -> bool {
        let served = self.peers.clients.get(&held.connection).and_then(|client| client.served);
        let timeline = served
            .and_then(|served| self.peers.served.get(&served))
            .and_then(|served| self.timelines.get(&served.pid))
            .filter(|timeline| timeline.last_ns() > 0);
        timeline.is_some_and(|timeline| held.start_ns < timeline.began_ns)
    }

    /// The turn in which a command's last byte was read, if it was answered.
    fn find(&mut self, held: &Held) -> Option<Found> {
        let client = self.peers.clients.get_mut(&held.connection)?;
        let served = self.peers.served.get_mut(&client.served?)?;
        let timeline = self.timelines.get(&served.pid)?;
        while served.turns.front().is_some_and(|&turn| turn < timeline.first_turn()) {
            served.turns.pop_front();
            served.unwritten = served.unwritten.saturating_sub(1);
        }
        let turn_at = |index: usize| served.turns.get(index).and_then(|&number| Some((number, timeline.turn(number)?)));
        let start = i64::try_from(held.request_end.saturating_sub(held.request_bytes)).ok()?;
        if held.alone && client.shift.is_none() {
            // Nothing was under way: the next that the server reads of the connection is this command.
            let index = served
                .turns
                .partition_point(|&turn| timeline.turn(turn).is_none_or(|turn| turn.start_ns <= held.start_ns));
            let (_, turn) = turn_at(index)?;
            if turn.start_ns > held.end_ns {
                return None;
            }
            client.shift = Some(i64::try_from(turn.offset).ok()? - start);
        }
        let shift = client.shift?;
        let last = u64::try_from(i64::try_from(held.request_end).ok()?.checked_add(shift)?).ok()?.checked_sub(1)?;
        let index = served
            .turns
            .partition_point(|&turn| timeline.turn(turn).is_some_and(|turn| turn.offset + turn.len <= last));
        let (number, turn) = turn_at(index)?;
        if turn.offset > last || turn.start_ns < held.start_ns || turn.start_ns > held.end_ns {
            // Bytes were lost, or the connection is not the one that it was taken for.
            client.shift = None;
            return None;
        }
        let write_ns = turn.write_ns?;
        let share = held.request_bytes as f64 / turn.len.max(1) as f64;
        let (split, waits) = split(&Times {
            start_ns: held.start_ns,
            sent_ns: held.sent_ns,
            read_ns: turn.read_ns,
            begun_ns: turn.start_ns,
            done_ns: turn.done_ns,
            write_ns,
            end_ns: held.end_ns,
            share,
            parks: held.blocking,
        });
        let first = last < turn.offset + held.request_bytes;
        Some(Found { pid: served.pid, turn: number, split, waits, first, last: last + 1 >= turn.offset + turn.len })
    }

    /// Tells the turn of a command, and those that read its earlier bytes, who they are for.
    fn ask(&mut self, held: &Held, found: &Found) {
        let Some(timeline) = self.timelines.get_mut(&found.pid) else { return };
        let Some(end) = timeline.turn(found.turn).map(|turn| turn.offset + turn.len) else { return };
        let served = self.peers.clients.get(&held.connection).and_then(|client| client.served);
        let Some(served) = served.and_then(|served| self.peers.served.get(&served)) else { return };
        let last = served.turns.partition_point(|&turn| turn <= found.turn);
        for &number in served.turns.range(..last).rev() {
            let Some(turn) = timeline.turn_mut(number) else { return };
            let further = turn.offset + held.request_bytes > end;
            ask_turn(held, turn, number < found.turn || found.last);
            if !further {
                return;
            }
        }
    }

    /// Whether all blockers of weight have been named by their clients, or will not be.
    fn are_named(&self, held: &Held, found: &Found) -> bool {
        let Some(timeline) = self.timelines.get(&found.pid) else { return true };
        if held.blocking || found.waits.iter().map(|wait| wait.len_ns()).sum::<u64>() < blame::MIN_WAIT_NS {
            return true;
        }
        found.waits.iter().flat_map(|wait| timeline.between(wait.start_ns, wait.end_ns)).all(|slot| match slot.holder {
            Holder::Turn(number) if slot.end_ns - slot.start_ns >= WORTH_NS => {
                timeline.turn(number).is_none_or(|turn| {
                    turn.asked.as_ref().is_some_and(|asked| asked.complete)
                        || self.peers.served.get(&turn.connection).is_none_or(|served| served.client.is_none())
                })
            }
            _ => true,
        })
    }

    fn who(&self, turn: &Turn) -> Option<Who> {
        let served = self.peers.served.get(&turn.connection)?;
        let client = Arc::clone(&served.party);
        Some(match &turn.asked {
            Some(asked) => Who { client, label: asked.label.clone(), kind: asked.kind },
            None => {
                let (label, kind) = kind::by_bytes(turn.first_bytes(), turn.len, turn.execution_ns());
                Who { client, label, kind }
            }
        })
    }

    fn explain(&self, held: &Held, found: &Found) -> Explained {
        let Some(timeline) = self.timelines.get(&found.pid) else {
            let Found { split, waits, .. } = *found;
            return Explained { split, waits, estimate: false, work: None, blame: Blame::default() };
        };
        let own = timeline.turn(found.turn).map(|turn| turn.connection);
        let blame = if held.blocking {
            Blame::default()
        } else {
            blame::blame(
                &found.waits,
                |wait| timeline.between(wait.start_ns, wait.end_ns).collect(),
                |number| {
                    let turn = timeline.turn(number).filter(|turn| Some(turn.connection) != own)?;
                    self.who(turn)
                },
                // Nothing of its connection was under way: the server had sent the reply before it, and was not done with the
                // call. Its client was quicker, or had the processor.
                held.alone.then_some(Own::Call),
            )
        };
        let work = timeline.turn(found.turn).map(|turn| Work {
            pid: found.pid,
            turn: found.turn,
            start_ns: turn.start_ns,
            end_ns: turn.done_ns,
            first: found.first,
        });
        Explained { split: found.split, waits: found.waits, estimate: false, work, blame }
    }

    fn estimate(&self, held: &Held) -> Option<Explained> {
        if held.blocking {
            return None;
        }
        let line = self.lines.get(&held.server)?;
        let (split, wait) = line.split(held.start_ns, held.end_ns, held.number);
        let nothing = Interval { start_ns: wait.end_ns, end_ns: wait.end_ns };
        let waits = [Interval { end_ns: wait.start_ns + split.queue_ns, ..wait }, nothing];
        let blame = blame::blame(
            &[wait],
            |wait| line.slots(wait),
            |number| {
                let answered = line.who(number).filter(|answered| answered.connection != held.connection)?;
                Some(answered.who.clone())
            },
            None,
        );
        let blame = if split.queue_ns >= blame::MIN_WAIT_NS { blame } else { Blame::default() };
        Some(Explained { split, waits, estimate: true, work: None, blame })
    }
}

fn ask_turn(held: &Held, turn: &mut Turn, complete: bool) {
    if let Some(asked) = &mut turn.asked {
        asked.complete |= complete;
        if !held.transaction || asked.kind == Kind::Transaction {
            return;
        }
    }
    let alone = held.request_bytes >= turn.len;
    let kind = match Kind::of(&held.operation, turn.execution_ns()) {
        _ if held.transaction => Kind::Transaction,
        Kind::Script => Kind::Script,
        kind if alone => kind,
        _ => Kind::Pipeline,
    };
    let label = if alone && !held.transaction { held.operation.clone() } else { held.label.clone() };
    let context = turn.asked.take().map_or_else(|| held.context.clone(), |asked| asked.context);
    turn.asked = Some(Box::new(Asked { label, kind, complete, context }));
}
