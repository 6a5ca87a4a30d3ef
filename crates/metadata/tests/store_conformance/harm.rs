//! Copies that were found harmed.

use vstack_types::VideoId;
use vstack_upkeep::{
    census::Part,
    harm::{Book, Changes, Harm, Totals, WrongShard},
};

use crate::{Shared, records::acceptor};

fn harm(part: Part, node: u8) -> Harm {
    Harm {
        video: VideoId::from_bytes([7; 16]),
        part,
        node: acceptor(node),
    }
}

pub(crate) async fn what_is_found_is_entered_once_and_leaves_once(store: Shared) {
    assert_eq!(store.harms().await.unwrap(), Book::default());
    let all = [
        harm(Part::Init, 1),
        harm(Part::Chunk(0), 1),
        harm(Part::Chunk(0), 2),
        harm(Part::Chunk(u32::MAX), 1),
    ];
    let found = Changes {
        found: all.to_vec(),
        ..Changes::default()
    };
    for _ in 0..2 {
        store.note_harms(found.clone()).await.unwrap();
        let book = store.harms().await.unwrap();
        assert_eq!(book.open, all.into());
        let found = Totals {
            found: 4,
            ..Totals::default()
        };
        assert_eq!(book.totals, found, "the same again is nothing new");
    }
    let left = Changes {
        repaired: vec![all[0], all[2]],
        ended: vec![all[3]],
        ..Changes::default()
    };
    for _ in 0..2 {
        store.note_harms(left.clone()).await.unwrap();
        let expected = Book {
            open: [all[1]].into(),
            totals: Totals {
                found: 4,
                repaired: 2,
                ended: 1,
            },
            ..Book::default()
        };
        assert_eq!(store.harms().await.unwrap(), expected);
    }
}

pub(crate) async fn which_shards_are_none_of_their_chunk_is_kept_until_they_are_right(store: Shared) {
    let wrong = |part: Part, node: u8, tag: u32| WrongShard {
        video: VideoId::from_bytes([7; 16]),
        part,
        node: acceptor(node),
        tag,
    };
    let all = [
        wrong(Part::Init, 1, 0),
        wrong(Part::Chunk(0), 1, 5),
        // Two at one node, and the same digest at another.
        wrong(Part::Chunk(0), 1, u32::MAX),
        wrong(Part::Chunk(0), 2, 5),
        wrong(Part::Chunk(u32::MAX), 1, 5),
    ];
    let found = Changes {
        wrong: all.to_vec(),
        ..Changes::default()
    };
    for _ in 0..2 {
        store.note_harms(found.clone()).await.unwrap();
        let expected = Book {
            wrong: all.into(),
            ..Book::default()
        };
        assert_eq!(store.harms().await.unwrap(), expected, "the same again is nothing new");
    }
    let left = Changes {
        // What is not in it does not leave.
        righted: vec![all[1], all[4], wrong(Part::Chunk(0), 2, 6)],
        ..Changes::default()
    };
    for _ in 0..2 {
        store.note_harms(left.clone()).await.unwrap();
        let book = store.harms().await.unwrap();
        assert_eq!(book.wrong, [all[0], all[2], all[3]].into());
    }
}
