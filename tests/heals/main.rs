//! A cluster that heals itself, with real processes: nodes die, come and go while people watch and upload, and everything
//! is whole again without a command; films become shards and copies again. Small in `make test`: a full disk, a wiped
//! one, a node that was added, the rate of repairs and their order, kills while films change their form; films in shards
//! while two and three of five nodes are dead, in several codes, asked for by commands and by views, at their rate.
//!
//! At full size: `make soak`, or one of them by
//! `cargo test -p vstack --release --test heals -- --ignored --nocapture --test-threads=1 NAME`.
//! `VSTACK_HEAL_GB` says how much is stored, all copies and shards together (2; `make soak` says 20 or 28 to those that need
//! it, where the disk has room), `VSTACK_HEAL_PLAYERS` how many watch (50; while processes are killed 5), `VSTACK_HEAL_KILLS`
//! how many processes are killed (200), `VSTACK_HEAL_CHUNKS` how many chunks change their form while people watch, or
//! processes are killed (1,000), and `VSTACK_HEAL_SEED` by which seed processes are killed while films do. Where there are
//! five nodes or more, a third of what is stored is shards.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../harness/mod.rs"]
mod harness;

mod by_hand;
mod by_views;
mod change_of_form;
mod changes;
mod come_and_go;
mod dead_node;
mod faults;
mod forms;
mod full_disk;
mod gateway;
mod kills;
mod load;
mod lost_nodes;
mod majority_lost;
mod newcomers;
mod originals;
mod other_codes;
mod pace_of_change;
mod planted;
mod players;
mod rate_and_order;
mod reader;
mod recovery;
mod repair_speed;
mod rest_of_film;
mod rounds;
mod sealed;
mod shards;
mod shared;
mod small_disk;
mod space;
mod time_spent;
mod wiped_disk;
