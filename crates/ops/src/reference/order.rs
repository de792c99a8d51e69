//! Scans along an axis, and what has to do with order.

use std::cmp::Ordering;

use super::Array;
use super::elementwise::times;
use crate::infer::Meta;

/// The elements along `axis` of every row of `shape`: positions in row-major order.
fn lines(x: &Array, axis: usize) -> impl Iterator<Item = Vec<usize>> {
    let (len, inner): (usize, usize) = (x.shape[axis], x.shape[axis + 1..].iter().product());
    let outer: usize = x.shape[..axis].iter().product();
    (0..outer * inner).map(move |row| {
        let first = row / inner * len * inner + row % inner;
        (0..len).map(|k| first + k * inner).collect()
    })
}

/// Running sums or products: each element with all before it, or those alone.
pub(super) fn scan(product: bool, axis: usize, reverse: bool, exclusive: bool, x: &Array) -> Array {
    let mut y = x.clone();
    for mut line in lines(x, axis) {
        if reverse {
            line.reverse();
        }
        let mut total = f64::from(product);
        for at in line {
            let next = if product { times(x.dtype, total, x.data[at]) } else { total + x.data[at] };
            y.data[at] = if exclusive { total } else { next };
            total = next;
        }
    }
    y
}

/// `dx_i = sum over k >= i of g_k (product over j <= k, j != i, of x_j)`.
pub(super) fn cumprod_grad(axis: usize, x: &Array, g: &Array) -> Array {
    let mut dx = x.clone();
    for line in lines(x, axis) {
        for (i, &at) in line.iter().enumerate() {
            let mut others: f64 = line[..i].iter().map(|&j| x.data[j]).product();
            dx.data[at] = others * g.data[at];
            for &k in &line[i + 1..] {
                others *= x.data[k];
                dx.data[at] += others * g.data[k];
            }
        }
    }
    dx
}

/// The order of the engine: NaN is last, and 0 is -0.
fn compare(a: f64, b: f64, descending: bool) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (false, false) if descending => b.partial_cmp(&a).expect("neither is NaN"),
        (false, false) => a.partial_cmp(&b).expect("neither is NaN"),
        (a, b) => a.cmp(&b),
    }
}

/// Rows in order, and where their elements were.
pub(super) fn sort(descending: bool, x: &Array) -> Vec<Array> {
    let (mut y, mut places) = (x.clone(), x.clone());
    let axis = x.shape.rank() - 1;
    for line in lines(x, axis) {
        let mut order: Vec<usize> = (0..line.len()).collect();
        order.sort_by(|&a, &b| compare(x.data[line[a]], x.data[line[b]], descending));
        for (&to, from) in line.iter().zip(order) {
            y.data[to] = x.data[line[from]];
            places.data[to] = from as f64;
        }
    }
    vec![y, places]
}

/// Positions of what is not zero, then zeros; how many.
pub(super) fn nonzero(x: &Array, out: &[Meta]) -> Vec<Array> {
    let (mut places, mut count) = (Array::zeros(out[0]), Array::zeros(out[1]));
    for at in (0..x.data.len()).filter(|&at| x.data[at] != 0.0) {
        places.data[count.data[0] as usize] = at as f64;
        count.data[0] += 1.0;
    }
    vec![places, count]
}

/// How many come before each value.
pub(super) fn searchsorted(right: bool, sorted: &Array, values: &Array) -> Array {
    let before = |value: f64| {
        let counts = |&&s: &&f64| match compare(s, value, false) {
            Ordering::Less => true,
            Ordering::Equal => right,
            Ordering::Greater => false,
        };
        sorted.data.iter().filter(counts).count() as f64
    };
    Array { data: values.data.iter().map(|&v| before(v)).collect(), ..values.clone() }
}

#[cfg(test)]
mod tests {
    use super::super::{Array, eval};
    use crate::dtype::DType::{F64, I32, I64};
    use crate::op::Op;

    #[test]
    fn scans_by_hand() {
        let x = Array::new(&[2, 3], I32, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        let run = |product, axis, reverse, exclusive| {
            let y = eval(&Op::Scan { product, axis, reverse, exclusive }, std::slice::from_ref(&x)).unwrap();
            assert_eq!(y[0].dtype, I64);
            y[0].data.clone()
        };
        assert_eq!(run(false, 1, false, false), [1.0, 3.0, 6.0, 4.0, 9.0, 15.0]);
        assert_eq!(run(false, 1, true, false), [6.0, 5.0, 3.0, 15.0, 11.0, 6.0]);
        assert_eq!(run(true, 0, false, false), [1.0, 2.0, 3.0, 4.0, 10.0, 18.0]);
        assert_eq!(run(true, 1, false, true), [1.0, 1.0, 2.0, 1.0, 4.0, 20.0]);
        assert_eq!(run(true, 1, true, true), [6.0, 3.0, 1.0, 30.0, 6.0, 1.0]);
    }

    #[test]
    fn order_by_hand() {
        let x = Array::new(&[5], F64, vec![2.0, f64::NAN, -1.0, 2.0, 3.0]).unwrap();
        let run = |op: Op, x: &[Array]| eval(&op, x).unwrap();
        let y = run(Op::Sort { descending: false }, std::slice::from_ref(&x));
        assert_eq!(y[1].data, [2.0, 0.0, 3.0, 4.0, 1.0]);
        assert!(y[0].data[..4] == [-1.0, 2.0, 2.0, 3.0] && y[0].data[4].is_nan());
        let y = run(Op::Sort { descending: true }, std::slice::from_ref(&x));
        assert_eq!(y[1].data, [4.0, 0.0, 3.0, 2.0, 1.0]);
        let sorted = Array::new(&[4], F64, vec![1.0, 2.0, 2.0, f64::NAN]).unwrap();
        let left = run(Op::SearchSorted { right: false }, &[sorted.clone(), x.clone()]);
        assert_eq!(left[0].data, [1.0, 3.0, 0.0, 1.0, 3.0]);
        let right = run(Op::SearchSorted { right: true }, &[sorted, x]);
        assert_eq!(right[0].data, [3.0, 4.0, 0.0, 3.0, 3.0]);
        let x = Array::new(&[2, 2], F64, vec![0.0, 5.0, f64::NAN, -0.0]).unwrap();
        let y = run(Op::NonZero, &[x]);
        assert_eq!((&y[0].data[..], &y[1].data[..]), (&[1.0, 2.0, 0.0, 0.0][..], &[2.0][..]));
    }

    #[test]
    fn cumprod_grad_by_hand() {
        // y = (a, ab, abc): da = g0 + g1 b + g2 bc, db = g1 a + g2 ac, dc = g2 ab.
        let x = Array::new(&[3], F64, vec![2.0, 0.0, 5.0]).unwrap();
        let g = Array::new(&[3], F64, vec![1.0, 10.0, 100.0]).unwrap();
        let dx = eval(&Op::CumProdGrad { axis: 0 }, &[x, g]).unwrap();
        assert_eq!(dx[0].data, [1.0, 1020.0, 0.0]);
    }
}
