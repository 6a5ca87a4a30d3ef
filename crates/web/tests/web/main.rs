//! The web service over real sockets, in front of services that do as the tests say.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod calls_are_passed_on;
mod chunks_in_shards;
mod fakes;
mod pages_of_other_origins;
mod videos_are_served_whole;
