//! The rows by which shards are combined.

use crate::{
    Shape,
    field::{inverse, power, times},
};

/// Of elements of the field, by rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Matrix {
    columns: usize,
    elements: Vec<u8>,
}

impl Matrix {
    /// What a code makes of its data shards: all of its shards, those of data first and as they are.
    pub(crate) fn of_code(shape: Shape) -> Self {
        let data = shape.data();
        let vandermonde = |row: u8| (0..data).map(move |column| power(row, column));
        let rows = data + shape.parity();
        let all = Self::new(data.into(), (0..rows).flat_map(vandermonde).collect());
        let upper = all.select(0..data.into());
        let upper = upper
            .inverse()
            .expect("the powers of different elements are independent");
        all.times(&upper)
    }

    fn new(columns: usize, elements: Vec<u8>) -> Self {
        Self { columns, elements }
    }

    /// The rows, each with as many elements as there are columns.
    pub(crate) fn rows(&self) -> std::slice::ChunksExact<'_, u8> {
        self.elements.chunks_exact(self.columns)
    }

    fn row(&self, row: usize) -> &[u8] {
        &self.elements[row * self.columns..][..self.columns]
    }

    /// Some of its rows.
    pub(crate) fn select(&self, rows: impl IntoIterator<Item = usize>) -> Self {
        let elements = rows.into_iter().flat_map(|row| self.row(row)).copied().collect();
        Self::new(self.columns, elements)
    }

    fn times(&self, other: &Self) -> Self {
        let element = |row: &[u8], column: usize| {
            let products = row.iter().zip(other.rows()).map(|(a, row)| times(*a, row[column]));
            products.fold(0, |sum, product| sum ^ product)
        };
        let row = |row| (0..other.columns).map(move |column| element(row, column));
        Self::new(other.columns, self.rows().flat_map(row).collect())
    }

    /// What undoes it; none where nothing does. It has as many rows as columns.
    pub(crate) fn inverse(&self) -> Option<Self> {
        let size = self.columns;
        let unit = |row: usize| (0..size).map(move |column| u8::from(row == column));
        // Beside it the unit matrix; what makes the one of the other makes its inverse of that.
        let mut rows: Vec<Vec<u8>> = self
            .rows()
            .enumerate()
            .map(|(at, row)| row.iter().copied().chain(unit(at)).collect())
            .collect();
        for column in 0..size {
            let pivot = (column..size).find(|row| rows[*row][column] != 0)?;
            rows.swap(column, pivot);
            let scale = inverse(rows[column][column]);
            rows[column]
                .iter_mut()
                .for_each(|element| *element = times(*element, scale));
            let pivot = rows[column].clone();
            for (at, row) in rows.iter_mut().enumerate() {
                let factor = if at == column { 0 } else { row[column] };
                for (element, of_pivot) in row.iter_mut().zip(&pivot) {
                    *element ^= times(factor, *of_pivot);
                }
            }
        }
        let right = rows.into_iter().flat_map(|row| row.into_iter().skip(size));
        Some(Self::new(size, right.collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(size: usize) -> Matrix {
        let element = |at: usize| u8::from(at.is_multiple_of(size + 1));
        Matrix::new(size, (0..size * size).map(element).collect())
    }

    #[test]
    fn an_inverse_undoes_and_what_is_not_independent_has_none() {
        for data in 1..=16 {
            let code = Matrix::of_code(Shape::new(data, 16).expect("a shape"));
            let data = usize::from(data);
            assert_eq!(code.select(0..data), unit(data), "data shards are the chunk");
            let last = code.select(code.rows().len() - data..code.rows().len());
            let back = last.inverse().expect("any few that suffice give the chunk");
            assert_eq!(last.times(&back), unit(data));
            assert_eq!(back.times(&last), unit(data));
        }
        assert_eq!(Matrix::new(2, vec![1, 2, 2, 4]).inverse(), None);
        assert_eq!(Matrix::new(1, vec![0]).inverse(), None);
    }
}
