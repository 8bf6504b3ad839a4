//! The prepared statements of a connection.

use std::collections::HashMap;
use std::sync::Arc;

use crate::protocol::sql::Statement;

/// Most that are kept; a server allows about 16,000 over all connections by default.
const MAX_STATEMENTS: usize = 4096;
/// MariaDB: the statement that was prepared last, whose number the client does not know yet.
const LAST: u32 = u32::MAX;

/// Statements by number.
#[derive(Debug, Default)]
pub(super) struct Statements {
    by_id: HashMap<u32, Arc<Statement>>,
    last: Option<Arc<Statement>>,
}

impl Statements {
    /// A statement is sent to be prepared.
    pub(super) fn preparing(&mut self, statement: Option<Arc<Statement>>) {
        self.last = statement;
    }

    /// The server has given it a number. False when there is no room.
    #[must_use]
    pub(super) fn prepared(&mut self, id: u32, statement: Option<Arc<Statement>>) -> bool {
        // A number that is given again is that of a new statement.
        self.by_id.remove(&id);
        let Some(statement) = statement else { return true };
        let room = self.by_id.len() < MAX_STATEMENTS;
        if room {
            self.by_id.insert(id, statement);
        }
        room
    }

    pub(super) fn get(&self, id: u32) -> Option<Arc<Statement>> {
        if id == LAST { self.last.clone() } else { self.by_id.get(&id).cloned() }
    }

    pub(super) fn close(&mut self, id: u32) -> Option<Arc<Statement>> {
        if id == LAST { self.last.take() } else { self.by_id.remove(&id) }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// The session begins anew.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
