//! Raft's messages to other peers: the message as JSON, the chunks of its entries as they are behind it.

use openraft::{
    BasicNode, RaftNetwork, RaftNetworkFactory,
    error::{InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
        VoteResponse,
    },
};
use serde::{Serialize, de::DeserializeOwned};

use super::types::{PeerId, Types, chunks};
use crate::peer::caller::{CallError, Caller};

/// Path of an append that carries entries.
pub const APPEND: &str = "/raft/append";
/// Path of an append without entries: a heartbeat, or news of what is committed.
pub const HEARTBEAT: &str = "/raft/heartbeat";
/// Path of a request for a vote.
pub const VOTE: &str = "/raft/vote";
/// Path of a part of a snapshot.
pub const SNAPSHOT: &str = "/raft/snapshot";

/// Makes [`Peer`]s.
#[derive(Clone)]
pub struct Network(pub Caller);

/// Another peer.
pub struct Peer {
    caller: Caller,
    id: PeerId,
    url: String,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: PeerId, node: &BasicNode) -> Peer {
        Peer {
            caller: self.0.clone(),
            id: target,
            url: node.addr.clone(),
        }
    }
}

type RpcError<E = openraft::error::Infallible> = RPCError<PeerId, BasicNode, RaftError<PeerId, E>>;

impl Peer {
    async fn ask<Q, A, E>(&self, path: &str, request: &Q, payload: Vec<bytes::Bytes>) -> Result<A, RpcError<E>>
    where
        Q: Serialize + Sync,
        A: DeserializeOwned,
        E: std::error::Error + DeserializeOwned,
    {
        let answer: Result<Result<A, RaftError<PeerId, E>>, CallError> =
            self.caller.call(&self.url, path, request, payload).await;
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(RPCError::RemoteError(RemoteError::new(self.id, error))),
            Err(error @ CallError::Silent { .. }) => Err(RPCError::Unreachable(Unreachable::new(&error))),
            Err(error) => Err(RPCError::Network(NetworkError::new(&error))),
        }
    }
}

impl RaftNetwork<Types> for Peer {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<PeerId>, RpcError> {
        let chunks = request.entries.iter().flat_map(chunks);
        let payload = chunks.filter_map(|chunk| Some(chunk.item.as_ref()?.bytes().clone()));
        let path = if request.entries.is_empty() { HEARTBEAT } else { APPEND };
        self.ask(path, &request, payload.collect()).await
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<Types>,
        _option: RPCOption,
    ) -> Result<InstallSnapshotResponse<PeerId>, RpcError<InstallSnapshotError>> {
        self.ask(SNAPSHOT, &request, Vec::new()).await
    }

    async fn vote(
        &mut self,
        request: VoteRequest<PeerId>,
        _option: RPCOption,
    ) -> Result<VoteResponse<PeerId>, RpcError> {
        self.ask(VOTE, &request, Vec::new()).await
    }
}
