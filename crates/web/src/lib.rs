//! `vstack web`: the page for people, the API it uses, and the gateway for players that are not smart.
//!
//! It holds no state but a few seconds of manifests and some chunks, so as many may run as are wanted. What it serves
//! of a video was verified chunk by chunk by the smart client's own fetcher. It decides nothing about placement, votes
//! or ingest: what is not media is passed on to the services that do.

mod consensus;
mod download;
mod gateway;
mod health;
mod hls;
mod manifests;
mod page;
mod presentation;
mod proxy;
mod room;
mod service;
mod settings;
mod upload;
mod upstream;

pub use service::{run, serve_on};
pub use settings::Settings;
