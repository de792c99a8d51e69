//! Size classes.

/// Up to here, classes are multiples of [`GRAIN`].
const SMALL: usize = 1024;
const GRAIN: usize = 64;
/// Each power of two above [`SMALL`] is split in this many classes.
const SPLIT: usize = 8;
/// Number of classes; the largest is just below 2^48 bytes, the addresses of a process.
pub(super) const COUNT: usize = SMALL / GRAIN + SPLIT * (48 - 10);

/// One size class: its number and its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Class {
    index: u16,
    size: usize,
}

impl Class {
    /// Bytes of a block of this class.
    pub(super) const fn size(self) -> usize {
        self.size
    }

    /// Its number, below [`COUNT`]; larger classes have larger numbers.
    pub(super) const fn index(self) -> usize {
        self.index as usize
    }

    /// The class with this number.
    pub(super) const fn from_index(index: usize) -> Class {
        let size = match index.checked_sub(SMALL / GRAIN) {
            None => (index + 1) * GRAIN,
            Some(i) => (i % SPLIT + SPLIT + 1) << (i / SPLIT + SMALL.trailing_zeros() as usize - 3),
        };
        Class { index: index as u16, size }
    }
}

/// The smallest class that holds `bytes` (not 0); `None` if no address space does.
pub(super) const fn class_of(bytes: usize) -> Option<Class> {
    debug_assert!(bytes > 0);
    if bytes <= SMALL {
        let size = bytes.next_multiple_of(GRAIN);
        return Some(Class { index: (size / GRAIN - 1) as u16, size });
    }
    // With n in [2^k, 2^(k+1)), n / 2^(k-3) is in 8..16: the class above it.
    let n = bytes - 1;
    let k = n.ilog2() as usize;
    if k >= 48 {
        return None;
    }
    let eighth = n >> (k - 3);
    let index = SMALL / GRAIN + (k - 10) * SPLIT + (eighth - SPLIT);
    Some(Class { index: index as u16, size: (eighth + 1) << (k - 3) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_grow_by_number_and_round_trip() {
        let mut last = 0;
        for index in 0..COUNT {
            let class = Class::from_index(index);
            assert!(class.size() > last);
            assert_eq!(class_of(class.size()), Some(class));
            assert_eq!(class_of(last + 1), Some(class), "the byte above class {index} - 1");
            last = class.size();
        }
        assert_eq!(last, 1 << 48);
        assert_eq!(class_of(last + 1), None);
        assert_eq!(class_of(usize::MAX), None);
    }

    #[test]
    fn waste_is_bounded() {
        let mut bytes = 1usize;
        while bytes < 1 << 46 {
            let size = class_of(bytes).unwrap().size();
            let bound = if bytes <= SMALL { GRAIN - 1 } else { bytes / 8 };
            assert!(size >= bytes && size - bytes <= bound, "{bytes} gets {size}");
            assert_eq!(size % GRAIN, 0);
            bytes += bytes / 97 + 1;
        }
    }
}
