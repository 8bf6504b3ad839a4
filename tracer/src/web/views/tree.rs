//! The spans of a trace below their parents, in the order in which they are shown.

use std::collections::HashMap;

use crate::model::SpanId;
use crate::web::store::Seen;

/// A span in its place.
#[derive(Clone, Debug)]
pub struct Node<'a> {
    /// The span.
    pub seen: Seen<'a>,
    /// How many ancestors it has.
    pub depth: usize,
    /// Place of its parent; `None` also if that is not there.
    pub parent: Option<usize>,
    /// Places of its children.
    pub children: Vec<usize>,
}

/// Parents before their children, children by their start. Every span is there once, whatever their parents say: what is not below a
/// root stands as one.
pub fn tree<'a>(spans: impl Iterator<Item = Seen<'a>>) -> Vec<Node<'a>> {
    let mut spans: Vec<Seen<'a>> = spans.collect();
    spans.sort_by_key(|seen| (seen.start(), std::cmp::Reverse(seen.end())));
    let mut places: HashMap<SpanId, usize> = HashMap::new();
    for (place, seen) in spans.iter().enumerate() {
        // The second span of an id has no children.
        places.entry(seen.span.span_id).or_insert(place);
    }
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); spans.len()];
    let mut roots = Vec::new();
    for (place, seen) in spans.iter().enumerate() {
        match seen.span.parent.and_then(|parent| places.get(&parent)) {
            Some(&parent) if parent != place => children[parent].push(place),
            _ => roots.push(place),
        }
    }
    let mut nodes: Vec<Node<'a>> = Vec::with_capacity(spans.len());
    let mut shown = vec![false; spans.len()];
    // Behind the roots come those that no root leads to: parents in a ring.
    for root in roots.into_iter().chain(0..spans.len()) {
        let mut next = vec![(root, 0, None)];
        while let Some((place, depth, parent)) = next.pop() {
            if std::mem::replace(&mut shown[place], true) {
                continue;
            }
            let at = nodes.len();
            nodes.push(Node { seen: spans[place], depth, parent, children: Vec::new() });
            if let Some(parent) = parent {
                let parent: &mut Node<'a> = &mut nodes[parent];
                parent.children.push(at);
            }
            next.extend(children[place].iter().rev().map(|&child| (child, depth + 1, Some(at))));
        }
    }
    nodes
}
