//! Who asked for a command that a driver task sends.
//!
//! Clients that share a connection between tasks (redis-rs's multiplexed one) pack a command in the task that asks and send
//! it from a task of their own. The packing is seen too; the command that is sent is known again by its first bytes. Of equal
//! commands the first packed is the first sent.

use crate::model::HashMap;
use std::collections::VecDeque;

use tracer_common::record::Message;

use crate::protocol::redis::{Command, fingerprints};
use crate::trace::correlator::{Correlator, flow_key};
use crate::trace::database::connection::Asker;
use crate::trace::memory::Ages;

/// A packed command that was not sent in this time, in nanoseconds, will not be: its connection is gone.
const LIFETIME_NS: u64 = 30_000_000_000;
/// Packed commands that are kept at once.
const MAX_PACKS: usize = 1 << 18;
/// About how many bytes one takes: most are alone in their queue, which has room for four.
const BYTES: usize = 4 * size_of::<Pack>() + 2 * size_of::<((u32, u64), VecDeque<Pack>)>();
/// How often it is looked for those, in nanoseconds: each time all are looked at.
const EXPIRE_EVERY_NS: u64 = 1_000_000_000;

#[derive(Clone, Debug)]
struct Pack {
    asker: Asker,
    at_ns: u64,
}

/// Commands that were packed and not answered yet, by process and fingerprint.
#[derive(Debug, Default)]
pub struct Packs {
    waiting: HashMap<(u32, u64), VecDeque<Pack>>,
    len: usize,
    expired_ns: u64,
}

impl Packs {
    fn add(&mut self, pid: u32, print: u64, pack: Pack) -> bool {
        let room = self.len < MAX_PACKS;
        if room {
            self.len += 1;
            self.waiting.entry((pid, print)).or_default().push_back(pack);
        }
        room
    }

    /// Who packed a command that was sent at `sent_ns`.
    fn take(&mut self, pid: u32, print: u64, sent_ns: u64) -> Option<Asker> {
        let packs = self.waiting.get_mut(&(pid, print))?;
        packs.front().filter(|pack| pack.at_ns <= sent_ns)?;
        let pack = packs.pop_front()?;
        self.len -= 1;
        if packs.is_empty() {
            self.waiting.remove(&(pid, print));
        }
        Some(pack.asker)
    }

    /// Forgets what is too old; returns how many.
    pub fn expire(&mut self, now_ns: u64) -> u64 {
        if now_ns < self.expired_ns.saturating_add(EXPIRE_EVERY_NS) {
            return 0;
        }
        self.expired_ns = now_ns;
        self.evict(now_ns.saturating_sub(LIFETIME_NS).saturating_add(1))
    }

    /// About how many bytes it takes.
    pub fn bytes(&self) -> usize {
        self.len * BYTES
    }

    /// When each was packed.
    pub fn ages(&self, ages: &mut Ages) {
        self.waiting.values().flatten().for_each(|pack| ages.add(pack.at_ns, BYTES));
    }

    /// Forgets what was packed before `before_ns`; returns how many.
    pub fn evict(&mut self, before_ns: u64) -> u64 {
        let before = self.len;
        self.waiting.retain(|_, packs| {
            packs.retain(|pack| pack.at_ns >= before_ns);
            !packs.is_empty()
        });
        self.len = self.waiting.values().map(VecDeque::len).sum();
        (before - self.len) as u64
    }
}

impl Correlator {
    /// A task has packed commands.
    pub(in crate::trace) fn pack(&mut self, record: &Message, bytes: &[u8]) {
        let key = flow_key(&record.head);
        let Some(&process) = self.processes.get(&record.head.pid) else { return };
        let asker = Asker { parent: self.ambient(&record.head, key), flow: key, process };
        if let Some(flow) = self.flows.get_mut(&key) {
            flow.touch(record.head.end_ns);
        }
        for print in fingerprints(bytes) {
            let pack = Pack { asker: asker.clone(), at_ns: record.head.start_ns };
            if !self.packs.add(record.head.pid, print, pack) {
                self.counts.packs_dropped += 1;
            }
        }
    }

    /// Who asked for a command: who packed it, if that was seen, else who sent it.
    pub(in crate::trace) fn asker(&mut self, command: &Command<Asker>) -> Asker {
        let pid = command.tag.process.pid;
        let packed = command.print.and_then(|print| self.packs.take(pid, print, command.sent_ns));
        let Some(asker) = packed else { return command.tag.clone() };
        if asker.flow != command.tag.flow {
            self.works_for_others(command.tag.flow);
        }
        asker
    }
}
