//! The code that is used.

use rustfs_erasure_codec::{CodecOptions, galois_8};

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
        // There is other work beside it: a chunk takes less time than another thread to be woken.
        let options = CodecOptions::builder().max_parallel_jobs(1).build();
        let code = galois_8::ReedSolomon::with_options(shape.data().into(), shape.parity().into(), options);
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

    fn parity(&self, data: &[&[u8]], parity: &mut [&mut [u8]]) {
        let encoded = self.code.encode_sep(data, parity);
        encoded.expect("as many shards as the shape has, all of the same length");
    }

    fn data(&self, shards: &mut [(&mut [u8], bool)]) -> Result<(), TooFew> {
        let have = shards.iter().filter(|(_, is_there)| *is_there).count();
        let need = usize::from(self.shape.data());
        if have < need {
            return Err(TooFew { have, need });
        }
        let rebuilt = self.code.reconstruct_data(shards);
        rebuilt.expect("enough shards, in their places, all of the same length");
        Ok(())
    }
}
