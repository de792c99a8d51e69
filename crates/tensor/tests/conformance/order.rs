//! Scans and order beyond the table's cases: NaN, signed zeros, ties, long and many rows, and what is composed of them.

use bullet_ops::{DType, Op};
use bullet_tensor::{Device, Result, Tensor, dispatch};

use crate::harness::{devices, uniform};

fn floats(data: &[f64], dims: &[usize], dtype: DType, device: &Device) -> Tensor {
    Tensor::from_slice(data, dims, device).unwrap().cast(dtype).unwrap()
}

fn ints(data: &[i64], device: &Device) -> Tensor {
    Tensor::from_slice(data, &[data.len()], device).unwrap()
}

fn numbers(t: &Tensor) -> Vec<i64> {
    t.contiguous().unwrap().to_vec::<i64>().unwrap()
}

/// The stable order that is asked for, by the standard library.
fn argsorted(x: &[f64], descending: bool) -> Vec<i64> {
    let mut order: Vec<i64> = (0..x.len() as i64).collect();
    order.sort_by(|&a, &b| {
        let (a, b) = (x[a as usize], x[b as usize]);
        match (a.is_nan(), b.is_nan()) {
            (false, false) if descending => b.partial_cmp(&a).unwrap(),
            (false, false) => a.partial_cmp(&b).unwrap(),
            (a, b) => a.cmp(&b),
        }
    });
    order
}

#[test]
fn nan_is_last_and_equals_keep_their_order() {
    let mut rng = uniform(3);
    for device in devices() {
        for dtype in DType::FLOATS {
            for (rows, n) in [(1, 1), (3, 5), (40, 64), (7, 1000), (2, 1024), (2, 1025), (1, 5000)] {
                let special = [f64::NAN, -0.0, 0.0, f64::INFINITY, f64::NEG_INFINITY, 1.5];
                let value =
                    |u: f64| if u < 0.4 { special[(u * 15.0) as usize] } else { (u * 16.0).floor() - 13.0 };
                let data: Vec<f64> = (0..rows * n).map(|_| value(rng())).collect();
                let x = floats(&data, &[rows, n], dtype, device);
                for descending in [false, true] {
                    let (y, order) = x.sort_with_indices(-1, descending).unwrap();
                    let (y, order) = (y.to_f64_vec().unwrap(), numbers(&order));
                    for (r, row) in data.chunks(n).enumerate() {
                        let want = argsorted(row, descending);
                        assert_eq!(order[r * n..(r + 1) * n], want, "{dtype} ({rows}, {n}) {descending}");
                        let same = |(at, &from): (usize, &i64)| {
                            // To the bit: a zero keeps its sign.
                            let (got, want) = (y[r * n + at], row[from as usize]);
                            got.is_nan() && want.is_nan() || got.to_bits() == want.to_bits()
                        };
                        assert!(want.iter().enumerate().all(same), "{dtype} ({rows}, {n})");
                    }
                }
            }
        }
    }
}

#[test]
fn long_rows_and_many_short_ones_are_sorted() {
    let mut rng = uniform(4);
    for device in devices() {
        for (rows, n) in [(2, 100_000), (100_000, 3), (1, 131_072), (333, 1030)] {
            let data: Vec<i64> = (0..rows * n).map(|_| (rng() * 5e4) as i64 - 25_000).collect();
            let wide = Tensor::from_slice(&data, &[rows, n], device).unwrap();
            for dtype in [DType::I64, DType::I32, DType::I16, DType::F32] {
                let x = wide.cast(dtype).unwrap();
                let first = numbers(&x.argsort(-1, false).unwrap());
                let keys: Vec<f64> = data.iter().map(|&v| v as f64).collect();
                for (r, row) in keys.chunks(n).enumerate() {
                    assert_eq!(first[r * n..(r + 1) * n], argsorted(row, false), "{dtype} ({rows}, {n})");
                }
                assert_eq!(first, numbers(&x.argsort(-1, false).unwrap()), "the same each time");
            }
        }
    }
}

#[test]
fn long_scans_are_the_same_each_time_and_close_to_the_truth() {
    let mut rng = uniform(5);
    for device in devices() {
        for (rows, n) in [(1, 1_000_003), (3, 100_000), (5000, 70), (1, 2), (2, 2049)] {
            let data: Vec<f32> = (0..rows * n).map(|_| rng() as f32).collect();
            let x = Tensor::from_slice(&data, &[rows, n], device).unwrap();
            let y = x.cumsum(-1).unwrap().to_vec::<f32>().unwrap();
            let again = x.cumsum(1).unwrap().to_vec::<f32>().unwrap();
            assert!(y.iter().zip(&again).all(|(a, b)| a.to_bits() == b.to_bits()));
            for (x, y) in data.chunks(n).zip(y.chunks(n)) {
                let mut total = 0.0f64;
                for (x, &y) in x.iter().zip(y) {
                    total += f64::from(*x);
                    assert!((f64::from(y) - total).abs() <= 4e-6 * total, "{y} instead of {total}");
                }
            }
            let columns = x.transpose(0, 1).unwrap().cumsum(0).unwrap().transpose(0, 1).unwrap();
            let columns = columns.to_f64_vec().unwrap();
            assert!(columns.iter().zip(&y).all(|(a, &b)| (a - f64::from(b)).abs() <= 4e-6 * a));
        }
    }
}

#[test]
fn nan_and_infinity_run_on() {
    for device in devices() {
        let x = floats(&[1.0, f64::NAN, 2.0, f64::INFINITY], &[4], DType::F32, device);
        let y = x.cumsum(0).unwrap().to_f64_vec().unwrap();
        assert!(y[0] == 1.0 && y[1..].iter().all(|v| v.is_nan()));
        let x = floats(&[f64::INFINITY, 2.0, 0.0], &[3], DType::F32, device);
        let y = x.cumprod(0).unwrap().to_f64_vec().unwrap();
        assert!(y[..2] == [f64::INFINITY; 2] && y[2].is_nan());
        let x = floats(&[f64::NAN], &[1], DType::F32, device);
        assert_eq!(x.any(&[], false).unwrap().item().unwrap(), 1.0);
        assert_eq!(x.all(&[], false).unwrap().item().unwrap(), 1.0);
        assert_eq!(x.count_nonzero(&[], false).unwrap().item().unwrap(), 1.0);
    }
}

#[test]
fn products_of_zeros_have_slopes() {
    for device in devices() {
        for (data, want) in [
            ([2.0, 3.0, 4.0], [12.0, 8.0, 6.0]),
            ([2.0, 0.0, 4.0], [0.0, 8.0, 0.0]),
            ([0.0, 0.0, 4.0], [0.0; 3]),
        ] {
            let x = floats(&data, &[3], DType::F32, device).requires_grad().unwrap();
            x.prod(&[], false).unwrap().backward().unwrap();
            assert_eq!(x.grad().unwrap().to_f64_vec().unwrap(), want);
        }
    }
}

#[test]
fn indices_of_what_is_not_zero() -> Result<()> {
    for device in devices() {
        let data: Vec<i64> = (0..24).map(|i| i64::from(i % 5 == 2)).collect();
        let x = Tensor::from_slice(&data, &[2, 3, 4], device)?;
        let places = x.nonzero()?;
        assert_eq!(numbers(&x.flat_nonzero()?), [2, 7, 12, 17, 22]);
        assert_eq!(numbers(&places[0]), [0, 0, 1, 1, 1]);
        assert_eq!(numbers(&places[1]), [0, 1, 0, 1, 2]);
        assert_eq!(numbers(&places[2]), [2, 3, 0, 1, 2]);
        let backwards = x.flip(&[])?;
        assert_eq!(numbers(&backwards.flat_nonzero()?), [1, 6, 11, 16, 21]);
        assert_eq!(numbers(&x.count_nonzero(&[1, 2], false)?), [2, 3]);
        let none = Tensor::zeros(&[3, 0], DType::F32, device)?.nonzero()?;
        assert!(none.len() == 2 && none.iter().all(|t| t.numel() == 0));
        let error = Tensor::zeros(&[], DType::F32, device)?.nonzero().unwrap_err().to_string();
        assert!(error.contains("Calling nonzero on 0d arrays is not allowed"), "{error}");
        let many = Tensor::arange(0, 300_000, device)?;
        let odd = many.sub(&many.mul_scalar(0.5)?.floor()?.mul_scalar(2.0)?)?;
        assert_eq!(numbers(&odd.flat_nonzero()?), (0..150_000).map(|i| 2 * i + 1).collect::<Vec<_>>());
    }
    Ok(())
}

#[test]
fn masks_select_and_send_gradients_back() -> Result<()> {
    for device in devices() {
        let x = Tensor::arange(0, 6, device)?.cast(DType::F32)?.reshape(&[2, 3])?.requires_grad()?;
        let mask = Tensor::from_slice(&[true, false, false, false, true, true], &[2, 3], device)?;
        let y = x.masked_select(&mask)?;
        assert_eq!(y.to_f64_vec()?, [0.0, 4.0, 5.0]);
        y.mul(&y)?.sum(&[], false)?.backward()?;
        assert_eq!(x.grad().unwrap().to_f64_vec()?, [0.0, 0.0, 0.0, 0.0, 8.0, 10.0]);
        let rows = Tensor::from_slice(&[false, true], &[2], device)?;
        assert_eq!(x.masked_select(&rows)?.to_f64_vec()?, [3.0, 4.0, 5.0]);
        let whole = Tensor::from_slice(&[true], &[], device)?;
        assert_eq!(&x.masked_select(&whole)?.shape()[..], [1, 2, 3]);
        let error = x.masked_select(&mask.transpose(0, 1)?).unwrap_err().to_string();
        let words = "boolean index did not match indexed array along axis 0; size of axis is 2 but size of \
                     corresponding boolean axis is 3";
        assert!(error.contains(words), "{error}");
        let error = x.masked_select(&mask.unsqueeze(0)?).unwrap_err().to_string();
        assert!(error.contains("too many indices for array: array is 2-dimensional, but 3 were indexed"));
    }
    Ok(())
}

#[test]
fn unique_finds_each_value_once() -> Result<()> {
    for device in devices() {
        let x = Tensor::from_slice(&[3i32, 1, 3, 2, 1, 3], &[2, 3], device)?;
        let unique = x.transpose(0, 1)?.unique()?;
        assert_eq!(unique.values.to_vec::<i32>()?, [1, 2, 3]);
        // In row-major order of the transposed: 3 2 / 1 1 / 3 3.
        assert_eq!(numbers(&unique.indices), [2, 1, 0]);
        assert_eq!(numbers(&unique.inverse), [2, 1, 0, 0, 2, 2]);
        assert_eq!(&unique.inverse.shape()[..], [3, 2]);
        assert_eq!(numbers(&unique.counts), [2, 1, 3]);
        let x = floats(&[f64::NAN, -0.0, 1.0, 0.0, f64::NAN], &[5], DType::F64, device);
        let unique = x.unique()?;
        assert_eq!(numbers(&unique.counts), [2, 1, 1, 1]);
        assert_eq!(numbers(&unique.indices), [1, 2, 0, 4]);
        let none = Tensor::zeros(&[0, 2], DType::F32, device)?.unique()?;
        assert!(none.values.numel() == 0 && none.counts.numel() == 0 && none.inverse.shape()[..] == [0, 2]);
    }
    Ok(())
}

#[test]
fn places_in_sorted_vectors() -> Result<()> {
    for device in devices() {
        let sorted = floats(&[-1.0, 2.0, 2.0, f64::NAN], &[4], DType::F32, device);
        let values = floats(&[-5.0, 2.0, f64::NAN, 3.0, f64::INFINITY], &[5], DType::F64, device);
        assert_eq!(numbers(&sorted.searchsorted(&values, false)?), [0, 1, 3, 3, 3]);
        assert_eq!(numbers(&sorted.searchsorted(&values, true)?), [0, 3, 4, 3, 3]);
        let ints = ints(&[2], device);
        assert_eq!(numbers(&sorted.searchsorted(&ints, true)?), [3]);
        assert!(sorted.reshape(&[2, 2])?.searchsorted(&ints, true).is_err());
    }
    Ok(())
}

#[test]
fn elements_move_as_numpy_moves_them() -> Result<()> {
    for device in devices() {
        let x = Tensor::arange(0, 6, device)?.reshape(&[2, 3])?;
        assert_eq!(numbers(&x.roll(1, None)?), [5, 0, 1, 2, 3, 4]);
        assert_eq!(numbers(&x.roll(-1, Some(1))?), [1, 2, 0, 4, 5, 3]);
        assert_eq!(numbers(&x.roll(5, Some(0))?), [3, 4, 5, 0, 1, 2]);
        assert_eq!(numbers(&x.flip(&[1])?), [2, 1, 0, 5, 4, 3]);
        assert_eq!(numbers(&x.repeat(2, 1)?), [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]);
        assert_eq!(numbers(&x.repeat(2, 0)?), [0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5]);
        assert_eq!(x.repeat(0, 0)?.numel(), 0);
        assert_eq!(numbers(&x.repeat_each(&ints(&[2, 0, 1], device), 1)?), [0, 0, 2, 3, 3, 5]);
        let tiled = x.tile(&[2, 1, 2])?;
        assert_eq!(&tiled.shape()[..], [2, 2, 6]);
        assert_eq!(numbers(&tiled)[..12], [0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5]);
        assert_eq!(numbers(&x.tile(&[2])?), [0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5]);
        assert_eq!(numbers(&x.diff(1, -1)?), [1, 1, 1, 1]);
        assert_eq!(x.diff(3, 0)?.numel(), 0);
        assert_eq!(numbers(&x.sort(0, true)?), [3, 4, 5, 0, 1, 2]);
        let error = x.repeat_each(&ints(&[1, -1, 1], device), 1).unwrap_err().to_string();
        assert!(error.contains("repeats may not contain negative values."), "{error}");
        let error = x.sort(2, false).unwrap_err().to_string();
        assert!(error.contains("axis 2 is out of bounds for array of dimension 2"), "{error}");
        let scalar = Tensor::zeros(&[], DType::F32, device)?;
        assert!(scalar.sort(-1, false).is_err() && scalar.cumsum(0).is_err());
        assert!(dispatch::run(Op::Sort { descending: false }, &[&scalar]).is_err());
    }
    Ok(())
}
