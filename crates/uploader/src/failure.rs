//! Why an upload fails, worded for the person who sent it.

use vstack_client::ClientError;
use vstack_media::ingest::IngestError;
use vstack_types::ChunkId;

/// Why an upload does not end in a video.
#[derive(Debug, thiserror::Error)]
pub enum UploadFailure {
    /// The file cannot be cut.
    #[error("{}", chain(.0))]
    Ingest(#[source] IngestError),
    /// The cutting task ended badly.
    #[error("the file could not be converted (internal error)")]
    IngestTask,
    /// A chunk could not be made shards of.
    #[error("a chunk could not be coded: {0}")]
    Coding(std::io::Error),
    /// A chunk found no majority.
    #[error("{chunk} could not be stored on a majority of its {nodes} nodes: {reason}")]
    NoMajority {
        /// Which.
        chunk: ChunkId,
        /// How many nodes it was meant for.
        nodes: usize,
        /// What the nodes said.
        reason: String,
    },
    /// Its shards are there, and too few of the nodes that have them say so.
    #[error("{chunk} could not be settled: too few of its {nodes} nodes answer for their shards")]
    Unsettled {
        /// Which.
        chunk: ChunkId,
        /// How many nodes it was meant for.
        nodes: usize,
    },
    /// Something else was decided for one of our chunk ids.
    #[error("{chunk} was decided otherwise: {reason}")]
    Contested {
        /// Which.
        chunk: ChunkId,
        /// How.
        reason: String,
    },
    /// The metadata service did not do its part.
    #[error("the metadata service {what}: {source}")]
    Metadata {
        /// What it did not do.
        what: &'static str,
        /// Why.
        source: ClientError,
    },
    /// Our own disk failed.
    #[error("the uploader's disk failed: {0}")]
    Journal(std::io::Error),
    /// Its owner gave it up.
    #[error("the upload was cancelled")]
    Cancelled,
    /// This process stops.
    #[error("the uploader was stopped while this upload was in progress; upload the file again")]
    Stopped,
}

/// An error and its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = error.source();
    }
    text
}
