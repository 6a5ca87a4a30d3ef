//! Groups whose answer is lost, and groups that are too small.

use std::sync::{Arc, Mutex, MutexGuard};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    response::Response,
};
use tokio::sync::watch;
use vstack_api::{
    metadata::{Group, RequestGroup},
    uploader::UploadStage,
};
use vstack_types::NodeUuid;

use crate::{node::Fault, support::Cluster};

/// Stands before the metadata service. A member of the first group is full from then on, and of the first answer about
/// a later group only the head arrives.
struct Forgetful {
    metadata: String,
    http: reqwest::Client,
    faults: Vec<(NodeUuid, watch::Sender<Fault>)>,
    /// Requests for later groups that the metadata service granted.
    granted: Mutex<Vec<RequestGroup>>,
}

impl Forgetful {
    async fn start(cluster: &mut Cluster) -> Arc<Self> {
        let faults = cluster.nodes.iter().map(|node| (node.me.uuid, node.faults()));
        let forgetful = Arc::new(Self {
            metadata: cluster.metadata_url.clone(),
            http: cluster.http.clone(),
            faults: faults.collect(),
            granted: Mutex::default(),
        });
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        cluster.metadata_url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(pass).with_state(Arc::clone(&forgetful));
        // Ends with the test's runtime.
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        forgetful
    }

    fn granted(&self) -> MutexGuard<'_, Vec<RequestGroup>> {
        self.granted.lock().unwrap()
    }

    /// Whether the answer about a group is lost.
    fn loses(&self, asked: &Bytes, said: &Bytes) -> bool {
        let asked: RequestGroup = serde_json::from_slice(asked).unwrap();
        let group: Group = serde_json::from_slice(said).unwrap();
        if asked.from_seq == 0 {
            let victim = group.members[0].node.uuid;
            let (_, fault) = self.faults.iter().find(|(node, _)| *node == victim).unwrap();
            fault.send_replace(Fault::Full);
            return false;
        }
        self.granted().push(asked);
        self.granted().len() == 1
    }
}

async fn pass(State(forgetful): State<Arc<Forgetful>>, request: Request) -> Response {
    let (parts, asked) = request.into_parts();
    let asked = to_bytes(asked, 4 << 20).await.unwrap();
    let about_a_group = parts.uri.path().ends_with("/group");
    let call = forgetful
        .http
        .request(parts.method, format!("{}{}", forgetful.metadata, parts.uri))
        .headers(parts.headers)
        .body(asked.clone());
    let answer = call.send().await.unwrap();
    let (status, headers) = (answer.status(), answer.headers().clone());
    let said = answer.bytes().await.unwrap();
    let lost = about_a_group && status.is_success() && forgetful.loses(&asked, &said);
    let body = if lost {
        let broken = futures_util::stream::iter([Err::<Bytes, _>(std::io::Error::other("lost"))]);
        Body::from_stream(broken)
    } else {
        Body::from(said)
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_was_made_is_used_even_when_the_answer_is_lost() {
    let mut cluster = Cluster::start(4).await;
    let clip = cluster.clip().await;
    let forgetful = Forgetful::start(&mut cluster).await;
    let uploader = cluster.uploader(&["--chunk-size", "65536"]).await;
    let accepted = uploader.begin(clip).await;
    let status = uploader.ended(&accepted.upload_session_id).await;
    assert_eq!((status.status, status.error.as_deref()), (UploadStage::Completed, None));
    let granted = std::mem::take(&mut *forgetful.granted());
    assert!(granted.len() > 1, "{granted:?}");
    assert!(!granted[0].avoid.is_empty());
    let asked = |at: usize| (granted[at].from_seq, &granted[at].avoid);
    assert_eq!(asked(0), asked(1), "the same is asked for again");
    // The chunks from there on are where the group is, and not on the node that failed.
    let failed = granted[0].avoid[0];
    let failed = cluster.nodes.iter().find(|node| node.me.uuid == failed).unwrap();
    let manifest = cluster.metadata.manifest(accepted.video_id).await.unwrap();
    let later = &manifest.chunks[granted[0].from_seq as usize];
    assert!(later.replicas.len() == 3 && !later.replicas.contains(&failed.url));
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_with_fewer_nodes_than_wanted_are_shown_also_by_the_next_process() {
    let cluster = Cluster::start(2).await;
    let uploader = cluster.uploader(&[]).await;
    let accepted = uploader.begin(cluster.clip().await).await;
    let session = accepted.upload_session_id;
    let status = uploader.ended(&session).await;
    assert_eq!((status.status, status.error.as_deref()), (UploadStage::Completed, None));
    // The init segment too.
    assert_eq!(status.under_replicated, status.total_chunks + 1);
    uploader.stop().await;
    let uploader = cluster.uploader(&[]).await;
    assert_eq!(
        uploader.status(&session).await.under_replicated,
        status.under_replicated
    );
}
