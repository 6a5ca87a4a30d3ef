//! Everything a node measures moves when it should, and `docs/metrics.md` names every metric.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::{TestNode, metric, settings, until};

const DOCUMENT: &str = include_str!("../../../docs/metrics.md");

/// The value of one series.
fn value(text: &str, series: &str) -> f64 {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in {text}")).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_are_timed_and_batches_counted() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(settings(dir.path(), &[])).await;
    let bytes = vec![7_u8; 300_000];
    for at in 0..3 {
        let put = node.put(&format!("/chunk/c{at}"), &bytes).await;
        assert_eq!(put.status(), 201);
    }
    let whole = node.get("/chunk/c1").await.bytes().await.unwrap();
    assert_eq!(whole.len(), bytes.len());
    assert_eq!(node.get("/chunk/nothing").await.status(), 404);

    let times = |what: &str| format!("vstack_operation_seconds_count{{operation=\"{what}\"}}");
    // The server lets go of the last bytes a moment after they were read here.
    let seen = async || node.get("/metrics").await.text().await.unwrap();
    until("the end of the GET is seen", async || {
        value(&seen().await, &times("get")) >= 1.0
    })
    .await;
    let text = seen().await;
    for (what, count) in [("put", 3.0), ("get_first_byte", 1.0), ("get", 1.0), ("move", 0.0)] {
        assert_eq!(value(&text, &times(what)), count, "{what}");
    }
    assert!(value(&text, &times("sync")) >= 3.0);
    assert!(value(&text, "vstack_operation_seconds_sum{operation=\"put\"}") > 0.0);
    let last = "vstack_operation_seconds_bucket{le=\"+Inf\",operation=\"put\"}";
    assert_eq!(value(&text, last), 3.0);
    assert_eq!(value(&text, "vstack_batch_operations_sum"), 3.0);
    assert_eq!(value(&text, "vstack_batch_bytes_sum"), 900_000.0);
    assert!(metric(&node, "vstack_space_live_bytes").await >= 900_000);
    assert!(metric(&node, "vstack_space_allocated_bytes").await >= 900_000);
    assert_eq!(metric(&node, "vstack_queue_operations").await, 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_of_a_node_is_documented() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(settings(dir.path(), &[])).await;
    let text = node.get("/metrics").await.text().await.unwrap();
    let mut named = 0;
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        let printed = if kind == "counter" {
            format!("{name}_total")
        } else {
            name.to_owned()
        };
        let documented = [format!("`{printed}`"), format!("`{printed}{{")];
        assert!(
            documented.iter().any(|one| DOCUMENT.contains(one)),
            "docs/metrics.md does not name {printed}"
        );
        named += 1;
    }
    assert!(named > 30, "{text}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_that_is_documented_of_the_engine_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(settings(dir.path(), &["--scrub-period", "604800"])).await;
    let (_, section) = DOCUMENT.split_once("## The storage engine of a node\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let names: Vec<_> = section
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|name| name.starts_with("vstack_"))
        .map(|name| name.split('{').next().unwrap())
        .collect();
    assert!(names.len() > 25, "{names:?}");
    // Findings of the scrub are there once it looked at something.
    until("all that is documented is there", async || {
        let text = node.get("/metrics").await.text().await.unwrap();
        let is_there = |name: &&str| {
            let name = name.strip_suffix("_total").unwrap_or(name);
            text.contains(&format!("# TYPE {name} "))
        };
        let missing: Vec<_> = names.iter().filter(|name| !is_there(name)).collect();
        println!("missing: {missing:?}");
        missing.is_empty()
    })
    .await;
    node.stop().await;
}
