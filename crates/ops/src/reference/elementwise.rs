//! Elementwise ops (by the table's expressions) and reductions.

use super::{Array, indices, round, sum};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::infer::Meta;
use crate::op::{Map, Reduce};
use crate::scalar::Fraction;
use crate::shape::AxisSet;

/// Operands are converted to the type of the computation, and its expression is evaluated there.
pub(super) fn map(map: Map, x: &[Array], out: Meta) -> Result<Array> {
    let dtypes: Vec<DType> = x.iter().map(|a| a.dtype).collect();
    let (compute, _) = map.types(&dtypes)?;
    let forward = &map.exprs().forward;
    let integers = !compute.is_float();
    Ok(Array::from_fn(out, |i| {
        let args: Vec<f64> = x.iter().map(|a| round(compute, a.at_broadcast(i))).collect();
        match map {
            Map::Pow if integers => int_pow(args[0], args[1]),
            Map::FloorDivide | Map::Remainder if integers && args[1] == 0.0 => 0.0,
            // What is next depends on the type.
            Map::Nextafter if compute == DType::F32 => f64::from((args[0] as f32).next_after(args[1] as f32)),
            _ => forward.eval(&args),
        }
    }))
}

/// An integer's power; to a negative one it is 0.
fn int_pow(a: f64, b: f64) -> f64 {
    if b < 0.0 { 0.0 } else { (0..b as u64).fold(1.0, |p, _| p * a) }
}

/// The elements that a reduction brings together, for each element of its result.
fn groups(x: &Array, axes: AxisSet, results: usize) -> Vec<Vec<f64>> {
    let mut groups = vec![Vec::new(); results];
    for (index, &value) in indices(&x.shape).zip(&x.data) {
        let kept = (0..x.shape.rank()).filter(|&axis| !axes.contains(axis));
        let at = kept.fold(0, |at, axis| at * x.shape[axis] + index[axis]);
        groups[at].push(value);
    }
    groups
}

pub(super) fn reduce(kind: Reduce, axes: AxisSet, x: &Array, out: Meta) -> Result<Array> {
    let data = groups(x, axes, out.shape.numel())
        .iter()
        .map(|g| reduce_group(kind, x.dtype, g))
        .collect::<Result<_>>()?;
    Ok(Array { shape: out.shape, dtype: out.dtype, data })
}

/// A product of elements of this dtype: integers wrap in i64, as do those that grow by two until nothing is left.
pub(super) fn times(dtype: DType, a: f64, b: f64) -> f64 {
    if dtype.is_float() { a * b } else { (a as i64).wrapping_mul(b as i64) as f64 }
}

fn reduce_group(kind: Reduce, dtype: DType, x: &[f64]) -> Result<f64> {
    let n = x.len() as f64;
    let total = sum(x.iter().copied());
    let no_identity = |name: &str| {
        Error::argument(format!("zero-size array to reduction operation {name} which has no identity"))
    };
    let nan_or = |pick: fn(f64, f64) -> f64| {
        let any_nan = x.iter().any(|v| v.is_nan());
        if any_nan { Some(f64::NAN) } else { x.iter().copied().reduce(pick) }
    };
    match kind {
        Reduce::Sum => Ok(total),
        Reduce::Mean => Ok(total / n),
        Reduce::Prod => Ok(x.iter().fold(1.0, |p, &v| times(dtype, p, v))),
        Reduce::All => Ok(f64::from(x.iter().all(|&v| v != 0.0))),
        Reduce::Any => Ok(f64::from(x.iter().any(|&v| v != 0.0))),
        Reduce::Max => nan_or(f64::max).ok_or_else(|| no_identity("maximum")),
        Reduce::Min => nan_or(f64::min).ok_or_else(|| no_identity("minimum")),
        Reduce::Var { correction } => {
            let mean = total / n;
            let squares = sum(x.iter().map(|v| (v - mean) * (v - mean)));
            Ok(squares / (n - correction).max(0.0))
        }
    }
}

/// The first index of the extreme element; a NaN is extreme either way, as in NumPy.
pub(super) fn arg_reduce(max: bool, axis: usize, x: &Array, out: Meta) -> Result<Array> {
    let set = AxisSet::of(&x.shape, &[axis as isize])?;
    let beats = |a: f64, b: f64| !b.is_nan() && (a.is_nan() || if max { a > b } else { a < b });
    let first = |g: &Vec<f64>| {
        let name = if max { "argmax" } else { "argmin" };
        let best = (0..g.len()).reduce(|best, i| if beats(g[i], g[best]) { i } else { best });
        best.map(|i| i as f64)
            .ok_or_else(|| Error::argument(format!("attempt to get {name} of an empty sequence")))
    };
    let data = groups(x, set, out.shape.numel()).iter().map(first).collect::<Result<_>>()?;
    Ok(Array { shape: out.shape, dtype: out.dtype, data })
}

#[cfg(test)]
mod tests {
    use super::super::{Array, eval};
    use crate::dtype::DType;
    use crate::op::{Map, Op, Reduce};
    use crate::shape::AxisSet;
    use crate::table::{Body, TABLE};

    fn array(dims: &[usize], dtype: DType, data: &[f64]) -> Array {
        Array::new(dims, dtype, data.to_vec()).unwrap()
    }

    /// Each elementwise op at a point, worked out by hand.
    #[rustfmt::skip]
    const POINTS: &[(&str, &[f64], f64)] = &[
        ("add", &[1.5, 2.0], 3.5), ("sub", &[1.5, 2.0], -0.5), ("mul", &[1.5, 2.0], 3.0), ("div", &[1.5, 2.0], 0.75),
        ("pow", &[2.0, 3.0], 8.0), ("maximum", &[1.0, 2.0], 2.0), ("minimum", &[1.0, 2.0], 1.0), ("neg", &[2.0], -2.0),
        ("abs", &[-2.0], 2.0), ("sign", &[-2.0], -1.0), ("square", &[-3.0], 9.0), ("reciprocal", &[4.0], 0.25),
        ("exp", &[0.0], 1.0), ("log", &[1.0], 0.0), ("sqrt", &[9.0], 3.0), ("rsqrt", &[4.0], 0.5),
        ("sin", &[0.0], 0.0), ("cos", &[0.0], 1.0), ("tanh", &[0.0], 0.0), ("erf", &[0.0], 0.0),
        ("sigmoid", &[0.0], 0.5), ("relu", &[-1.0], 0.0), ("gelu", &[0.0], 0.0), ("gelu_tanh", &[0.0], 0.0),
        ("silu", &[0.0], 0.0), ("floor", &[-1.5], -2.0), ("ceil", &[-1.5], -1.0), ("round", &[2.5], 2.0),
        ("eq", &[2.0, 2.0], 1.0), ("ne", &[2.0, 2.0], 0.0), ("lt", &[1.0, 2.0], 1.0), ("le", &[2.0, 2.0], 1.0),
        ("gt", &[1.0, 2.0], 0.0), ("ge", &[2.0, 2.0], 1.0), ("logical_and", &[2.0, 0.0], 0.0),
        ("logical_or", &[2.0, 0.0], 1.0), ("logical_not", &[0.0], 1.0), ("where", &[1.0, 5.0, 6.0], 5.0),
        ("masked_fill", &[5.0, 1.0, 6.0], 6.0), ("floor_divide", &[-7.0, 2.0], -4.0), ("remainder", &[-7.0, 2.0], 1.0),
        ("bitwise_and", &[6.0, 3.0], 2.0), ("bitwise_or", &[6.0, 3.0], 7.0), ("bitwise_xor", &[6.0, 3.0], 5.0),
        ("bitwise_invert", &[6.0], -7.0), ("bitwise_left_shift", &[-3.0, 2.0], -12.0),
        ("bitwise_right_shift", &[-3.0, 1.0], -2.0), ("logical_xor", &[2.0, 1.0], 0.0), ("tan", &[0.0], 0.0),
        ("asin", &[1.0], std::f64::consts::FRAC_PI_2), ("acos", &[-1.0], std::f64::consts::PI),
        ("atan", &[1.0], std::f64::consts::FRAC_PI_4), ("atan2", &[1.0, -0.0], std::f64::consts::FRAC_PI_2),
        ("sinh", &[0.0], 0.0), ("cosh", &[0.0], 1.0), ("asinh", &[0.0], 0.0), ("acosh", &[1.0], 0.0),
        ("atanh", &[0.0], 0.0), ("expm1", &[0.0], 0.0), ("log1p", &[0.0], 0.0), ("log2", &[8.0], 3.0),
        ("log10", &[1000.0], 3.0), ("hypot", &[3.0, 4.0], 5.0), ("copysign", &[3.0, -0.0], -3.0),
        ("nextafter", &[1.0, 2.0], 1.0 + f64::EPSILON), ("logaddexp", &[0.0, 0.0], std::f64::consts::LN_2),
        ("signbit", &[-0.0], 1.0), ("trunc", &[-1.5], -1.0), ("isnan", &[1.0], 0.0), ("isinf", &[f64::INFINITY], 1.0),
        ("isfinite", &[1.0], 1.0), ("clip", &[5.0, 1.0, 3.0], 3.0),
    ];

    #[test]
    fn every_elementwise_op_has_its_value() {
        for row in TABLE {
            let Body::Map(map, _) = row.body else { continue };
            let (_, point, want) = POINTS.iter().find(|p| p.0 == row.name).expect(row.name);
            let x: Vec<Array> = point
                .iter()
                .enumerate()
                .map(|(i, &v)| {
                    let mask = matches!((map, i), (Map::Where, 0) | (Map::MaskedFill, 1));
                    let bits = row.name.starts_with("bitwise");
                    let dtype = if mask {
                        DType::Bool
                    } else if bits {
                        DType::I64
                    } else {
                        DType::F64
                    };
                    array(&[1], dtype, &[v])
                })
                .collect();
            assert_eq!(eval(&Op::Map(map), &x).unwrap()[0].data, [*want], "{}", row.name);
        }
    }

    #[test]
    fn smooth_functions_at_one() {
        // Values of the functions at 1, from their published tables.
        for (map, want) in [
            (Map::Sigmoid, 0.731_058_578_630_004_9),
            (Map::Gelu, 0.841_344_746_068_542_9),
            (Map::GeluTanh, 0.841_191_990_608_276_3),
            (Map::Silu, 0.731_058_578_630_004_9),
            (Map::Tanh, 0.761_594_155_955_764_9),
            (Map::Erf, 0.842_700_792_949_714_9),
        ] {
            let got = eval(&Op::Map(map), &[array(&[], DType::F64, &[1.0])]).unwrap()[0].data[0];
            assert!((got - want).abs() < 1e-14, "{map:?}: {got}");
        }
    }

    #[test]
    fn operands_broadcast_and_promote() {
        let a = array(&[2, 1], DType::I32, &[1.0, 2.0]);
        let b = array(&[3], DType::F32, &[0.5, 1.5, 2.5]);
        let y = &eval(&Op::Map(Map::Add), &[a, b]).unwrap()[0];
        assert_eq!((y.dtype, &y.shape[..]), (DType::F64, &[2, 3][..]));
        assert_eq!(y.data, [1.5, 2.5, 3.5, 2.5, 3.5, 4.5]);
        let none = array(&[0], DType::F32, &[]);
        assert!(eval(&Op::Map(Map::Exp), &[none]).unwrap()[0].data.is_empty());
    }

    #[test]
    fn integers_wrap_and_have_no_negative_powers() {
        let x = array(&[2], DType::U8, &[250.0, 1.0]);
        let y = array(&[2], DType::U8, &[10.0, 2.0]);
        assert_eq!(eval(&Op::Map(Map::Add), &[x.clone(), y.clone()]).unwrap()[0].data, [4.0, 3.0]);
        assert_eq!(eval(&Op::Map(Map::Sub), &[y, x]).unwrap()[0].data, [16.0, 1.0]);
        let b = array(&[2], DType::I64, &[2.0, 2.0]);
        let e = array(&[2], DType::I64, &[-1.0, 5.0]);
        assert_eq!(eval(&Op::Map(Map::Pow), &[b, e]).unwrap()[0].data, [0.0, 32.0]);
    }

    fn reduce(kind: Reduce, axes: &[isize], keepdims: bool, x: &Array) -> Vec<f64> {
        let axes = AxisSet::of(&x.shape, axes).unwrap();
        eval(&Op::Reduce { kind, axes, keepdims }, std::slice::from_ref(x)).unwrap()[0].data.clone()
    }

    #[test]
    fn reductions() {
        let x = array(&[2, 3], DType::F64, &[1.0, 2.0, 6.0, -1.0, 0.0, 4.0]);
        assert_eq!(reduce(Reduce::Sum, &[1], false, &x), [9.0, 3.0]);
        assert_eq!(reduce(Reduce::Sum, &[0], true, &x), [0.0, 2.0, 10.0]);
        assert_eq!(reduce(Reduce::Sum, &[], false, &x), x.data);
        assert_eq!(reduce(Reduce::Mean, &[0, 1], false, &x), [2.0]);
        assert_eq!(reduce(Reduce::Max, &[1], false, &x), [6.0, 4.0]);
        assert_eq!(reduce(Reduce::Min, &[0], false, &x), [-1.0, 0.0, 4.0]);
        assert_eq!(reduce(Reduce::Var { correction: 0.0 }, &[1], false, &x), [14.0 / 3.0, 14.0 / 3.0]);
        assert_eq!(reduce(Reduce::Var { correction: 1.0 }, &[1], false, &x), [7.0, 7.0]);
    }

    #[test]
    fn reductions_of_nothing() {
        let x = array(&[2, 0], DType::F32, &[]);
        assert_eq!(reduce(Reduce::Sum, &[1], false, &x), [0.0, 0.0]);
        assert!(reduce(Reduce::Mean, &[1], false, &x).iter().all(|v| v.is_nan()));
        assert!(reduce(Reduce::Var { correction: 1.0 }, &[1], false, &x).iter().all(|v| v.is_nan()));
        assert!(reduce(Reduce::Max, &[0], false, &x).is_empty());
        let axes = AxisSet::of(&x.shape, &[1]).unwrap();
        let err = eval(&Op::Reduce { kind: Reduce::Max, axes, keepdims: false }, &[x]).unwrap_err();
        assert!(err.message.contains("no identity"), "{err}");
    }

    #[test]
    fn integer_sums_are_wide_and_nan_wins() {
        let x = array(&[2], DType::U8, &[200.0, 100.0]);
        let axes = AxisSet::all(&x.shape);
        let y = &eval(&Op::Reduce { kind: Reduce::Sum, axes, keepdims: false }, &[x]).unwrap()[0];
        assert_eq!((y.dtype, y.data[0]), (DType::U64, 300.0));
        let x = array(&[3], DType::F32, &[1.0, f64::NAN, 2.0]);
        assert!(reduce(Reduce::Max, &[0], false, &x)[0].is_nan());
        assert!(reduce(Reduce::Min, &[0], false, &x)[0].is_nan());
    }

    #[test]
    fn arg_reductions_take_the_first() {
        let arg = |max, axis, data: &[f64]| {
            let x = array(&[2, 3], DType::F32, data);
            eval(&Op::ArgReduce { max, axis, keepdims: false }, &[x]).unwrap()[0].data.clone()
        };
        let data = [1.0, 6.0, 6.0, -1.0, -1.0, 4.0];
        assert_eq!(arg(true, 1, &data), [1.0, 2.0]);
        assert_eq!(arg(false, 1, &data), [0.0, 0.0]);
        assert_eq!(arg(true, 0, &data), [0.0, 0.0, 0.0]);
        assert_eq!(arg(true, 1, &[1.0, f64::NAN, f64::NAN, 9.0, 0.0, 0.0]), [1.0, 0.0]);
        let none = array(&[2, 0], DType::F32, &[]);
        assert!(eval(&Op::ArgReduce { max: true, axis: 1, keepdims: false }, &[none]).is_err());
    }
}
