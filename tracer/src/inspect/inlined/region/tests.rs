//! Functions made by chance, with inlined calls in them whose nodes are partly the caller's: entries and exits are counted
//! while the function runs, and compared with the calls that were made.

use proptest::prelude::*;

use super::*;

/// Whose a node is.
#[derive(Clone, Copy, Debug, Default)]
struct Node {
    /// Runs during the call.
    during: bool,
    /// The debug info says so.
    said: bool,
    work: Work,
}

/// Builds a function and runs it.
struct Maker {
    state: u64,
    nodes: Vec<Node>,
    successors: Vec<Vec<u32>>,
    /// Parts in a hundred of the call's nodes that look like the caller's; jumps and calls keep their place in the source.
    holes: u64,
    during: bool,
}

impl Maker {
    fn chance(&mut self, below: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % below
    }

    fn jump(&mut self) -> usize {
        let node = self.node(false);
        self.nodes[node].said = self.during;
        node
    }

    fn node(&mut self, calls: bool) -> usize {
        let hole = self.chance(100) < self.holes;
        let said = self.during && (calls || !hole);
        let compares = !calls && self.chance(4) == 0;
        self.nodes.push(Node { during: self.during, said, work: Work { calls, branches: false, compares } });
        self.successors.push(Vec::new());
        self.nodes.len() - 1
    }

    fn edge(&mut self, from: usize, to: usize) {
        if !self.successors[from].contains(&(to as u32)) {
            self.successors[from].push(to as u32);
        }
        self.nodes[from].work.branches = self.successors[from].len() > 1;
    }

    /// A piece of code with one way in and one way out; the ends that leave it early go to `early`.
    fn piece(&mut self, depth: u32, early: &mut Vec<usize>, call: &mut bool) -> (usize, usize) {
        let first = self.node(false);
        let mut last = first;
        for _ in 0..1 + self.chance(4) {
            let (start, end) = match self.chance(if depth == 0 { 2 } else { 6 }) {
                0 => {
                    let one = self.node(true);
                    (one, one)
                }
                1 => {
                    let one = self.node(false);
                    (one, one)
                }
                2 => self.branch(depth, early, call),
                3 => self.repeat(depth, early, call),
                4 if self.during => {
                    let check = self.jump();
                    early.push(check);
                    let behind = self.node(false);
                    self.edge(check, behind);
                    (check, behind)
                }
                _ if *call => {
                    *call = false;
                    self.call(depth)
                }
                _ => self.branch(depth, early, call),
            };
            self.edge(last, start);
            last = end;
        }
        (first, last)
    }

    fn branch(&mut self, depth: u32, early: &mut Vec<usize>, call: &mut bool) -> (usize, usize) {
        let (test, join) = (self.jump(), self.node(false));
        let ways = 1 + self.chance(2);
        for _ in 0..ways {
            let (start, end) = self.piece(depth - 1, early, call);
            self.edge(test, start);
            self.edge(end, join);
        }
        if ways == 1 {
            self.edge(test, join);
        }
        (test, join)
    }

    fn repeat(&mut self, depth: u32, early: &mut Vec<usize>, call: &mut bool) -> (usize, usize) {
        let (start, end) = self.piece(depth - 1, early, call);
        let test = self.jump();
        let behind = self.node(false);
        self.edge(end, test);
        self.edge(test, start);
        self.edge(test, behind);
        (start, behind)
    }

    /// The inlined call.
    fn call(&mut self, depth: u32) -> (usize, usize) {
        let before = self.node(false);
        self.during = true;
        let mut early = Vec::new();
        let (start, end) = self.piece(depth.min(2), &mut early, &mut false);
        self.during = false;
        let behind = self.node(false);
        self.edge(before, start);
        self.edge(end, behind);
        for check in early {
            self.edge(check, behind);
        }
        (before, behind)
    }
}

/// Runs the function for so many steps, and counts calls, entries and exits.
fn run(maker: &mut Maker, graph: &Graph, region: &Region, steps: usize) -> (usize, usize, usize) {
    let exits: Vec<usize> = region.exits(graph).into_iter().map(|(node, _)| node).collect();
    let (mut calls, mut entries, mut closed) = (0, 0, 0);
    let (mut node, mut counted, mut open) = (0, false, false);
    for _ in 0..steps {
        let Node { during, said, .. } = maker.nodes[node];
        // A call of which nothing is known, because it takes a way that is all holes, cannot be seen.
        calls += usize::from(said && !counted);
        counted = during && (said || counted);
        if open && exits.contains(&node) {
            open = false;
            closed += 1;
        }
        if node == region.entry {
            assert!(!open, "the exit of the call before was not seen");
            open = true;
            entries += 1;
        }
        let ways = graph.successors[node].len() as u64;
        if ways == 0 {
            // The function returns, and is called again.
            (node, counted) = (0, false);
            continue;
        }
        node = graph.successors[node][maker.chance(ways) as usize] as usize;
    }
    (calls, entries, closed)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn entries_and_exits_are_as_many_as_calls(seed in 1..u64::MAX, holes in 0..40_u64) {
        let mut maker = Maker { state: seed, nodes: Vec::new(), successors: Vec::new(), holes, during: false };
        let mut call = true;
        let (_, end) = maker.piece(4, &mut Vec::new(), &mut call);
        let exit = maker.node(false);
        maker.edge(end, exit);
        let graph = Graph::new(maker.successors.clone(), maker.nodes.iter().map(|node| node.work).collect());
        let body: Vec<bool> = maker.nodes.iter().map(|node| node.said).collect();
        // What the compiler adds has no place in the source.
        let nowhere: Vec<bool> = maker.nodes.iter().map(|node| node.during && !node.said).collect();
        if let Ok(region) = Region::find(&graph, &body, &nowhere) {
            let (calls, entries, closed) = run(&mut maker, &graph, &region, 5_000);
            // The last call may still be open, or not have come to the entry yet.
            prop_assert!(calls.abs_diff(entries) <= 1 && entries - closed <= 1, "{calls} calls, {entries} entries, {closed} exits");
        } else {
            // One that begins with a loop is refused, as the loop could be the caller's.
            let begins = maker.nodes.iter().position(|node| node.during);
            let looped = begins.is_some_and(|start| graph.predecessors[start].iter().any(|node| maker.nodes[*node as usize].during));
            prop_assert!(call || holes > 0 || looped, "a call whose nodes are all known is seen");
        }
    }
}

#[test]
fn a_hole_is_part_of_the_call_and_a_loop_around_it_is_not() {
    // 0 -> 1 -> 2 (hole) -> 3 -> 4 -> 0 or 5; the call is 1..=3.
    let successors = vec![vec![1], vec![2], vec![3], vec![4], vec![0, 5], vec![]];
    let graph = Graph::new(successors, vec![Work::default(); 6]);
    let region = Region::find(&graph, &[false, true, false, true, false, false], &[false; 6]).expect("one call");
    assert_eq!((region.entry, &region.nodes[..]), (1, &[1, 2, 3][..]));
    assert_eq!(region.exits(&graph), [(4, vec![3])]);
}

#[test]
fn a_call_with_two_beginnings_is_refused_unless_a_branch_leads_to_both() {
    let graph = |first: Vec<u32>| Graph::new(vec![first, vec![3], vec![3], vec![4], vec![]], vec![Work::default(); 5]);
    let body = [false, true, true, true, false];
    assert_eq!(Region::find(&graph(vec![1, 2]), &body, &[false; 5]).expect("one call").entry, 0);
    assert!(Region::find(&graph(vec![1, 2, 4]), &body, &[false; 5]).is_err());
}

#[test]
fn a_call_of_the_caller_in_the_middle_is_refused() {
    let mut work = vec![Work::default(); 5];
    work[2].calls = true;
    work[3].calls = true;
    let graph = Graph::new(vec![vec![1], vec![2], vec![3], vec![4], vec![]], work);
    assert!(Region::find(&graph, &[false, true, false, true, false], &[false; 5]).is_err());
}

#[test]
fn a_loop_that_may_be_the_callers_is_refused() {
    // 0 -> 1 -> 2 -> 1 or 3; the call is 2, and 1 is from nowhere.
    let graph = Graph::new(vec![vec![1], vec![2], vec![1, 3], vec![]], vec![Work::default(); 4]);
    let body = [false, false, true, false];
    assert!(Region::find(&graph, &body, &[false, true, false, false]).is_err());
    assert!(Region::find(&graph, &body, &[false; 4]).is_ok());
}
