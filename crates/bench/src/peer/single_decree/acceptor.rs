//! Single-decree Paxos as in Lamport, *Paxos Made Simple* (2001), sections 2.2 and 2.3. Pure.

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use vstack_types::Digest;

/// The number of a proposal; no two proposers use the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ballot {
    /// Rising.
    pub round: u64,
    /// Whose.
    pub proposer: Uuid,
}

/// What is agreed about a chunk: which bytes it is. The data travels beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    /// Of the bytes.
    pub sha256: Digest,
    /// How many.
    pub size: u64,
}

/// A proposal that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Its number.
    pub ballot: Ballot,
    /// Its value.
    pub value: Value,
}

/// An acceptor's answer to both requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To a prepare request: no proposal below is accepted any more. With what was accepted last.
    Promised(Option<Accepted>),
    /// To an accept request.
    Accepted,
    /// A higher number was promised.
    Refused(Ballot),
}

/// An acceptor of one decree. What a message changed is durable before its answer leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Acceptor {
    promised: Option<Ballot>,
    accepted: Option<Accepted>,
}

impl Acceptor {
    /// Phase 1b.
    pub fn prepare(&mut self, ballot: Ballot) -> Answer {
        match self.promised {
            Some(promised) if promised > ballot => Answer::Refused(promised),
            _ => {
                self.promised = Some(ballot);
                Answer::Promised(self.accepted)
            }
        }
    }

    /// Phase 2b.
    pub fn accept(&mut self, ballot: Ballot, value: Value) -> Answer {
        match self.promised {
            Some(promised) if promised > ballot => Answer::Refused(promised),
            _ => {
                self.promised = Some(ballot);
                self.accepted = Some(Accepted { ballot, value });
                Answer::Accepted
            }
        }
    }
}

/// Phase 2a: the value a proposer may propose after a majority promised; its own when nothing was accepted.
pub fn choose(promises: &[Option<Accepted>], own: Value) -> Value {
    let highest = promises.iter().flatten().max_by_key(|accepted| accepted.ballot);
    highest.map_or(own, |accepted| accepted.value)
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

    use super::*;

    fn ballot(round: u64, proposer: u8) -> Ballot {
        Ballot {
            round,
            proposer: Uuid::from_bytes([proposer; 16]),
        }
    }

    fn value(byte: u8) -> Value {
        Value {
            sha256: Digest::from_bytes([byte; 32]),
            size: 1,
        }
    }

    #[test]
    fn an_acceptor_keeps_its_promises() {
        let mut acceptor = Acceptor::default();
        assert_eq!(acceptor.prepare(ballot(2, 1)), Answer::Promised(None));
        assert_eq!(acceptor.accept(ballot(1, 1), value(1)), Answer::Refused(ballot(2, 1)));
        assert_eq!(acceptor.accept(ballot(2, 1), value(1)), Answer::Accepted);
        assert_eq!(acceptor.prepare(ballot(1, 9)), Answer::Refused(ballot(2, 1)));
        let accepted = Accepted {
            ballot: ballot(2, 1),
            value: value(1),
        };
        assert_eq!(acceptor.prepare(ballot(3, 0)), Answer::Promised(Some(accepted)));
        assert_eq!(choose(&[None, Some(accepted)], value(7)), value(1));
        assert_eq!(choose(&[None, None], value(7)), value(7));
    }

    /// Two proposers whose steps are mixed at random, each asking acceptors in an order of its own.
    #[test]
    fn two_proposers_never_decide_two_values() {
        for seed in 0..2000 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut acceptors = [Acceptor::default(); 3];
            let mut decided: Option<Value> = None;
            // Round, promises, value and votes of each proposer.
            let mut states = [(0, Vec::new(), None, 0), (0, Vec::new(), None, 0)];
            for _ in 0..40 {
                let who = rng.random_range(0..2usize);
                let node = rng.random_range(0..3usize);
                let (round, promises, proposed, votes) = &mut states[who];
                let mine = value(u8::try_from(who).unwrap());
                if *round == 0 || rng.random_bool(0.1) {
                    (*round, *promises, *proposed, *votes) = (*round + 1, Vec::new(), None, 0u8);
                }
                let number = ballot(*round, u8::try_from(who).unwrap());
                if let Some(proposed) = *proposed {
                    if acceptors[node].accept(number, proposed) == Answer::Accepted {
                        *votes |= 1 << node;
                    }
                    if votes.count_ones() >= 2 {
                        assert_eq!(*decided.get_or_insert(proposed), proposed, "seed {seed}");
                    }
                } else if let Answer::Promised(accepted) = acceptors[node].prepare(number) {
                    promises.retain(|(from, _)| *from != node);
                    promises.push((node, accepted));
                    if promises.len() >= 2 {
                        let known: Vec<_> = promises.iter().map(|(_, accepted)| *accepted).collect();
                        *proposed = Some(choose(&known, mine));
                    }
                }
            }
        }
    }
}
