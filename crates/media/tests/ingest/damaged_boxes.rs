//! The fragment reader against bytes that are almost right: no panic, and no memory beyond its limits.

use proptest::prelude::*;
use vstack_media::{
    fmp4::{Event, Fmp4Error, Reader},
    sample::{ClipKind, TestClip, make_test_clip},
};

use crate::support::take;

/// What a reader makes of `bytes`, fed `step` at a time.
fn read(bytes: &[u8], step: usize) -> Result<Vec<Event>, Fmp4Error> {
    let mut reader = Reader::new();
    let mut events = Vec::new();
    for part in bytes.chunks(step.max(1)) {
        reader.push(part);
        while let Some(event) = reader.next_event()? {
            events.push(event);
        }
    }
    reader.finish()?;
    Ok(events)
}

/// Real output, with sound, small.
fn real_stream() -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("clip.mp4");
        let clip = TestClip {
            width: 64,
            height: 64,
            ..TestClip::new(ClipKind::Mp4, 3.0)
        };
        make_test_clip(&path, clip).await.unwrap();
        take(&path).await.unwrap().file()
    })
}

#[test]
fn the_stream_reads_the_same_whatever_the_steps() {
    let stream = real_stream();
    let whole = read(&stream, usize::MAX).unwrap();
    assert!(whole.len() > 2);
    for step in [1, 7, 8, 9, 1000] {
        assert_eq!(read(&stream, step).unwrap(), whole, "steps of {step}");
    }
    let cut: Vec<_> = (1..stream.len())
        .step_by(97)
        .filter(|end| read(&stream[..*end], 4096).is_ok())
        .collect();
    let mut ends = vec![];
    let mut at = 0;
    for event in &whole {
        at += match event {
            Event::Init(init) => init.bytes.len(),
            Event::Fragment(fragment) => fragment.bytes.len(),
        };
        ends.push(at);
    }
    assert!(
        cut.iter().all(|end| ends.contains(end)),
        "a stream cut inside a piece passed as whole: {cut:?}"
    );
}

#[test]
fn no_bytes_make_it_panic() {
    let stream = real_stream();
    // Every byte of the boxes (not of the samples), set to what most often hurts.
    let structure: Vec<usize> = {
        let mut at = 0;
        let mut places = Vec::new();
        for event in read(&stream, usize::MAX).unwrap() {
            let (len, boxes) = match event {
                Event::Init(init) => (init.bytes.len(), init.bytes.len()),
                Event::Fragment(fragment) => {
                    let moof = u32::from_be_bytes(fragment.bytes[..4].try_into().unwrap()) as usize;
                    (fragment.bytes.len(), moof + 8)
                }
            };
            places.extend(at..at + boxes);
            at += len;
        }
        places
    };
    let mut changed = stream.clone();
    for place in structure.iter().copied().take(6000) {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            changed[place] = value;
            let _ = read(&changed, usize::MAX);
        }
        changed[place] = stream[place];
    }
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 400,
        ..ProptestConfig::default()
    });
    let change = (0..structure.len(), any::<[u8; 8]>(), 1_usize..9, 1_usize..5000);
    let changes = proptest::collection::vec(change, 1..6);
    runner
        .run(&changes, |changes| {
            let mut bytes = stream.clone();
            let mut steps = 1;
            for (place, values, count, step) in changes {
                for (byte, value) in bytes[structure[place]..].iter_mut().zip(&values[..count]) {
                    *byte = *value;
                }
                steps = step;
            }
            if let Ok(events) = read(&bytes, steps) {
                let finite = |event: &Event| match event {
                    Event::Init(_) => true,
                    Event::Fragment(fragment) => fragment.start.is_finite() && fragment.end.is_finite(),
                };
                prop_assert!(events.iter().all(finite));
            }
            Ok(())
        })
        .unwrap();
}
