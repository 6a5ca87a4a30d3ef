//! When shards become copies again.

use super::*;

/// Whatever the code, what became shards becomes copies again where as many as are usual can be made; and on fewer nodes
/// where they survive as much, or somebody asks for them.
#[test]
fn shards_become_copies_again_where_as_many_as_are_wanted_can_be_made() {
    /// There are `on` nodes; by how many of them have to be given a copy.
    struct Case {
        usual: usize,
        code: (u8, u8),
        on: u8,
        by_policy: u8,
        asked: u8,
    }
    let case = |usual, code, on, by_policy, asked| Case {
        usual,
        code,
        on,
        by_policy,
        asked,
    };
    for Case {
        usual,
        code: (data, parity),
        on,
        by_policy,
        asked,
    } in [
        case(3, (3, 2), 5, 3, 2),
        // Two on each of two nodes and one on a third survive the loss of one, as two copies do.
        case(3, (3, 2), 3, 2, 2),
        case(2, (3, 2), 5, 2, 2),
        case(1, (3, 2), 5, 1, 1),
        case(3, (4, 3), 7, 3, 2),
        case(3, (4, 1), 5, 2, 2),
        case(5, (3, 2), 5, 3, 2),
        // Seven of them on two nodes and six on three: of the loss of two they survive, and of three not.
        case(3, (16, 16), 5, 3, 2),
        case(2, (16, 16), 5, 2, 2),
    ] {
        let shard = |index: u8| Shard {
            index,
            node: node(index % on + 1),
            sha256: Digest::of(&[index]),
        };
        let layout = Layout::Coded {
            data,
            parity,
            shards: (0..data + parity).map(shard).collect(),
        };
        let census = census(&[placed(300_000, layout, None)], &[], &[]);
        for is_asked in [false, true] {
            let fewest = if is_asked { asked } else { by_policy };
            for takers in 1..=on {
                // Who takes nothing more keeps what it has: nothing is to be mended.
                let mut candidates = nodes(on);
                for full in &mut candidates[usize::from(takers)..] {
                    full.disk_percent = 90.0;
                }
                let cluster = Cluster {
                    copies: usual,
                    ..cluster(&candidates)
                };
                let outlook = Outlook::new(&census, cluster);
                let planned = next(&outlook, Wished::Copies { asked: is_asked }, &BTreeMap::new());
                let what = format!("{usual} copies of {data}+{parity} on {on}, {takers} take some, asked: {is_asked}");
                let to = planned.next.iter().map(|migration| match &migration.job {
                    Job::Decode { to } => to.len(),
                    other => panic!("{what}: {other:?}"),
                });
                let made: Vec<usize> = to.collect();
                if takers >= fewest {
                    assert_eq!(made, [usual.min(takers.into())], "{what}: {:?}", planned.refused);
                } else {
                    let why = planned
                        .refused
                        .unwrap_or_else(|| panic!("{what}: {planned:?}"))
                        .to_string();
                    let words =
                        format!("take {fewest} nodes that can be given one, and there are {takers}; more nodes");
                    assert!(made.is_empty() && why.contains(&words), "{what}: {why}");
                }
            }
        }
    }
}
