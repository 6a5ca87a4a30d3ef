//! Any sufficient few shards of a chunk give it back, and nothing else passes for it.

use bytes::Bytes;
use proptest::{collection::vec, prelude::*, sample::Index};
use vstack_erasure::{Code as _, ReadError, ReedSolomon, Shape, encode, read, remake};
use vstack_types::{Digest, Hashed};

fn shape() -> impl Strategy<Value = Shape> {
    (1_u8..=16, 1_u8..=16).prop_map(|(data, parity)| Shape::new(data, parity).expect("a shape"))
}

fn coded(code: &ReedSolomon, chunk: &Bytes) -> Vec<(u8, Bytes)> {
    let all = encode(code, chunk).into_iter().enumerate();
    all.map(|(index, shard)| (u8::try_from(index).expect("at most 32"), shard))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_few_that_suffice(shape in shape(), chunk in vec(any::<u8>(), 1..5_000), order in Just((0..32).collect::<Vec<usize>>()).prop_shuffle()) {
        let (code, chunk) = (ReedSolomon::new(shape), Bytes::from(chunk));
        let shards = coded(&code, &chunk);
        prop_assert_eq!(shards.len(), shape.total());
        let portable = ReedSolomon::portable(shape);
        prop_assert_eq!(&coded(&portable, &chunk), &shards, "whatever the processor");
        let len = shape.shard_len(chunk.len());
        prop_assert!(shards.iter().all(|(_, shard)| shard.len() == len));
        let some: Vec<_> = order.iter().filter_map(|at| shards.get(*at)).take(shape.data().into()).cloned().collect();
        let sha256 = Digest::of(&chunk);
        prop_assert_eq!(read(&code, chunk.len(), sha256, &some), Ok(Hashed::new(chunk.clone())));
        prop_assert_eq!(read(&portable, chunk.len(), sha256, &some), Ok(Hashed::new(chunk.clone())));
        let few = &some[1..];
        let too_few = read(&code, chunk.len(), sha256, few);
        prop_assert!(matches!(too_few, Err(ReadError::TooFew(few)) if few.have + 1 == few.need));
        for (index, shard) in &shards {
            let again = remake(&code, &chunk, *index);
            prop_assert_eq!(again.as_ref(), Some(shard));
        }
        prop_assert_eq!(remake(&code, &chunk, u8::try_from(shape.total()).expect("at most 32")), None);
    }

    #[test]
    fn a_harmed_shard_never_gives_a_chunk(shape in shape(), chunk in vec(any::<u8>(), 1..2_000), which in any::<Index>(), at in any::<Index>(), bit in 0_u8..8) {
        let (code, chunk) = (ReedSolomon::new(shape), Bytes::from(chunk));
        let mut shards = coded(&code, &chunk);
        // Of those that are read from; the rest is not there.
        shards.rotate_left(shape.parity().into());
        shards.truncate(shape.data().into());
        let (_, harmed) = &mut shards[which.index(usize::from(shape.data()))];
        let mut bytes = harmed.to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        *harmed = bytes.into();
        let got = read(&code, chunk.len(), Digest::of(&chunk), &shards);
        // What fills up the last shard is no part of the chunk.
        prop_assert!(got == Err(ReadError::Digest) || got == Ok(Hashed::new(chunk)));
    }
}

#[test]
fn what_is_no_shard_of_the_chunk_is_said_so() {
    let code = ReedSolomon::new(Shape::new(3, 2).expect("a shape"));
    let chunk = Bytes::from(vec![7; 100]);
    let shards = coded(&code, &chunk);
    let sha256 = Digest::of(&chunk);
    let is_none = |shards: &[(u8, Bytes)]| matches!(read(&code, 100, sha256, shards), Err(ReadError::NotAShard { .. }));
    assert!(is_none(&[(5, shards[0].1.clone())]), "of another code");
    assert!(is_none(&[shards[0].clone(), shards[0].clone()]), "twice");
    assert!(is_none(&[(0, shards[0].1.slice(1..))]), "too short");
    assert_eq!(code.shape().total(), 5);
}

/// Of a code with much parity all of it would be many times the chunk.
#[test]
fn a_shard_that_is_made_again_takes_the_memory_of_no_other() {
    let chunk: Bytes = (0..=250_u8).cycle().take(200_003).collect();
    for (data, parity) in [(1, 16), (3, 2), (16, 16)] {
        let code = ReedSolomon::new(Shape::new(data, parity).expect("a shape"));
        let shards = encode(&code, &chunk);
        for index in data..data + parity {
            let again = remake(&code, &chunk, index).expect("the code has it");
            assert_eq!(again, shards[usize::from(index)], "{index} of {data}+{parity}");
            let len = again.len();
            let memory = again.try_into_mut().expect("nobody else has it").capacity();
            assert!(memory < 2 * len, "{memory} bytes for {len}");
        }
    }
}
