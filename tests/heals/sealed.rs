//! A node that was taken out: its process may go on for as long as it likes, and its disk votes no more.

use vstack_chunkpaxos::{Ballot, Reply, Request};
use vstack_client::{Holder, HttpClient, NodeClient, Timeouts};
use vstack_types::{ChunkId, ProcessUuid, VideoId};

use crate::{reader::runtime, shared::Filled};

/// Whether a node that was taken out, of those that the cluster began with, is sealed: on its disk, and in what it answers
/// to those who have the secret and ask for its vote. Of a chunk that there is nowhere, so that nothing comes of it.
pub fn is_sealed(filled: &Filled, label: &str) {
    let identity = filled.cluster.data().join("nodes").join(label).join("identity");
    let identity = std::fs::read_to_string(identity).unwrap();
    assert!(
        identity.lines().any(|line| line == "sealed"),
        "{label} is gone and was not sealed: {identity}"
    );
    let secret = std::fs::read_to_string(filled.cluster.data().join("cluster-secret")).unwrap();
    let client = NodeClient::new(HttpClient::new(Some(secret.parse().unwrap()), Timeouts::default()).unwrap());
    let (runtime, url) = (runtime(), filled.cluster.url(label));
    let node = runtime.block_on(client.challenge(&url)).unwrap();
    let to = Holder { node, url };
    let chunk = ChunkId::of_video(VideoId::generate(), 0);
    let ballot = Ballot {
        round: 1,
        proposer: ProcessUuid::random(),
    };
    let asked = Request::Prepare { ballot };
    let reply = runtime.block_on(client.paxos(&to, &chunk, &asked)).unwrap();
    // It says the latter once it was refused when it registered anew.
    assert!(
        matches!(reply, Reply::Nack { promised: None } | Reply::Damaged),
        "{label} was taken out, and answers {reply:?}"
    );
}
