//! Which memory views reach, and whether they share some.

use bullet_tensor::Tensor;

/// Whether two views may reach one byte.
pub(crate) fn overlap(a: &Tensor, b: &Tensor) -> bool {
    // By addresses: two tensors may have been made of one array of NumPy.
    let (Some(a), Some(b)) = (Reach::of(a), Reach::of(b)) else { return false };
    if a.last < b.first || b.last < a.first {
        return false;
    }
    // Fields of the same records begin at other places of them.
    let step = gcd(a.step, b.step);
    let (x, y) = (a.first.checked_rem(step).unwrap_or(0), b.first.checked_rem(step).unwrap_or(0));
    let apart = step > 0 && x + a.run <= step && y + b.run <= step && (x + a.run <= y || y + b.run <= x);
    !apart
}

/// The bytes that a view reaches: runs, whose beginnings lie multiples of `step` apart.
pub(crate) struct Reach {
    first: usize,
    last: usize,
    run: usize,
    /// 0 if there is one run.
    step: usize,
}

impl Reach {
    /// `None` of a view without elements.
    pub(crate) fn of(tensor: &Tensor) -> Option<Reach> {
        let size = tensor.dtype().size();
        let (first, last) = tensor.extent()?;
        let base = tensor.address() as usize - tensor.layout().offset * size;
        let (mut run, mut step) = (1, 0);
        for (&length, &stride) in tensor.shape().iter().zip(tensor.layout().strides()).rev() {
            if step == 0 && stride == run as isize {
                run *= length;
            } else if length > 1 {
                step = gcd(step, stride.unsigned_abs());
            }
        }
        Some(Reach {
            first: base + first * size,
            last: base + (last + 1) * size - 1,
            run: run * size,
            step: step * size,
        })
    }

    /// The address of the first byte.
    pub(crate) fn first(&self) -> usize {
        self.first
    }

    /// The address of the last byte.
    pub(crate) fn last(&self) -> usize {
        self.last
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Whether several elements of a view lie at one place, as far as strides of 0 make them.
pub(crate) fn repeats(tensor: &Tensor) -> bool {
    let axes = tensor.shape().iter().zip(tensor.layout().strides());
    axes.into_iter().any(|(&length, &stride)| stride == 0 && length > 1)
}
