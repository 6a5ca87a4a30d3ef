//! The code that is used.

use rustfs_erasure_codec::galois_8;

use crate::{Code, Shape, TooFew};

/// Reed-Solomon over GF(2^8) with the polynomial 0x11d. The matrix is a Vandermonde matrix (row r, column c: r to the
/// power of c) times the inverse of its upper square, which makes it systematic. It is the one of Backblaze's
/// JavaReedSolomon, klauspost/reedsolomon and the crate reed-solomon-erasure.
#[derive(Debug)]
pub struct ReedSolomon {
    shape: Shape,
    code: galois_8::ReedSolomon,
}

impl ReedSolomon {
    /// Of this shape.
    pub fn new(shape: Shape) -> Self {
        let code = galois_8::ReedSolomon::new(shape.data().into(), shape.parity().into());
        Self {
            shape,
            code: code.expect("any shape up to 16+16 is one of a code over 256 elements"),
        }
    }
}

impl Code for ReedSolomon {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn parity(&self, data: &[&[u8]]) -> Vec<Vec<u8>> {
        let len = data.first().map_or(0, |shard| shard.len());
        let mut parity = vec![vec![0; len]; self.shape.parity().into()];
        let encoded = self.code.encode_sep(data, &mut parity);
        encoded.expect("as many data shards as the shape has, all of the same length");
        parity
    }

    fn data(&self, shards: &mut [Option<Vec<u8>>]) -> Result<(), TooFew> {
        let have = shards.iter().flatten().count();
        let need = usize::from(self.shape.data());
        if have < need {
            return Err(TooFew { have, need });
        }
        let rebuilt = self.code.reconstruct_data(shards);
        rebuilt.expect("enough shards, in their places, all of the same length");
        Ok(())
    }
}
