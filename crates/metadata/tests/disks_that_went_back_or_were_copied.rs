//! A disk that lost a part of its log, and copies of one disk, over a real socket.

mod cluster;

use std::{sync::Arc, time::Duration};

use cluster::{SECRET, Service, TestNode, eventually, memory};
use tokio::sync::Barrier;
use vstack_api::metadata::{Heartbeat, NodeStatus};

async fn node_states(service: &Service) -> Vec<(String, NodeStatus, bool)> {
    let nodes = service.cluster().nodes().await.expect("the nodes");
    nodes
        .into_iter()
        .map(|node| (node.node_id, node.status, node.trusted))
        .collect()
}

#[tokio::test]
async fn a_node_whose_log_went_back_is_trusted_only_when_it_caught_up() {
    let mut before = TestNode::start(3, SECRET).await;
    let url = before.url.clone();
    let args = ["--storage-nodes", &url, "--heartbeat-interval", "1"];
    let service = Service::on(memory(), &args).await;
    eventually("the node is found", async || {
        (!node_states(&service).await.is_empty()).then_some(())
    })
    .await;
    let trusted = async || node_states(&service).await[0].2;
    let registered = service.cluster().register_node(&before.registration(10)).await;
    assert!(registered.expect("registered").trusted);
    // An old call of the node that is there, which somebody repeats.
    let refused = service.cluster().register_node(&before.registration(9)).await;
    assert_eq!(refused.expect_err("it is outdated").status(), Some(409));
    assert!(trusted().await, "nothing was said against the node");
    before.stop().await;
    let node = TestNode::start_in_place_of(&before, 3).await;
    let register = async |log_seq| service.cluster().register_node(&node.registration(log_seq)).await;
    let refused = register(9).await.expect_err("its log went back");
    assert_eq!(refused.status(), Some(409));
    assert!(refused.to_string().contains("vstack node adopt"), "{refused}");
    // Who looks at the nodes sees why.
    let told = service.cluster().node_list().await.expect("a list").refused;
    let told: Vec<_> = told
        .iter()
        .map(|told| (told.node_url.as_str(), told.why.clone()))
        .collect();
    assert_eq!(told, [(url.as_str(), refused.to_string())]);
    assert!(!trusted().await, "it would forget what it voted before");
    // Others that are not trusted are asked for their proof again; it is not, which would show its disk alone.
    let asked = node.challenges();
    service.clock.advance(Duration::from_secs(2));
    let mut lately = TestNode::start(4, SECRET).await;
    lately.stop().await;
    let ack = service.cluster().register_node(&lately.registration(1)).await;
    assert!(!ack.expect("registered").trusted);
    lately.restart().await;
    eventually("others are looked at", async || {
        node_states(&service).await[1].2.then_some(())
    })
    .await;
    assert_eq!(node.challenges(), asked);
    assert!(!trusted().await);
    assert!(register(10).await.expect("it caught up").trusted);
    assert_eq!(service.cluster().node_list().await.expect("a list").refused, []);
    service.stop().await;
}

#[tokio::test]
async fn a_disk_that_went_back_is_known_also_after_another_took_its_place() {
    let mut old = TestNode::start(1, SECRET).await;
    let service = Service::start().await;
    let cluster = service.cluster();
    assert!(
        cluster
            .register_node(&old.registration(1_000))
            .await
            .expect("registered")
            .trusted
    );
    let refused = cluster.register_node(&old.registration(400)).await;
    assert_eq!(refused.expect_err("its log went back").status(), Some(409));
    // An empty disk at the same URL; the restored one comes back at another.
    old.stop().await;
    let empty = TestNode::start_in_place_of(&old, 2).await;
    assert!(
        cluster
            .register_node(&empty.registration(0))
            .await
            .expect("registered")
            .trusted
    );
    let restored = TestNode::start(1, SECRET).await;
    for log_seq in [400, 999] {
        let refused = cluster
            .register_node(&restored.registration(log_seq))
            .await
            .expect_err("refused");
        assert!(refused.to_string().contains("went back"), "{refused}");
    }
    assert!(
        cluster
            .register_node(&restored.registration(1_000))
            .await
            .expect("it caught up")
            .trusted
    );
    service.stop().await;
}

#[tokio::test]
async fn a_heartbeat_counts_for_its_own_disk_alone() {
    let service = Service::start().await;
    let cluster = service.cluster();
    let first = TestNode::start(1, SECRET).await;
    cluster
        .register_node(&first.registration(10))
        .await
        .expect("registered");
    service.clock.advance(Duration::from_secs(40));
    let second = TestNode::start(2, SECRET).await;
    let mut claim = second.registration(1);
    claim.node_id = "node-1".into();
    assert!(cluster.register_node(&claim).await.expect("the name was free").trusted);
    // The first is there again, under the name that is another's; also without its process, as it was not said before.
    let named = first.heartbeat(5_000);
    let unnamed = Heartbeat {
        process: None,
        ..named.clone()
    };
    for beat in [named, unnamed] {
        let refused = cluster.heartbeat("node-1", &beat).await;
        assert_eq!(refused.expect_err("register again").status(), Some(404));
    }
    let refused = cluster.register_node(&first.registration(11)).await;
    assert!(
        refused
            .expect_err("an operator has to see it")
            .to_string()
            .contains("NODE_ID")
    );
    assert!(
        cluster
            .heartbeat("node-1", &second.heartbeat(2))
            .await
            .expect("noted")
            .trusted
    );
    let again = cluster.register_node(&claim).await.expect_err("its heartbeat said 2");
    assert!(again.to_string().contains("was at 2 before"), "{again}");
    service.stop().await;
}

#[tokio::test]
async fn a_copy_of_a_running_disk_is_refused() {
    let service = Service::start().await;
    let cluster = service.cluster();
    let mut first = TestNode::start(1, SECRET).await;
    assert!(
        cluster
            .register_node(&first.registration(10))
            .await
            .expect("registered")
            .trusted
    );
    let copy = TestNode::start(1, SECRET).await;
    let register = async |log_seq| cluster.register_node(&copy.registration(log_seq)).await;
    for log_seq in [9, 10, 11] {
        let refused = register(log_seq).await.expect_err("the first is there");
        assert_eq!(refused.status(), Some(409));
        assert!(refused.to_string().contains("runs twice"), "{refused}");
    }
    assert!(
        cluster
            .heartbeat("node-1", &first.heartbeat(10))
            .await
            .expect("noted")
            .trusted
    );
    // The same process under another of its names.
    let mut alias = first.registration(10);
    alias.node_url = first.public_url();
    assert!(cluster.register_node(&alias).await.expect("moved").trusted);
    // Out of reach, the first is taken for gone; when it is back it is told.
    first.stop().await;
    assert!(register(10).await.expect("registered").trusted);
    first.restart().await;
    let told = cluster.heartbeat("node-1", &first.heartbeat(10)).await;
    assert_eq!(told.expect_err("another process").status(), Some(404));
    let refused = cluster
        .register_node(&first.registration(10))
        .await
        .expect_err("the copy is there");
    assert!(refused.to_string().contains("runs twice"), "{refused}");
    assert!(
        cluster
            .heartbeat("node-1", &copy.heartbeat(12))
            .await
            .expect("noted")
            .trusted
    );
    service.stop().await;
}

#[tokio::test]
async fn of_two_copies_that_start_at_once_one_is_accepted() {
    for on_sqlite in [false, true] {
        let directory = tempfile::tempdir().expect("a directory");
        let service = if on_sqlite {
            Service::on_sqlite(&directory.path().join("metadata.db"), &[]).await
        } else {
            Service::start().await
        };
        let cluster = service.cluster();
        let mut before = TestNode::start(1, SECRET).await;
        cluster
            .register_node(&before.registration(10))
            .await
            .expect("registered");
        before.stop().await;
        let copies = [TestNode::start(1, SECRET).await, TestNode::start(1, SECRET).await];
        // Both are asked before either is registered.
        let together = Arc::new(Barrier::new(2));
        copies.iter().for_each(|copy| copy.answer_with(&together));
        let register = async |copy: &TestNode| cluster.register_node(&copy.registration(10)).await;
        let (first, second) = tokio::join!(register(&copies[0]), register(&copies[1]));
        let (refused, again) = match (first, second) {
            (Ok(_), Err(refused)) => (refused, register(&copies[1]).await),
            (Err(refused), Ok(_)) => (refused, register(&copies[0]).await),
            both => panic!("one is accepted: {both:?}"),
        };
        assert_eq!(refused.status(), Some(503), "{refused}");
        let again = again.expect_err("the other is there");
        assert!(again.to_string().contains("runs twice"), "{again}");
        service.stop().await;
    }
}
