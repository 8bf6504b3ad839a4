//! From the instructions that the debug info gives to an inlined call, to the part of the function that runs during the call:
//! one way in, and every way out.
//!
//! The compiler mixes code. Between the instructions of the call there can be some of the caller (a hole), some of the call's
//! can have moved away (a stray), and the whole call can be there twice (a copy, from an unrolled loop). The rules here never
//! take two calls for one, nor one for two; what they cannot tell is refused.

use std::collections::VecDeque;

/// Comparisons behind a call that are looked at.
const MAX_STRAYS: usize = 16;

/// What a node does, as far as it matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::inspect) struct Work {
    /// It calls a function that returns.
    pub(in crate::inspect) calls: bool,
    /// It has two ways to go on.
    pub(in crate::inspect) branches: bool,
    /// It compares, and does nothing else.
    pub(in crate::inspect) compares: bool,
}

/// A control-flow graph. Node 0 is where the function begins.
#[derive(Debug, Default)]
pub(in crate::inspect) struct Graph {
    pub(in crate::inspect) successors: Vec<Vec<u32>>,
    predecessors: Vec<Vec<u32>>,
    pub(in crate::inspect) work: Vec<Work>,
}

/// The part of a function that runs during a call.
#[derive(Debug)]
pub(in crate::inspect) struct Region {
    /// Every call begins here, and nothing else does.
    pub(in crate::inspect) entry: usize,
    pub(in crate::inspect) nodes: Vec<usize>,
    inside: Vec<bool>,
}

impl Graph {
    pub(in crate::inspect) fn new(successors: Vec<Vec<u32>>, work: Vec<Work>) -> Self {
        let mut predecessors = vec![Vec::new(); successors.len()];
        for (from, all) in successors.iter().enumerate() {
            for to in all {
                predecessors[*to as usize].push(from as u32);
            }
        }
        Self { successors, predecessors, work }
    }

    /// Marks what can be reached from the nodes, these not included; `enter` says where to go.
    pub(in crate::inspect) fn reach(
        &self,
        from: impl IntoIterator<Item = usize>,
        backwards: bool,
        enter: impl Fn(usize) -> bool,
    ) -> Vec<bool> {
        let edges = if backwards { &self.predecessors } else { &self.successors };
        let mut seen = vec![false; edges.len()];
        let mut work: VecDeque<usize> = from.into_iter().collect();
        while let Some(node) = work.pop_front() {
            for next in &edges[node] {
                let next = *next as usize;
                if !seen[next] && enter(next) {
                    seen[next] = true;
                    work.push_back(next);
                }
            }
        }
        seen
    }

    /// Whether a path leads from one node to another, through these nodes only.
    pub(in crate::inspect) fn leads(&self, from: usize, to: usize, through: impl Fn(usize) -> bool) -> bool {
        self.reach([from], false, through)[to]
    }
}

impl Region {
    /// The region of a call, from the nodes that are said to be its own. Some nodes are from nowhere in the source.
    pub(in crate::inspect) fn find(graph: &Graph, body: &[bool], nowhere: &[bool]) -> Result<Self, &'static str> {
        let mut body = body.to_vec();
        let entry = entry(graph, &mut body)?;
        // What the caller asks behind the call may be what the call has asked before: then it is said to be the call's.
        let alone = |node: &usize| {
            let mut around = graph.successors[*node].iter().chain(&graph.predecessors[*node]);
            body[*node] && *node != entry && graph.work[*node].compares && around.all(|other| !body[*other as usize])
        };
        let strays: Vec<usize> = (0..body.len()).filter(alone).take(MAX_STRAYS).collect();
        for stray in strays {
            // Only code that is surely the caller's separates it from the call.
            let near = |backwards| graph.reach([stray], backwards, |node| nowhere[node] || body[node]);
            let joined =
                [near(false), near(true)].iter().any(|near| (0..body.len()).any(|node| near[node] && body[node]));
            body[stray] = joined;
        }
        // What follows the entry without a call of the caller's.
        let foreign_call = |node: usize| !body[node] && graph.work[node].calls;
        let forward = graph.reach([entry], false, |node| node != entry && !foreign_call(node));
        let own: Vec<usize> = (0..body.len()).filter(|node| body[*node] && forward[*node]).collect();
        let back = graph.reach(own.iter().copied(), true, |node| node != entry && forward[node]);
        let inside: Vec<bool> =
            (0..body.len()).map(|node| node == entry || forward[node] && (body[node] || back[node])).collect();
        let nodes: Vec<usize> = (0..body.len()).filter(|node| inside[*node]).collect();
        let holes = nodes.iter().filter(|node| !body[**node]).count();
        if holes > 16.max(nodes.len() - holes) {
            return Err("its code is scattered over that of its caller");
        }
        // Calls of the caller's that lead back in belong to the call itself, or it goes on behind them.
        let behind = graph.reach(nodes.iter().copied(), false, |node| node != entry);
        for node in (0..body.len()).filter(|node| body[*node] && behind[*node] && !inside[*node]) {
            if graph.work[node].calls || graph.work[node].branches {
                return Err("code of its caller runs in the middle of it");
            }
        }
        let outside = graph.reach(nodes.iter().copied(), false, |node| node != entry && !inside[node]);
        let returns =
            |node: &usize| *node != entry && graph.predecessors[*node].iter().any(|before| outside[*before as usize]);
        if nodes.iter().any(returns) {
            return Err("code of its caller runs in the middle of it");
        }
        // Round and round without a step in the caller: a loop of the call, or one around it?
        let idle = graph.reach([entry], true, |node| node != entry && nowhere[node] && !inside[node]);
        let leads_back =
            |node: usize| graph.successors[node].iter().any(|next| *next as usize == entry || idle[*next as usize]);
        if nodes.iter().any(|node| leads_back(*node)) {
            return Err("a loop of it cannot be told from one around it");
        }
        Ok(Self { entry, nodes, inside })
    }

    pub(in crate::inspect) fn contains(&self, node: usize) -> bool {
        self.inside[node]
    }

    /// Nodes outside that can be next, each with the nodes inside from which.
    pub(in crate::inspect) fn exits(&self, graph: &Graph) -> Vec<(usize, Vec<usize>)> {
        let mut exits: Vec<(usize, usize)> = Vec::new();
        for node in &self.nodes {
            let ways = graph.successors[*node].iter().map(|next| *next as usize);
            exits.extend(ways.filter(|next| !self.inside[*next]).map(|next| (next, *node)));
        }
        exits.sort_unstable();
        exits
            .chunk_by(|a, b| a.0 == b.0)
            .map(|same| (same[0].0, same.iter().map(|(_, from)| *from).collect()))
            .collect()
    }

    /// The number of the loop that each node is in, while the call lasts; zero if it is in none. (Tarjan's algorithm.)
    pub(in crate::inspect) fn loops(&self, graph: &Graph) -> Vec<u32> {
        const UNSEEN: u32 = u32::MAX;
        let count = self.inside.len();
        let within = |node: usize| self.inside[node] && node != self.entry;
        let (mut order, mut low, mut loops) = (vec![UNSEEN; count], vec![0_u32; count], vec![0; count]);
        let (mut next_order, mut number) = (0, 0);
        let (mut path, mut stack): (Vec<usize>, Vec<(usize, usize)>) = (Vec::new(), Vec::new());
        let mut on_path = vec![false; count];
        for start in self.nodes.iter().copied().filter(|node| within(*node)) {
            if order[start] == UNSEEN {
                stack.push((start, 0));
            }
            while let Some((node, edge)) = stack.pop() {
                if edge == 0 {
                    (order[node], low[node]) = (next_order, next_order);
                    next_order += 1;
                    path.push(node);
                    on_path[node] = true;
                }
                if let Some(&next) = graph.successors[node].get(edge) {
                    stack.push((node, edge + 1));
                    let next = next as usize;
                    if within(next) && order[next] == UNSEEN {
                        stack.push((next, 0));
                    } else if within(next) && on_path[next] {
                        low[node] = low[node].min(order[next]);
                    }
                    continue;
                }
                if low[node] == order[node] {
                    let at = path.iter().rposition(|other| *other == node).unwrap_or_default();
                    let members = path.split_off(at);
                    let cycle = members.len() > 1 || graph.successors[node].contains(&(node as u32));
                    number += u32::from(cycle);
                    for member in members {
                        on_path[member] = false;
                        loops[member] = if cycle { number } else { 0 };
                    }
                }
                if let Some((before, _)) = stack.last() {
                    low[*before] = low[*before].min(low[node]);
                }
            }
        }
        loops
    }
}

/// The one node through which the call is entered. A node whose every way leads into the call is taken as part of it.
fn entry(graph: &Graph, body: &mut [bool]) -> Result<usize, &'static str> {
    const MAX_ROUNDS: usize = 64;
    for _ in 0..MAX_ROUNDS {
        let mut contacts: Vec<usize> = Vec::new();
        let mut before = graph.reach([0], false, |node| !body[node]);
        if body[0] {
            contacts.push(0);
        } else {
            before[0] = true;
            let next = (0..body.len()).filter(|node| before[*node]).flat_map(|node| &graph.successors[node]);
            contacts.extend(next.map(|node| *node as usize).filter(|node| body[*node]));
        }
        contacts.sort_unstable();
        contacts.dedup();
        match contacts[..] {
            [] => return Err("its code is never reached"),
            [entry] => return Ok(entry),
            _ => {}
        }
        let leads_in = |node: &usize| {
            let next = &graph.successors[*node];
            before[*node]
                && !graph.work[*node].calls
                && !next.is_empty()
                && next.iter().all(|next| body[*next as usize])
        };
        let more: Vec<usize> = (0..body.len()).filter(leads_in).collect();
        if more.is_empty() {
            break;
        }
        for node in more {
            body[node] = true;
        }
    }
    Err("it begins in several places")
}

#[cfg(test)]
mod tests;
