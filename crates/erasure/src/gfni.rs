//! Linear combinations of shards with the instructions AVX-512 and GFNI, where the processor has them.
//!
//! Why by hand: what there is of libraries takes 1.1 to 1.2 times as long as ISA-L for a chunk of 2 MiB, measured in turns
//! (`vstack-bench coding`, which has the one that is used elsewhere beside this, ISA-L and two others). It multiplies by
//! table look-ups, two of sixteen entries a byte, or writes each output again and again. Here one instruction multiplies 64
//! bytes, and each byte is read once and written once for up to four outputs.
//!
//! Why it is sound: everything unsafe is in [`combined`], which is called by [`Gfni::combine`] alone. That needs a
//! [`Gfni`], which only [`Gfni::detected`] gives, and only where the processor has the instructions; and it checks first
//! that all inputs and outputs are equally long, and that there are as many factors as inputs. Every access is at an
//! offset below that length, of as many bytes as are left, by a mask where fewer than a vector are. Outputs are borrowed
//! exclusively, so none overlaps an input.
#![allow(unsafe_code, reason = "see above")]

use std::arch::x86_64::{
    _mm512_gf2p8affine_epi64_epi8, _mm512_loadu_si512, _mm512_mask_storeu_epi8, _mm512_maskz_loadu_epi8,
    _mm512_set1_epi64, _mm512_setzero_si512, _mm512_storeu_si512, _mm512_xor_si512,
};

use crate::{field::times, matrix::Matrix};

/// Bytes of a vector.
const VECTOR: usize = 64;
/// Outputs that are made at once: with two vectors of each, and what is read, they are in registers.
const AT_ONCE: usize = 4;
/// Inputs that there can be.
const INPUTS_MAX: usize = 16;

/// The processor has the instructions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gfni(());

impl Gfni {
    /// None where it does not have them.
    pub(crate) fn detected() -> Option<Self> {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("gfni");
        has.then_some(Self(()))
    }

    /// Writes to each output what its row of `rows` makes of the inputs, of which there are at most 16.
    pub(crate) fn combine(self, rows: &Matrix, inputs: &[&[u8]], outputs: &mut [&mut [u8]]) {
        let len = inputs.first().map_or(0, |input| input.len());
        let outputs_len = outputs.iter().map(|output| output.len());
        let all = inputs.iter().map(|input| input.len()).chain(outputs_len);
        assert!(all.into_iter().all(|one| one == len), "all are equally long");
        assert!(inputs.len() <= INPUTS_MAX, "as many as a code has");
        assert_eq!(rows.rows().len(), outputs.len(), "a row for each output");
        assert!(
            rows.rows().all(|row| row.len() == inputs.len()),
            "a factor for each input"
        );
        let rows: Vec<&[u8]> = rows.rows().collect();
        for (rows, outputs) in rows.chunks(AT_ONCE).zip(outputs.chunks_mut(AT_ONCE)) {
            // SAFETY: the instructions are there, as this value says; all are `len` long, and each row has a factor for each
            // input, as was checked.
            unsafe {
                match (rows, outputs) {
                    ([a], [to]) => combined([a], inputs, [to], len),
                    ([a, b], [to, two]) => combined([a, b], inputs, [to, two], len),
                    ([a, b, c], [to, two, three]) => combined([a, b, c], inputs, [to, two, three], len),
                    ([a, b, c, d], [to, two, three, four]) => {
                        combined([a, b, c, d], inputs, [to, two, three, four], len)
                    }
                    _ => unreachable!("as many rows as outputs, from one to four"),
                }
            }
        }
    }
}

/// Multiplication by an element, as the instruction takes it: it is linear over the bits of a byte. Bit `j` of byte `7 - i`
/// says whether bit `j` of what is multiplied counts towards bit `i` of the product.
const fn multiplication(by: u8) -> i64 {
    let mut matrix = [0_u8; 8];
    let mut from = 0;
    while from < 8 {
        let product = times(by, 1 << from);
        let mut to = 0;
        while to < 8 {
            matrix[7 - to] |= (product >> to & 1) << from;
            to += 1;
        }
        from += 1;
    }
    i64::from_le_bytes(matrix)
}

/// # Safety
/// The processor has the instructions; all inputs and outputs are at least `len` long; there are at most [`INPUTS_MAX`]
/// inputs, and each row has as many factors.
#[target_feature(enable = "avx512f,avx512bw,gfni")]
unsafe fn combined<const N: usize>(rows: [&[u8]; N], inputs: &[&[u8]], outputs: [&mut [u8]; N], len: usize) {
    let mut factors = [[0_i64; INPUTS_MAX]; N];
    for (factors, row) in factors.iter_mut().zip(rows) {
        for (factor, by) in factors.iter_mut().zip(row) {
            *factor = multiplication(*by);
        }
    }
    let outputs = outputs.map(<[u8]>::as_mut_ptr);
    let mut at = 0;
    while at + 2 * VECTOR <= len {
        let mut sums = [[_mm512_setzero_si512(); 2]; N];
        for (from, input) in inputs.iter().enumerate() {
            // SAFETY: `input` has two vectors from `at` on.
            let (first, second) = unsafe {
                let input = input.as_ptr().add(at);
                (
                    _mm512_loadu_si512(input.cast()),
                    _mm512_loadu_si512(input.add(VECTOR).cast()),
                )
            };
            for (sum, factors) in sums.iter_mut().zip(&factors) {
                let factor = _mm512_set1_epi64(factors[from]);
                sum[0] = _mm512_xor_si512(sum[0], _mm512_gf2p8affine_epi64_epi8::<0>(first, factor));
                sum[1] = _mm512_xor_si512(sum[1], _mm512_gf2p8affine_epi64_epi8::<0>(second, factor));
            }
        }
        for (sum, output) in sums.iter().zip(outputs) {
            // SAFETY: `output` has two vectors from `at` on.
            unsafe {
                let output = output.add(at);
                _mm512_storeu_si512(output.cast(), sum[0]);
                _mm512_storeu_si512(output.add(VECTOR).cast(), sum[1]);
            }
        }
        at += 2 * VECTOR;
    }
    while at < len {
        let left = (len - at).min(VECTOR);
        let mask = u64::MAX >> (VECTOR - left);
        let mut sums = [_mm512_setzero_si512(); N];
        for (from, input) in inputs.iter().enumerate() {
            // SAFETY: `input` has as many bytes from `at` on as the mask has ones.
            let bytes = unsafe { _mm512_maskz_loadu_epi8(mask, input.as_ptr().add(at).cast()) };
            for (sum, factors) in sums.iter_mut().zip(&factors) {
                let product = _mm512_gf2p8affine_epi64_epi8::<0>(bytes, _mm512_set1_epi64(factors[from]));
                *sum = _mm512_xor_si512(*sum, product);
            }
        }
        for (sum, output) in sums.into_iter().zip(outputs) {
            // SAFETY: `output` has as many bytes from `at` on as the mask has ones.
            unsafe { _mm512_mask_storeu_epi8(output.add(at).cast(), mask, sum) };
        }
        at += left;
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::Shape;

    #[test]
    fn it_multiplies_every_byte_by_every_other() {
        let Some(gfni) = Gfni::detected() else {
            println!("SKIPPED: the processor has no AVX-512 or no GFNI");
            return;
        };
        let all: Vec<u8> = (0..=255).collect();
        // With one data shard and sixteen more the rows are 1; so any factors: those of the last row of a code of two.
        for shape in [(2, 1), (2, 16), (16, 16)] {
            let shape = Shape::new(shape.0, shape.1).expect("a shape");
            let rows = Matrix::of_code(shape);
            let inputs = vec![all.as_slice(); shape.data().into()];
            let mut outputs = vec![vec![0; all.len()]; shape.total()];
            gfni.combine(
                &rows,
                &inputs,
                &mut outputs.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>(),
            );
            for (row, output) in rows.rows().zip(&outputs) {
                for (byte, sum) in all.iter().zip(output) {
                    let product = row.iter().fold(0, |sum, factor| sum ^ times(*factor, *byte));
                    assert_eq!(*sum, product);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_the_length_every_byte_is_combined_and_no_other_is_written(
            (data, parity) in (1_u8..=16, 1_u8..=16),
            bytes in vec(any::<u8>(), 16 * 400),
            len in 0_usize..400,
            begin in 0_usize..64,
        ) {
            let Some(gfni) = Gfni::detected() else { return Ok(()) };
            let rows = Matrix::of_code(Shape::new(data, parity).expect("a shape"));
            let len = len.saturating_sub(begin);
            let inputs: Vec<&[u8]> = bytes.chunks_exact(400).take(data.into()).map(|all| &all[begin..begin + len]).collect();
            let mut memory = vec![vec![0xaa; 400]; usize::from(data) + usize::from(parity)];
            let mut outputs: Vec<&mut [u8]> = memory.iter_mut().map(|all| &mut all[begin..begin + len]).collect();
            gfni.combine(&rows, &inputs, &mut outputs);
            for (row, output) in rows.rows().zip(&memory) {
                for (at, byte) in output.iter().enumerate() {
                    let is_one = (begin..begin + len).contains(&at);
                    let products = row.iter().zip(&inputs).map(|(factor, input)| if is_one { times(*factor, input[at - begin]) } else { 0 });
                    let sum = products.fold(0, |sum, product| sum ^ product);
                    prop_assert_eq!(*byte, if is_one { sum } else { 0xaa });
                }
            }
        }
    }
}
