// tidy: table
//! Elementwise ops of special values, as NumPy 2.4 has them, signs of zeros included.

use bullet_ops::table::TABLE;
use bullet_ops::{DType, Element, Op};
use bullet_tensor::{Device, Tensor, dispatch};

use crate::harness::{devices, epsilon};

const INF: f64 = f64::INFINITY;
const NAN: f64 = f64::NAN;
const POINTS: [f64; 9] = [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, INF, -INF, NAN];
const PAIRS: [f64; 7] = [0.0, -0.0, 1.5, -2.0, INF, -INF, NAN];

/// Of each of `POINTS`.
#[rustfmt::skip]
#[expect(clippy::approx_constant, reason = "the values as NumPy prints them")]
const UNARY: &[(&str, [f64; 9])] = &[
    ("tan", [0.0, -0.0, 1.5574077246549023, -1.5574077246549023, 0.5463024898437905, 0.7470222972386603, NAN, NAN, NAN]),
    ("asin", [0.0, -0.0, 1.5707963267948966, -1.5707963267948966, 0.5235987755982989, NAN, NAN, NAN, NAN]),
    ("acos", [1.5707963267948966, 1.5707963267948966, 0.0, 3.141592653589793, 1.0471975511965976, NAN, NAN, NAN, NAN]),
    ("atan", [0.0, -0.0, 0.7853981633974483, -0.7853981633974483, 0.4636476090008061, -1.1902899496825317, 1.5707963267948966, -1.5707963267948966, NAN]),
    ("sinh", [0.0, -0.0, 1.1752011936438014, -1.1752011936438014, 0.5210953054937474, -6.0502044810397875, INF, -INF, NAN]),
    ("cosh", [1.0, 1.0, 1.5430806348152437, 1.5430806348152437, 1.1276259652063807, 6.132289479663686, INF, INF, NAN]),
    ("asinh", [0.0, -0.0, 0.881373587019543, -0.881373587019543, 0.48121182505960347, -1.6472311463710958, INF, -INF, NAN]),
    ("acosh", [NAN, NAN, 0.0, NAN, NAN, NAN, INF, NAN, NAN]),
    ("atanh", [0.0, -0.0, INF, -INF, 0.5493061443340549, NAN, NAN, NAN, NAN]),
    ("expm1", [0.0, -0.0, 1.7182818284590453, -0.6321205588285577, 0.6487212707001282, -0.9179150013761012, INF, -1.0, NAN]),
    ("log1p", [0.0, -0.0, 0.6931471805599453, -INF, 0.4054651081081644, NAN, INF, NAN, NAN]),
    ("log2", [-INF, -INF, 0.0, NAN, -1.0, NAN, INF, NAN, NAN]),
    ("log10", [-INF, -INF, 0.0, NAN, -0.3010299956639812, NAN, INF, NAN, NAN]),
    ("trunc", [0.0, -0.0, 1.0, -1.0, 0.0, -2.0, INF, -INF, NAN]),
    ("signbit", [0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0]),
    ("isnan", [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]),
    ("isinf", [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0]),
    ("isfinite", [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]),
];

/// Of each of `PAIRS` with each, the first operand's rows.
#[rustfmt::skip]
#[expect(clippy::approx_constant, reason = "the values as NumPy prints them")]
const BINARY: &[(&str, [f64; 49])] = &[
    ("floor_divide", [NAN, NAN, 0.0, -0.0, 0.0, -0.0, NAN, NAN, NAN, -0.0, 0.0, -0.0, 0.0, NAN, INF, -INF, 1.0, -1.0, 0.0, -1.0, NAN, -INF, INF, -2.0, 1.0, -1.0, 0.0, NAN, INF, -INF, NAN, NAN, NAN, NAN, NAN, -INF, INF, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN]),
    ("remainder", [NAN, NAN, 0.0, -0.0, 0.0, -0.0, NAN, NAN, NAN, 0.0, -0.0, 0.0, -0.0, NAN, NAN, NAN, 0.0, -0.5, 1.5, -INF, NAN, NAN, NAN, 1.0, -0.0, INF, -2.0, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN]),
    ("atan2", [0.0, 3.141592653589793, 0.0, 3.141592653589793, 0.0, 3.141592653589793, NAN, -0.0, -3.141592653589793, -0.0, -3.141592653589793, -0.0, -3.141592653589793, NAN, 1.5707963267948966, 1.5707963267948966, 0.7853981633974483, 2.498091544796509, 0.0, 3.141592653589793, NAN, -1.5707963267948966, -1.5707963267948966, -0.9272952180016122, -2.356194490192345, -0.0, -3.141592653589793, NAN, 1.5707963267948966, 1.5707963267948966, 1.5707963267948966, 1.5707963267948966, 0.7853981633974483, 2.356194490192345, NAN, -1.5707963267948966, -1.5707963267948966, -1.5707963267948966, -1.5707963267948966, -0.7853981633974483, -2.356194490192345, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN]),
    ("hypot", [0.0, 0.0, 1.5, 2.0, INF, INF, NAN, 0.0, 0.0, 1.5, 2.0, INF, INF, NAN, 1.5, 1.5, 2.1213203435596424, 2.5, INF, INF, NAN, 2.0, 2.0, 2.5, 2.8284271247461903, INF, INF, NAN, INF, INF, INF, INF, INF, INF, INF, INF, INF, INF, INF, INF, INF, INF, NAN, NAN, NAN, NAN, INF, INF, NAN]),
    ("copysign", [0.0, -0.0, 0.0, -0.0, 0.0, -0.0, 0.0, 0.0, -0.0, 0.0, -0.0, 0.0, -0.0, 0.0, 1.5, -1.5, 1.5, -1.5, 1.5, -1.5, 1.5, 2.0, -2.0, 2.0, -2.0, 2.0, -2.0, 2.0, INF, -INF, INF, -INF, INF, -INF, INF, INF, -INF, INF, -INF, INF, -INF, INF, NAN, NAN, NAN, NAN, NAN, NAN, NAN]),
    ("logaddexp", [0.6931471805599453, 0.6931471805599453, 1.7014132779827524, 0.1269280110429725, INF, 0.0, NAN, 0.6931471805599453, 0.6931471805599453, 1.7014132779827524, 0.1269280110429725, INF, 0.0, NAN, 1.7014132779827524, 1.7014132779827524, 2.1931471805599454, 1.5297504182726205, INF, 1.5, NAN, 0.1269280110429725, 0.1269280110429725, 1.5297504182726205, -1.3068528194400546, INF, -2.0, NAN, INF, INF, INF, INF, INF, INF, NAN, 0.0, 0.0, 1.5, -2.0, INF, -INF, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN]),
    ("logical_xor", [0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
];

/// Values, and what they give with each other, the first operand's rows.
#[rustfmt::skip]
const I8: ([i8; 8], [(&str, [i8; 64]); 4]) = (
    [-128, -7, -1, 0, 1, 3, 7, 127],
    [
        ("floor_divide", [1, 18, -128, 0, -128, -43, -19, -2, 0, 1, 7, 0, -7, -3, -1, -1, 0, 0, 1, 0, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0, -1, -1, -1, 0, 1, 0, 0, 0, -1, -1, -3, 0, 3, 1, 0, 0, -1, -1, -7, 0, 7, 2, 1, 0, -1, -19, -127, 0, 127, 42, 18, 1]),
        ("remainder", [0, -2, 0, 0, 0, 1, 5, 126, -7, 0, 0, 0, 0, 2, 0, 120, -1, -1, 0, 0, 0, 2, 6, 126, 0, 0, 0, 0, 0, 0, 0, 0, -127, -6, 0, 0, 0, 1, 1, 1, -125, -4, 0, 0, 0, 0, 3, 3, -121, 0, 0, 0, 0, 1, 0, 7, -1, -6, 0, 0, 0, 1, 1, 0]),
        ("bitwise_left_shift", [0, 0, 0, -128, 0, 0, 0, 0, 0, 0, 0, -7, -14, -56, -128, 0, 0, 0, 0, -1, -2, -8, -128, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 8, -128, 0, 0, 0, 0, 3, 6, 24, -128, 0, 0, 0, 0, 7, 14, 56, -128, 0, 0, 0, 0, 127, -2, -8, -128, 0]),
        ("bitwise_right_shift", [-1, -1, -1, -128, -64, -16, -1, -1, -1, -1, -1, -7, -4, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 3, 1, 0, 0, 0, 0, 0, 0, 7, 3, 0, 0, 0, 0, 0, 0, 127, 63, 15, 0, 0]),
    ],
);

/// As `I8`.
#[rustfmt::skip]
const I64: ([i64; 6], [(&str, [i64; 36]); 4]) = (
    [i64::MIN, -1, 0, 63, 64, i64::MAX],
    [
        ("floor_divide", [1, i64::MIN, 0, -146_402_730_743_726_601, -144_115_188_075_855_872, -2, 0, 1, 0, -1, -1, -1, 0, 0, 0, 0, 0, 0, -1, -63, 0, 1, 0, 0, -1, -64, 0, 1, 1, 0, -1, -9_223_372_036_854_775_807, 0, 146_402_730_743_726_600, 144_115_188_075_855_871, 1]),
        ("remainder", [0, 0, 0, 55, 0, 9_223_372_036_854_775_806, -1, 0, 0, 62, 63, 9_223_372_036_854_775_806, 0, 0, 0, 0, 0, 0, -9_223_372_036_854_775_745, 0, 0, 0, 63, 63, -9_223_372_036_854_775_744, 0, 0, 1, 0, 64, -1, 0, 0, 7, 63, 0]),
        ("bitwise_left_shift", [0, 0, i64::MIN, 0, 0, 0, 0, 0, -1, i64::MIN, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 63, i64::MIN, 0, 0, 0, 0, 64, 0, 0, 0, 0, 0, i64::MAX, i64::MIN, 0, 0]),
        ("bitwise_right_shift", [-1, -1, i64::MIN, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0, 63, 0, 0, 0, 0, 0, 64, 0, 0, 0, 0, 0, i64::MAX, 0, 0, 0]),
    ],
);

/// As `I8`.
#[rustfmt::skip]
const U64: ([u64; 6], [(&str, [u64; 36]); 4]) = (
    [0, 3, 63, 64, 9_223_372_036_854_775_808, u64::MAX],
    [
        ("floor_divide", [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 21, 1, 0, 0, 0, 0, 21, 1, 1, 0, 0, 0, 3_074_457_345_618_258_602, 146_402_730_743_726_600, 144_115_188_075_855_872, 1, 0, 0, 6_148_914_691_236_517_205, 292_805_461_487_453_200, 288_230_376_151_711_743, 1, 1]),
        ("remainder", [0, 0, 0, 0, 0, 0, 0, 0, 3, 3, 3, 3, 0, 0, 0, 63, 63, 63, 0, 1, 1, 0, 64, 64, 0, 2, 8, 0, 0, 9_223_372_036_854_775_808, 0, 0, 15, 63, i64::MAX as u64, 0]),
        ("bitwise_left_shift", [0, 0, 0, 0, 0, 0, 3, 24, 9_223_372_036_854_775_808, 0, 0, 0, 63, 504, 9_223_372_036_854_775_808, 0, 0, 0, 64, 512, 0, 0, 0, 0, 9_223_372_036_854_775_808, 0, 0, 0, 0, 0, u64::MAX, 18_446_744_073_709_551_608, 9_223_372_036_854_775_808, 0, 0, 0]),
        ("bitwise_right_shift", [0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 63, 7, 0, 0, 0, 0, 64, 8, 0, 0, 0, 0, 9_223_372_036_854_775_808, 1_152_921_504_606_846_976, 1, 0, 0, 0, u64::MAX, 2_305_843_009_213_693_951, 1, 0, 0, 0]),
    ],
);

/// The elementwise op of this name.
fn op(name: &str) -> Op {
    let at = TABLE.iter().position(|row| row.name == name).expect(name);
    let bullet_ops::table::Body::Map(map, _) = TABLE[at].body else { panic!("{name} is not elementwise") };
    Op::Map(map)
}

fn tensor<T: Element>(values: &[T], dims: &[usize], device: &Device) -> Tensor {
    Tensor::from_slice(values, dims, device).unwrap()
}

/// Floats of this dtype.
fn floats(values: &[f64], dims: &[usize], dtype: DType, device: &Device) -> Tensor {
    tensor(values, dims, device).cast(dtype).unwrap()
}

fn check(name: &str, dtype: DType, x: &[Tensor], want: &[f64]) {
    let y = dispatch::run_one(op(name), &x.iter().collect::<Vec<_>>()).unwrap();
    let got = y.to_f64_vec().unwrap();
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let close = (got - want).abs() <= 4.0 * epsilon(dtype) * want.abs();
        // An exact value is met exactly, and a zero has its sign.
        let round = want.fract() == 0.0 || !want.is_finite();
        let same = got == want && (got != 0.0 || got.is_sign_negative() == want.is_sign_negative());
        let fits = if want.is_nan() { got.is_nan() } else { same || (close && !round) };
        assert!(fits, "{name} in {dtype} on {}, element {i}: {got} instead of {want}", y.device());
    }
}

#[test]
fn floats_have_numpys_special_values() {
    for device in devices() {
        for dtype in [DType::F32, DType::F64] {
            for (name, want) in UNARY {
                check(name, dtype, &[floats(&POINTS, &[POINTS.len()], dtype, device)], want);
            }
            for (name, want) in BINARY {
                let (rows, columns) = ([PAIRS.len(), 1], [PAIRS.len()]);
                let x = [floats(&PAIRS, &rows, dtype, device), floats(&PAIRS, &columns, dtype, device)];
                check(name, dtype, &x, want);
            }
        }
    }
}

fn check_integers<T: Element, const N: usize, const M: usize>((values, ops): ([T; N], [(&str, [T; M]); 4])) {
    for device in devices() {
        let (a, b) = (tensor(&values, &[N, 1], device), tensor(&values, &[N], device));
        for (name, want) in ops {
            let y = dispatch::run_one(op(name), &[&a, &b]).unwrap();
            assert_eq!(y.to_vec::<T>().unwrap(), want, "{name} of {} on {device}", T::DTYPE);
        }
    }
}

#[test]
fn integers_divide_and_shift_as_numpys() {
    check_integers(I8);
    check_integers(I64);
    check_integers(U64);
}

#[test]
fn bits_of_integers_and_bools() {
    for device in devices() {
        let (a, b) = ([0xf0_u8, 0xff], [0x3c_u8, 0xaa]);
        let (x, y) = (tensor(&a, &[2], device), tensor(&b, &[2], device));
        assert_eq!(x.bitwise_and(&y).unwrap().to_vec::<u8>().unwrap(), [0x30, 0xaa]);
        assert_eq!(x.bitwise_or(&y).unwrap().to_vec::<u8>().unwrap(), [0xfc, 0xff]);
        assert_eq!(x.bitwise_xor(&y).unwrap().to_vec::<u8>().unwrap(), [0xcc, 0x55]);
        assert_eq!(x.bitwise_invert().unwrap().to_vec::<u8>().unwrap(), [0x0f, 0]);
        let wide = tensor(&[i64::MIN, i64::MAX, -1], &[3], device);
        assert_eq!(wide.bitwise_invert().unwrap().to_vec::<i64>().unwrap(), [i64::MAX, i64::MIN, 0]);
        let (t, f) = (tensor(&[true, false], &[2, 1], device), tensor(&[true, false], &[2], device));
        assert_eq!(t.bitwise_and(&f).unwrap().to_vec::<bool>().unwrap(), [true, false, false, false]);
        assert_eq!(t.bitwise_or(&f).unwrap().to_vec::<bool>().unwrap(), [true, true, true, false]);
        assert_eq!(t.bitwise_xor(&f).unwrap().to_vec::<bool>().unwrap(), [false, true, true, false]);
        assert_eq!(f.bitwise_invert().unwrap().to_vec::<bool>().unwrap(), [false, true]);
        // Numbers of 8 bits, as NumPy has it.
        assert_eq!(t.bitwise_left_shift(&f).unwrap().to_vec::<i8>().unwrap(), [2, 1, 0, 0]);
        assert_eq!(t.floor_divide(&f).unwrap().to_vec::<i8>().unwrap(), [1, 0, 0, 0]);
        let message = floats(&[1.0], &[1], DType::F32, device).bitwise_invert().unwrap_err().to_string();
        assert!(message.contains("defined of integers and bools, not f32"), "{message}");
    }
}

/// 64 bits are more than f64 has.
#[test]
fn integers_compare_to_the_last_bit() {
    for device in devices() {
        let near = 1i64 << 60;
        let (a, b) =
            (tensor(&[near, near, near + 1], &[3], device), tensor(&[near, near + 1, near], &[3], device));
        assert_eq!(a.eq(&b).unwrap().to_vec::<bool>().unwrap(), [true, false, false]);
        assert_eq!(a.lt(&b).unwrap().to_vec::<bool>().unwrap(), [false, true, false]);
        assert_eq!(a.clip(&b, &b).unwrap().to_vec::<i64>().unwrap(), [near, near + 1, near]);
        let all = tensor(&[i64::MIN, i64::MAX, 0, -1], &[4], device);
        assert_eq!(all.isfinite().unwrap().to_vec::<bool>().unwrap(), [true; 4]);
        assert_eq!(all.isinf().unwrap().to_vec::<bool>().unwrap(), [false; 4]);
        assert_eq!(all.isnan().unwrap().to_vec::<bool>().unwrap(), [false; 4]);
        assert_eq!(all.signbit().unwrap().to_vec::<bool>().unwrap(), [true, false, false, true]);
        assert_eq!(all.trunc().unwrap().to_vec::<i64>().unwrap(), [i64::MIN, i64::MAX, 0, -1]);
    }
}

#[test]
fn neighbours_are_those_of_the_dtype() {
    for device in devices() {
        let (from, to) =
            ([1.0, 1.0, 0.0, -0.0, 0.0, -1.0, INF, NAN], [2.0, 0.0, 1.0, -1.0, -0.0, -1.0, 0.0, 1.0]);
        let step = |dtype| {
            let x = [floats(&from, &[8], dtype, device), floats(&to, &[8], dtype, device)];
            x[0].nextafter(&x[1]).unwrap()
        };
        let tiny = f32::from_bits(1);
        let want =
            [1.0 + f32::EPSILON, 1.0 - f32::EPSILON / 2.0, tiny, -tiny, -0.0, -1.0, f32::MAX, f32::NAN];
        let bits = |x: f32| if x.is_nan() { 0 } else { x.to_bits() };
        let got = step(DType::F32).to_vec::<f32>().unwrap();
        assert_eq!(got.into_iter().map(bits).collect::<Vec<_>>(), want.map(bits));
        let tiny = f64::from_bits(1);
        let want =
            [1.0 + f64::EPSILON, 1.0 - f64::EPSILON / 2.0, tiny, -tiny, -0.0, -1.0, f64::MAX, f64::NAN];
        let bits = |x: f64| if x.is_nan() { 0 } else { x.to_bits() };
        let got = step(DType::F64).to_vec::<f64>().unwrap();
        assert_eq!(got.into_iter().map(bits).collect::<Vec<_>>(), want.map(bits));
        let short = floats(&[1.0], &[1], DType::F16, device);
        assert!(short.nextafter(&short).unwrap_err().to_string().contains("cast to f32"));
    }
}

#[test]
fn clip_takes_the_upper_bound_last_and_keeps_nan() {
    for device in devices() {
        let of = |v: &[f64]| floats(v, &[v.len()], DType::F32, device);
        let y = of(&[-1.0, 0.5, 3.0, NAN, 5.0])
            .clip(&of(&[0.0, 0.0, 0.0, 0.0, 4.0]), &of(&[2.0, 2.0, 2.0, 2.0, 1.0]));
        let y = y.unwrap().to_f64_vec().unwrap();
        assert!(y[3].is_nan());
        assert_eq!([y[0], y[1], y[2], y[4]], [0.0, 0.5, 2.0, 1.0]);
    }
}

/// What i64 cannot hold is no negative number.
#[test]
fn large_unsigned_integers_are_whole() {
    const HALF: u64 = 1 << 63;
    const ALL: [u64; 5] = [0, 1, HALF - 1, HALF + 1, u64::MAX];
    for device in devices() {
        let (x, two) = (tensor(&ALL, &[5], device), tensor(&[2u64], &[], device));
        let (small, half) = (tensor(&[HALF - 1], &[], device), tensor(&[HALF], &[], device));
        assert_eq!(x.lt(&half).unwrap().to_vec::<bool>().unwrap(), [true, true, true, false, false]);
        assert_eq!(x.ge(&half).unwrap().to_vec::<bool>().unwrap(), [false, false, false, true, true]);
        assert_eq!(
            x.maximum(&half).unwrap().to_vec::<u64>().unwrap(),
            [HALF, HALF, HALF, HALF + 1, u64::MAX]
        );
        assert_eq!(x.clip(&two, &half).unwrap().to_vec::<u64>().unwrap(), [2, 2, HALF - 1, HALF, HALF]);
        assert_eq!(x.sign().unwrap().to_vec::<u64>().unwrap(), [0, 1, 1, 1, 1]);
        assert_eq!(x.abs().unwrap().to_vec::<u64>().unwrap(), ALL);
        assert_eq!(x.neg().unwrap().to_vec::<u64>().unwrap(), ALL.map(u64::wrapping_neg));
        assert_eq!(x.mul(&two).unwrap().to_vec::<u64>().unwrap(), ALL.map(|v| v.wrapping_mul(2)));
        assert_eq!(x.pow(&two).unwrap().to_vec::<u64>().unwrap(), ALL.map(|v| v.wrapping_mul(v)));
        assert_eq!(x.bitwise_invert().unwrap().to_vec::<u64>().unwrap(), ALL.map(|v| !v));
        assert_eq!(x.div(&two).unwrap().to_vec::<f64>().unwrap(), ALL.map(|v| v as f64 / 2.0));
        assert_eq!(x.sqrt().unwrap().to_vec::<f64>().unwrap(), ALL.map(|v| (v as f64).sqrt()));
        assert_eq!(x.signbit().unwrap().to_vec::<bool>().unwrap(), [false; 5]);
        // Reductions.
        assert_eq!(x.max(&[], false).unwrap().to_vec::<u64>().unwrap(), [u64::MAX]);
        assert_eq!(x.min(&[], false).unwrap().to_vec::<u64>().unwrap(), [0]);
        assert_eq!(x.argmax(None, false).unwrap().to_vec::<i64>().unwrap(), [4]);
        assert_eq!(x.slice(0, 0..4).unwrap().argmax(None, false).unwrap().to_vec::<i64>().unwrap(), [3]);
        assert_eq!(x.add(&small).unwrap().argmin(None, false).unwrap().to_vec::<i64>().unwrap(), [3]);
        let total = ALL.iter().fold(0u64, |sum, &v| sum.wrapping_add(v));
        assert_eq!(x.sum(&[], false).unwrap().to_vec::<u64>().unwrap(), [total]);
        assert_eq!(x.mean(&[], false).unwrap().to_f64_vec().unwrap(), [7_378_697_629_483_820_646.4]);
        // Products and sums by index wrap.
        let square = x.reshape(&[5, 1]).unwrap().matmul(&x.reshape(&[1, 5]).unwrap()).unwrap();
        assert_eq!(square.to_vec::<u64>().unwrap()[24], u64::MAX.wrapping_mul(u64::MAX));
        let at = tensor(&[3u8, 3], &[2], device);
        let added = x.index_add(0, &at, &tensor(&[HALF, 5], &[2], device)).unwrap();
        assert_eq!(added.to_vec::<u64>().unwrap(), [0, 1, HALF - 1, 6, u64::MAX]);
        assert!(x.index_select(0, &x).unwrap_err().to_string().contains("cast them"));
        // Printed in full.
        assert!(format!("{x:?}").contains("9223372036854775809, 18446744073709551615"), "{x:?}");
    }
}

#[test]
fn large_unsigned_integers_are_cast() {
    const ALL: [u64; 4] = [(1 << 63) + (1 << 39) + 1, u64::MAX, 1 << 63, 7];
    for device in devices() {
        let x = tensor(&ALL, &[4], device);
        let to = |dtype| x.cast(dtype).unwrap();
        assert_eq!(to(DType::F32).to_vec::<f32>().unwrap(), ALL.map(|v| v as f32));
        assert_eq!(to(DType::F64).to_vec::<f64>().unwrap(), ALL.map(|v| v as f64));
        assert_eq!(to(DType::F16).to_f64_vec().unwrap(), [INF, INF, INF, 7.0]);
        assert_eq!(to(DType::BF16).to_f64_vec().unwrap(), [2f64.powi(63), 2f64.powi(64), 2f64.powi(63), 7.0]);
        assert_eq!(to(DType::I64).to_vec::<i64>().unwrap(), ALL.map(|v| v as i64));
        assert_eq!(to(DType::U32).to_vec::<u32>().unwrap(), ALL.map(|v| v as u32));
        assert_eq!(to(DType::I8).to_vec::<i8>().unwrap(), ALL.map(|v| v as i8));
        assert_eq!(to(DType::Bool).to_vec::<bool>().unwrap(), [true; 4]);
        for from in [DType::F32, DType::F64] {
            let back = floats(&[1.5 * 2f64.powi(63), 1e30, -1.5, 2.5, NAN, -INF], &[6], from, device);
            let want = [3 << 62, u64::MAX, u64::MAX, 2, 0, 1 << 63];
            assert_eq!(back.cast(DType::U64).unwrap().to_vec::<u64>().unwrap(), want, "{from}");
        }
        let signed = tensor(&[-1i64, i64::MIN, 5], &[3], device).cast(DType::U64).unwrap();
        assert_eq!(signed.to_vec::<u64>().unwrap(), [u64::MAX, 1 << 63, 5]);
    }
}

/// Sums are wide and unsigned, as NumPy's.
#[test]
fn narrow_unsigned_integers_wrap_at_their_width() {
    for device in devices() {
        let (a, b) = (tensor(&[65_535u16, 2], &[2], device), tensor(&[2u16, 3], &[2], device));
        assert_eq!(a.add(&b).unwrap().to_vec::<u16>().unwrap(), [1, 5]);
        assert_eq!(b.sub(&a).unwrap().to_vec::<u16>().unwrap(), [3, 1]);
        assert_eq!(a.sum(&[], false).unwrap().to_vec::<u64>().unwrap(), [65_537]);
        let wide = tensor(&[u32::MAX, 2], &[2], device);
        assert_eq!(wide.mul(&wide).unwrap().to_vec::<u32>().unwrap(), [1, 4]);
        assert_eq!(
            wide.add(&tensor(&[-1i32, -1], &[2], device)).unwrap().to_vec::<i64>().unwrap(),
            [4_294_967_294, 1]
        );
        assert_eq!(wide.bitwise_left_shift(&a).unwrap().to_vec::<u32>().unwrap(), [0, 8]);
        assert_eq!(wide.bitwise_right_shift(&b).unwrap().to_vec::<u32>().unwrap(), [1_073_741_823, 0]);
    }
}
