//! Iteration spaces: the axes that several strided operands are walked over together, merged into as few as will do.

use bullet_ops::MAX_DIMS;
use smallvec::SmallVec;

/// Axes and, for each operand, its strides in elements.
#[derive(Clone, Debug)]
pub(crate) struct Space {
    dims: [usize; MAX_DIMS],
    rank: usize,
    /// Few operands: an op on a few elements allocates nothing for them.
    strides: SmallVec<[[isize; MAX_DIMS]; 4]>,
}

impl Space {
    /// The space of these axes in this order; axes of length 1 vanish, neighbours that lie densely in every operand
    /// merge. There is always at least one axis.
    pub(crate) fn new(dims: &[usize], strides: &[&[isize]]) -> Space {
        Space::in_order(dims, strides, 0..dims.len())
    }

    fn in_order(dims: &[usize], strides: &[&[isize]], order: impl Iterator<Item = usize>) -> Space {
        let none = SmallVec::from_elem([0; MAX_DIMS], strides.len());
        let mut space = Space { dims: [1; MAX_DIMS], rank: 0, strides: none };
        for (axis, d) in order.map(|axis| (axis, dims[axis])).filter(|&(_, d)| d != 1) {
            let merges = space.rank > 0
                && (0..strides.len())
                    .all(|o| space.strides[o][space.rank - 1] == strides[o][axis] * d as isize);
            if !merges {
                space.rank += 1;
            }
            let at = space.rank - 1;
            space.dims[at] *= d;
            for (mine, given) in space.strides.iter_mut().zip(strides) {
                mine[at] = given[axis];
            }
        }
        space.rank = space.rank.max(1);
        space
    }

    /// As [`Space::new`], in the order that makes operand 0's strides fall: for work that doesn't care for the order.
    pub(crate) fn sorted(dims: &[usize], strides: &[&[isize]]) -> Space {
        let mut order: [usize; MAX_DIMS] = std::array::from_fn(|axis| axis);
        let order = &mut order[..dims.len()];
        // Stable, so that broadcast axes (stride 0) of operand 0, if any, keep their place among equals.
        order.sort_by_key(|&a| std::cmp::Reverse(strides[0][a].unsigned_abs()));
        Space::in_order(dims, strides, order.iter().copied())
    }

    /// Lengths of the merged axes.
    pub(crate) fn dims(&self) -> &[usize] {
        &self.dims[..self.rank]
    }

    /// Strides of an operand over the merged axes.
    pub(crate) fn strides(&self, operand: usize) -> &[isize] {
        &self.strides[operand][..self.rank]
    }

    /// Number of operands.
    pub(crate) fn operands(&self) -> usize {
        self.strides.len()
    }

    /// Number of points.
    pub(crate) fn len(&self) -> usize {
        self.dims().iter().product()
    }

    /// Length of the last axis.
    pub(crate) fn inner(&self) -> usize {
        self.dims[self.rank - 1]
    }

    /// The one stride at which an operand's elements lie in the order of iteration, if there is one.
    pub(crate) fn linear(&self, operand: usize) -> Option<isize> {
        let s = self.strides(operand);
        let step = s[self.rank - 1];
        let mut expected = step;
        for axis in (0..self.rank).rev() {
            if s[axis] != expected {
                return None;
            }
            expected *= self.dims[axis] as isize;
        }
        Some(step)
    }

    /// Where an operand's element of the `n`-th point lies.
    pub(crate) fn offset(&self, operand: usize, mut n: usize) -> isize {
        let s = &self.strides[operand];
        let mut at = 0;
        for axis in (0..self.rank).rev() {
            let d = self.dims[axis].max(1);
            at += (n % d) as isize * s[axis];
            n /= d;
        }
        at
    }

    /// Calls `f(position, n, offset)` for each stretch of `n` points among `start..start + len` in which an operand's
    /// elements are equally spaced, by its last stride.
    #[inline(always)]
    pub(crate) fn stretches(
        &self,
        operand: usize,
        start: usize,
        len: usize,
        mut f: impl FnMut(usize, usize, isize),
    ) {
        if self.linear(operand).is_some() {
            return f(0, len, self.offset(operand, start));
        }
        let inner = self.inner();
        let s = &self.strides[operand];
        let mut index = [0; MAX_DIMS];
        let mut rest = start;
        for axis in (0..self.rank).rev() {
            index[axis] = rest % self.dims[axis];
            rest /= self.dims[axis];
        }
        let mut offset = self.offset(operand, start);
        let mut at = 0;
        while at < len {
            let n = (inner - index[self.rank - 1]).min(len - at);
            f(at, n, offset);
            at += n;
            // To the start of the next row.
            offset -= index[self.rank - 1] as isize * s[self.rank - 1];
            index[self.rank - 1] = 0;
            for axis in (0..self.rank - 1).rev() {
                index[axis] += 1;
                offset += s[axis];
                if index[axis] < self.dims[axis] {
                    break;
                }
                offset -= s[axis] * self.dims[axis] as isize;
                index[axis] = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dense_axes_merge_and_broadcast_ones_do_not() {
        let s = Space::new(&[4, 1, 3, 5], &[&[15, 15, 5, 1], &[0, 0, 5, 1]]);
        assert_eq!(s.dims(), [4, 15]);
        assert_eq!(s.strides(1), [0, 1]);
        assert_eq!(s.linear(0), Some(1));
        assert_eq!(s.linear(1), None);
        assert_eq!(Space::new(&[], &[&[]]).dims(), [1]);
    }

    #[test]
    fn stretches_visit_what_offset_says() {
        let s = Space::new(&[3, 4, 5], &[&[20, 5, 1], &[1, 30, 3], &[0, 1, 0]]);
        for operand in 0..3 {
            for (start, len) in [(0, 60), (7, 31), (59, 1), (5, 0)] {
                let mut seen = Vec::new();
                s.stretches(operand, start, len, |at, n, offset| {
                    assert_eq!(at, seen.len());
                    let step = s.strides(operand)[s.dims().len() - 1];
                    (0..n).for_each(|i| seen.push(offset + i as isize * step));
                });
                let want: Vec<isize> = (start..start + len).map(|n| s.offset(operand, n)).collect();
                assert_eq!(seen, want);
            }
        }
    }

    #[test]
    fn sorting_follows_operand_zero() {
        let s = Space::sorted(&[3, 4], &[&[1, 3], &[4, 1]]);
        assert_eq!(s.dims(), [4, 3]);
        assert_eq!(s.strides(0), [3, 1]);
        assert_eq!(s.strides(1), [1, 4]);
    }
}
