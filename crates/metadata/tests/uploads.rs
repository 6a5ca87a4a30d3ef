//! The owner's calls: groups, decisions, completion.

mod cluster;

use cluster::{Service, Upload, status};
use reqwest::{Method, StatusCode, header};
use serde_json::json;
use vstack_api::{
    ErrorCode,
    auth::header_bytes,
    metadata::{DecidedBatch, DecidedChunk, Group, Heartbeat, Manifest, VideoStatus},
};
use vstack_types::{ProcessUuid, VideoId};

#[tokio::test]
async fn an_upload_goes_from_group_to_manifest() {
    let service = Service::start().await;
    let nodes = service.with_nodes(4).await;
    let upload = Upload::begin(&service).await;
    let group = upload.group(0, &[]).await.expect("a group");
    assert_eq!((group.from_seq, group.members.len()), (0, 3));
    assert_eq!(
        upload.group(0, &[&nodes[0], &nodes[1]]).await.expect("the same"),
        group,
        "the first one stands"
    );
    upload.put(None, &group, &nodes);
    upload.tell(&[None, Some(0)], &group).await.expect("learned");
    upload.tell(&[Some(0)], &group).await.expect("learned again");
    assert_eq!(status(upload.complete(2).await), 409, "chunk 1 is missing");
    // A member is gone: the chunks from here on get other nodes.
    let gone = nodes
        .iter()
        .find(|node| node.me == group.members[0].node)
        .expect("a member");
    let next = upload.group(1, &[gone]).await.expect("a second group");
    assert!(
        next.members.len() == 3 && next.members.iter().all(|member| member.node != gone.me),
        "{next:?}"
    );
    upload.tell(&[Some(1)], &next).await.expect("learned");
    upload.group(9, &[]).await.expect("a third group");
    assert_eq!(status(upload.group(5, &[]).await), 409, "chunk 9 has its nodes");
    assert_eq!(upload.complete(2).await.expect("whole"), VideoStatus::Active);
    assert_eq!(upload.complete(2).await.expect("and again"), VideoStatus::Active);

    let url = format!("{}/manifest/{}", service.url, upload.video);
    let answer = service.http.get(&url).send().await.expect("an answer");
    let tag = answer.headers()[header::ETAG].clone();
    let manifest: Manifest = answer.json().await.expect("a manifest");
    assert_eq!(
        (manifest.status, manifest.total_chunks, manifest.duration_sec),
        (VideoStatus::Active, 2, 8.0)
    );
    assert_eq!((manifest.width, manifest.codecs.as_str()), (640, "avc1.640028"));
    let init = manifest.init.expect("an init segment");
    assert_eq!(init.chunk_id, upload.chunk(None));
    let labels = |group: &Group| -> Vec<String> {
        let label = |node| {
            nodes
                .iter()
                .find(|known| known.me == node)
                .expect("known")
                .label
                .clone()
        };
        group.members.iter().map(|member| label(member.node)).collect()
    };
    assert_eq!(
        (&manifest.chunks[0].replica_ids, &manifest.chunks[1].replica_ids),
        (&labels(&group), &labels(&next))
    );
    let again = service
        .http
        .get(&url)
        .header(header::IF_NONE_MATCH, tag)
        .send()
        .await
        .expect("an answer");
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    let other = service
        .http
        .get(&url)
        .header(header::IF_NONE_MATCH, "\"0-0\"")
        .send()
        .await
        .expect("an answer");
    assert_eq!(other.status(), StatusCode::OK);
    service.stop().await;
}

/// The answer to a first request may be lost. Who then heard that there is no such group would send the chunk to the
/// nodes of the one before, beside those whom everybody else takes for its acceptors.
#[tokio::test]
async fn a_group_that_stands_is_still_told_after_its_video_ended() {
    let service = Service::start().await;
    let nodes = service.with_nodes(4).await;
    let upload = Upload::begin(&service).await;
    upload.group(0, &[]).await.expect("a group");
    let stands = upload.group(3, &[&nodes[0]]).await.expect("a second group");
    let (code, _) = service
        .call(Method::DELETE, &format!("/video/{}", upload.video), None)
        .await;
    assert_eq!(code, 200);
    assert_eq!(upload.group(3, &[&nodes[0]]).await.expect("the same"), stands);
    assert_eq!(
        status(upload.group(4, &[]).await),
        409,
        "there is none, and none is made"
    );
    service.stop().await;
}

#[tokio::test]
async fn only_the_owner_under_the_secret_is_listened_to() {
    let service = Service::start().await;
    let _nodes = service.with_nodes(3).await;
    let upload = Upload::begin(&service).await;
    let group = upload.group(0, &[]).await.expect("a group");
    let stranger = Upload {
        client: service.cluster(),
        owner: ProcessUuid::random(),
        video: upload.video,
    };
    assert_eq!(status(stranger.group(3, &[]).await), 403);
    assert_eq!(status(stranger.tell(&[None], &group).await), 403);
    assert_eq!(status(stranger.complete(1).await), 403);
    let outsider = Upload {
        client: service.client_with(Some("not the secret at all")),
        ..stranger
    };
    assert_eq!(status(outsider.group(3, &[]).await), 401);
    assert_eq!(status(outsider.client.fail(upload.video, "spite").await), 401);
    let unsigned = service
        .post(&format!("/video/{}/fail", upload.video), json!({ "reason": "spite" }))
        .await;
    assert_eq!(unsigned.0, StatusCode::UNAUTHORIZED);
    let by_hand = json!({ "status": "active" });
    let path = format!("/video/{}/status", upload.video);
    assert_eq!(
        service.call(Method::PATCH, &path, Some(by_hand)).await.0,
        StatusCode::CONFLICT
    );
    service.stop().await;
}

#[tokio::test]
async fn what_cannot_have_been_decided_is_not_learned() {
    let service = Service::start().await;
    let _nodes = service.with_nodes(4).await;
    let upload = Upload::begin(&service).await;
    let group = upload.group(0, &[]).await.expect("a group");
    let elsewhere = Group {
        members: group.members[..2].to_vec(),
        ..group.clone()
    };
    assert_eq!(
        status(upload.tell(&[Some(0)], &elsewhere).await),
        409,
        "not on the nodes of its group"
    );
    let other = Upload {
        client: service.cluster(),
        owner: upload.owner,
        video: VideoId::generate(),
    };
    let foreign = DecidedChunk {
        chunk_id: other.chunk(Some(0)),
        placement: header_bytes::encode(&Upload::placement(Some(0), &group).encode()),
        place: None,
    };
    let garbage = DecidedChunk {
        chunk_id: upload.chunk(None),
        placement: "AAAA".into(),
        place: None,
    };
    for chunk in [foreign, garbage] {
        let batch = DecidedBatch {
            owner: upload.owner,
            chunks: vec![chunk],
        };
        assert_eq!(status(upload.client.decided(upload.video, &batch).await), 400);
    }
    assert_eq!(status(other.tell(&[None], &group).await), 404);
    service.stop().await;
}

#[tokio::test]
async fn trouble_that_passes_never_makes_a_group_smaller() {
    let service = Service::start().await;
    let nodes = service.with_nodes(3).await;
    let upload = Upload::begin(&service).await;
    let group = upload.group(0, &[]).await.expect("a group");
    let two = [&nodes[1], &nodes[2]];
    let kept = upload.group(1, &two).await.expect("the old group stays");
    assert_eq!(kept.members, group.members);
    assert_eq!(
        upload.group(0, &two).await.expect("asked again"),
        group,
        "what stands is told, whoever is up"
    );
    // A request that comes late, or twice, finds for the same chunks what they were sent to.
    let late = upload.group(1, &[]).await.expect("the group that stands");
    assert_eq!((late.from_seq, late.members), (1, group.members));
    let next = upload.group(2, &[&nodes[1]]).await.expect("a majority is up");
    assert_eq!(next.members.len(), 3);
    service.stop().await;
}

/// With two of three nodes being emptied, a single copy would be all there is of what was acknowledged.
#[tokio::test]
async fn nodes_that_are_emptied_fill_a_group_up() {
    let service = Service::start().await;
    let _nodes = service.with_nodes(3).await;
    for drained in ["node-1", "node-2"] {
        let path = format!("/nodes/{drained}/drain");
        assert_eq!(service.call(Method::POST, &path, None).await.0, StatusCode::OK);
    }
    let upload = Upload::begin(&service).await;
    assert_eq!(upload.group(0, &[]).await.expect("a group").members.len(), 3);
    service.stop().await;
}

#[tokio::test]
async fn a_group_is_refused_when_too_few_disks_have_room() {
    let service = Service::start().await;
    let nodes = service.with_nodes(3).await;
    let fills = async |n: usize| {
        let full = Heartbeat {
            disk_usage_percent: 99.0,
            ..nodes[n].heartbeat(1)
        };
        let noted = service.cluster().heartbeat(&nodes[n].label, &full).await;
        assert!(noted.expect("noted").trusted);
    };
    let upload = Upload::begin(&service).await;
    fills(0).await;
    let two = upload.group(0, &[]).await.expect("a majority has room");
    assert_eq!(two.members.len(), 2);
    assert!(two.members.iter().all(|member| member.node != nodes[0].me), "{two:?}");
    fills(1).await;
    let other = Upload::begin(&service).await;
    let refused = other.group(0, &[]).await.expect_err("a single disk has room");
    assert_eq!(refused.code(), Some(ErrorCode::TooFewNodes));
    let said = refused.to_string();
    assert!(said.contains("1 of the 3") && said.contains("full"), "{said}");
    service.stop().await;
}

#[tokio::test]
async fn without_nodes_there_is_no_group() {
    let service = Service::start().await;
    let upload = Upload::begin(&service).await;
    assert_eq!(status(upload.group(0, &[]).await), 503);
    service.stop().await;
}
