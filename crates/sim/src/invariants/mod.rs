//! What must always hold. Each file is one promise: plain data in, the broken promise in words out.

pub(crate) mod api;
pub(crate) mod bytes;
pub(crate) mod census;
pub(crate) mod damage;
pub(crate) mod dwell;
pub(crate) mod gone;
pub(crate) mod groups;
pub(crate) mod learner;
pub(crate) mod listed;
pub(crate) mod memory;
pub(crate) mod outcomes;
pub(crate) mod queues;
pub(crate) mod register;
pub(crate) mod removals;
pub(crate) mod salvages;
pub(crate) mod settled;
pub(crate) mod shares;
pub(crate) mod trash;
