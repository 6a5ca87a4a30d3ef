//! What happened, in order: a running hash over everything, the last events for people, and all of them when asked.

use std::{collections::VecDeque, fmt, time::Duration};

use crate::{clock::millis, hosts::HostId};

/// Events kept for the report of a violation.
const LAST_KEPT: usize = 40;

/// Something that happened.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// A request reached its target, or did not, and what came of it.
    Message {
        from: HostId,
        to: HostId,
        what: String,
        outcome: String,
    },
    /// The world changed: a fault, a crash, a restart.
    World(String),
    /// An actor did or learned something.
    Actor(String),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message {
                from,
                to,
                what,
                outcome,
            } => write!(f, "{from} -> {to}  {what}: {outcome}"),
            Self::World(what) => write!(f, "** {what}"),
            Self::Actor(what) => write!(f, "   {what}"),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    steps: u64,
    last: VecDeque<(u64, Duration, Event)>,
    print: bool,
}

impl Trace {
    pub(crate) fn new(print: bool) -> Self {
        Self {
            // FNV-1a, 64 bits.
            hash: 0xcbf2_9ce4_8422_2325,
            steps: 0,
            last: VecDeque::new(),
            print,
        }
    }

    fn mix(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// Adds an event that happened at `at` of the history.
    pub(crate) fn add(&mut self, at: Duration, event: Event) {
        self.steps += 1;
        self.mix(&millis(at).to_le_bytes());
        match &event {
            Event::Message {
                from,
                to,
                what,
                outcome,
            } => {
                self.mix(&[1, from.0, to.0]);
                self.mix(what.as_bytes());
                self.mix(outcome.as_bytes());
            }
            Event::World(what) => {
                self.mix(&[2]);
                self.mix(what.as_bytes());
            }
            Event::Actor(what) => {
                self.mix(&[3]);
                self.mix(what.as_bytes());
            }
        }
        if self.print {
            crate::command::out(&line(self.steps, at, &event));
        }
        if self.last.len() == LAST_KEPT {
            self.last.pop_front();
        }
        self.last.push_back((self.steps, at, event));
    }

    pub(crate) const fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) const fn steps(&self) -> u64 {
        self.steps
    }

    /// The last events, a line each.
    pub(crate) fn last(&self) -> Vec<String> {
        self.last
            .iter()
            .map(|(step, at, event)| line(*step, *at, event))
            .collect()
    }
}

fn line(step: u64, at: Duration, event: &Event) -> String {
    format!("{step:>6} {:>9.3}s {event}", at.as_secs_f64())
}
