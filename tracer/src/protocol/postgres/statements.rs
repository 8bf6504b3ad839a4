//! The prepared statements of a connection, and the portals that run them, by the names that the client gives.

use std::collections::HashMap;
use std::sync::Arc;

use crate::protocol::sql::Statement;

/// Most that are kept of each kind.
const MAX: usize = 4096;
/// Longest name that is kept.
const MAX_NAME: usize = 256;

/// Statements by name. The name of the one without a name is empty.
#[derive(Debug, Default)]
pub(super) struct Statements {
    prepared: HashMap<Box<[u8]>, Arc<Statement>>,
    portals: HashMap<Box<[u8]>, Arc<Statement>>,
}

/// A statement that is being prepared: what is to be done if the server refuses it.
#[derive(Debug)]
pub(super) struct Preparing {
    name: Box<[u8]>,
    statement: Arc<Statement>,
    before: Option<Arc<Statement>>,
}

impl Statements {
    /// A statement is sent to be prepared. False when there is no room for it.
    pub(super) fn prepare(&mut self, name: &[u8], statement: &Arc<Statement>) -> (Preparing, bool) {
        let before = self.prepared.remove(name);
        let room = self.prepared.len() < MAX && name.len() <= MAX_NAME;
        let name: Box<[u8]> = name.into();
        if room {
            self.prepared.insert(name.clone(), Arc::clone(statement));
        }
        // The one without a name is replaced in any case.
        let before = before.filter(|_| !name.is_empty());
        (Preparing { name, statement: Arc::clone(statement), before }, room)
    }

    /// The server has refused it.
    pub(super) fn refused(&mut self, Preparing { name, statement, before }: Preparing) {
        if self.prepared.get(&name).is_some_and(|known| Arc::ptr_eq(known, &statement)) {
            self.prepared.remove(&name);
            if let Some(before) = before {
                self.prepared.insert(name, before);
            }
        }
    }

    pub(super) fn bind(&mut self, portal: &[u8], statement: &[u8]) -> Option<Arc<Statement>> {
        let statement = self.prepared.get(statement).cloned();
        self.portals.remove(portal);
        if let Some(statement) = &statement
            && self.portals.len() < MAX
            && portal.len() <= MAX_NAME
        {
            self.portals.insert(portal.into(), Arc::clone(statement));
        }
        statement
    }

    /// A statement (`S`) or portal (`P`) by its name.
    pub(super) fn get(&self, kind: u8, name: &[u8]) -> Option<Arc<Statement>> {
        if kind == b'S' { self.prepared.get(name).cloned() } else { self.portals.get(name).cloned() }
    }

    /// Forgets one of them.
    pub(super) fn close(&mut self, kind: u8, name: &[u8]) -> Option<Arc<Statement>> {
        if kind == b'S' { self.prepared.remove(name) } else { self.portals.remove(name) }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.prepared.len() + self.portals.len()
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
