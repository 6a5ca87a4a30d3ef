//! An owner of uploads, in the tests.

use vstack_api::{
    auth::header_bytes,
    metadata::{ChunkPlace, CompleteVideo, CreateVideo, DecidedBatch, DecidedChunk, Group, RequestGroup, VideoStatus},
};
use vstack_chunkpaxos::{Layout, Placement, Reply};
use vstack_client::{ClientError, MetadataClient};
use vstack_types::{ChunkId, Digest, ProcessUuid, VideoId};

use super::{Service, TestNode};

/// An uploader, as far as the metadata service and the nodes see one.
pub struct Upload {
    pub client: MetadataClient,
    pub owner: ProcessUuid,
    pub video: VideoId,
}

impl Upload {
    pub async fn begin(service: &Service) -> Self {
        let (client, owner) = (service.cluster(), ProcessUuid::random());
        let video = CreateVideo {
            title: "upload".into(),
            duration_sec: 0.0,
            owner: Some(owner),
            redundancy_mode: None,
        };
        let video = client.create_video(&video).await.expect("created").video_id;
        Self { client, owner, video }
    }

    pub async fn group(&self, from_seq: u32, avoid: &[&TestNode]) -> Result<Group, ClientError> {
        let avoid = avoid.iter().map(|node| node.me.uuid).collect();
        self.client
            .request_group(
                self.video,
                &RequestGroup {
                    owner: self.owner,
                    from_seq,
                    avoid,
                },
            )
            .await
    }

    pub fn chunk(&self, sequence: Option<u32>) -> ChunkId {
        sequence.map_or_else(
            || ChunkId::init_of_video(self.video),
            |sequence| ChunkId::of_video(self.video, sequence),
        )
    }

    pub fn bytes(sequence: Option<u32>) -> Vec<u8> {
        format!("bytes of {sequence:?}").into_bytes()
    }

    pub fn placement(sequence: Option<u32>, group: &Group) -> Placement {
        let bytes = Self::bytes(sequence);
        Placement {
            version: 1,
            size: bytes.len() as u64,
            sha256: Digest::of(&bytes),
            layout: Layout::Replicated {
                nodes: group.members.iter().map(|member| member.node).collect(),
            },
            prev: None,
            back: false,
        }
    }

    /// Round 0: the bytes with the vote, to each of `nodes`.
    pub fn put(&self, sequence: Option<u32>, group: &Group, nodes: &[TestNode]) {
        let (chunk, placement) = (self.chunk(sequence), Self::placement(sequence, group));
        for node in nodes
            .iter()
            .filter(|node| group.members.iter().any(|member| member.node == node.me))
        {
            let reply = node.put0(self.owner, &chunk, &placement, &Self::bytes(sequence));
            assert!(matches!(reply, Reply::Accepted { .. }), "{reply:?}");
        }
    }

    pub async fn tell(&self, sequences: &[Option<u32>], group: &Group) -> Result<(), ClientError> {
        let chunk = |sequence: &Option<u32>| DecidedChunk {
            chunk_id: self.chunk(*sequence),
            placement: header_bytes::encode(&Self::placement(*sequence, group).encode()),
            place: sequence.map(|sequence_num| ChunkPlace {
                sequence_num,
                segment: sequence_num,
                start_sec: f64::from(sequence_num) * 4.0,
                duration_sec: 4.0,
                independent: true,
            }),
        };
        let batch = DecidedBatch {
            owner: self.owner,
            chunks: sequences.iter().map(chunk).collect(),
        };
        self.client.decided(self.video, &batch).await
    }

    pub async fn complete(&self, total_chunks: u32) -> Result<VideoStatus, ClientError> {
        let complete = CompleteVideo {
            owner: self.owner,
            total_chunks,
            duration_sec: 8.0,
            codecs: "avc1.640028".into(),
            width: 640,
            height: 360,
        };
        self.client.complete(self.video, &complete).await.map(|set| set.status)
    }
}

/// The status of a refusal.
pub fn status<T: std::fmt::Debug>(result: Result<T, ClientError>) -> u16 {
    let error = result.expect_err("refused");
    error.status().unwrap_or_else(|| panic!("no refusal: {error}"))
}
