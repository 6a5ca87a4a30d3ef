//! What was recorded: calls with the times between which each happened.

use vstack_types::Monotonic;

/// A call, as its caller saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call<O, A> {
    /// Who called. For the reader of a verdict alone: the search goes by the times.
    pub process: u32,
    /// What was asked.
    pub operation: O,
    /// Not later than this was it asked; it had no effect before.
    pub invoked: Monotonic,
    /// The answer and when it was there. None: the call may have happened at any time after `invoked`, or never.
    pub answered: Option<(Monotonic, A)>,
}

/// Why a record is no history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// An answer is older than its question.
    #[error("call {call} was answered before it was asked")]
    AnsweredBeforeAsked {
        /// Index of the call.
        call: usize,
    },
}

/// Calls of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History<O, A> {
    calls: Vec<Call<O, A>>,
}

impl<O, A> History<O, A> {
    /// In any order; verdicts name calls by their index here.
    ///
    /// # Errors
    /// When the times cannot be.
    pub fn new(calls: Vec<Call<O, A>>) -> Result<Self, HistoryError> {
        let wrong = calls
            .iter()
            .position(|call| call.answered.as_ref().is_some_and(|(at, _)| *at < call.invoked));
        match wrong {
            Some(call) => Err(HistoryError::AnsweredBeforeAsked { call }),
            None => Ok(Self { calls }),
        }
    }

    /// The calls, in the order they were given.
    pub fn calls(&self) -> &[Call<O, A>] {
        &self.calls
    }

    /// The calls back, to make another history of them.
    pub fn into_calls(self) -> Vec<Call<O, A>> {
        self.calls
    }
}
