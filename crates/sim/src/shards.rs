//! A Reed-Solomon code for histories: any `data` of the shards give the chunk back. Cauchy matrix over GF(256), with
//! the polynomial 0x11d; simple and slow, and only as good as a simulation of a few kilobytes needs it.

use bytes::Bytes;

/// The product in GF(256).
fn mul(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    while b > 0 {
        if b & 1 == 1 {
            product ^= a;
        }
        a = (a << 1) ^ if a & 0x80 == 0 { 0 } else { 0x1d };
        b >>= 1;
    }
    product
}

/// The inverse: the 254th power. Of 0 it is 0.
fn inverse(a: u8) -> u8 {
    (0..253).fold(a, |power, _| mul(power, a))
}

/// With what data shard `column` goes into shard `row`.
fn coefficient(row: u8, column: u8, data: u8) -> u8 {
    if row < data {
        u8::from(row == column)
    } else {
        inverse(row ^ column)
    }
}

/// Adds `factor` times `what` to `to`.
fn add(to: &mut [u8], factor: u8, what: &[u8]) {
    for (to, what) in to.iter_mut().zip(what) {
        *to ^= mul(factor, *what);
    }
}

/// The `data + parity` shards of `chunk`, in order, all of one length; the last data shard ends with zeros.
pub(crate) fn encode(chunk: &[u8], data: u8, parity: u8) -> Vec<Bytes> {
    let len = chunk.len().div_ceil(usize::from(data.max(1)));
    let rows: Vec<Vec<u8>> = (0..usize::from(data))
        .map(|row| {
            let part = chunk.iter().skip(row * len).take(len);
            let mut part: Vec<u8> = part.copied().collect();
            part.resize(len, 0);
            part
        })
        .collect();
    (0..data + parity)
        .map(|row| {
            let mut shard = vec![0; len];
            for (column, part) in (0..data).zip(&rows) {
                add(&mut shard, coefficient(row, column, data), part);
            }
            shard.into()
        })
        .collect()
}

/// The chunk of `size` bytes, from the first `data` of the shards given with their indexes; none when they are too few.
pub(crate) fn decode(shards: &[(u8, Bytes)], data: u8, size: usize) -> Option<Bytes> {
    let n = usize::from(data);
    let mut rows: Vec<(Vec<u8>, Vec<u8>)> = shards
        .iter()
        .take(n)
        .map(|(row, shard)| {
            (
                (0..data).map(|column| coefficient(*row, column, data)).collect(),
                shard.to_vec(),
            )
        })
        .collect();
    if rows.len() < n {
        return None;
    }
    // Gauss and Jordan: the left sides become the unit matrix, the right sides the data shards.
    for column in 0..n {
        let pivot = (column..n).find(|row| rows[*row].0[column] != 0)?;
        rows.swap(column, pivot);
        let factor = inverse(rows[column].0[column]);
        let (left, right) = &mut rows[column];
        for value in left.iter_mut().chain(right) {
            *value = mul(*value, factor);
        }
        let (left, right) = rows[column].clone();
        for (row, sides) in rows.iter_mut().enumerate() {
            let factor = sides.0[column];
            if row != column && factor != 0 {
                add(&mut sides.0, factor, &left);
                add(&mut sides.1, factor, &right);
            }
        }
    }
    let mut chunk: Vec<u8> = rows.into_iter().flat_map(|(_, right)| right).collect();
    chunk.truncate(size);
    Some(chunk.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_shards_that_are_enough_give_the_chunk_back() {
        let chunk: Vec<u8> = (0..101u8).collect();
        for (data, parity) in [(1, 2), (2, 2), (3, 2)] {
            let shards = encode(&chunk, data, parity);
            let indexed: Vec<(u8, Bytes)> = (0..).zip(shards).collect();
            for set in 0u32..1 << (data + parity) {
                let some: Vec<_> = indexed
                    .iter()
                    .filter(|(index, _)| set & (1 << index) != 0)
                    .cloned()
                    .collect();
                let read = decode(&some, data, chunk.len());
                let expected = (some.len() >= usize::from(data)).then(|| Bytes::from(chunk.clone()));
                assert_eq!(read, expected, "{data}+{parity}, set {set:b}");
            }
        }
    }
}
