//! GF(2^8) with the polynomial x^8 + x^4 + x^3 + x^2 + 1.

const POLYNOMIAL: u8 = 0x1d;

/// The product of two elements.
pub(crate) const fn times(a: u8, b: u8) -> u8 {
    let (mut a, mut b, mut product) = (a, b, 0);
    while b != 0 {
        if b & 1 != 0 {
            product ^= a;
        }
        a = (a << 1) ^ if a & 0x80 == 0 { 0 } else { POLYNOMIAL };
        b >>= 1;
    }
    product
}

/// An element times itself, so many times; the empty product is 1.
pub(crate) const fn power(a: u8, exponent: u8) -> u8 {
    let (mut left, mut product) = (exponent, 1);
    while left > 0 {
        product = times(product, a);
        left -= 1;
    }
    product
}

/// What gives 1 with an element that is not 0.
pub(crate) const fn inverse(a: u8) -> u8 {
    // There are 255 of them, and they are a group.
    power(a, 254)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_field() {
        for a in 1..=255 {
            assert_eq!(times(a, inverse(a)), 1);
            assert_eq!(times(a, 1), a);
            assert_eq!(times(a, 0), 0);
            for b in 1..=255 {
                assert_eq!(times(a, b), times(b, a));
                assert_eq!(times(a, b ^ 1), times(a, b) ^ a);
            }
        }
        assert_eq!(power(0, 0), 1);
    }
}
