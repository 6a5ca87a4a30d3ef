//! How whole what is stored is, and what is to be done about it.
//!
//! Pure: what nodes hold, who is reachable and what time it is are arguments. [`standing`] judges one chunk,
//! [`census`] counts all of them against what nodes say they hold, [`plan`] says what comes next. Of shards, [`proof`] says
//! of which sets a chunk has to come before they are believed, and [`doubt`] whom to believe where nodes make different ones.

pub mod audit;
pub mod balance;
pub mod census;
pub mod doubt;
pub mod harm;
pub mod migrate;
pub mod plan;
pub mod proof;
pub mod report;
pub mod standing;
