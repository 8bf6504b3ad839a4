//! Which commands belong together: those of one send call, and those of one transaction.

use std::borrow::Cow;
use std::collections::VecDeque;

use super::command::{Batch, BatchKind, Command};
use super::request::{Asks, Request};

/// A send call with commands that still wait.
#[derive(Debug)]
struct Call {
    id: u64,
    start_ns: u64,
    size: u32,
    name: Cow<'static, str>,
    mixed: bool,
}

/// Send calls, oldest first.
#[derive(Debug, Default)]
pub(super) struct Calls {
    open: VecDeque<Call>,
    next: u64,
}

impl Calls {
    /// A command of the send call that began at `start_ns`: number of the call, and place in it.
    pub(super) fn add(&mut self, start_ns: u64, request: &Request) -> (u64, u32) {
        if let Some(call) = self.open.back_mut().filter(|call| call.start_ns == start_ns) {
            call.mixed |= call.name != request.name;
            call.size += 1;
            return (call.id, call.size - 1);
        }
        self.open.push_back(Call { id: self.next, start_ns, size: 1, name: request.name.clone(), mixed: false });
        self.next += 1;
        (self.next - 1, 0)
    }

    /// The batch of a command that [`Calls::add`] numbered; commands ask in the order in which they were added.
    pub(super) fn batch(&mut self, id: u64, index: u32) -> Option<Batch> {
        while self.open.front().is_some_and(|call| call.id < id) {
            self.open.pop_front();
        }
        let call = self.open.front().filter(|call| call.id == id && call.size > 1)?;
        let operation = (!call.mixed).then(|| call.name.clone());
        Some(Batch { kind: BatchKind::Pipeline, id, index, size: call.size, operation })
    }

    /// Send calls that have commands waiting.
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    /// Forgets the calls: none of their commands waits any longer.
    pub(super) fn clear(&mut self) {
        self.open = VecDeque::new();
    }

    /// About how many bytes it takes beside itself.
    pub(super) fn bytes(&self) -> usize {
        self.open.capacity() * size_of::<Call>()
    }
}

/// A transaction between MULTI and EXEC, as the replies have it.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    size: u32,
    operation: Option<Cow<'static, str>>,
    mixed: bool,
    select: Option<u32>,
}

impl Transaction {
    /// A command waits for EXEC.
    pub(super) fn queue<T>(&mut self, command: &mut Command<T>, asks: Asks) {
        match &self.operation {
            None => self.operation = Some(command.name.clone()),
            Some(operation) => self.mixed |= *operation != command.name,
        }
        self.size = self.size.saturating_add(1);
        command.blocking = false;
        command.transaction = true;
        if let Asks::Select(database) = asks {
            self.select = database;
        }
    }

    /// Database that EXEC will choose.
    pub(super) fn selected(&self) -> Option<u32> {
        self.select
    }

    /// The batch that EXEC runs.
    pub(super) fn batch(self, id: u64) -> Batch {
        let operation = self.operation.filter(|_| !self.mixed);
        Batch { kind: BatchKind::Multi, id, index: self.size, size: self.size, operation }
    }
}
