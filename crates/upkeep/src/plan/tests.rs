//! What is done about a chunk, and why nothing is.

use std::collections::BTreeSet;

use vstack_api::holdings::{HeldItem, HeldRegister, Holdings, Wanted, tag_of};
use vstack_chunkpaxos::{Brief, Layout, Placement};
use vstack_types::{ChunkId, Digest, FingerprintKey, NodeUuid, VideoId};

use super::*;
use crate::census::{Census, Part};

const VIDEO: VideoId = VideoId::from_bytes([3; 16]);

fn node(n: u8) -> NodeRef {
    NodeRef::first(NodeUuid::from_bytes([n; 16]))
}

fn nodes(of: &[u8]) -> Vec<NodeRef> {
    of.iter().map(|n| node(*n)).collect()
}

fn candidate(n: u8) -> Candidate {
    Candidate::healthy(node(n))
}

fn placed(on: &[u8], from: Option<&[u8]>) -> Placement {
    let layout = |on: &[u8]| Layout::Replicated { nodes: nodes(on) };
    Placement {
        version: 1,
        size: 100,
        sha256: Digest::of(b"bytes"),
        layout: layout(on),
        prev: from.map(layout),
        back: false,
    }
}

const KEY: FingerprintKey = FingerprintKey::from_bytes([1; 16]);

/// Everybody in `counted` has what is expected, but for what `changed` does to it.
fn census(placement: &Placement, counted: &[u8], changed: impl Fn(u8, &mut Holdings)) -> Census {
    let mut census = Census::default();
    let id = ChunkId::of_video(VIDEO, 0);
    census.learn(VIDEO, Part::Chunk(0), &id, placement, 0);
    let fingerprint = KEY.of(&id);
    for n in counted {
        let mut holdings = Holdings {
            items: vec![HeldItem {
                fingerprint,
                tag: tag_of(placement.sha256),
                damaged: false,
                wanted: Wanted::Placed,
            }],
            registers: vec![HeldRegister {
                fingerprint,
                brief: placement.brief(),
            }],
        };
        changed(*n, &mut holdings);
        census.count(node(*n), &holdings, KEY, 0);
    }
    census
}

fn next(census: &Census, candidates: &[Candidate], gone: &[u8]) -> Option<(Standing, Job)> {
    next_but(census, candidates, gone, &[])
}

fn next_but(census: &Census, candidates: &[Candidate], gone: &[u8], avoided: &[u8]) -> Option<(Standing, Job)> {
    let gone = nodes(gone);
    let cluster = Cluster {
        nodes: candidates,
        gone: &gone,
        lost: &gone,
        copies: 3,
    };
    let row = census.row(VIDEO, Part::Chunk(0)).unwrap();
    let due = Outlook::new(census, cluster).due(VIDEO, row, &nodes(avoided));
    due.map(|due| (due.standing, due.job))
}

fn whole(_: u8, _: &mut Holdings) {}

fn five() -> Vec<Candidate> {
    (1..=5).map(candidate).collect()
}

#[test]
fn nothing_is_done_to_what_is_whole_or_may_be() {
    let placement = placed(&[1, 2, 3], None);
    assert_eq!(next(&census(&placement, &[1, 2, 3], whole), &five(), &[]), None);
    assert_eq!(next(&census(&placement, &[1, 2], whole), &five(), &[]), None);
    let mut silent = five();
    silent[2].liveness = Liveness::Down;
    assert_eq!(
        next(&census(&placement, &[1, 2, 3], whole), &silent, &[]),
        None,
        "it is waited for"
    );
}

#[test]
fn a_damaged_copy_is_restored_where_it_is_and_a_lost_node_replaced() {
    let placement = placed(&[1, 2, 3], None);
    let under = Standing::Under { survives: 1 };
    let damaged = census(&placement, &[1, 2, 3], |n, held| {
        if n == 2 {
            held.items[0].damaged = true;
        }
    });
    let tag = tag_of(placement.sha256);
    assert_eq!(
        next(&damaged, &five(), &[]),
        Some((under, Job::Restore { node: node(2), tag }))
    );
    let (standing, job) = next(&census(&placement, &[1, 2, 3], whole), &five()[..4], &[3]).unwrap();
    assert_eq!((standing, job), (under, Job::Move { to: nodes(&[1, 2, 4]) }));
}

#[test]
fn registers_that_differ_are_read_before_anything_is_moved() {
    let placement = placed(&[1, 2, 3], None);
    for forget in [true, false] {
        let census = census(&placement, &[1, 2, 3], |n, held| match n {
            1 if forget => held.registers.clear(),
            1 => held.registers[0].brief = Brief::from_code(77),
            _ => {}
        });
        let differing = nodes(&[1]);
        assert_eq!(next(&census, &five(), &[3]).unwrap().1, Job::Read { differing });
        let (standing, _) = next(&census, &five(), &[]).unwrap();
        assert_eq!(
            standing,
            Standing::Uncounted,
            "all bytes are there, and it is not called whole"
        );
    }
}

#[test]
fn a_move_is_ended_when_its_bytes_are_there() {
    let placement = placed(&[1, 2, 4], Some(&[1, 2, 3]));
    let all = census(&placement, &[1, 2, 3, 4], whole);
    assert_eq!(next(&all, &five(), &[]), Some((Standing::Whole, Job::Settle)));
    let tag = tag_of(placement.sha256);
    let without = census(&placement, &[1, 2, 3, 4], |n, held| {
        if n == 4 {
            held.items.clear();
        }
    });
    let (_, job) = next(&without, &five(), &[]).unwrap();
    assert_eq!(job, Job::Restore { node: node(4), tag });
}

#[test]
fn what_is_coded_from_the_start_is_settled_and_never_taken_back() {
    let shard = |n: u8| vstack_chunkpaxos::Shard {
        index: n - 1,
        node: node(n),
        sha256: Digest::of(&[n]),
    };
    let placement = Placement {
        layout: Layout::Coded {
            data: 3,
            parity: 2,
            shards: (1..=5).map(shard).collect(),
        },
        prev: Some(Layout::nothing()),
        ..placed(&[1], None)
    };
    let all = census(&placement, &[1, 2, 3, 4, 5], |n, held| {
        held.items[0].tag = tag_of(Digest::of(&[n]));
    });
    assert_eq!(next(&all, &five(), &[]).unwrap().1, Job::Settle);
    for gone in [&[4, 5][..], &[3, 4, 5]] {
        let job = next(&all, &five(), gone).map(|(_, job)| job);
        assert!(!matches!(job, Some(Job::TurnBack | Job::Settle)), "{job:?}");
    }
}

#[test]
fn who_lost_the_majority_for_good_is_salvaged_and_who_may_get_it_back_is_not() {
    let placement = placed(&[1, 2, 3], None);
    let counted = census(&placement, &[1, 2, 3], whole);
    let mut silent = five();
    silent[1].liveness = Liveness::Down;
    silent[2].liveness = Liveness::Down;
    assert_eq!(next(&counted, &silent, &[]), None);
    assert_eq!(next(&counted, &silent, &[2]), None, "one that is silent may come back");
    assert_eq!(
        next(&counted, &silent, &[2, 3]),
        Some((Standing::Endangered, Job::Salvage))
    );
    assert_eq!(next(&counted, &silent, &[1, 2, 3]), None, "nothing is left");
}

#[test]
fn another_node_takes_over_where_a_copy_cannot_be_restored() {
    let placement = placed(&[1, 2, 3], None);
    let tag = tag_of(placement.sha256);
    let damaged = census(&placement, &[1, 2, 3], |n, held| {
        if n == 2 {
            held.items[0].damaged = true;
        }
    });
    let restore = Job::Restore { node: node(2), tag };
    let (_, job) = next_but(&damaged, &five()[..4], &[], &[2]).unwrap();
    assert_eq!(job, Job::Move { to: nodes(&[1, 3, 4]) });
    let (_, job) = next_but(&damaged, &five()[..3], &[], &[2]).unwrap();
    assert_eq!(job, restore, "nobody else is there: it is tried on");
    let mut leaves = five()[..4].to_vec();
    leaves[1].leaving = true;
    let (_, job) = next(&damaged, &leaves, &[]).unwrap();
    assert_eq!(job, Job::Move { to: nodes(&[1, 3, 4]) }, "not where it leaves anyway");
}

/// It may be avoided for what it was to be given besides.
#[test]
fn what_a_node_has_stays_there_though_it_is_avoided() {
    let placement = placed(&[1, 2, 3], None);
    let well = census(&placement, &[1, 2, 3], whole);
    assert_eq!(next_but(&well, &five(), &[], &[2]), None);
    let lacks = census(&placement, &[1, 2, 3], |n, held| {
        if n == 2 {
            held.items.clear();
        }
    });
    let job = next_but(&lacks, &five()[..4], &[], &[2]).map(|(_, job)| job);
    assert_eq!(
        job,
        Some(Job::Move { to: nodes(&[1, 3, 4]) }),
        "what it has not does not"
    );
}

#[test]
fn a_move_is_not_ended_before_its_bytes_are_known_to_be_there() {
    let placement = placed(&[1, 2, 4], Some(&[1, 2, 3]));
    let uncounted = census(&placement, &[1, 2, 3], whole);
    assert_eq!(next(&uncounted, &five(), &[]), None);
    let mut silent = five();
    silent[3].liveness = Liveness::Down;
    let counted = census(&placement, &[1, 2, 3, 4], whole);
    assert_eq!(next(&counted, &silent, &[]), None, "it may come back");
    assert_eq!(next(&counted, &silent, &[4]).unwrap().1, Job::TurnBack, "it does not");
    let both = census(&placement, &[1, 2, 3, 4], whole);
    assert_eq!(
        next(&both, &five(), &[3]).unwrap().1,
        Job::Settle,
        "where it came from it stands no better"
    );
    let lacks = census(&placement, &[1, 2, 3, 4], |n, held| {
        if n == 4 {
            held.items.clear();
        }
    });
    assert_eq!(next_but(&lacks, &five(), &[], &[4]).unwrap().1, Job::TurnBack);
}

#[test]
fn who_lost_votes_is_replaced_and_never_called_whole() {
    let placement = placed(&[1, 2, 3], None);
    let mute = |who: &'static [u8]| {
        census(&placement, &[1, 2, 3], move |n, held| {
            if who.contains(&n) {
                held.registers[0].brief = Brief::ABSTAINS;
            }
        })
    };
    let under = Standing::Under { survives: 1 };
    let to = nodes(&[2, 3, 4]);
    assert_eq!(next(&mute(&[1]), &five()[..4], &[]), Some((under, Job::Move { to })));
    let alone = mute(&[1]);
    let three = five()[..3].to_vec();
    assert_eq!(next(&alone, &three, &[]), None, "nobody can take its place");
    let cluster = Cluster {
        nodes: &three,
        gone: &[],
        lost: &[],
        copies: 3,
    };
    let row = alone.row(VIDEO, Part::Chunk(0)).unwrap();
    assert_eq!(Outlook::new(&alone, cluster).standing(row), under);
    assert_eq!(next(&mute(&[1, 2]), &three, &[]), Some((under, Job::Salvage)));
}

/// One copy is damaged, and another of the three has a disk that lost votes, and this register with them: neither votes,
/// so nothing can be read before the damaged one has its bytes again.
#[test]
fn who_lost_bytes_gets_them_before_a_majority_without_it_is_asked() {
    let mut census = census(&placed(&[1, 2, 3], None), &[1, 2, 3], |n, holdings| match n {
        1 => {
            holdings.items[0].damaged = true;
            holdings.registers[0].brief = Brief::ABSTAINS;
        }
        2 => holdings.registers.clear(),
        _ => {}
    });
    let there: Vec<Candidate> = (1..=4).map(candidate).collect();
    let cluster = Cluster {
        nodes: &there,
        gone: &[],
        lost: &[],
        copies: 3,
    };
    let job = |census: &Census, avoided: &[u8]| {
        let row = census.row(VIDEO, Part::Chunk(0)).unwrap();
        Outlook::new(census, cluster).judge(VIDEO, row, &nodes(avoided)).1
    };
    let is_restored = |job| matches!(job, Some(Job::Restore { node: to, .. }) if to == node(1));
    assert!(is_restored(job(&census, &[])), "that needs no decision");
    assert_eq!(
        job(&census, &[1]),
        Some(Job::Read { differing: nodes(&[2]) }),
        "where that fails, the other one has its votes"
    );
    census.silence(node(2));
    assert!(is_restored(job(&census, &[1])));
}

#[test]
fn where_somebody_has_to_do_something_it_is_said() {
    let census = census(&placed(&[1, 2, 3], None), &[1, 2, 3], |_, _| {});
    // Whether nothing is done, and why.
    let stuck = |there: &[Candidate], gone: &[u8], lost: &[u8]| {
        let cluster = Cluster {
            nodes: there,
            gone: &nodes(gone),
            lost: &nodes(lost),
            copies: 3,
        };
        let outlook = Outlook::new(&census, cluster);
        let row = census.row(VIDEO, Part::Chunk(0)).unwrap();
        let (standing, job) = outlook.judge(VIDEO, row, &[]);
        (job.is_none(), outlook.stuck(row, standing))
    };
    let there = |of: &[u8]| of.iter().map(|n| candidate(*n)).collect::<Vec<_>>();
    assert_eq!(stuck(&there(&[1, 2, 3, 4]), &[], &[]), (true, None), "all is well");
    // Two of three are gone, and nobody said that they do not come back.
    assert_eq!(
        stuck(&there(&[1, 4]), &[2, 3], &[]),
        (true, Some(Stuck::Awaits(nodes(&[2, 3]))))
    );
    assert_eq!(
        stuck(&there(&[1, 4]), &[], &[]),
        (true, None),
        "they may be back in a moment"
    );
    assert!(!stuck(&there(&[1, 4]), &[], &[2, 3]).0, "it is salvaged");
    // One is to go, and there is no other.
    let mut some = there(&[1, 2, 3]);
    some[2].leaving = true;
    assert_eq!(stuck(&some, &[], &[]), (true, Some(Stuck::NowhereToGo)));
    some.push(candidate(4));
    assert!(!stuck(&some, &[], &[]).0, "it goes to the other one");
}

#[test]
fn what_is_lost_is_made_of_a_copy_that_somebody_else_has() {
    let placement = placed(&[1, 2, 3], None);
    let empty = census(&placement, &[1, 2, 3], |_, held| held.items.clear());
    let lent = BTreeSet::from([(VIDEO, Part::Chunk(0))]);
    let others = BTreeSet::from([(VIDEO, Part::Chunk(1))]);
    let row = empty.row(VIDEO, Part::Chunk(0)).unwrap();
    let five = five();
    let judged = |lost: &[NodeRef], lent: &BTreeSet<(VideoId, Part)>| {
        let cluster = Cluster {
            nodes: &five,
            gone: lost,
            lost,
            copies: 3,
        };
        Outlook::new(&empty, cluster).with_lent(lent).judge(VIDEO, row, &[])
    };
    assert_eq!(judged(&[], &others), (Standing::Lost, None), "of another chunk");
    let restore = Job::Restore {
        node: node(1),
        tag: tag_of(placement.sha256),
    };
    assert_eq!(judged(&[], &lent), (Standing::Lost, Some(restore)));
    // Where too few are left to decide about it, it is made of that in another place.
    assert_eq!(judged(&nodes(&[2, 3]), &lent).1, Some(Job::Salvage));
    assert_eq!(judged(&nodes(&[2, 3]), &others).1, None);
}
