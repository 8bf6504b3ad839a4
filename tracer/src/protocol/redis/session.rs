//! Pairs requests with replies, in order, and follows what they do to the connection.
//!
//! Replies have no ids: the oldest command that waits is answered by the next reply that is one. Two rules keep strangers
//! apart. A reply that was there before the oldest waiting command began is that of a command nobody saw. And a reply
//! that finds no command waiting is kept, because records of calls are written when the calls end: a reply may have been
//! read by one thread before another has left the send call.
//!
//! After a loss, or on a connection that was open before, replies to unseen commands may still be under way; on a
//! connection that many tasks share there is no moment at which it would be obvious that there are none. Then some commands
//! and replies are held back, and paired with the fewest replies dropped such that none precedes its command. That is
//! exact when the connection was idle once meanwhile.

use smol_str::SmolStr;
use std::collections::VecDeque;

use super::batch::{Calls, Transaction};
use super::command::{Command, Failure};
use super::diagnostics::Diagnostics;
use super::reply::{Reply, Status};
use super::request::{Asks, Request};
use super::silence::Silence;
use super::subscriptions::{Subscriptions, Topic};
use super::table::Effect;
use crate::protocol::stream::Quality;

/// Most commands that wait for a reply.
const MAX_WAITING: usize = 1 << 20;
/// Commands that are held back until it is clear which replies are theirs.
const HELD: usize = 64;
/// Silence that tells as much.
const PAUSE_NS: u64 = 5_000_000;
/// Room that is kept for waiting commands after a long pipeline.
const ROOM: usize = 1024;
/// Send calls without any reply after which replies must have been switched off before the agent came.
const SILENT_CALLS: usize = 1024;
/// Most replies that wait for a command.
const MAX_EARLY: usize = 1 << 14;

/// A command without its reply.
#[derive(Debug)]
struct Waiting<T> {
    command: Command<T>,
    /// It had not begun before this. When it began may not have been seen.
    earliest_ns: u64,
    effect: Effect,
    asks: Asks,
    /// Send call and place in it.
    call: (u64, u32),
    /// Confirmations that came.
    confirmed: u32,
    /// Confirmations that are due, 0 when only the state at the first one can tell.
    expected: u32,
}

/// Whether replies to unseen commands may be under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settling {
    /// No, or it is too late to find out.
    Settled,
    /// Perhaps, but as long as commands come one at a time each reply is obvious.
    Watching,
    /// Perhaps: nothing is paired for now.
    Holding,
}

/// When a request was sent, and by whom.
#[derive(Debug)]
pub(super) struct Sent<T> {
    pub tag: T,
    pub start_ns: u64,
    /// It had not begun before this.
    pub earliest_ns: u64,
    pub end_ns: u64,
    pub end_offset: u64,
    pub alone: bool,
    pub quality: Quality,
}

/// Replies without commands were too many to keep: which of the next ones is whose is not known.
#[derive(Debug)]
pub(super) struct TooManyReplies;

/// State of one connection.
#[derive(Debug)]
pub(super) struct Session<T> {
    waiting: VecDeque<Waiting<T>>,
    /// Bytes of their texts.
    texts: usize,
    /// Commands after those in `waiting` that were too many to keep.
    unrecorded: u64,
    early: VecDeque<Reply>,
    calls: Calls,
    transactions: u64,
    transaction: Option<Transaction>,
    silence: Silence,
    database: Option<u32>,
    subscriptions: Subscriptions,
    monitoring: bool,
    resp3: bool,
    /// A reply has come.
    heard: bool,
    /// Commands were sent while others of earlier calls waited: many tasks share the connection.
    shared: bool,
    settling: Settling,
    /// End of the last call.
    last_ns: u64,
    pub diagnostics: Diagnostics,
}

impl<T> Session<T> {
    /// `database` is known for connections that are seen from their start.
    pub(super) fn new(database: Option<u32>) -> Self {
        Self {
            waiting: VecDeque::new(),
            texts: 0,
            unrecorded: 0,
            early: VecDeque::new(),
            calls: Calls::default(),
            transactions: 0,
            transaction: None,
            silence: Silence::default(),
            database,
            subscriptions: Subscriptions::default(),
            monitoring: false,
            resp3: false,
            heard: false,
            shared: false,
            settling: Settling::Settled,
            last_ns: 0,
            diagnostics: Diagnostics::default(),
        }
    }

    /// No command waits.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.unrecorded == 0
    }

    /// Commands that wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// About how many bytes it takes beside itself.
    pub(super) fn bytes(&self) -> usize {
        let waiting = self.waiting.capacity() * size_of::<Waiting<T>>() + self.texts;
        waiting + self.early.capacity() * size_of::<Reply>() + self.calls.bytes()
    }

    /// The oldest command that waits had not begun before this.
    pub(super) fn oldest_ns(&self) -> Option<u64> {
        self.waiting.front().map(|waiting| waiting.earliest_ns)
    }

    /// From here on, commands are paired again, but earlier ones may still be answered.
    pub(super) fn unsettle(&mut self) {
        self.settling = if self.shared { Settling::Holding } else { Settling::Watching };
    }

    /// Takes a complete request.
    pub(super) fn request(&mut self, request: Request, sent: Sent<T>, out: &mut Vec<Command<T>>) {
        let no_reply = self.silence.covers(&request) || request.effect == Effect::Replicate;
        if self.unrecorded > 0 || self.waiting.len() == MAX_WAITING {
            self.diagnostics.commands_overflow += 1;
            self.unrecorded += u64::from(!no_reply);
            return;
        }
        if sent.start_ns.saturating_sub(self.last_ns) > PAUSE_NS {
            self.settle(out);
        }
        self.last_ns = self.last_ns.max(sent.end_ns);
        let call = self.calls.add(sent.start_ns, &request);
        let overlaps = self.waiting.back().is_some_and(|last| last.call.0 != call.0 && !last.command.no_reply);
        if self.settling == Settling::Watching && overlaps {
            self.settling = Settling::Holding;
        }
        let expected = match request.effect {
            Effect::Subscribe(_) | Effect::Unsubscribe(_) => request.args,
            _ => 1,
        };
        let command = Command {
            tag: sent.tag,
            name: request.name,
            query_text: request.text,
            args: request.args,
            request_bytes: request.bytes,
            request_end: sent.end_offset,
            alone: sent.alone,
            print: request.print,
            response_bytes: 0,
            start_ns: sent.start_ns,
            sent_ns: sent.end_ns,
            first_reply_ns: 0,
            end_ns: sent.end_ns,
            error: None,
            inner_errors: 0,
            inner_error: None,
            database: None,
            pipeline: None,
            multi: None,
            transaction: false,
            aborted: false,
            blocking: request.blocking,
            no_reply,
            quality: sent.quality,
        };
        let (effect, asks) = (request.effect, request.asks);
        self.texts += text_bytes(&command);
        let earliest_ns = sent.earliest_ns;
        self.waiting.push_back(Waiting { command, earliest_ns, effect, asks, call, confirmed: 0, expected });
        if !self.heard && self.database.is_none() && self.calls.open() > SILENT_CALLS {
            self.silence.begin();
            self.waiting.iter_mut().for_each(|waiting| waiting.command.no_reply = true);
        }
        if self.settling != Settling::Holding {
            self.settle_silent(out);
            self.pair_early(out);
        } else if self.waiting.len() == HELD {
            self.settle(out);
        }
    }

    /// Pairs the replies that came before their commands.
    fn pair_early(&mut self, out: &mut Vec<Command<T>>) {
        while !self.waiting.is_empty()
            && let Some(reply) = self.early.pop_front()
        {
            self.pair(reply, out);
        }
    }

    /// Whether nothing is held back, and nothing that comes may be.
    pub(super) fn is_settled(&self) -> bool {
        self.settling == Settling::Settled
    }

    /// Pairs what was held back.
    pub(super) fn settle(&mut self, out: &mut Vec<Command<T>>) {
        if std::mem::replace(&mut self.settling, Settling::Settled) != Settling::Holding {
            return;
        }
        let (mut before, mut commands, mut strangers) = (0, 0, 0);
        for waiting in self.waiting.iter().filter(|waiting| !waiting.command.no_reply) {
            while self.early.get(before).is_some_and(|reply| reply.first_ns < waiting.earliest_ns) {
                before += 1;
            }
            strangers = strangers.max(before.saturating_sub(commands));
            commands += 1;
        }
        strangers = strangers.max(self.early.len().saturating_sub(commands));
        self.early.drain(..strangers);
        self.diagnostics.replies_unseen += strangers as u64;
        self.settle_silent(out);
        self.pair_early(out);
    }

    /// Takes a complete reply; one without a command may be that of a command that is still to come.
    pub(super) fn reply(&mut self, reply: Reply, out: &mut Vec<Command<T>>) -> Result<(), TooManyReplies> {
        if self.is_push(&reply) {
            self.diagnostics.push_messages += 1;
            return Ok(());
        }
        self.heard = true;
        self.last_ns = self.last_ns.max(reply.end_ns);
        if !self.waiting.is_empty() && self.settling != Settling::Holding {
            self.pair(reply, out);
            return Ok(());
        }
        if self.is_unrecorded() {
            return Ok(());
        }
        if self.waiting.is_empty() {
            self.silence.heard();
        }
        if self.early.len() < MAX_EARLY {
            self.early.push_back(reply);
            return Ok(());
        }
        self.diagnostics.replies_overflow += self.early.len() as u64 + 1;
        self.early = VecDeque::new();
        Err(TooManyReplies)
    }

    /// The replies of the commands that wait are lost.
    pub(super) fn give_up(&mut self) {
        self.diagnostics.commands_unpaired += self.waiting.len() as u64;
        self.diagnostics.replies_unseen += self.early.len() as u64;
        self.waiting = VecDeque::new();
        self.texts = 0;
        self.unrecorded = 0;
        self.early = VecDeque::new();
        self.calls.clear();
        self.transaction = None;
    }

    /// The same, if none of them was to be paired yet.
    pub(super) fn give_up_held(&mut self) {
        if self.settling == Settling::Holding {
            self.give_up();
        }
    }

    /// The connection ended.
    pub(super) fn close(&mut self, now_ns: u64, out: &mut Vec<Command<T>>) {
        self.settle(out);
        while let Some(mut waiting) = self.take() {
            if waiting.confirmed == 0 && !waiting.command.no_reply {
                waiting.command.error = Some(Failure::ConnectionClosed);
                waiting.command.end_ns = now_ns.max(waiting.command.sent_ns);
                waiting.command.first_reply_ns = waiting.command.end_ns;
            }
            self.emit(waiting, out);
        }
        self.diagnostics.replies_unseen += self.early.len() as u64;
        self.early.clear();
    }

    /// True when the next reply is that of a command that was too many to keep.
    fn is_unrecorded(&mut self) -> bool {
        let unrecorded = self.unrecorded > 0;
        if unrecorded {
            self.unrecorded -= 1;
            // It may have been a SELECT.
            self.database = None;
        }
        unrecorded
    }

    /// True for what answers nothing.
    fn is_push(&mut self, reply: &Reply) -> bool {
        if matches!(reply.marker, b'%' | b'~' | b'>' | b'_' | b'#' | b',' | b'(' | b'=') {
            self.resp3 = true;
        }
        let front = self.waiting.front().map(|waiting| waiting.effect);
        match reply.marker {
            b'>' if reply.topic.is_confirmation() => match front {
                // Perhaps the record of the SUBSCRIBE is still to come.
                None => false,
                Some(effect) if confirms(effect, reply.topic) => false,
                Some(_) => {
                    self.subscriptions.confirm(reply.topic, reply.number);
                    true
                }
            },
            b'>' => true,
            b'*' if !self.resp3 && reply.topic == Topic::Message && (front.is_none() || self.subscriptions.any()) => {
                self.subscriptions.assume();
                true
            }
            b'+' => self.monitoring && reply.status == Status::MonitorLine,
            _ => false,
        }
    }

    /// Gives a reply to the command it belongs to.
    fn pair(&mut self, reply: Reply, out: &mut Vec<Command<T>>) {
        loop {
            let Some(front) = self.waiting.front_mut() else {
                if !self.is_unrecorded() {
                    self.early.push_front(reply);
                }
                return;
            };
            if reply.first_ns < front.earliest_ns {
                self.diagnostics.replies_unseen += 1;
                return;
            }
            if confirms(front.effect, reply.topic) {
                if front.expected == 0
                    && let Effect::Unsubscribe(kind) = front.effect
                {
                    front.expected = self.subscriptions.expected(kind);
                }
                self.subscriptions.confirm(reply.topic, reply.number);
                front.confirmed += 1;
                let complete = front.confirmed >= front.expected;
                time(&mut front.command, &reply, front.confirmed == 1);
                if complete {
                    self.pop(out);
                }
                return;
            }
            if front.confirmed > 0 {
                // Fewer channels than expected: it was complete with the last confirmation.
                self.pop(out);
                continue;
            }
            return self.answer(reply, out);
        }
    }

    /// The oldest command's reply.
    fn answer(&mut self, reply: Reply, out: &mut Vec<Command<T>>) {
        let Some(mut waiting) = self.take() else { return };
        let command = &mut waiting.command;
        time(command, &reply, true);
        self.shared |= self
            .waiting
            .front()
            .is_some_and(|next| next.call.0 != waiting.call.0 && next.earliest_ns <= reply.first_ns);
        let queued = reply.status == Status::Queued;
        if queued {
            self.transaction.get_or_insert_default().queue(command, waiting.asks);
        }
        command.aborted = waiting.effect == Effect::Exec && reply.null;
        let failed = reply.error.is_some();
        command.error = reply.error.map(Failure::Reply);
        command.inner_errors = reply.inner_errors;
        command.inner_error = reply.inner_error;
        if !queued {
            self.apply(&mut waiting, failed, reply.marker);
        }
        self.emit(waiting, out);
        self.settle_silent(out);
    }

    /// What an executed command does to the connection.
    fn apply(&mut self, waiting: &mut Waiting<T>, failed: bool, marker: u8) {
        let command = &mut waiting.command;
        match waiting.effect {
            Effect::Exec => {
                command.transaction = true;
                let Some(transaction) = self.transaction.take() else { return };
                if !failed && !command.aborted && transaction.selected().is_some() {
                    self.database = transaction.selected();
                }
                command.multi = Some(transaction.batch(self.transactions));
                self.transactions += 1;
            }
            Effect::Discard => {
                command.transaction = true;
                self.transaction = None;
            }
            Effect::Multi => {
                command.transaction = true;
                if !failed {
                    self.transaction = Some(Transaction::default());
                }
            }
            _ if failed => {}
            Effect::Select => {
                if let Asks::Select(database) = waiting.asks {
                    self.database = database;
                }
            }
            Effect::Reset => {
                self.database = Some(0);
                self.transaction = None;
                self.subscriptions = Subscriptions::default();
                self.monitoring = false;
                self.resp3 = false;
            }
            Effect::Monitor => self.monitoring = true,
            Effect::Hello => self.resp3 = marker == b'%',
            Effect::None | Effect::Subscribe(_) | Effect::Unsubscribe(_) | Effect::Client | Effect::Replicate => {}
        }
    }

    fn pop(&mut self, out: &mut Vec<Command<T>>) {
        if let Some(waiting) = self.take() {
            self.emit(waiting, out);
        }
        self.settle_silent(out);
    }

    /// The oldest command, in the database that its predecessors chose.
    fn take(&mut self) -> Option<Waiting<T>> {
        let mut waiting = self.waiting.pop_front()?;
        self.texts -= text_bytes(&waiting.command);
        waiting.command.database = self.database;
        if self.waiting.is_empty() && self.waiting.capacity() > ROOM {
            self.waiting = VecDeque::new();
        }
        Some(waiting)
    }

    /// Commands at the front that get no reply are complete.
    fn settle_silent(&mut self, out: &mut Vec<Command<T>>) {
        while self.waiting.front().is_some_and(|waiting| waiting.command.no_reply)
            && let Some(mut waiting) = self.take()
        {
            waiting.command.first_reply_ns = waiting.command.sent_ns;
            let ends_it = matches!(waiting.effect, Effect::Exec | Effect::Discard | Effect::Reset);
            match self.transaction.as_mut().filter(|_| !ends_it) {
                Some(transaction) => transaction.queue(&mut waiting.command, waiting.asks),
                None => self.apply(&mut waiting, false, 0),
            }
            self.emit(waiting, out);
        }
    }

    fn emit(&mut self, waiting: Waiting<T>, out: &mut Vec<Command<T>>) {
        let Waiting { mut command, call: (id, index), .. } = waiting;
        command.pipeline = self.calls.batch(id, index);
        command.transaction |= self.transaction.is_some();
        out.push(command);
    }
}

/// Bytes of the text that a command is shown with.
fn text_bytes<T>(command: &Command<T>) -> usize {
    command.query_text.as_ref().filter(|text| text.is_heap_allocated()).map_or(0, SmolStr::len)
}

/// Whether this is one of the replies that a subscription waits for.
fn confirms(effect: Effect, topic: Topic) -> bool {
    match (effect, topic) {
        (Effect::Subscribe(asked), Topic::Subscribed(said))
        | (Effect::Unsubscribe(asked), Topic::Unsubscribed(said)) => asked == said,
        _ => false,
    }
}

fn time<T>(command: &mut Command<T>, reply: &Reply, first: bool) {
    if first {
        // Its beginning may not have been seen: it was before the reply.
        command.start_ns = command.start_ns.min(reply.first_ns);
        command.first_reply_ns = reply.first_ns;
    }
    command.end_ns = reply.end_ns;
    command.response_bytes = command.response_bytes.saturating_add(reply.bytes);
}
