//! Deterministic simulation: whole clusters of real services, in one thread, on a simulated network, simulated disks
//! and a simulated clock. One seed is one history, the same on every run.
//!
//! Real: the handlers and routers of storage nodes, metadata service and uploader, the typed clients with their MACs
//! and encodings, the proposers, the storage engine with its log and recovery, garbage collection, the reaper, and the
//! in-memory store that passes the database's conformance suite. Simulated: how requests travel ([`network`]), what
//! disks keep ([`disks`], over the engine's memory disk), what time it is ([`clock`], tokio's paused time), what is
//! drawn at random ([`vstack_types::ambient`] inside the services, [`dice`] outside), ffmpeg (films are cut already)
//! and processes, which end in the middle of anything ([`processes`]). Not simulated: the uploader's journal and spool
//! are files of the real file system and lose nothing unsynced; and SQLite. The metadata service makes everything whole.
//! What the census says of it is held to what nodes have by [`actors::auditors`], and in the end to their disks.
//!
//! The [`observer`] sees every request and its answer before anybody else; [`invariants`] say what must always hold,
//! [`ending`] what must hold once nothing goes wrong any more, and [`closing`] what once there is nothing left to mend.
//! [`faults`] makes things go wrong, the [`supervisor`] keeps hosts running, [`actors`] want something of the cluster.
//! [`history`] puts them together.
//!
//! # How to add
//! - a **fault**: see [`faults`]; what it does when it strikes is counted as a [`Kind`], which the tests ask for;
//! - an **invariant**: a file in [`invariants`] with a function of plain data; called by the observer when a message
//!   shows it, by the sweep in [`history`] when only state does;
//! - an **actor**: a file in [`actors`] with one `async fn` that works through clients of [`world::World::outsider`],
//!   writes what it was told into the [`ledger`], and is spawned in [`history`];
//! - a **planted fault**: `vstack_types::planted!("what is done wrong")` at its place in a service, and a line in the
//!   table of `tests/planted_bugs_are_found.rs`.
//!
//! What would break determinism: threads, `HashMap` iteration, `tokio::select!` without `biased`, `rand::rng()`,
//! `Uuid::new_v4()`, `std::time::Instant` in decisions. Services take these from [`vstack_types::ambient`] and tokio.

mod actors;
mod calls;
mod clock;
mod closing;
mod command;
mod dice;
mod disks;
mod doubles;
mod ending;
mod evenness;
mod faults;
mod forms;
mod harm;
mod history;
mod hosts;
mod invariants;
mod ledger;
mod life;
mod network;
mod observer;
mod placed;
mod plan;
mod power;
mod processes;
mod recoded;
mod rot;
mod shards;
mod struck;
mod supervisor;
mod told;
mod trace;
mod world;

pub use command::{Command, explain};
pub use history::{Options, Report, run};
pub use struck::{Kind, Struck};
pub use world::Violation;
