//! The code that is used.

use rustfs_erasure_codec::{CodecOptions, galois_8};

#[cfg(target_arch = "x86_64")]
use crate::gfni::Gfni;
#[cfg(target_arch = "x86_64")]
use crate::matrix::Matrix;
use crate::{Code, Shape, TooFew};

/// Reed-Solomon over GF(2^8) with the polynomial 0x11d. The matrix is a Vandermonde matrix (row r, column c: r to the
/// power of c) times the inverse of its upper square, which makes it systematic. It is the one of Backblaze's
/// JavaReedSolomon, klauspost/reedsolomon and the crate reed-solomon-erasure.
#[derive(Debug)]
pub struct ReedSolomon {
    shape: Shape,
    by: By,
}

/// What does the work; the outcome is the same.
#[derive(Debug)]
enum By {
    #[cfg(target_arch = "x86_64")]
    Gfni {
        gfni: Gfni,
        code: Matrix,
    },
    Library(Box<galois_8::ReedSolomon>),
}

impl ReedSolomon {
    /// Of this shape.
    pub fn new(shape: Shape) -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(gfni) = Gfni::detected() {
            let code = Matrix::of_code(shape);
            let by = By::Gfni { gfni, code };
            return Self { shape, by };
        }
        Self::portable(shape)
    }

    /// Of this shape, for any processor.
    pub fn portable(shape: Shape) -> Self {
        // There is other work beside it: a chunk takes less time than another thread to be woken.
        let options = CodecOptions::builder().max_parallel_jobs(1).build();
        let code = galois_8::ReedSolomon::with_options(shape.data().into(), shape.parity().into(), options);
        let code = code.expect("any shape up to 16+16 is one of a code over 256 elements");
        let by = By::Library(Box::new(code));
        Self { shape, by }
    }
}

impl Code for ReedSolomon {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn parity(&self, data: &[&[u8]], parity: &mut [&mut [u8]]) {
        match &self.by {
            #[cfg(target_arch = "x86_64")]
            By::Gfni { gfni, code } => {
                gfni.combine(&code.select(self.shape.data().into()..self.shape.total()), data, parity)
            }
            By::Library(code) => {
                let encoded = code.encode_sep(data, parity);
                encoded.expect("as many shards as the shape has, all of the same length");
            }
        }
    }

    fn data(&self, shards: &mut [(&mut [u8], bool)]) -> Result<(), TooFew> {
        let have = shards.iter().filter(|(_, is_there)| *is_there).count();
        let need = usize::from(self.shape.data());
        if have < need {
            return Err(TooFew { have, need });
        }
        match &self.by {
            #[cfg(target_arch = "x86_64")]
            By::Gfni { gfni, code } => rebuild(*gfni, code, need, shards),
            By::Library(code) => {
                let rebuilt = code.reconstruct_data(shards);
                rebuilt.expect("enough shards, in their places, all of the same length");
            }
        }
        Ok(())
    }
}

/// Makes the first `need` shards that are not there of the first that are, of which there are as many.
#[cfg(target_arch = "x86_64")]
fn rebuild(gfni: Gfni, code: &Matrix, need: usize, shards: &mut [(&mut [u8], bool)]) {
    let (mut have, mut inputs, mut lost, mut outputs) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (at, (shard, is_there)) in shards.iter_mut().enumerate() {
        if *is_there && inputs.len() < need {
            have.push(at);
            inputs.push(&**shard);
        } else if !*is_there && at < need {
            lost.push(at);
            outputs.push(&mut **shard);
        }
    }
    let back = code.select(have).inverse();
    let back = back.expect("any of its rows, as many as are needed, are independent");
    gfni.combine(&back.select(lost), &inputs, &mut outputs);
}
