//! Who is let in, who is refused, and what is remembered of both.

use vstack_types::{NodeUuid, ProcessUuid};

use super::*;
use crate::store::DiskLog;

#[test]
fn a_url_is_a_host_and_a_port_and_nothing_else() {
    for good in [
        "http://127.0.0.1:8081",
        "https://node-1.example",
        "http://[::1]:8081",
        "http://storage_node:8081/",
    ] {
        assert!(checked_url(good, "node_url").is_ok(), "{good}");
    }
    for bad in [
        "",
        "ftp://a",
        "http://",
        "http:///x",
        "http://a/b",
        "http://a?b",
        "http://a#b",
        "http://u:p@a",
        "http://a b",
        "http://a%2fb",
        "//a",
    ] {
        assert_eq!(checked_url(bad, "node_url"), Err(Refusal::Url("node_url")), "{bad}");
    }
}

const TIMEOUT: Duration = Duration::from_secs(30);
const NOW: Timestamp = Timestamp(1_000_000_000);

fn disk(n: u8) -> NodeUuid {
    NodeUuid::from_bytes([n; 16])
}

fn request(label: &str, port: u16, with_disk: Option<u8>, log_seq: u64) -> RegisterNode {
    RegisterNode {
        node_url: format!("http://host:{port}"),
        node_id: label.into(),
        version: "1".into(),
        public_url: None,
        zone: None,
        disk_uuid: with_disk.map(disk),
        incarnation: 0,
        log_seq,
        process: None,
    }
}

fn given(n: u8) -> Proof {
    Proof::Given(NodeRef::first(disk(n)))
}

/// What is remembered of the disk is what its node says.
fn decide(nodes: &[Node], claim: Claim<'_>, now: Timestamp) -> Result<Node, Refusal> {
    let same = |node: &&Node| node.acceptor == claimed(claim.request).map(|claimed| NodeRef::first(claimed.uuid));
    let disk = nodes.iter().find(same).map(|node| DiskLog {
        log_seq: node.log_seq,
        went_back: node.went_back,
        role: node.role,
    });
    super::admit(Known { nodes, disk }, claim, now, TIMEOUT)
}

/// Who is registered for the disk that registers.
fn place(nodes: &[Node], request: &RegisterNode) -> Option<Place> {
    let same = |node: &&Node| node.acceptor.map(|acceptor| acceptor.uuid) == request.disk_uuid;
    nodes
        .iter()
        .find(same)
        .filter(|_| request.disk_uuid.is_some())
        .map(Place::of)
}

fn admit_as(
    known: &[Node],
    request: &RegisterNode,
    signed: bool,
    proof: Proof,
    now: Timestamp,
) -> Result<Node, Refusal> {
    let asked = place(known, request);
    let claim = Claim {
        request,
        signed,
        proof,
        asked: asked.as_ref(),
    };
    decide(known, claim, now)
}

/// Under the secret.
fn admit(known: &[Node], request: &RegisterNode, proof: Proof, now: Timestamp) -> Result<Node, Refusal> {
    admit_as(known, request, true, proof, now)
}

fn unsigned(known: &[Node], request: &RegisterNode, proof: Proof) -> Result<Node, Refusal> {
    admit_as(known, request, false, proof, NOW)
}

fn node(label: &str, port: u16, n: u8, seconds_silent: i64) -> Node {
    let heard = Timestamp(NOW.0 - seconds_silent * 1_000);
    admit(&[], &request(label, port, Some(n), 10), given(n), heard).unwrap()
}

#[test]
fn only_a_proof_of_the_claimed_disk_makes_a_node_trusted() {
    let trusted = |proof| admit(&[], &request("a", 1, Some(1), 0), proof, NOW).unwrap().trusted;
    assert!(trusted(given(1)));
    assert!(!trusted(given(2)));
    assert!(!trusted(Proof::Wrong));
    assert!(!trusted(Proof::Silent));
    assert!(!admit(&[], &request("a", 1, None, 0), given(1), NOW).unwrap().trusted);
}

#[test]
fn trust_is_kept_through_silence_and_lost_by_a_wrong_answer() {
    let known = [node("a", 1, 1, 5)];
    let again = |proof| admit(&known, &request("a", 1, Some(1), 10), proof, NOW).unwrap();
    assert!(again(Proof::Silent).trusted);
    assert!(!again(Proof::Wrong).trusted);
    assert!(!again(given(2)).trusted);
    let reborn = RegisterNode {
        incarnation: 1,
        ..request("a", 1, Some(1), 10)
    };
    assert!(!admit(&known, &reborn, Proof::Silent, NOW).unwrap().trusted);
}

#[test]
fn a_url_is_its_nodes_until_another_proves_to_be_there() {
    let known = [node("a", 1, 1, 5)];
    let other = request("b", 1, Some(2), 0);
    assert_eq!(
        admit(&known, &other, Proof::Wrong, NOW),
        Err(Refusal::UrlTaken("http://host:1".into()))
    );
    assert_eq!(
        admit(&known, &other, given(1), NOW),
        Err(Refusal::UrlTaken("http://host:1".into()))
    );
    assert!(admit(&known, &other, given(2), NOW).is_ok());
    // Long silent, but once trusted: still only a proof displaces it.
    let silent = [node("a", 1, 1, 500)];
    assert!(admit(&silent, &other, Proof::Silent, NOW).is_err());
    let untrusted = [Node {
        trusted: false,
        ..node("a", 1, 1, 500)
    }];
    assert!(admit(&untrusted, &other, Proof::Silent, NOW).is_ok());
    let untrusted_live = [Node {
        trusted: false,
        ..node("a", 1, 1, 5)
    }];
    assert!(admit(&untrusted_live, &other, Proof::Silent, NOW).is_err());
}

#[test]
fn a_label_is_its_nodes_while_that_lives() {
    let taken = Err(Refusal::LabelTaken("a".into()));
    let other = request("a", 2, Some(2), 0);
    assert_eq!(admit(&[node("a", 1, 1, 5)], &other, given(2), NOW), taken);
    assert!(admit(&[node("a", 1, 1, 500)], &other, given(2), NOW).is_ok());
    assert_eq!(admit(&[node("a", 1, 1, 500)], &other, Proof::Silent, NOW), taken);
    // A new disk in the same machine, under the same name and URL.
    assert!(admit(&[node("a", 1, 1, 5)], &request("a", 1, Some(2), 0), given(2), NOW).is_ok());
}

#[test]
fn a_log_never_goes_back_and_a_disk_moves_only_by_proof() {
    let known = [node("a", 1, 1, 5)];
    let back = admit(&known, &request("a", 1, Some(1), 9), given(1), NOW);
    assert_eq!(back, Err(Refusal::WentBack { given: 9, known: 10 }));
    let moved = request("b", 2, Some(1), 11);
    assert!(admit(&known, &moved, given(1), NOW).is_ok());
    assert_eq!(
        admit(&known, &moved, Proof::Wrong, NOW),
        Err(Refusal::DiskTaken("http://host:1".into()))
    );
}

#[test]
fn what_is_known_of_a_disk_outlives_its_place() {
    // Another disk was started at its label and URL since.
    let nodes = [node("a", 1, 2, 5)];
    let known = Known {
        nodes: &nodes,
        disk: Some(DiskLog {
            log_seq: 1_000,
            went_back: false,
            role: NodeRole::Active,
        }),
    };
    let claim = |signed, request| {
        let claim = Claim {
            request,
            signed,
            proof: given(1),
            asked: None,
        };
        super::admit(known, claim, NOW, TIMEOUT)
    };
    let old = request("b", 2, Some(1), 400);
    let went_back = Refusal::WentBack {
        given: 400,
        known: 1_000,
    };
    assert_eq!(claim(true, &old), Err(went_back));
    assert_eq!(claim(false, &old), Err(Refusal::DiskUnsigned));
    assert!(claim(true, &request("b", 2, Some(1), 1_000)).unwrap().trusted);
}

#[test]
fn the_disk_that_is_registered_stays_and_its_copy_is_refused() {
    let known = [node("a", 1, 1, 5)];
    for copy in [
        request("b", 2, Some(1), 50),
        request("a", 1, Some(1), 50),
        request("b", 2, Some(1), 3),
    ] {
        let refused = admit(&known, &copy, Proof::Twin, NOW);
        assert_eq!(refused, Err(Refusal::Twin("http://host:1".into())), "{copy:?}");
    }
}

#[test]
fn a_proof_counts_for_the_place_that_was_asked_alone() {
    let process = |n| Some(ProcessUuid::from_bytes([n; 16]));
    let of = |process, port| RegisterNode {
        process,
        ..request("a", port, Some(1), 10)
    };
    let before = admit(&[], &of(process(1), 1), given(1), NOW).unwrap();
    let asked = Place::of(&before);
    let first = admit(&[before], &of(process(2), 2), given(1), NOW).unwrap();
    let decide_after = |asked: Option<&Place>, known: &Node| {
        let claim = Claim {
            request: &of(process(3), 3),
            signed: true,
            proof: given(1),
            asked,
        };
        decide(std::slice::from_ref(known), claim, NOW).map(|node| node.process)
    };
    // Both copies were asked for while the dead one was registered; or there was none yet.
    assert_eq!(decide_after(Some(&asked), &first), Err(Refusal::Overtaken));
    assert_eq!(decide_after(None, &first), Err(Refusal::Overtaken));
    let restarted = Node {
        process: process(4),
        ..first.clone()
    };
    assert_eq!(
        decide_after(Some(&Place::of(&first)), &restarted),
        Err(Refusal::Overtaken)
    );
    assert_eq!(decide_after(Some(&Place::of(&first)), &first), Ok(process(3)));
}

#[test]
fn an_old_registration_is_not_held_against_the_node_that_is_there() {
    let process = |n| Some(ProcessUuid::from_bytes([n; 16]));
    let known = |seconds_silent| Node {
        process: process(1),
        ..node("a", 1, 1, seconds_silent)
    };
    let outdated = Err(Refusal::Outdated {
        given: 9,
        known: 10,
        url: "http://host:1".into(),
    });
    let went_back = Err(Refusal::WentBack { given: 9, known: 10 });
    for (process, port, seconds_silent, answer) in [
        (process(1), 1, 5, &outdated),
        (process(1), 1, 500, &outdated),
        (process(2), 2, 5, &outdated),
        (None, 2, 5, &outdated),
        (process(2), 1, 5, &went_back),
        (process(2), 2, 500, &went_back),
    ] {
        let late = RegisterNode {
            process,
            ..request("a", port, Some(1), 9)
        };
        let decided = admit(&[known(seconds_silent)], &late, given(1), NOW);
        assert_eq!(&decided, answer, "{process:?} at {port}, silent for {seconds_silent} s");
    }
}

#[test]
fn a_process_is_believed_under_the_secret_alone() {
    let process = Some(ProcessUuid::from_bytes([7; 16]));
    let request = RegisterNode {
        process,
        ..request("a", 1, Some(1), 0)
    };
    assert_eq!(admit(&[], &request, given(1), NOW).unwrap().process, process);
    assert_eq!(unsigned(&[], &request, given(1)).unwrap().process, None);
}

#[test]
fn how_far_a_log_reaches_is_believed_under_the_secret_alone() {
    let known = [node("a", 1, 1, 5)];
    for log_seq in [0, u64::MAX] {
        let same = request("a", 1, Some(1), log_seq);
        assert_eq!(unsigned(&known, &same, given(1)), Ok(known[0].clone()));
        assert_eq!(unsigned(&known, &same, Proof::Silent), Ok(known[0].clone()));
    }
    let taken = Err(Refusal::DiskTaken("http://host:1".into()));
    let moved = request("b", 2, Some(1), u64::MAX);
    assert_eq!(unsigned(&known, &moved, given(1)), taken, "there is nothing to compare");
    let found = unsigned(&[], &request("a", 1, Some(1), 7), given(1)).unwrap();
    assert_eq!((found.trusted, found.log_seq), (true, 0));
}

#[test]
fn a_disk_that_went_back_is_trusted_again_only_when_its_log_caught_up() {
    let known = [Node {
        trusted: false,
        went_back: true,
        ..node("a", 1, 1, 5)
    }];
    let again = unsigned(&known, &request("a", 1, Some(1), 99), given(1)).unwrap();
    assert!(!again.trusted && again.went_back);
    let caught_up = admit(&known, &request("a", 1, Some(1), 10), given(1), NOW).unwrap();
    assert!(caught_up.trusted && !caught_up.went_back);
}

#[test]
fn a_script_repeating_a_nodes_name_changes_nothing_of_it() {
    let known = [node("a", 1, 1, 5)];
    let repeated = admit(&known, &request("a", 1, None, 0), Proof::Silent, NOW).unwrap();
    assert_eq!(repeated, known[0]);
    assert!(admit(&known, &request("b", 1, None, 0), Proof::Silent, NOW).is_err());
    assert!(admit(&known, &request("a", 2, None, 0), Proof::Silent, NOW).is_err());
}

#[test]
fn what_is_given_is_checked_and_brought_to_one_form() {
    let good = RegisterNode {
        node_url: " http://host:1/ ".into(),
        ..request("Node_1.a-b", 1, None, 0)
    };
    assert_eq!(checked(good).unwrap().node_url, "http://host:1");
    for url in ["", "host:1", "ftp://host", "http://", "http://ho st", "http://häst"] {
        let bad = RegisterNode {
            node_url: url.into(),
            ..request("a", 1, None, 0)
        };
        assert_eq!(checked(bad).err(), Some(Refusal::Url("node_url")), "{url}");
    }
    for label in ["", "a b", "a/b", &"x".repeat(101)] {
        assert_eq!(
            checked(request(label, 1, None, 0)).err(),
            Some(Refusal::Label),
            "{label}"
        );
    }
}

#[test]
fn a_disk_that_was_taken_out_does_not_come_back() {
    let removed = DiskLog {
        log_seq: 5,
        went_back: false,
        role: NodeRole::Removed,
    };
    let request = request("node-a", 1, Some(1), 5);
    let claim = Claim {
        request: &request,
        signed: true,
        proof: given(1),
        asked: None,
    };
    let known = |disk| Known { nodes: &[], disk };
    assert_eq!(
        super::admit(known(Some(removed)), claim, NOW, TIMEOUT),
        Err(Refusal::Removed)
    );
    let draining = DiskLog {
        role: NodeRole::Draining,
        ..removed
    };
    // Whatever part it had it keeps.
    let again = super::admit(known(Some(draining)), claim, NOW, TIMEOUT).map(|node| node.role);
    assert_eq!(again, Ok(NodeRole::Draining));
}
