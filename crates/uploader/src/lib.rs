//! The uploader: takes a video file in and ends with every chunk of it decided on a majority of its nodes.
//!
//! A request is received ([`receive`]) into a spool directory ([`spool`]) and looked at before it is answered; then a
//! pipeline ([`pipeline`]) cuts it and commits chunks ([`commit`], counted by [`tally`]) while later ones are still
//! being cut. What was decided is told to the learner in batches ([`news`]); copies that did not make it in time are
//! completed afterwards, for as long as this process lives ([`completer`]).
//!
//! Round 0 belongs to this process: its id is new at every start, so an upload cannot be resumed by the next one. What
//! a crash leaves behind is found at the next start ([`recovery`]), reported failed and removed.
//!
//! It knows nothing of superblocks, databases or how a video is played.

mod app;
mod commit;
mod completer;
mod cutting;
mod ending;
mod failure;
mod film;
mod grouping;
mod groups;
mod journal;
mod news;
mod parcel;
mod pipeline;
mod proposing;
mod receive;
mod records;
mod recovery;
mod rest;
mod routes;
mod run;
mod session;
mod sessions;
mod settings;
mod spent;
mod spool;
mod tally;

pub use film::Film;
pub use news::NODE_BATCHES_MAX;
pub use pipeline::WINDOW;
pub use run::{Parts, Uploader, run, run_on};
pub use settings::Settings;
