//! Promotion, broadcasting, reshaping and slicing as NumPy has them, against small models of their own, on random
//! arguments; and NumPy's words in the errors.

use bullet_ops::reference::{Array, indices};
use bullet_ops::{DType, Meta, Shape};
use bullet_tensor::{Device, Result, Slice, Tensor};

use crate::harness::{devices, download, uniform, upload};

/// 0, 1, 2, .. in this shape.
fn counted(dims: &[usize]) -> Array {
    let mut next = -1.0;
    let meta = Meta::new(Shape::new(dims).unwrap(), DType::I64);
    Array::from_fn(meta, |_| {
        next += 1.0;
        next
    })
}

/// A random whole number below `n`.
fn below(rng: &mut impl FnMut() -> f64, n: usize) -> usize {
    (rng() * n as f64) as usize
}

fn random_dims(rng: &mut impl FnMut() -> f64, least_rank: usize) -> Vec<usize> {
    let rank = least_rank + below(rng, 4);
    (0..rank).map(|_| [0, 1, 1, 2, 3, 4, 5, 2][below(rng, 8)]).collect()
}

/// `numpy.promote_types`, as NumPy 2 prints it, in the order of `NAMES`.
#[test]
fn promotion_is_numpys_table() {
    const NAMES: [&str; 12] =
        ["bool", "u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64", "f16", "f32", "f64"];
    #[rustfmt::skip]
    const TABLE: [[&str; 12]; 12] = [
        ["bool", "u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64", "f16", "f32", "f64"],
        ["u8", "u8", "u16", "u32", "u64", "i16", "i16", "i32", "i64", "f16", "f32", "f64"],
        ["u16", "u16", "u16", "u32", "u64", "i32", "i32", "i32", "i64", "f32", "f32", "f64"],
        ["u32", "u32", "u32", "u32", "u64", "i64", "i64", "i64", "i64", "f64", "f64", "f64"],
        ["u64", "u64", "u64", "u64", "u64", "f64", "f64", "f64", "f64", "f64", "f64", "f64"],
        ["i8", "i16", "i32", "i64", "f64", "i8", "i16", "i32", "i64", "f16", "f32", "f64"],
        ["i16", "i16", "i32", "i64", "f64", "i16", "i16", "i32", "i64", "f32", "f32", "f64"],
        ["i32", "i32", "i32", "i64", "f64", "i32", "i32", "i32", "i64", "f64", "f64", "f64"],
        ["i64", "i64", "i64", "i64", "f64", "i64", "i64", "i64", "i64", "f64", "f64", "f64"],
        ["f16", "f16", "f32", "f64", "f64", "f16", "f32", "f64", "f64", "f16", "f32", "f64"],
        ["f32", "f32", "f32", "f64", "f64", "f32", "f32", "f64", "f64", "f32", "f32", "f64"],
        ["f64", "f64", "f64", "f64", "f64", "f64", "f64", "f64", "f64", "f64", "f64", "f64"],
    ];
    let device = &devices()[0];
    for (a, row) in NAMES.iter().zip(TABLE) {
        for (b, want) in NAMES.iter().zip(row) {
            let ones = |name| Tensor::ones(&[2], DType::parse(name).unwrap(), device).unwrap();
            let y = ones(a).add(&ones(b)).unwrap();
            assert_eq!(y.dtype().name(), want, "{a} + {b}");
            // True division never gives an integer.
            let quotient = ones(a).div(&ones(b)).unwrap();
            let float = if y.dtype().is_float() { y.dtype() } else { DType::F64 };
            assert_eq!(
                (quotient.dtype(), quotient.to_f64_vec().unwrap()),
                (float, vec![1.0; 2]),
                "{a} / {b}"
            );
            assert_eq!(ones(a).lt(&ones(b)).unwrap().dtype(), DType::Bool);
        }
    }
}

#[test]
fn python_scalars_are_weak() {
    let device = &devices()[0];
    let f16 = Tensor::ones(&[2], DType::F16, device).unwrap();
    assert_eq!(f16.mul_scalar(0.1).unwrap().dtype(), DType::F16);
    let i8 = Tensor::ones(&[2], DType::I8, device).unwrap();
    assert_eq!(i8.add_scalar(2.0).unwrap().dtype(), DType::I8);
    assert_eq!(i8.add_scalar(0.5).unwrap().to_f64_vec().unwrap(), [1.5; 2]);
}

/// The shape both broadcast to, by NumPy's rule read literally: right-aligned, lengths equal or one of them 1.
fn broadcast_model(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let pad = |x: &[usize]| [vec![1; rank - x.len()], x.to_vec()].concat();
    let pairs = pad(a).into_iter().zip(pad(b));
    pairs
        .map(|(p, q)| {
            if p == q || q == 1 {
                Some(p)
            } else if p == 1 {
                Some(q)
            } else {
                None
            }
        })
        .collect()
}

#[test]
fn broadcasting_follows_the_rule() {
    let (mut rng, device) = (uniform(1), &devices()[0]);
    let (mut fits, mut fails) = (0, 0);
    for _ in 0..600 {
        let a = random_dims(&mut rng, 0);
        let mut b = random_dims(&mut rng, 0);
        if rng() < 0.7 {
            // Half of random shapes don't fit: make b from a.
            let skipped = below(&mut rng, a.len() + 1);
            b = a.iter().map(|&d| if rng() < 0.3 { 1 } else { d }).skip(skipped).collect();
        }
        let (x, y) = (counted(&a), counted(&b));
        let sum = upload(&x, device).unwrap().add(&upload(&y, device).unwrap());
        match broadcast_model(&a, &b) {
            Some(dims) => {
                fits += 1;
                let sum = download(&sum.unwrap()).unwrap();
                assert_eq!(sum.shape[..], dims, "{a:?} {b:?}");
                // The element of an operand: axes of length 1 are read at 0, missing ones not at all.
                let read = |v: &Array, i: &[usize]| {
                    let own = &i[i.len() - v.shape.rank()..];
                    v.at(&own.iter().zip(&v.shape[..]).map(|(&i, &d)| i.min(d - 1)).collect::<Vec<_>>())
                };
                for i in indices(&sum.shape) {
                    assert_eq!(sum.at(&i), read(&x, &i) + read(&y, &i), "{a:?} {b:?} at {i:?}");
                }
            }
            None => {
                fails += 1;
                let want =
                    format!("operands could not be broadcast together with shapes {} {}", x.shape, y.shape);
                assert_eq!(sum.unwrap_err().to_string(), want);
            }
        }
    }
    assert!(fits > 200 && fails > 50, "{fits} {fails}");
}

/// A random view, with what it shows.
fn random_view(rng: &mut impl FnMut() -> f64) -> (Tensor, Array) {
    let mut value = counted(&random_dims(rng, 1));
    let mut view = upload(&value, &devices()[0]).unwrap();
    for _ in 0..below(rng, 5) {
        let rank = value.shape.rank();
        let axis = below(rng, rank);
        match below(rng, 4) {
            0 => {
                let mut axes: Vec<usize> = (0..rank).collect();
                (1..rank).for_each(|i| axes.swap(i, below(rng, i + 1)));
                view = view.permute(&axes.iter().map(|&a| a as isize).collect::<Vec<_>>()).unwrap();
                let dims: Vec<usize> = axes.iter().map(|&a| value.shape[a]).collect();
                value = reindex(&value, &dims, |i| {
                    let mut from = vec![0; rank];
                    axes.iter().zip(i).for_each(|(&a, &i)| from[a] = i);
                    from
                });
            }
            1 => {
                let slice = random_slice(rng, value.shape[axis]);
                let kept = slice_model(slice, value.shape[axis]);
                view = view.slice(axis as isize - rank as isize, slice).unwrap();
                let dims = value.shape.with(axis, kept.len());
                value = reindex(&value, &dims, |i| {
                    let mut from = i.to_vec();
                    from[axis] = kept[i[axis]];
                    from
                });
            }
            2 if rank < 6 => {
                let axis = below(rng, rank + 1);
                view = view.unsqueeze(axis as isize).unwrap();
                let dims = [&value.shape[..axis], &[1], &value.shape[axis..]].concat();
                value = reindex(&value, &dims, |i| [&i[..axis], &i[axis + 1..]].concat());
            }
            _ => {
                let dims: Vec<usize> = value.shape.iter().map(|&d| if d == 1 { 3 } else { d }).collect();
                view = view.broadcast_to(&dims).unwrap();
                let own = value.shape;
                value = reindex(&value, &dims, |i| {
                    i.iter().zip(&own[..]).map(|(&i, &d)| if d == 1 { 0 } else { i }).collect()
                });
            }
        }
    }
    (view, value)
}

fn reindex(x: &Array, dims: &[usize], from: impl Fn(&[usize]) -> Vec<usize>) -> Array {
    Array::from_fn(Meta::new(Shape::new(dims).unwrap(), x.dtype), |i| x.at(&from(i)))
}

fn random_slice(rng: &mut impl FnMut() -> f64, len: usize) -> Slice {
    let mut bound = || {
        let reach = 2 * len + 5;
        (rng() < 0.7).then(|| (rng() * reach as f64) as isize - len as isize - 2)
    };
    let (start, end) = (bound(), bound());
    let step = [1, 1, 2, 3, -1, -2, -7, 9][(rng() * 8.0) as usize];
    Slice { start, end, step }
}

/// The indices that Python's `range(len)[start:end:step]` has, by walking.
fn slice_model(slice: Slice, len: usize) -> Vec<usize> {
    let (n, step) = (len as isize, slice.step);
    let from_end = |i: isize| if i < 0 { i + n } else { i };
    // Where a walk in this direction begins and ends if nothing is said.
    let (first, past) = if step > 0 { (0, n) } else { (n - 1, -1) };
    let mut at = slice.start.map_or(first, from_end);
    let end = slice.end.map_or(past, from_end);
    // A walk that begins outside, on the side it comes from, begins at the first element inside.
    at = if step > 0 { at.max(0) } else { at.min(n - 1) };
    let mut kept = Vec::new();
    while (step > 0 && at < end.min(n)) || (step < 0 && at > end.max(-1)) {
        kept.push(at as usize);
        at += step;
    }
    kept
}

#[test]
fn slices_are_pythons() {
    let (mut rng, device) = (uniform(2), &devices()[0]);
    for _ in 0..2000 {
        let len = below(&mut rng, 9);
        let slice = random_slice(&mut rng, len);
        let got = upload(&counted(&[len]), device).unwrap().slice(0, slice).unwrap();
        let want: Vec<f64> = slice_model(slice, len).into_iter().map(|i| i as f64).collect();
        assert_eq!(download(&got).unwrap().data, want, "{slice:?} of {len}");
    }
    // Printed by Python 3.
    let of_ten = |start, end, step| slice_model(Slice { start, end, step }, 10);
    assert_eq!(of_ten(None, None, -3), [9, 6, 3, 0]);
    assert_eq!(of_ten(Some(-3), None, 1), [7, 8, 9]);
    assert_eq!(of_ten(Some(20), Some(-20), -4), [9, 5, 1]);
    assert_eq!(of_ten(Some(5), Some(2), 1), [0usize; 0]);
}

#[test]
fn chains_of_views_show_the_right_elements() {
    let mut rng = uniform(3);
    for _ in 0..600 {
        let (view, value) = random_view(&mut rng);
        assert_eq!(download(&view).unwrap(), value, "{:?}", view.layout());
        // And kernels that read through the layout see the same.
        assert_eq!(
            download(&view.add_scalar(1.0).unwrap()).unwrap().data,
            added(&value, 1.0),
            "{:?}",
            view.layout()
        );
        assert_eq!(download(&view.copy().unwrap()).unwrap(), value, "{:?}", view.layout());
        let total: f64 = value.data.iter().sum();
        assert_eq!(view.sum(&[], false).unwrap().item().unwrap(), total, "{:?}", view.layout());
    }
}

fn added(x: &Array, by: f64) -> Vec<f64> {
    x.data.iter().map(|v| v + by).collect()
}

#[test]
fn reshapes_keep_row_major_order() {
    let mut rng = uniform(4);
    for _ in 0..600 {
        let (view, value) = random_view(&mut rng);
        // Factors of the size in random places, one of them sometimes left to be worked out.
        let mut rest = value.data.len();
        let mut dims = Vec::new();
        while rest > 1 && dims.len() < 5 {
            let factor = (2..=rest).filter(|f| rest % f == 0).nth(below(&mut rng, 2)).unwrap_or(rest);
            dims.push(factor as isize);
            rest /= factor;
        }
        dims.push(rest as isize);
        let at = below(&mut rng, dims.len() + 1);
        dims.insert(at, 1);
        if rest != 0 && rng() < 0.5 {
            let at = below(&mut rng, dims.len());
            dims[at] = -1;
        }
        let got = download(&view.reshape(&dims).unwrap()).unwrap();
        assert_eq!(got.data, value.data, "{:?} as {dims:?}", view.layout());
        let known: Vec<bool> =
            dims.iter().zip(&got.shape[..]).map(|(&d, &g)| d == -1 || d == g as isize).collect();
        assert!(known.iter().all(|&k| k) && known.len() == dims.len(), "{:?} as {dims:?}", got.shape);
    }
}

#[test]
fn writing_through_a_view_writes_its_elements_only() {
    let (mut rng, device) = (uniform(5), &devices()[0]);
    for _ in 0..300 {
        let dims = random_dims(&mut rng, 1);
        let before = counted(&dims);
        let base = upload(&before, device).unwrap();
        let axis = below(&mut rng, dims.len());
        let slice = random_slice(&mut rng, dims[axis]);
        let kept = slice_model(slice, dims[axis]);
        base.slice(axis as isize, slice).unwrap().fill_(-7.0).unwrap();
        let want =
            Array::from_fn(before.meta(), |i| if kept.contains(&i[axis]) { -7.0 } else { before.at(i) });
        assert_eq!(download(&base).unwrap(), want, "{slice:?} of axis {axis} of {dims:?}");
        // A tensor added to itself backwards: the operand is read before it is overwritten.
        let flipped = Slice { start: None, end: None, step: -1 };
        let fresh = upload(&before, device).unwrap();
        fresh.add_(&fresh.slice(axis as isize, flipped).unwrap()).unwrap();
        let mirrored = |i: &[usize]| {
            let mut j = i.to_vec();
            j[axis] = dims[axis] - 1 - i[axis];
            before.at(i) + before.at(&j)
        };
        assert_eq!(download(&fresh).unwrap(), Array::from_fn(before.meta(), mirrored), "{dims:?}");
    }
}

#[test]
fn split_undoes_concat() {
    let (mut rng, device) = (uniform(6), &devices()[0]);
    for _ in 0..200 {
        let dims = random_dims(&mut rng, 1);
        let axis = below(&mut rng, dims.len());
        let sizes: Vec<usize> = (0..1 + below(&mut rng, 4)).map(|_| below(&mut rng, 4)).collect();
        let shapes: Vec<Shape> = sizes.iter().map(|&n| Shape::new(&dims).unwrap().with(axis, n)).collect();
        let parts: Vec<Array> = shapes.iter().map(|s| counted(s)).collect();
        let tensors: Vec<Tensor> = parts.iter().map(|x| upload(x, device).unwrap()).collect();
        let joined = Tensor::concat(&tensors.iter().collect::<Vec<_>>(), axis as isize).unwrap();
        let back = joined.split(&sizes, axis as isize).unwrap();
        for (part, back) in parts.iter().zip(&back) {
            assert_eq!(download(back).unwrap(), *part);
        }
    }
}

#[test]
fn matmul_takes_vectors_as_numpy_does() {
    let device = &devices()[0];
    let of = |dims: &[usize]| upload(&counted(dims).cast(DType::F64), device).unwrap();
    for (a, b, want) in [
        (&[3][..], &[3][..], &[][..]),
        (&[2, 3], &[3], &[2]),
        (&[3], &[3, 2], &[2]),
        (&[4, 2, 3], &[3], &[4, 2]),
        (&[3], &[4, 3, 2], &[4, 2]),
        (&[4, 2, 3], &[3, 5], &[4, 2, 5]),
    ] {
        assert_eq!(&of(a).matmul(&of(b)).unwrap().shape()[..], want, "{a:?} @ {b:?}");
    }
    assert_eq!(of(&[3]).matmul(&of(&[3])).unwrap().item().unwrap(), 5.0);
    assert!(of(&[]).matmul(&of(&[3])).unwrap_err().to_string().contains("does not have enough dimensions"));
    let error = of(&[2, 3]).matmul(&of(&[2, 3])).unwrap_err().to_string();
    assert!(error.contains("mismatch in core dimension"), "{error}");
}

/// What NumPy says, users know.
#[test]
fn errors_are_in_numpys_words() {
    let device = &devices()[0];
    let x = Tensor::zeros(&[2, 3], DType::F32, device).unwrap();
    let says = |result: bullet_tensor::Result<Tensor>, want: &str| {
        assert_eq!(result.unwrap_err().to_string(), want);
    };
    says(x.reshape(&[4, 2]), "cannot reshape array of size 6 into shape (4, 2)");
    says(x.reshape(&[-1, 4]), "cannot reshape array of size 6 into shape (-1, 4)");
    says(x.reshape(&[-1, -1]), "can only specify one unknown dimension");
    says(x.reshape(&[5]), "cannot reshape array of size 6 into shape (5,)");
    says(x.sum(&[2], false), "axis 2 is out of bounds for array of dimension 2");
    says(x.sum(&[0, -2], false), "duplicate value in 'axis'");
    says(x.transpose(0, -3), "axis -3 is out of bounds for array of dimension 2");
    says(x.squeeze(0), "cannot select an axis to squeeze out which has size not equal to one");
    says(x.select(0, 2), "index 2 is out of bounds for axis 0 with size 2");
    says(x.slice(0, Slice { start: None, end: None, step: 0 }), "slice step cannot be zero");
    says(Tensor::concat(&[], 0), "need at least one array to concatenate");
    says(
        Tensor::zeros(&[1; 9], DType::F32, device),
        "maximum supported dimension for a tensor is 8, found 9",
    );
    let y = Tensor::zeros(&[2, 4], DType::F32, device).unwrap();
    says(x.add(&y), "operands could not be broadcast together with shapes (2, 3) (2, 4)");
    assert!(Tensor::concat(&[&x, &y], 0).unwrap_err().to_string().contains("must match exactly"));
    says(
        x.broadcast_to(&[3, 2]),
        "operands could not be broadcast together with remapped shapes [original->remapped]: (2, 3) and requested \
         shape (3, 2)",
    );
    let error = x.add_(&Tensor::zeros(&[5, 2, 3], DType::F32, device).unwrap()).unwrap_err().to_string();
    assert!(error.starts_with("non-broadcastable output operand with shape (2, 3)"), "{error}");
    says(y.item().map(|_| y.clone()), "can only convert an array of size 1 to a scalar, got shape (2, 4)");
    let i = Tensor::ones(&[2], DType::I64, device).unwrap();
    says(i.pow(&i.neg().unwrap()), "Integers to negative integer powers are not allowed.");
}

#[test]
fn bytes_that_are_no_bools_are_refused() -> Result<()> {
    let cpu = Device::cpu();
    assert_eq!(Tensor::from_bytes(&[0, 1], DType::Bool, &[2], &cpu)?.to_vec::<bool>()?, [false, true]);
    let err = Tensor::from_bytes(&[0, 2], DType::Bool, &[2], &cpu).unwrap_err().to_string();
    assert!(err.contains("byte 1") && err.contains("0 or 1"), "{err}");
    Ok(())
}
