//! What a player is told about a video, made from what was learned. Pure.

use vstack_api::{
    WallTime,
    metadata::{ChunkPlace, Fragment, Fragments, Manifest, ManifestChunk, ManifestInit, RedundancyMode},
};
use vstack_chunkpaxos::{Layout, Placement};
use vstack_types::{
    ChunkId, Digest,
    limits::{CHUNK_BYTES_MAX, SEGMENT_SECONDS_NOMINAL},
};

use crate::{
    registry::ByDisk,
    store::{Chunk, Node, Video},
};

/// Which of a node's URLs a manifest names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UrlKind {
    /// For browsers and outside clients.
    Public,
    /// For services.
    Internal,
}

impl UrlKind {
    /// This URL of `node`.
    pub fn of(self, node: &Node) -> &str {
        match self {
            Self::Public => &node.public_url,
            Self::Internal => &node.url,
        }
    }
}

/// The nodes that hold a chunk whole, in placement order: URLs beside ids. Nodes that are not registered any more
/// are left out. While a placement is joint both halves count, the new one first.
pub fn replicas(placement: &Placement, nodes: &ByDisk<'_>, urls: UrlKind) -> (Vec<String>, Vec<String>) {
    let mut holders = Vec::new();
    for layout in std::iter::once(&placement.layout).chain(&placement.prev) {
        if let Layout::Replicated { nodes: members } = layout {
            for member in members {
                if !holders.contains(member) {
                    holders.push(*member);
                }
            }
        }
    }
    let known = || holders.iter().filter_map(|holder| nodes.get(holder.uuid));
    (
        known().map(|node| urls.of(node).to_owned()).collect(),
        known().map(|node| node.label.clone()).collect(),
    )
}

/// Where the shards of a chunk are; none when neither half of its placement is coded. Nodes that are not registered any
/// more are left out. Halves of different codes cannot be told as one: then it is the new one.
pub fn fragments(id: &ChunkId, placement: &Placement, nodes: &ByDisk<'_>, urls: UrlKind) -> Option<Fragments> {
    let mut fragments: Option<Fragments> = None;
    for layout in std::iter::once(&placement.layout).chain(&placement.prev) {
        let Layout::Coded { data, parity, shards } = layout else {
            continue;
        };
        let of = fragments.get_or_insert_with(|| Fragments {
            data_shards: *data,
            parity_shards: *parity,
            size_bytes: placement.size.div_ceil(u64::from((*data).max(1))),
            shards: Vec::new(),
        });
        if (of.data_shards, of.parity_shards) != (*data, *parity) {
            continue;
        }
        for shard in shards {
            let Some(node) = nodes.get(shard.node.uuid) else {
                continue;
            };
            let fragment = Fragment {
                fragment_id: format!("{id}-frag-{}", shard.index),
                fragment_index: shard.index,
                checksum: shard.sha256.prefixed(),
                node_url: urls.of(node).to_owned(),
                node_id: node.label.clone(),
            };
            if !of.shards.contains(&fragment) {
                of.shards.push(fragment);
            }
        }
        of.shards.sort_by_key(|fragment| fragment.fragment_index);
    }
    fragments
}

/// The mode a placement is in, or on its way to; none when it is deleted.
pub const fn mode(placement: &Placement) -> Option<RedundancyMode> {
    match placement.layout {
        Layout::Replicated { .. } => Some(RedundancyMode::Replication),
        Layout::Coded { .. } => Some(RedundancyMode::ErasureCoding),
        Layout::Deleted { .. } => None,
    }
}

/// The manifest of `video`. `chunks` are in playing order, the init segment first; the manifest names those that can
/// be played now: without gaps from the first one on, and for an upload of ours not before the init segment is there.
pub fn build(video: &Video, chunks: &[Chunk], nodes: &ByDisk<'_>, urls: UrlKind) -> Manifest {
    let init = chunks
        .iter()
        .find(|chunk| chunk.place.is_none())
        .filter(|chunk| mode(&chunk.placement).is_some());
    let init = init.map(|chunk| {
        let (replicas, replica_ids) = replicas(&chunk.placement, nodes, urls);
        ManifestInit {
            chunk_id: chunk.id.clone(),
            size_bytes: chunk.placement.size,
            checksum: chunk.placement.sha256.prefixed(),
            replicas,
            replica_ids,
        }
    });
    let mut listed = Vec::new();
    if init.is_some() || video.owner.is_none() {
        let placed = chunks.iter().filter_map(|chunk| Some((chunk, chunk.place?)));
        for (expected, (chunk, place)) in (0..).zip(placed) {
            let Some(mode) = mode(&chunk.placement).filter(|_| place.sequence_num == expected) else {
                break;
            };
            listed.push(entry(chunk, place, mode, nodes, urls));
        }
    }
    Manifest {
        video_id: video.id,
        title: video.title.clone(),
        duration_sec: video.duration_sec,
        total_chunks: u32::try_from(listed.len()).unwrap_or(u32::MAX),
        chunk_duration_sec: SEGMENT_SECONDS_NOMINAL,
        chunk_size_bytes: CHUNK_BYTES_MAX as u64,
        created_at: WallTime(video.created_at),
        status: video.status,
        version: video.version,
        codecs: video.codecs.clone(),
        width: video.width,
        height: video.height,
        init,
        chunks: listed,
    }
}

fn entry(chunk: &Chunk, place: ChunkPlace, mode: RedundancyMode, nodes: &ByDisk<'_>, urls: UrlKind) -> ManifestChunk {
    let (replicas, replica_ids) = replicas(&chunk.placement, nodes, urls);
    ManifestChunk {
        chunk_id: chunk.id.clone(),
        sequence_num: place.sequence_num,
        size_bytes: chunk.placement.size,
        checksum: chunk.placement.sha256.prefixed(),
        redundancy_mode: mode,
        replicas,
        replica_ids,
        fragments: fragments(&chunk.id, &chunk.placement, nodes, urls),
        segment: place.segment,
        start_sec: place.start_sec,
        duration_sec: place.duration_sec,
        independent: place.independent,
    }
}

/// What a manifest's answer is tagged with: its version, and a digest of the addresses it names, which change
/// without it when a node moves.
pub fn entity_tag(version: u64, nodes: &[Node], urls: UrlKind) -> String {
    let mut addresses = String::new();
    for node in nodes.iter().filter(|node| node.acceptor.is_some()) {
        addresses.push_str(&node.label);
        addresses.push('\n');
        addresses.push_str(urls.of(node));
        addresses.push('\n');
    }
    let digest = Digest::of(addresses.as_bytes()).to_string();
    format!("\"{version}-{}\"", &digest[..12])
}

/// Where a chunk is shown that nobody measured: segments of nominal length, one chunk each, cut off at the end of
/// the video when that is known.
pub fn nominal_place(sequence_num: u32, video_duration_sec: f64) -> ChunkPlace {
    let nominal = f64::from(SEGMENT_SECONDS_NOMINAL);
    let start_sec = f64::from(sequence_num) * nominal;
    let left = video_duration_sec - start_sec;
    ChunkPlace {
        sequence_num,
        segment: sequence_num,
        start_sec,
        duration_sec: if left > 0.0 { left.min(nominal) } else { nominal },
        independent: true,
    }
}

#[cfg(test)]
mod tests {
    use vstack_chunkpaxos::Shard;
    use vstack_types::{NodeRef, NodeUuid, ProcessUuid, Timestamp, VideoId};

    use super::*;
    use crate::store::NewVideo;

    fn node(n: u8) -> Node {
        Node {
            label: format!("node-{n}"),
            url: format!("http://in:{n}"),
            public_url: format!("http://out:{n}"),
            acceptor: Some(NodeRef::first(NodeUuid::from_bytes([n; 16]))),
            log_seq: 0,
            process: None,
            zone: String::new(),
            version: String::new(),
            last_heartbeat: None,
            disk_percent: 0.0,
            disk_free: None,
            chunk_count: 0,
            trusted: true,
            went_back: false,
            role: vstack_api::metadata::NodeRole::Active,
        }
    }

    fn placement(nodes: &[u8]) -> Placement {
        let nodes = nodes
            .iter()
            .map(|n| NodeRef::first(NodeUuid::from_bytes([*n; 16])))
            .collect();
        Placement {
            version: 1,
            size: 9,
            sha256: Digest::of(b"x"),
            layout: Layout::Replicated { nodes },
            prev: None,
            back: false,
        }
    }

    /// Index, node and bytes of each shard.
    fn coded(shards: &[(u8, u8, &str)]) -> Layout {
        let shard = |(index, node, bytes): &(u8, u8, &str)| Shard {
            index: *index,
            node: NodeRef::first(NodeUuid::from_bytes([*node; 16])),
            sha256: Digest::of(bytes.as_bytes()),
        };
        Layout::Coded {
            data: 2,
            parity: 1,
            shards: shards.iter().map(shard).collect(),
        }
    }

    fn video(owner: Option<ProcessUuid>) -> Video {
        let id = VideoId::from_bytes([7; 16]);
        NewVideo {
            id,
            title: "t".into(),
            duration_sec: 25.0,
            owner,
            override_mode: None,
            created_at: Timestamp(0),
        }
        .begin()
    }

    fn chunk(sequence: u32) -> Chunk {
        let id = ChunkId::of_video(VideoId::from_bytes([7; 16]), sequence);
        Chunk {
            id,
            place: Some(nominal_place(sequence, 25.0)),
            placement: placement(&[3, 1, 9]),
        }
    }

    fn init() -> Chunk {
        Chunk {
            id: ChunkId::init_of_video(VideoId::from_bytes([7; 16])),
            place: None,
            placement: placement(&[1]),
        }
    }

    #[test]
    fn replicas_stand_in_placement_order_with_the_urls_asked_for() {
        let nodes = [node(1), node(2), node(3)];
        let by_disk = ByDisk::new(&nodes);
        let (urls, ids) = replicas(&placement(&[3, 1, 9]), &by_disk, UrlKind::Public);
        assert_eq!(
            (urls, ids),
            (
                vec!["http://out:3".to_owned(), "http://out:1".to_owned()],
                vec!["node-3".to_owned(), "node-1".to_owned()]
            )
        );
        let joint = Placement {
            prev: Some(placement(&[2, 3]).layout),
            ..placement(&[1, 2])
        };
        let (urls, _) = replicas(&joint, &by_disk, UrlKind::Internal);
        assert_eq!(urls, ["http://in:1", "http://in:2", "http://in:3"]);
    }

    #[test]
    fn while_a_chunk_is_moved_both_halves_are_named_and_no_two_shards_taken_for_one() {
        let nodes = [node(1), node(2), node(3)];
        let by_disk = ByDisk::new(&nodes);
        let named = |placement: &Placement| {
            let id = chunk(0).id;
            let (replicas, _) = replicas(placement, &by_disk, UrlKind::Public);
            let fragments = fragments(&id, placement, &by_disk, UrlKind::Public).expect("it has shards");
            let of = fragments.shards.iter().map(|shard| {
                assert_eq!(shard.fragment_id, format!("{id}-frag-{}", shard.fragment_index));
                (shard.fragment_index, shard.node_url.clone(), shard.checksum.clone())
            });
            (replicas, of.collect::<Vec<_>>())
        };
        let at = |index: u8, n: u8, bytes: &str| {
            (
                index,
                format!("http://out:{n}"),
                Digest::of(bytes.as_bytes()).prefixed(),
            )
        };
        let before = [(0, 1, "a"), (1, 2, "wrong"), (2, 3, "c")];
        // Shard 1 is made anew where it is, and 2 goes to another node.
        let corrected = Placement {
            layout: coded(&[(0, 1, "a"), (1, 2, "b"), (2, 1, "c")]),
            prev: Some(coded(&before)),
            ..placement(&[])
        };
        let listed = vec![
            at(0, 1, "a"),
            at(1, 2, "b"),
            at(1, 2, "wrong"),
            at(2, 1, "c"),
            at(2, 3, "c"),
        ];
        assert_eq!(named(&corrected), (vec![], listed));
        // It becomes shards, and copies again.
        let copies = Layout::Replicated {
            nodes: vec![NodeRef::first(NodeUuid::from_bytes([3; 16]))],
        };
        for (layout, prev) in [(coded(&before), copies.clone()), (copies, coded(&before))] {
            let changed = Placement {
                layout,
                prev: Some(prev),
                ..placement(&[])
            };
            let listed = vec![at(0, 1, "a"), at(1, 2, "wrong"), at(2, 3, "c")];
            assert_eq!(named(&changed), (vec!["http://out:3".to_owned()], listed));
        }
    }

    #[test]
    fn a_manifest_lists_what_can_be_played_from_the_beginning() {
        let nodes = [node(1)];
        let by_disk = ByDisk::new(&nodes);
        let listed = |video: &Video, chunks: &[Chunk]| build(video, chunks, &by_disk, UrlKind::Public).total_chunks;
        let (script, owned) = (video(None), video(Some(ProcessUuid::random())));
        assert_eq!(listed(&script, &[chunk(0), chunk(1), chunk(3)]), 2);
        assert_eq!(listed(&script, &[chunk(1)]), 0);
        assert_eq!(
            listed(&owned, &[chunk(0), chunk(1)]),
            0,
            "nothing decodes without the init segment"
        );
        assert_eq!(listed(&owned, &[init(), chunk(0), chunk(1)]), 2);
        let tombstone = Placement {
            layout: Layout::Deleted { nodes: vec![] },
            ..placement(&[1])
        };
        assert_eq!(
            listed(
                &owned,
                &[
                    init(),
                    chunk(0),
                    Chunk {
                        placement: tombstone,
                        ..chunk(1)
                    }
                ]
            ),
            1
        );
    }

    #[test]
    fn nominal_places_end_with_the_video() {
        let shown = |sequence| {
            (
                nominal_place(sequence, 25.0).start_sec,
                nominal_place(sequence, 25.0).duration_sec,
            )
        };
        assert_eq!([shown(0), shown(2), shown(3)], [(0.0, 10.0), (20.0, 5.0), (30.0, 10.0)]);
    }

    #[test]
    fn the_entity_tag_follows_version_and_addresses() {
        let tag = |version, nodes: &[Node], urls| entity_tag(version, nodes, urls);
        let before = tag(3, &[node(1), node(2)], UrlKind::Public);
        assert!(before.starts_with("\"3-"));
        assert_ne!(before, tag(4, &[node(1), node(2)], UrlKind::Public));
        assert_ne!(before, tag(3, &[node(1), node(2)], UrlKind::Internal));
        let moved = Node {
            public_url: "http://elsewhere".into(),
            ..node(2)
        };
        assert_ne!(before, tag(3, &[node(1), moved], UrlKind::Public));
        let busier = Node {
            chunk_count: 9,
            ..node(2)
        };
        assert_eq!(before, tag(3, &[node(1), busier], UrlKind::Public));
    }
}
