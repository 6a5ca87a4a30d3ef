//! How whole what is stored is, and what is to be done about it.
//!
//! Pure: what nodes hold, who is reachable and what time it is are arguments. [`standing`] judges one chunk,
//! [`census`] counts all of them against what nodes say they hold, [`plan`] says what comes next. [`doubt`] says whom to
//! believe where nodes make different shards.

pub mod audit;
pub mod balance;
pub mod census;
pub mod doubt;
#[cfg(test)]
mod fixtures;
pub mod harm;
pub mod migrate;
pub mod plan;
pub mod report;
pub mod standing;
