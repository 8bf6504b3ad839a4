//! Which parts of a trace its duration consists of.
//!
//! The path is walked back from the last end: what a span did is on it, but for the time of a child that it waited for, and what the span
//! itself waited for is that which ended last before it began: a span beside it, or its parent. A child may begin when its parent has long
//! ended, as a message that is decoded does: the time between is on the way.

use super::tree::Node;

/// A part of the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Place of the span.
    pub node: usize,
    /// Nanoseconds since 1970.
    pub from: u64,
    /// The same.
    pub to: u64,
    /// Before this span, and nothing that was seen ran: a message is on its way, or the work in between is not traced.
    pub on_the_way: bool,
}

/// The parts, the last one first. No two of them are at the same time.
pub fn critical_path(nodes: &[Node<'_>]) -> Vec<Part> {
    let mut path = Vec::new();
    // Of each span its children that may still be on the path, the one that ended last at the end.
    let mut children: Vec<Vec<usize>> = nodes.iter().map(|node| node.children.clone()).collect();
    for list in &mut children {
        list.sort_by_key(|&child| nodes[child].seen.end());
    }
    let Some(mut at) = (0..nodes.len()).max_by_key(|&place| nodes[place].seen.end()) else { return path };
    let mut now = nodes[at].seen.end();
    // Each step takes a child away or goes up, and a child is gone down to once: the walk ends.
    // The span from which the walk has come up.
    let mut below = at;
    loop {
        let seen = &nodes[at].seen;
        // Those that ended later went on beside what is on the path.
        while children[at].last().is_some_and(|&child| nodes[child].seen.end() > now) {
            children[at].pop();
        }
        let waited_for = children[at].pop().filter(|&child| nodes[child].seen.end() > seen.start());
        let until = waited_for.map_or(seen.start(), |child| nodes[child].seen.end()).min(now);
        let ended = seen.end().clamp(until, now);
        if ended < now {
            path.push(Part { node: below, from: ended, to: now, on_the_way: true });
        }
        if until < ended {
            path.push(Part { node: at, from: until, to: ended, on_the_way: false });
        }
        now = until;
        match (waited_for, nodes[at].parent) {
            (Some(child), _) => at = child,
            (None, Some(parent)) => (below, at) = (at, parent),
            (None, None) => return path,
        }
    }
}
