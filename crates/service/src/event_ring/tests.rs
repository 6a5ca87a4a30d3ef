use super::*;

fn places(anyone: usize) -> Places {
    Places { anyone, known: 0 }
}

fn any(_: &u32) -> bool {
    true
}

async fn next(reader: &mut EventReader<u32>) -> (u64, Vec<u32>) {
    let seen = reader.next(any).await.unwrap();
    (seen.missed, seen.events.into_iter().map(|(_, event)| event).collect())
}

#[tokio::test]
async fn a_reader_sees_every_event_once_and_in_order() {
    let ring = EventRing::new(8, places(2), 1);
    ring.record(1);
    let mut live = ring.read(Reads::Anyone, Start::Recent(0), any).unwrap();
    let mut all = ring.read(Reads::Anyone, Start::Recent(9), any).unwrap();
    ring.record(2);
    ring.record(3);
    assert_eq!(next(&mut live).await, (0, vec![2, 3]));
    assert_eq!(next(&mut all).await, (0, vec![1, 2, 3]));
    ring.record(4);
    assert_eq!(next(&mut live).await, (0, vec![4]));
    ring.close();
    assert_eq!(next(&mut all).await, (0, vec![4]));
    assert_eq!(all.next(any).await, None);
}

#[tokio::test]
async fn who_waits_is_woken_by_what_it_wants_alone() {
    let ring = EventRing::new(8, places(1), 1);
    let mut reader = ring.read(Reads::Anyone, Start::Recent(0), any).unwrap();
    let waiting = tokio::spawn(async move { reader.next(|event: &u32| event.is_multiple_of(2)).await });
    ring.record(1);
    tokio::task::yield_now().await;
    ring.record(2);
    let seen = waiting.await.unwrap().unwrap();
    assert_eq!(seen.events, [(EventId { epoch: 1, number: 1 }, 2)]);
}

#[tokio::test]
async fn who_falls_behind_is_told_how_much_it_missed() {
    let ring = EventRing::new(4, places(1), 1);
    let mut reader = ring.read(Reads::Anyone, Start::Recent(0), any).unwrap();
    (0..10).for_each(|event| ring.record(event));
    assert_eq!(next(&mut reader).await, (6, vec![6, 7, 8, 9]));
    assert_eq!(reader.place().number, 9);
}

#[tokio::test]
async fn who_comes_back_goes_on_after_what_it_saw() {
    let ring = EventRing::new(4, places(1), 7);
    (0..6).for_each(|event| ring.record(event));
    let table = [
        // The next; the last; one long gone; one of another life; one that never was.
        (EventId { epoch: 7, number: 3 }, (0, vec![4, 5])),
        (EventId { epoch: 7, number: 0 }, (1, vec![2, 3, 4, 5])),
        (EventId { epoch: 8, number: 5 }, (0, vec![2, 3, 4, 5])),
        (EventId { epoch: 7, number: 99 }, (0, vec![2, 3, 4, 5])),
    ];
    for (id, expected) in table {
        let mut reader = ring.read(Reads::Anyone, Start::After(id), any).unwrap();
        assert_eq!(next(&mut reader).await, expected, "{id}");
    }
    let mut last = ring
        .read(Reads::Anyone, Start::After(EventId { epoch: 7, number: 5 }), any)
        .unwrap();
    ring.record(6);
    assert_eq!(next(&mut last).await, (0, vec![6]));
}

#[tokio::test]
async fn who_comes_back_after_all_was_forgotten_has_missed_nothing_of_what_comes_anew() {
    let ring = EventRing::new(4, places(1), 7);
    (0..6).for_each(|event| ring.record(event));
    ring.forget();
    (4..7).for_each(|event| ring.record(event));
    for number in [3, 5] {
        let mut reader = ring
            .read(Reads::Anyone, Start::After(EventId { epoch: 7, number }), any)
            .unwrap();
        assert_eq!(next(&mut reader).await, (0, vec![4, 5, 6]), "after {number}");
    }
}

#[tokio::test]
async fn recent_events_are_counted_among_those_wanted() {
    let ring = EventRing::new(100, places(1), 1);
    (0..50).for_each(|event| ring.record(event));
    let tens = |event: &u32| event.is_multiple_of(10);
    let mut reader = ring.read(Reads::Anyone, Start::Recent(2), tens).unwrap();
    let seen = reader.next(tens).await.unwrap();
    let found: Vec<_> = seen.events.into_iter().map(|(_, event)| event).collect();
    assert_eq!(found, [30, 40]);
}

#[tokio::test]
async fn a_long_ring_is_read_in_parts_and_whole() {
    let ring = EventRing::new(5_000, places(1), 1);
    (0..5_000).for_each(|event| ring.record(event));
    let mut reader = ring.read(Reads::Anyone, Start::Recent(5_000), any).unwrap();
    let mut all = Vec::new();
    while all.len() < 5_000 {
        let (missed, part) = next(&mut reader).await;
        assert_eq!(missed, 0);
        all.extend(part);
    }
    assert_eq!(all, (0..5_000).collect::<Vec<_>>());
    let last = |event: &u32| *event == 4_999;
    drop(reader);
    let mut reader = ring.read(Reads::Anyone, Start::Recent(5_000), any).unwrap();
    assert_eq!(
        reader.next(last).await.unwrap().events.len(),
        1,
        "found behind much that is not wanted"
    );
}

#[test]
fn readers_are_bounded_and_give_their_places_back() {
    let ring = EventRing::<u32>::new(1, Places { anyone: 2, known: 1 }, 1);
    let one = ring.read(Reads::Anyone, Start::Recent(0), any);
    let two = ring.read(Reads::Anyone, Start::Recent(0), any);
    assert!(one.is_some() && two.is_some() && ring.read(Reads::Anyone, Start::Recent(0), any).is_none());
    assert_eq!(ring.readers(), 2);
    // Who is known has a place of its own, and no more than that.
    let known = ring.read(Reads::Known, Start::Recent(0), any);
    assert!(known.is_some() && ring.read(Reads::Known, Start::Recent(0), any).is_none());
    drop(known);
    assert!(
        ring.read(Reads::Anyone, Start::Recent(0), any).is_none(),
        "it stays kept"
    );
    drop(one);
    assert!(ring.read(Reads::Anyone, Start::Recent(0), any).is_some());
}

#[test]
fn an_id_reads_back() {
    let id = EventId {
        epoch: u64::MAX,
        number: 17,
    };
    assert_eq!(id.to_string().parse(), Ok(id));
    for bad in ["", "-", "1", "1-x", "g-1", "1-1-1"] {
        assert_eq!(bad.parse::<EventId>(), Err(()), "{bad}");
    }
}
