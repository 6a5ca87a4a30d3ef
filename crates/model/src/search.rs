//! Breadth first through every state of a scope.
//!
//! A state is known by 128 bits of SipHash; of those that were left behind only that and where they came from is kept.
//! The way to a broken promise is therefore a shortest one, walked again from the start to be shown.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    time::{Duration, Instant},
};

use siphasher::sip128::{Hasher128 as _, SipHasher13};

use crate::{
    lone::Seen,
    names,
    rules::{Rule, Violation},
    scope::Scope,
    state::State,
    step::{Shown, Step},
    symmetry::Symmetry,
    world::World,
};

/// What came of a search.
#[derive(Debug, Clone)]
pub struct Report {
    /// States, the same under renaming counted once.
    pub states: usize,
    /// Steps of the longest of the shortest ways.
    pub depth: usize,
    /// Whether these are all.
    pub complete: bool,
    /// States of the nodes from which lone proposers were run.
    pub endings: usize,
    /// Renamings.
    pub renamings: usize,
    /// Most decisions in one chain, and all placements that were ever decided, as text.
    pub decided: Vec<String>,
    /// How often a node that was to leave was wiped.
    pub wiped: usize,
    /// What broke, with the steps to it.
    pub broken: Option<Counterexample>,
    /// By the wall clock.
    pub took: Duration,
}

/// A way to a broken promise.
#[derive(Debug, Clone)]
pub struct Counterexample {
    /// Which promise.
    pub violation: Violation,
    /// Step by step, in words.
    pub steps: Vec<String>,
}

/// Fingerprints are hashes already.
#[derive(Debug, Default, Clone, Copy)]
struct Already(u64);

impl Hasher for Already {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {}

    fn write_u128(&mut self, fingerprint: u128) {
        self.0 = (fingerprint >> 64) as u64;
    }
}

type Known = HashMap<u128, u32, BuildHasherDefault<Already>>;

/// A search under way.
struct Search {
    world: World,
    symmetry: Symmetry,
    known: Known,
    parents: Vec<u32>,
    fingerprints: Vec<u128>,
    seen: Seen,
    bytes: Vec<u8>,
    decided: std::collections::BTreeSet<u16>,
    wiped: usize,
}

/// Searches all of `scope`, or up to its bound.
pub fn search(scope: &Scope) -> Report {
    run(scope, Symmetry::of(scope), None)
}

/// The same, looking at one promise only: what else breaks on the way is passed over.
pub fn search_for(scope: &Scope, only: Rule) -> Report {
    run(scope, Symmetry::of(scope), Some(only))
}

/// The same, with every state for itself.
pub fn search_without_symmetry(scope: &Scope) -> Report {
    run(scope, Symmetry::none(scope), None)
}

fn run(scope: &Scope, symmetry: Symmetry, only: Option<Rule>) -> Report {
    let begun = Instant::now();
    let mut world = World::new(scope.clone());
    world.only = only;
    let mut search = Search {
        world,
        symmetry,
        known: Known::default(),
        parents: Vec::new(),
        fingerprints: Vec::new(),
        seen: Seen::new(),
        bytes: Vec::new(),
        decided: std::collections::BTreeSet::new(),
        wiped: 0,
    };
    let (depth, complete, broken) = search.all();
    let counterexample = broken.map(|(from, step, violation)| search.explain(from, step, violation));
    let shown = |value: &u16| names::show(search.world.machines.values.get(*value));
    Report {
        states: search.parents.len(),
        depth,
        complete,
        endings: search.seen.len(),
        renamings: search.symmetry.count(),
        decided: search.decided.iter().map(shown).collect(),
        wiped: search.wiped,
        broken: counterexample,
        took: begun.elapsed(),
    }
}

type Broke = (u32, Option<Step>, Violation);

impl Search {
    fn all(&mut self) -> (usize, bool, Option<Broke>) {
        let begin = self.world.begin();
        let mut level = Vec::new();
        if let Err(broken) = self.arrive(begin, 0, &mut level) {
            return (0, false, Some((0, None, broken)));
        }
        let mut depth = 0;
        let mut steps = Vec::new();
        while !level.is_empty() {
            let mut below = Vec::new();
            for (number, state) in level {
                if let Err(broken) = self.world.steps(&state, &mut steps) {
                    let (step, violation) = *broken;
                    return (depth + 1, false, Some((number, Some(step), violation)));
                }
                for (step, next) in steps.drain(..) {
                    self.wiped += usize::from(matches!(step, Step::Wipe(_)));
                    if let Err(violation) = self.arrive(next, number, &mut below) {
                        return (depth + 1, false, Some((number, Some(step), violation)));
                    }
                }
                if self
                    .world
                    .scope
                    .states_max
                    .is_some_and(|most| self.parents.len() >= most)
                {
                    return (depth, false, None);
                }
            }
            depth += usize::from(!below.is_empty());
            level = below;
        }
        (depth, true, None)
    }

    fn arrive(&mut self, state: State, from: u32, level: &mut Vec<(u32, State)>) -> Result<(), Violation> {
        let state = self.symmetry.canonical(&mut self.world.machines, state);
        let fingerprint = self.fingerprint(&state);
        let number = u32::try_from(self.parents.len()).unwrap_or(u32::MAX);
        if self.known.contains_key(&fingerprint) {
            return Ok(());
        }
        self.known.insert(fingerprint, number);
        self.parents.push(from);
        self.fingerprints.push(fingerprint);
        self.decided.extend(state.latest());
        self.world.check_finishes(&state, &mut self.seen)?;
        level.push((number, state));
        Ok(())
    }

    fn fingerprint(&mut self, state: &State) -> u128 {
        state.write(usize::from(self.world.scope.nodes), &mut self.bytes);
        let mut hasher = SipHasher13::new();
        hasher.write(&self.bytes);
        hasher.finish128().as_u128()
    }

    /// Walks to state `to` again, by names as they are from the first step to the last.
    fn explain(&mut self, to: u32, last: Option<Step>, violation: Violation) -> Counterexample {
        let mut way = vec![to];
        while let Some(at) = way.last().filter(|at| **at != 0) {
            way.push(self.parents[*at as usize]);
        }
        way.reverse();
        let mut state = self.world.begin();
        let mut shown = Vec::new();
        for number in way.into_iter().skip(1) {
            let wanted = self.fingerprints[number as usize];
            let mut steps = Vec::new();
            // What breaks here is not on this way: it was walked before.
            let _broken = self.world.steps(&state, &mut steps);
            let next = steps.into_iter().find(|(_, next)| {
                let canonical = self.symmetry.canonical(&mut self.world.machines, next.clone());
                self.fingerprint(&canonical) == wanted
            });
            let Some((step, next)) = next else {
                shown.push("(a step that breaks something else too)".into());
                break;
            };
            shown.push(Shown(&step, &self.world).to_string());
            state = next;
        }
        let mut violation = violation;
        let by_names = self.last_step(&state);
        match by_names {
            Some((step, broken)) if broken.rule == violation.rule => {
                shown.push(Shown(&step, &self.world).to_string());
                violation = broken;
            }
            _ => shown.extend(last.map(|step| Shown(&step, &self.world).to_string())),
        }
        Counterexample {
            violation,
            steps: shown,
        }
    }

    /// The step from `state` that breaks a promise, under the names of this walk.
    fn last_step(&mut self, state: &State) -> Option<(Step, Violation)> {
        let mut steps = Vec::new();
        if let Err(broken) = self.world.steps(state, &mut steps) {
            return Some(*broken);
        }
        let mut seen = Seen::new();
        steps.into_iter().find_map(|(step, next)| {
            self.world
                .check_finishes(&next, &mut seen)
                .err()
                .map(|broken| (step, broken))
        })
    }
}

impl Report {
    /// The promise that broke.
    pub fn rule(&self) -> Option<Rule> {
        self.broken.as_ref().map(|broken| broken.violation.rule)
    }
}

impl std::fmt::Display for Counterexample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}: {}", self.violation.rule.name(), self.violation.what)?;
        for (number, step) in (1..).zip(&self.steps) {
            writeln!(f, "  {number:>2}. {step}")?;
        }
        Ok(())
    }
}
