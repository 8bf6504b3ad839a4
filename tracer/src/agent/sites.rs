//! The sites of one file: which program goes to each, and what is done when some cannot be attached to.
//!
//! A site that fails costs its function and nothing else. The ends of a function come before its beginning, and one of which an
//! end is missing is not begun: its calls would seem to end when the next one begins.

use std::collections::HashSet;

use tracer_common::map::Cookie;

use crate::inspect;
use crate::probe::{Attached, Link, LinkError, LinkTarget, LoadError, Programs, Site, Way};

/// The program of [`Sites::loads`].
const LIBRARY_LOADED: &str = "library_loaded";

/// A function whose calls are seen.
#[derive(Clone, Copy, Debug)]
pub struct Function<'a> {
    /// Its number in the records.
    pub number: u32,
    /// Where a call begins.
    pub entry: &'a inspect::Site,
    /// Where it ends.
    pub exits: &'a [inspect::Site],
}

/// What a file is to be attached at.
#[derive(Debug, Default)]
pub struct Sites<'a> {
    /// Functions with beginning and ends.
    pub functions: Vec<Function<'a>>,
    /// Places where an error is made.
    pub errors: Vec<u64>,
    /// Places where a panic begins.
    pub panics: Vec<u64>,
    /// Places where a task makes a gRPC call.
    pub grpc_calls: Vec<u64>,
    /// Places where a task is spawned.
    pub spawns: Vec<u64>,
    /// Where a dynamic loader says that it has loaded libraries.
    pub loads: Vec<u64>,
    /// The shim's site, once per copy.
    pub shim: Vec<Site>,
    /// Sites of functions for which no number was left.
    pub unnumbered: usize,
    /// How many numbers there are.
    pub room: u32,
}

/// What was attached.
#[derive(Debug, Default)]
pub struct Placed {
    /// Dropping them detaches.
    pub links: Vec<Link>,
    /// Functions whose calls are seen.
    pub functions: usize,
    /// Sites of these, and the others.
    pub sites: usize,
    /// Of these, the ones of the dynamic loader.
    pub loads: usize,
    /// Sites that were wanted, but are not there.
    pub missing: usize,
    /// Why the first of the missing ones is.
    pub why: Option<String>,
}

impl Sites<'_> {
    /// How many there are.
    pub fn len(&self) -> usize {
        let functions: usize = self.functions.iter().map(|function| function.exits.len() + 1).sum();
        functions
            + self.errors.len()
            + self.panics.len()
            + self.grpc_calls.len()
            + self.spawns.len()
            + self.loads.len()
            + self.shim.len()
            + self.unnumbered
    }

    /// Attaches to as many as can be.
    ///
    /// # Errors
    /// When a program is not there.
    pub fn attach(&self, target: LinkTarget<'_>, programs: &Programs) -> Result<Placed, LoadError> {
        let mut placed = Placed::default();
        let mut target = target;
        let plain = |offset: &u64| Site { offset: *offset, cookie: 0, counter: None };
        for (name, sites) in [
            ("shim_span", self.shim.clone()),
            (LIBRARY_LOADED, self.loads.iter().map(plain).collect()),
            ("message_error", self.errors.iter().map(plain).collect()),
            ("grpc_call", self.grpc_calls.iter().map(plain).collect()),
            ("task_spawn", self.spawns.iter().map(plain).collect()),
            ("message_panic", self.panics.iter().map(plain).collect()),
        ] {
            let failed = placed.add(Link::attach(programs.uprobe(name)?, &target, &sites));
            placed.sites += sites.len() - failed.len();
            if name == LIBRARY_LOADED {
                placed.loads = sites.len() - failed.len();
            }
            target.descriptors = target.descriptors.saturating_sub(2 * sites.len());
        }
        let functions = self.functions_within(&target, programs.uprobe("message_exit")?.way);
        let site = |site: &inspect::Site, function: &Function<'_>| {
            let cookie = Cookie { probe: function.number, sp_delta: site.sp_delta }.pack();
            Site { offset: site.offset, cookie, counter: None }
        };
        let exits: Vec<(usize, Site)> = functions
            .iter()
            .enumerate()
            .flat_map(|(index, function)| function.exits.iter().map(move |exit| (index, site(exit, function))))
            .collect();
        let sites: Vec<Site> = exits.iter().map(|(_, site)| *site).collect();
        let failed = placed.add(Link::attach(programs.uprobe("message_exit")?, &target, &sites));
        let endless: HashSet<usize> = failed.iter().filter_map(|index| exits.get(*index)).map(|exit| exit.0).collect();
        target.descriptors = target.descriptors.saturating_sub(2 * sites.len());
        let whole: Vec<&Function<'_>> = functions
            .iter()
            .enumerate()
            .filter(|(index, _)| !endless.contains(index))
            .map(|(_, function)| function)
            .collect();
        let entries: Vec<Site> = whole.iter().map(|function| site(function.entry, function)).collect();
        let failed: HashSet<usize> =
            placed.add(Link::attach(programs.uprobe("message_entry")?, &target, &entries)).into_iter().collect();
        let seen = whole.iter().enumerate().filter(|(index, _)| !failed.contains(index)).map(|(_, function)| function);
        for function in seen {
            placed.functions += 1;
            placed.sites += function.exits.len() + 1;
        }
        placed.missing = self.len() - placed.sites;
        if placed.missing > 0 && placed.why.is_none() {
            let numbers = format!("{} functions are probed already; trace fewer programs at once", self.room);
            let why = if self.unnumbered > 0 { numbers } else { LinkError::Descriptors.to_string() };
            placed.why = Some(why);
        }
        Ok(placed)
    }

    /// The functions that the descriptors are enough for; a link for many sites needs few.
    fn functions_within(&self, target: &LinkTarget<'_>, way: Way) -> &[Function<'_>] {
        if way == Way::Multi {
            return &self.functions;
        }
        let mut left = target.descriptors;
        let fit = self.functions.iter().take_while(|function| {
            let needed = 2 * (function.exits.len() + 1);
            let fits = needed <= left;
            left = left.saturating_sub(needed);
            fits
        });
        let number = fit.count();
        &self.functions[..number]
    }
}

impl Placed {
    /// Takes what was attached; returns which sites were not.
    fn add(&mut self, attached: Attached) -> Vec<usize> {
        self.links.extend(attached.links);
        self.why = self.why.take().or(attached.error.map(|error| super::chain(&error)));
        attached.failed
    }
}
