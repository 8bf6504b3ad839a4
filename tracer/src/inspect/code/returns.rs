//! Functions that never return, such as those that panic: the code behind a call of one belongs to something else.

use std::cell::RefCell;
use std::collections::HashMap;

use iced_x86::Instruction;

use crate::inspect::code::callees::Callees;
use crate::inspect::code::flow::{Flow, Leave};
use crate::inspect::code::function::direct_target;
use crate::inspect::elf::image::Image;

/// How many functions are followed that end in each other.
const MAX_DEPTH: usize = 4;

/// Which functions return.
pub(in crate::inspect) struct Returns<'c, 'a> {
    image: &'c Image<'a>,
    callees: &'c Callees<'c, 'a>,
    known: RefCell<HashMap<u64, bool>>,
}

impl<'c, 'a> Returns<'c, 'a> {
    pub(in crate::inspect) fn new(image: &'c Image<'a>, callees: &'c Callees<'c, 'a>) -> Self {
        Self { image, callees, known: RefCell::default() }
    }

    /// Whether the call is certain not to return.
    pub(in crate::inspect) fn never(&self, call: &Instruction) -> bool {
        self.callees.target(call).is_some_and(|target| self.never_from(target, MAX_DEPTH))
    }

    fn never_from(&self, address: u64, depth: usize) -> bool {
        if let Some(known) = self.known.borrow().get(&address) {
            return *known;
        }
        // Stands for functions that end in themselves, while one is looked at.
        self.known.borrow_mut().insert(address, false);
        let never = depth > 0
            && self.callees.decode(address).is_some_and(|function| {
                let flow = Flow::new(self.image, &function);
                (0..function.instructions.len()).all(|index| match flow.leaves(index) {
                    None => true,
                    Some(Leave::TailCall) => direct_target(&function.instructions[index])
                        .is_some_and(|target| self.never_from(target, depth - 1)),
                    Some(Leave::Return | Leave::Indirect) => false,
                })
            });
        self.known.borrow_mut().insert(address, never);
        never
    }
}
