//! What an object used by one caller at a time may answer.

use std::{fmt::Debug, hash::Hash};

/// A sequential object: its first state, and what each call may do to it.
pub trait Specification {
    /// Of the object. Equal states behave equally from then on: the search relies on it.
    type State: Clone + Eq + Hash + Debug;
    /// What can be asked of it. Equal ones may have the same effects.
    type Operation: PartialEq + Debug;
    /// What it can say.
    type Answer: Debug;

    /// Before the first call.
    fn initial(&self) -> Self::State;

    /// The states that `operation`, carried out on `state`, may leave behind when it is answered with `answer`; none
    /// when it cannot be answered so. Without an answer: the states it may leave behind at all.
    fn after(
        &self,
        state: &Self::State,
        operation: &Self::Operation,
        answer: Option<&Self::Answer>,
    ) -> Vec<Self::State>;
}
