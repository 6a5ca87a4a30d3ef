//! Those who want something of the cluster. Each is a task that works until the time of trouble is over, through the
//! same clients as everybody else, and writes into the ledger what it was told.

pub(crate) mod auditors;
pub(crate) mod choosers;
pub(crate) mod coder;
pub(crate) mod condemners;
pub(crate) mod deleters;
pub(crate) mod films;
pub(crate) mod forgers;
pub(crate) mod onlookers;
pub(crate) mod operators;
pub(crate) mod plain_http;
mod proposals;
pub(crate) mod readers;
pub(crate) mod removers;
pub(crate) mod rivals;
pub(crate) mod scripts;
