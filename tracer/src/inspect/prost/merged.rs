//! Encode functions that the compiler has made one of, because their messages have the same shape. Only one of their names is left;
//! where tonic calls them, the code around the call says for which message it is.

use std::collections::BTreeSet;

use crate::inspect::dwarf::names::encoder_message;
use crate::inspect::elf::symbols::{Symbols, demangle};

/// More types than this share a function by chance, not by what they mean.
const MAX_TYPES: usize = 3;

/// Whose encodes are called where.
pub(in crate::inspect) struct Encoders<'i, 'a> {
    pub(in crate::inspect) symbols: &'i Symbols<'a>,
    /// From the debug info: parts of tonic's code for messages of one type.
    pub(in crate::inspect) codecs: &'i [(Vec<(u64, u64)>, String)],
}

impl Encoders<'_, '_> {
    /// The message that is encoded by the call at an address, where the code around it says so.
    fn message(&self, call: u64) -> Option<String> {
        let inside = |ranges: &Vec<(u64, u64)>| ranges.iter().any(|(start, end)| (*start..*end).contains(&call));
        if let Some((_, message)) = self.codecs.iter().find(|(ranges, _)| inside(ranges)) {
            return Some(message.clone());
        }
        let (start, _) = self.symbols.around(call)?;
        let names = self.symbols.at(start).iter().map(|function| demangle(self.symbols.name(function)));
        names.into_iter().find_map(|name| encoder_message(&name).map(str::to_owned))
    }

    /// The type of a function that is `named` so, given the calls that are known of it.
    pub(in crate::inspect) fn message_type(&self, named: &str, calls: &[u64]) -> Option<String> {
        settle(named, calls.iter().map(|call| self.message(*call)))
    }
}

/// All types, if they are few. A call that does not say its type has the name's.
fn settle(named: &str, calls: impl Iterator<Item = Option<String>>) -> Option<String> {
    let mut types: BTreeSet<String> = calls.map(|message| message.unwrap_or_else(|| named.to_owned())).collect();
    if types.is_empty() {
        types.insert(named.to_owned());
    }
    (types.len() <= MAX_TYPES).then(|| types.into_iter().collect::<Vec<String>>().join(" or "))
}

#[cfg(test)]
mod tests {
    use super::settle;

    #[test]
    fn both_or_neither() {
        let settle = |calls: &[&str]| {
            settle("a::Ping", calls.iter().map(|call| Some((*call).to_owned()).filter(|call| !call.is_empty())))
        };
        assert_eq!(settle(&[]).as_deref(), Some("a::Ping"), "it is called from where nobody can see");
        assert_eq!(settle(&["", "a::Ping"]).as_deref(), Some("a::Ping"));
        assert_eq!(settle(&["a::Pong"]).as_deref(), Some("a::Pong"), "the other name is what is left of a third");
        assert_eq!(settle(&["a::Pong", "a::Ping"]).as_deref(), Some("a::Ping or a::Pong"));
        assert_eq!(settle(&["a::Pong", ""]).as_deref(), Some("a::Ping or a::Pong"));
        assert_eq!(settle(&["a", "b", "c", "d"]), None);
    }
}
