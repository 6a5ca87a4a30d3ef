//! The code is the one it always was, and the one that others compute: `vectors.json` is read by the player in the
//! browser as well.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use vstack_erasure::{ReedSolomon, Shape, encode, read};
use vstack_types::{Digest, Hashed};

/// Chunk and shards as hexadecimal digits.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Vector {
    shape: String,
    chunk: String,
    sha256: String,
    shards: Vec<String>,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Bytes {
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal digits");
    (0..hex.len()).step_by(2).map(byte).collect()
}

fn made(shape: &str, chunk: &Bytes) -> Vector {
    let code = ReedSolomon::new(shape.parse().expect("a shape"));
    Vector {
        shape: shape.to_owned(),
        chunk: hex(chunk),
        sha256: hex(Digest::of(chunk).as_bytes()),
        shards: encode(&code, chunk).iter().map(|shard| hex(shard)).collect(),
    }
}

/// Every byte there is, in an order that no row of the code could leave as it is.
fn chunk(len: usize) -> Bytes {
    (0..len)
        .map(|at| (at * 167 + at / 256 * 31 + 5).to_le_bytes()[0])
        .collect()
}

#[test]
fn the_code_is_the_one_it_always_was() {
    let kept = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/vectors.json")).expect("vectors.json");
    let kept: Vec<Vector> = serde_json::from_str(&kept).expect("vectors");
    let shapes = [
        ("3+2", 1),
        ("3+2", 100),
        ("3+2", 768),
        ("2+2", 33),
        ("1+1", 9),
        ("4+1", 50),
        ("10+4", 301),
        ("16+16", 130),
    ];
    let now: Vec<Vector> = shapes.iter().map(|(shape, len)| made(shape, &chunk(*len))).collect();
    assert_eq!(kept, now, "as JSON: {}", serde_json::to_string(&now).expect("JSON"));
    for vector in kept {
        let shape: Shape = vector.shape.parse().expect("a shape");
        let (code, chunk) = (ReedSolomon::new(shape), bytes(&vector.chunk));
        let last = vector.shards.iter().enumerate().rev().take(shape.data().into());
        let last: Vec<_> = last
            .map(|(at, shard)| (u8::try_from(at).expect("at most 32"), bytes(shard)))
            .collect();
        let sha256 = Digest::of(&chunk);
        assert_eq!(hex(sha256.as_bytes()), vector.sha256);
        assert_eq!(read(&code, chunk.len(), sha256, &last), Ok(Hashed::new(chunk)));
    }
}

/// The rows of 3+2 and a product, from the definition alone.
#[test]
fn the_parity_of_three_and_two_is_what_its_definition_says() {
    fn times(mut a: u8, mut b: u8) -> u8 {
        let mut product = 0;
        while b != 0 {
            if b & 1 != 0 {
                product ^= a;
            }
            let carry = a & 0x80 != 0;
            a <<= 1;
            if carry {
                a ^= 0x1d;
            }
            b >>= 1;
        }
        product
    }
    let inverse = |a: u8| {
        (1..=255)
            .find(|b| times(a, *b) == 1)
            .expect("every element but zero has one")
    };
    // The polynomial of degree two through (0, a), (1, b), (2, c), at 3 and 4, which is what the rows come to.
    let at = |x: u8, y: [u8; 3]| {
        (0..3_u8).fold(0, |sum, i| {
            let others = (0..3_u8).filter(|j| *j != i);
            let weight = others.fold(1, |weight, j| times(weight, times(x ^ j, inverse(i ^ j))));
            sum ^ times(weight, y[usize::from(i)])
        })
    };
    let code = ReedSolomon::new(Shape::new(3, 2).expect("a shape"));
    let chunk = chunk(3 * 256);
    let shards = encode(&code, &chunk);
    for (row, x) in [(3, 3), (4, 4)] {
        let value = |place: usize| at(x, [shards[0][place], shards[1][place], shards[2][place]]);
        let parity: Vec<u8> = (0..256).map(value).collect();
        assert_eq!(shards[row][..], parity, "row {row}");
    }
}
