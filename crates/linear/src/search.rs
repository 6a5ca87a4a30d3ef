//! The search for an order.
//!
//! Depth first: of the calls that nothing unfinished precedes, each is tried as the next to have happened. A
//! configuration is the set of calls that happened and the state they left. Three things make histories of hundreds of
//! calls feasible: a configuration is searched once; nor is one searched that used up the same calls without an answer
//! and more, to come as far (whatever can follow it can follow the other, and a search that failed on the shortest way
//! from there fails here); and of equal calls without an answer the one asked first comes first.

use std::collections::{HashMap, HashSet};

use vstack_types::Monotonic;

use crate::{
    history::{Call, History},
    specification::Specification,
};

/// A call at its place in the order, and the state it left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step<S> {
    /// Index of the call in the history.
    pub call: usize,
    /// After it.
    pub state: S,
}

/// What is known of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<S> {
    /// It could have happened in this order, one call after the other. Calls without an answer that are not in it did
    /// not have to happen.
    Linearizable(Vec<Step<S>>),
    /// There is no such order.
    Violated {
        /// The longest beginning that was found, by calls answered.
        longest: Vec<Step<S>>,
        /// After it, of the calls still to be placed, the one answered first.
        stuck: usize,
    },
    /// So many configurations were searched that the search was given up; nothing is known.
    GivenUp {
        /// How many.
        configurations: usize,
    },
}

impl<S> Verdict<S> {
    /// Whether an order was found.
    pub const fn is_linearizable(&self) -> bool {
        matches!(self, Self::Linearizable(_))
    }

    /// Whether it was shown that there is none.
    pub const fn is_violated(&self) -> bool {
        matches!(self, Self::Violated { .. })
    }
}

/// Searches for an order in which `history` could have happened, among `configurations_max` configurations at most.
pub fn check<S: Specification>(
    specification: &S,
    history: &History<S::Operation, S::Answer>,
    configurations_max: usize,
) -> Verdict<S::State> {
    Search::new(specification, history.calls()).run(configurations_max)
}

/// Which calls have happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Happened(Box<[u64]>);

impl Happened {
    fn none(calls: usize) -> Self {
        Self(vec![0; calls.div_ceil(64)].into())
    }

    fn has(&self, call: usize) -> bool {
        self.0[call / 64] & (1 << (call % 64)) != 0
    }

    fn flip(&mut self, call: usize) {
        self.0[call / 64] ^= 1 << (call % 64);
    }

    fn is_within(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(mine, others)| mine & !others == 0)
    }
}

/// Equal states have one number: a configuration is then small, whatever a state is.
struct Numbers<S>(HashMap<S, usize>);

impl<S: Clone + Eq + std::hash::Hash> Numbers<S> {
    fn of(&mut self, state: &S) -> usize {
        if let Some(number) = self.0.get(state) {
            return *number;
        }
        let number = self.0.len();
        self.0.insert(state.clone(), number);
        number
    }
}

/// Configurations searched: answered calls that happened and the number of the state, with the sets of calls without an
/// answer that it took.
struct Searched<S> {
    numbers: Numbers<S>,
    taken: HashMap<(Happened, usize), Vec<Happened>>,
    count: usize,
}

impl<S: Clone + Eq + std::hash::Hash> Searched<S> {
    /// False when nothing new can be found there.
    fn insert(&mut self, answered: &Happened, open: &Happened, state: &S) -> bool {
        let key = (answered.clone(), self.numbers.of(state));
        let taken = self.taken.entry(key).or_default();
        if taken.iter().any(|less| less.is_within(open)) {
            return false;
        }
        taken.push(open.clone());
        self.count += 1;
        true
    }
}

/// What may happen next, and how far that was tried.
struct Frame<S> {
    next: Vec<Step<S>>,
    tried: usize,
    /// Of the answered calls, by invocation, all before this one happened.
    from: usize,
}

struct Search<'a, S: Specification> {
    specification: &'a S,
    calls: &'a [Call<S::Operation, S::Answer>],
    /// Calls with an answer, by invocation.
    answered: Vec<usize>,
    /// Calls without, by invocation, each with the last one before it that asks the same.
    open: Vec<(usize, Option<usize>)>,
    answered_happened: Happened,
    open_happened: Happened,
    order: Vec<Step<S::State>>,
    answered_in_order: usize,
    longest: (usize, Vec<Step<S::State>>),
}

impl<'a, S: Specification> Search<'a, S> {
    fn new(specification: &'a S, calls: &'a [Call<S::Operation, S::Answer>]) -> Self {
        let (mut answered, mut open): (Vec<_>, Vec<_>) =
            (0..calls.len()).partition(|call| calls[*call].answered.is_some());
        answered.sort_by_key(|call| calls[*call].invoked);
        open.sort_by_key(|call| calls[*call].invoked);
        Self {
            specification,
            calls,
            answered,
            open: with_twins(calls, &open),
            answered_happened: Happened::none(calls.len()),
            open_happened: Happened::none(calls.len()),
            order: Vec::new(),
            answered_in_order: 0,
            longest: (0, Vec::new()),
        }
    }

    fn run(mut self, configurations_max: usize) -> Verdict<S::State> {
        let mut searched = Searched {
            numbers: Numbers(HashMap::new()),
            taken: HashMap::new(),
            count: 0,
        };
        let first = self.specification.initial();
        let mut frames = vec![self.frame(&first, 0)];
        loop {
            if self.answered_in_order == self.answered.len() {
                return Verdict::Linearizable(self.order);
            }
            let Some(frame) = frames.last_mut() else {
                return self.violated();
            };
            let from = frame.from;
            let Some(step) = frame.next.get(frame.tried).cloned() else {
                frames.pop();
                if let Some(step) = self.order.pop() {
                    self.flip(step.call);
                }
                continue;
            };
            frame.tried += 1;
            self.flip(step.call);
            if !searched.insert(&self.answered_happened, &self.open_happened, &step.state) {
                self.flip(step.call);
                continue;
            }
            if searched.count > configurations_max {
                return Verdict::GivenUp {
                    configurations: searched.count,
                };
            }
            frames.push(self.frame(&step.state, from));
            self.order.push(step);
            if self.answered_in_order > self.longest.0 {
                self.longest = (self.answered_in_order, self.order.clone());
            }
        }
    }

    /// Has a call happen that had not, or the other way about.
    fn flip(&mut self, call: usize) {
        if self.calls[call].answered.is_none() {
            self.open_happened.flip(call);
            return;
        }
        self.answered_happened.flip(call);
        if self.answered_happened.has(call) {
            self.answered_in_order += 1;
        } else {
            self.answered_in_order -= 1;
        }
    }

    /// Everything that may happen next in `state`: calls invoked before any call still to come was answered.
    fn frame(&self, state: &S::State, from: usize) -> Frame<S::State> {
        let over = self.answered[from..]
            .iter()
            .take_while(|call| self.answered_happened.has(**call));
        let from = from + over.count();
        let mut first_answer: Option<Monotonic> = None;
        let mut next = Vec::new();
        for call in &self.answered[from..] {
            if self.answered_happened.has(*call) {
                continue;
            }
            let Call {
                operation,
                invoked,
                answered: Some((at, answer)),
                ..
            } = &self.calls[*call]
            else {
                continue;
            };
            // Everything further on was invoked later still.
            if first_answer.is_some_and(|first| first < *invoked) {
                break;
            }
            first_answer = Some(first_answer.map_or(*at, |first| first.min(*at)));
            let after = self.specification.after(state, operation, Some(answer));
            next.extend(after.into_iter().map(|state| Step { call: *call, state }));
        }
        // Answers already given are the best guide to what happened first.
        next.sort_by_key(|step| self.calls[step.call].answered.as_ref().map(|(at, _)| *at));
        for (call, twin) in &self.open {
            let Call { operation, invoked, .. } = &self.calls[*call];
            if first_answer.is_some_and(|first| first < *invoked) {
                break;
            }
            let later = twin.is_some_and(|twin| !self.open_happened.has(twin));
            if later || self.open_happened.has(*call) {
                continue;
            }
            let after = self.specification.after(state, operation, None);
            // One that changes nothing might as well never have happened.
            let changed = after.into_iter().filter(|after| after != state);
            next.extend(changed.map(|state| Step { call: *call, state }));
        }
        Frame { next, tried: 0, from }
    }

    fn violated(self) -> Verdict<S::State> {
        let placed: HashSet<usize> = self.longest.1.iter().map(|step| step.call).collect();
        let left = self.answered.iter().filter(|call| !placed.contains(*call));
        let stuck = left.min_by_key(|call| self.calls[**call].answered.as_ref().map(|(at, _)| *at));
        Verdict::Violated {
            // There is one: an order of all answered calls would have been the verdict.
            stuck: stuck.copied().unwrap_or_default(),
            longest: self.longest.1,
        }
    }
}

fn with_twins<O: PartialEq, A>(calls: &[Call<O, A>], open: &[usize]) -> Vec<(usize, Option<usize>)> {
    let twin = |place: usize| {
        let before = open[..place].iter().rev();
        let mut same = before.filter(|other| calls[**other].operation == calls[open[place]].operation);
        same.next().copied()
    };
    (0..open.len()).map(|place| (open[place], twin(place))).collect()
}
