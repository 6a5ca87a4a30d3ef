//! How many shards, and how long they are.

use std::{fmt, str::FromStr};

/// Most data shards, and most parity shards.
const EACH_MAX: u8 = 16;

/// Data shards and parity shards of a code, such as `3+2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shape {
    data: u8,
    parity: u8,
}

/// Not the shape of a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a code has 1 to {EACH_MAX} data shards and 1 to {EACH_MAX} parity shards, such as 3+2")]
pub struct ShapeError;

impl Shape {
    /// Of 1 to 16 data shards and as many parity shards.
    ///
    /// # Errors
    /// Fewer, or more.
    pub const fn new(data: u8, parity: u8) -> Result<Self, ShapeError> {
        if data == 0 || parity == 0 || data > EACH_MAX || parity > EACH_MAX {
            return Err(ShapeError);
        }
        Ok(Self { data, parity })
    }

    /// Shards that are needed to read.
    pub const fn data(self) -> u8 {
        self.data
    }

    /// Shards beyond those.
    pub const fn parity(self) -> u8 {
        self.parity
    }

    /// All shards.
    pub const fn total(self) -> usize {
        self.data as usize + self.parity as usize
    }

    /// Bytes of each shard of a chunk of `size` bytes.
    pub const fn shard_len(self, size: usize) -> usize {
        size.div_ceil(self.data as usize)
    }

    /// Bytes that are stored for one byte of a chunk.
    pub fn overhead(self) -> f64 {
        self.total() as f64 / f64::from(self.data)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.data, self.parity)
    }
}

impl FromStr for Shape {
    type Err = ShapeError;

    fn from_str(text: &str) -> Result<Self, ShapeError> {
        let (data, parity) = text.split_once('+').ok_or(ShapeError)?;
        let number = |text: &str| text.trim().parse().map_err(|_| ShapeError);
        Self::new(number(data)?, number(parity)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_written_as_they_are_read() {
        let shape: Shape = "3+2".parse().expect("a shape");
        assert_eq!((shape, shape.to_string()), (Shape { data: 3, parity: 2 }, "3+2".into()));
        assert_eq!((shape.total(), shape.shard_len(10), shape.shard_len(9)), (5, 4, 3));
        for wrong in ["", "3", "3+", "0+2", "3+0", "17+1", "1+17", "3+2+1", "-1+2", "300+2"] {
            assert_eq!(wrong.parse::<Shape>(), Err(ShapeError), "{wrong}");
        }
        assert!("16+16".parse::<Shape>().is_ok() && "1+1".parse::<Shape>().is_ok());
    }
}
