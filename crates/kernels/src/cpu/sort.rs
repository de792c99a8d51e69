//! Order: stable sorts of rows, places in sorted vectors, and places of what is not zero. On contiguous tensors.
//!
//! Elements are compared as unsigned keys ([`Key`]), which put NaN last and make 0 and -0 equal. A row is sorted as words of
//! key and place, so that equals keep their order whatever the method: comparison for short rows, counting digit by digit
//! for long ones.

use bullet_ops::Element;
use half::{bf16, f16};

use super::par::{self, SharedMut};
use super::stop;

/// From this many elements on a row is sorted by its digits.
const LONG: usize = 512;
/// How many elements of a row are gone through before a call asks whether to go on: about a millisecond.
const STRETCH: usize = 1 << 19;

/// An element that has an order.
pub trait Key: Copy + Send + Sync + 'static {
    /// Bits of a key.
    const BITS: u32;
    /// A number below 2^[`Self::BITS`] that grows with the element; the largest is that of NaN.
    fn key(self) -> u64;
    /// Whether this is no number.
    fn is_nan(self) -> bool {
        false
    }

    /// The key in this direction. NaN has the largest in both.
    #[inline(always)]
    fn ordered(self, descending: bool) -> u64 {
        if descending && !self.is_nan() { self.key() ^ (u64::MAX >> (64 - Self::BITS)) } else { self.key() }
    }
}

macro_rules! integer_keys {
    ($($ty:ty, $bits:expr, $flip:expr);* $(;)?) => {$(
        impl Key for $ty {
            const BITS: u32 = $bits;
            #[inline(always)]
            fn key(self) -> u64 {
                (self as u64 ^ $flip) & (u64::MAX >> (64 - $bits))
            }
        }
    )*};
}
// The sign bit of signed numbers is turned around.
integer_keys! {
    bool, 8, 0; u8, 8, 0; u16, 16, 0; u32, 32, 0; u64, 64, 0;
    i8, 8, 1 << 7; i16, 16, 1 << 15; i32, 32, 1 << 31; i64, 64, 1 << 63;
}

macro_rules! float_keys {
    ($($ty:ty, $bits:expr);*) => {$(
        impl Key for $ty {
            const BITS: u32 = $bits;
            #[inline(always)]
            fn key(self) -> u64 {
                let (all, sign) = (u64::MAX >> (64 - $bits), 1u64 << ($bits - 1));
                let bits = u64::from(self.to_bits());
                if <$ty>::is_nan(self) {
                    all
                } else if bits == sign || bits == 0 {
                    sign
                } else if bits & sign == 0 {
                    bits | sign
                } else {
                    bits ^ all
                }
            }
            #[inline(always)]
            fn is_nan(self) -> bool {
                <$ty>::is_nan(self)
            }
        }
    )*};
}
float_keys!(f16, 16; bf16, 16; f32, 32; f64, 64);

/// Key and place of an element, which sort as one number.
trait Word: Copy + Ord + Default {
    fn new(key: u64, place: usize) -> Self;
    fn place(self) -> usize;
    /// Byte `n` of the key, from the lowest.
    fn digit(self, n: u32) -> usize;
}

impl Word for u64 {
    #[inline(always)]
    fn new(key: u64, place: usize) -> u64 {
        key << 32 | place as u64
    }
    #[inline(always)]
    fn place(self) -> usize {
        self as u32 as usize
    }
    #[inline(always)]
    fn digit(self, n: u32) -> usize {
        (self >> (32 + 8 * n)) as u8 as usize
    }
}

impl Word for u128 {
    #[inline(always)]
    fn new(key: u64, place: usize) -> u128 {
        u128::from(key) << 64 | place as u128
    }
    #[inline(always)]
    fn place(self) -> usize {
        self as u64 as usize
    }
    #[inline(always)]
    fn digit(self, n: u32) -> usize {
        (self >> (64 + 8 * n)) as u8 as usize
    }
}

/// Each row of `width` elements of `x` in order, into `y`, and where its elements were, into `places`. Equals keep their
/// order; NaN is last in either direction.
///
/// # Panics
/// If a length is wrong.
pub fn sort<K: Key>(x: &[K], width: usize, descending: bool, y: &mut [K], places: &mut [i64]) {
    if K::BITS <= 32 && u32::try_from(width).is_ok() {
        sort_words::<u64, K>(x, width, descending, y, places);
    } else {
        sort_words::<u128, K>(x, width, descending, y, places);
    }
}

fn sort_words<W: Word, K: Key>(x: &[K], width: usize, descending: bool, y: &mut [K], places: &mut [i64]) {
    assert!(y.len() == x.len() && places.len() == x.len());
    if x.is_empty() {
        return;
    }
    let (y, places) = (SharedMut::new(y), SharedMut::new(places));
    // Each element costs as much as some tens of bytes that are only copied.
    let grain = par::SERIAL_BELOW / 32 / width;
    par::for_ranges(x.len() / width, grain.max(1), |rows| {
        let mut words = stop::filled(W::default(), width);
        let mut spare = Vec::new();
        for row in rows {
            let at = row * width..(row + 1) * width;
            let x = &x[at.clone()];
            for (n, words) in words.chunks_mut(STRETCH).enumerate() {
                stop::check();
                let first = n * STRETCH;
                for (i, (word, x)) in words.iter_mut().zip(&x[first..]).enumerate() {
                    *word = W::new(x.ordered(descending), first + i);
                }
            }
            sort_row(&mut words, &mut spare, K::BITS / 8);
            // SAFETY: rows are disjoint.
            let (y, places) = unsafe { (y.part(at.clone()), places.part(at)) };
            let stretches = y.chunks_mut(STRETCH).zip(places.chunks_mut(STRETCH));
            for (words, (y, places)) in words.chunks(STRETCH).zip(stretches) {
                stop::check();
                for (word, (y, place)) in words.iter().zip(y.iter_mut().zip(places)) {
                    *y = x[word.place()];
                    *place = word.place() as i64;
                }
            }
        }
    });
}

/// Sorts words whose places ascend, by keys of so many digits.
fn sort_row<W: Word>(words: &mut Vec<W>, spare: &mut Vec<W>, digits: u32) {
    if words.len() < LONG {
        words.sort_unstable();
        return;
    }
    if spare.len() < words.len() {
        *spare = stop::filled(W::default(), words.len());
    }
    for n in 0..digits {
        let mut starts = [0usize; 256];
        for words in words.chunks(STRETCH) {
            stop::check();
            words.iter().for_each(|w| starts[w.digit(n)] += 1);
        }
        if starts.contains(&words.len()) {
            continue;
        }
        let mut total = 0;
        for start in &mut starts {
            total += std::mem::replace(start, total);
        }
        for words in words.chunks(STRETCH) {
            stop::check();
            for &word in words {
                let at = &mut starts[word.digit(n)];
                spare[*at] = word;
                *at += 1;
            }
        }
        std::mem::swap(words, spare);
    }
}

/// How many elements of `sorted`, which ascends with NaN last, are below each value, or (`right`) not above it.
///
/// # Panics
/// If the result has another length than the values.
pub fn searchsorted<K: Key>(right: bool, sorted: &[K], values: &[K], places: &mut [i64]) {
    assert_eq!(places.len(), values.len());
    let out = SharedMut::new(places);
    par::for_ranges(values.len(), par::SERIAL_BELOW / 64, |r| {
        // SAFETY: ranges are disjoint.
        let places = unsafe { out.part(r.clone()) };
        for (value, place) in values[r].iter().zip(places) {
            let key = value.key();
            let before = |s: &K| if right { s.key() <= key } else { s.key() < key };
            *place = sorted.partition_point(before) as i64;
        }
    });
}

/// Positions of the elements that are not zero, in order, then zeros; returns how many there are.
///
/// # Panics
/// If there are fewer places than elements.
pub fn nonzero<T: Element>(x: &[T], places: &mut [i64]) -> usize {
    assert!(places.len() >= x.len());
    let (zero, grain) = (T::default(), par::SERIAL_BELOW / 8);
    let counts = par::map_ranges(x.len(), grain, |r| {
        let count = x[r.clone()].iter().filter(|&&x| x != zero).count();
        (r.start, count)
    });
    let total = counts.iter().map(|c| c.1).sum();
    let out = SharedMut::new(&mut places[..total]);
    par::for_ranges(x.len(), grain, |r| {
        let before = counts.iter().filter(|c| c.0 < r.start).map(|c| c.1).sum::<usize>();
        let own = counts.iter().find(|c| c.0 == r.start).map_or(0, |c| c.1);
        // SAFETY: the ranges are those of above, and each has as many places as it counted.
        let places = unsafe { out.part(before..before + own) };
        let found = r.filter(|&at| x[at] != zero);
        places.iter_mut().zip(found).for_each(|(place, at)| *place = at as i64);
    });
    places[total..].fill(0);
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_order() {
        let ascending =
            [f32::NEG_INFINITY, -f32::MAX, -1.0, -1e-45, 0.0, 1e-45, 1.0, f32::MAX, f32::INFINITY, f32::NAN];
        for pair in ascending.windows(2) {
            assert!(pair[0].key() < pair[1].key(), "{pair:?}");
            assert!(pair[1].is_nan() || pair[0].ordered(true) > pair[1].ordered(true), "{pair:?}");
        }
        assert_eq!((-0.0f64).key(), 0.0f64.key());
        assert_eq!((-f32::NAN).key(), f32::NAN.key());
        assert!(f16::NEG_INFINITY.ordered(true) < f16::NAN.ordered(true));
        assert!(i64::MIN.key() == 0 && i64::MAX.key() == u64::MAX && (-1i8).key() < 0i8.key());
        assert!(i32::MIN.ordered(true) > i32::MAX.ordered(true) && true.key() > false.key());
    }

    #[test]
    fn long_rows_are_sorted_as_short_ones() {
        for width in [LONG - 1, LONG, 5000] {
            let x: Vec<i16> = (0..3 * width).map(|i| (i * 7919 % 1009) as i16 - 500).collect();
            let wide: Vec<i64> = x.iter().map(|&x| i64::from(x) << 40).collect();
            for descending in [false, true] {
                let (mut y, mut places) = (vec![0; x.len()], vec![0; x.len()]);
                sort(&x, width, descending, &mut y, &mut places);
                let (mut z, mut same) = (vec![0; x.len()], vec![0; x.len()]);
                sort(&wide, width, descending, &mut z, &mut same);
                assert_eq!(places, same);
                for (row, places) in x.chunks_exact(width).zip(places.chunks_exact(width)) {
                    let mut want: Vec<usize> = (0..width).collect();
                    want.sort_by_key(|&i| if descending { -row[i] } else { row[i] });
                    assert!(places.iter().zip(want).all(|(&got, want)| got == want as i64));
                }
            }
        }
    }
}
