//! Elementwise maps against the f64 evaluation of their expressions: every dtype, layout and instruction set.

use bullet_kernels::cpu::map::map_on;
use bullet_kernels::cpu::simd::Isa;
use bullet_kernels::cpu::{convert, copy, map};
use bullet_kernels::{View, ViewMut};
use bullet_ops::expr::{Expr, V};
use bullet_ops::{DType, Element, Layout, Map, Shape};
use half::{bf16, f16};

/// Seeded numbers in -1..1 (a linear congruential generator, high bits).
fn noise(seed: u64, n: usize) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn flat(n: usize) -> Layout {
    Layout::contiguous(Shape::new(&[n]).unwrap())
}

fn apply(isa: Isa, f: &Expr, x: &[f32]) -> Vec<f32> {
    let mut y = vec![f32::from_bits(u32::MAX); x.len()];
    map_on(isa, f, DType::F32, &[View::of(x, flat(x.len()))], &mut ViewMut::of(&mut y, flat(x.len())));
    y
}

/// Distance in units in the last place of the exact result (of the smallest normal number, below it).
fn ulps(got: f32, want: f64) -> f64 {
    let rounded = want as f32;
    if got == rounded || (got.is_nan() && rounded.is_nan()) {
        return 0.0;
    }
    let place = f64::from(rounded.abs().max(f32::MIN_POSITIVE)).log2().floor().exp2() * 2f64.powi(-23);
    (f64::from(got) - want).abs() / place
}

/// Every exponent and sign, with dense significands, and the special values.
fn all_magnitudes() -> Vec<f32> {
    let mut x: Vec<f32> = (0..=u32::MAX).step_by(65_537 - 512).map(f32::from_bits).collect();
    x.extend([
        0.0,
        -0.0,
        1.0,
        -1.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        f32::MIN_POSITIVE,
        1e-45,
        -1e-45,
    ]);
    x.extend([f32::MAX, f32::MIN, 88.722_83, 88.722_84, -87.336_54, -103.972_08, -103.972_09, -104.1, 88.8]);
    x
}

#[test]
fn functions_are_accurate_everywhere() {
    type Case = (&'static str, fn(V) -> V, f64);
    let cases: [Case; 22] = [
        ("exp", |x| x.exp(), 1.5),
        ("log", |x| x.log(), 2.0),
        ("tanh", |x| x.tanh(), 3.5),
        ("erf", |x| x.erf(), 3.0),
        ("tan", |x| x.tan(), 4.0),
        ("asin", |x| x.asin(), 3.0),
        ("acos", |x| x.acos(), 3.0),
        ("atan", |x| x.atan(), 3.0),
        ("sinh", |x| x.sinh(), 4.0),
        ("cosh", |x| x.cosh(), 4.0),
        ("asinh", |x| x.asinh(), 4.0),
        ("acosh", |x| x.acosh(), 4.0),
        ("atanh", |x| x.atanh(), 4.0),
        ("expm1", |x| x.expm1(), 3.0),
        ("log1p", |x| x.log1p(), 3.0),
        ("log2", |x| x.log2(), 3.0),
        ("sin", |x| x.sin(), 2.0),
        ("cos", |x| x.cos(), 2.0),
        ("sqrt", |x| x.sqrt(), 0.5),
        ("floor", |x| x.floor(), 0.0),
        ("ceil", |x| x.ceil(), 0.0),
        ("round", |x| x.round(), 0.0),
    ];
    let mut x = all_magnitudes();
    x.extend(noise(1, 20_000).iter().map(|v| (v * 10.0) as f32));
    x.extend(noise(2, 20_000).iter().map(|v| (v * 100.0) as f32));
    // Near multiples of pi/2, where the results' relative accuracy is hardest.
    x.extend((0..2000).map(|k| (f64::from(k) * std::f64::consts::FRAC_PI_2) as f32));
    for (name, f, allowed) in cases {
        let expr = Expr::build(1, |v| f(v[0]));
        for isa in Isa::available() {
            let y = apply(isa, &expr, &x);
            for (&x, &y) in x.iter().zip(&y) {
                let want = expr.eval(&[f64::from(x)]);
                let off = ulps(y, want);
                assert!(off <= allowed, "{name}({x:e}) on {}: {y:e}, not {want:e} ({off} ulp)", isa.name());
                if want == 0.0 {
                    assert_eq!(y.is_sign_negative(), want.is_sign_negative(), "{name}({x})");
                }
            }
        }
    }
}

#[test]
fn every_op_matches_its_expression_in_every_float_dtype() {
    fn check<T: convert::Storage>(isa: Isa, epsilon: f64) {
        for row in bullet_ops::table::TABLE {
            let bullet_ops::table::Body::Map(op, _) = row.body else { continue };
            let (exprs, arity) = (op.exprs(), op.arity());
            // Bits are of integers only, and what is next in f32 is not in f64.
            let neighbours = row.name == "nextafter" && T::DTYPE != DType::F64;
            if row.name.starts_with("bitwise") || neighbours {
                continue;
            }
            let (lo, hi) = row.domain;
            let n = 1283;
            let draw = |i: usize| {
                noise(7 + i as u64, n).into_iter().map(|v| T::from_f64(lo + (hi - lo) * (v + 1.0) / 2.0))
            };
            let mut x: Vec<Vec<T>> = (0..arity).map(|i| draw(i).collect()).collect();
            run(isa, &exprs.forward, &x, row.tolerance(epsilon, 1.0), row.name);
            let wide = |x: &[Vec<T>], k: usize| x.iter().map(|x| x[k].to_f64()).collect::<Vec<_>>();
            x.push((0..n).map(|k| T::from_f64(exprs.forward.eval(&wide(&x, k)))).collect());
            x.push(noise(3, n).into_iter().map(T::from_f64).collect());
            for adjoint in exprs.adjoint.iter().flatten() {
                run(isa, adjoint, &x, 4.0 * row.tolerance(epsilon, 1.0) + 16.0 * epsilon, row.name);
            }
        }
    }
    fn run<T: convert::Storage>(isa: Isa, f: &Expr, x: &[Vec<T>], tolerance: f64, name: &str) {
        let n = x[0].len();
        let views: Vec<View<'_>> = x.iter().map(|x| View::of(x, flat(n))).collect();
        let mut y = vec![T::from_f64(f64::NAN); n];
        map_on(isa, f, T::DTYPE.compute(), &views, &mut ViewMut::of(&mut y, flat(n)));
        for k in 0..n {
            let args: Vec<f64> = x.iter().map(|x| x[k].to_f64()).collect();
            let want = f.eval(&args);
            let off = (y[k].to_f64() - want).abs();
            // The result is rounded to T, besides the error of the computation.
            let allowed = (tolerance + T::from_f64(1.0).to_f64() * rounding::<T>()) * want.abs().max(1.0);
            assert!(
                off <= allowed,
                "{name} of {args:?} in {} on {}: {:?}, not {want}",
                T::DTYPE,
                isa.name(),
                y[k]
            );
        }
    }
    fn rounding<T: Element>() -> f64 {
        match T::DTYPE {
            DType::F16 => 2f64.powi(-11),
            DType::BF16 => 2f64.powi(-8),
            _ => 0.0,
        }
    }
    for isa in Isa::available() {
        check::<f32>(isa, f64::from(f32::EPSILON));
        check::<f16>(isa, f64::from(f32::EPSILON));
        check::<bf16>(isa, f64::from(f32::EPSILON));
        check::<f64>(isa, f64::EPSILON);
    }
}

#[test]
fn strided_broadcast_and_aliased_operands() {
    let f = Expr::build(3, |x| x[0] * x[1] + x[2]);
    for dims in [[3usize, 5, 7], [1, 1, 1], [2, 40, 33], [4, 3, 700], [0, 2, 3], [33, 64, 1]] {
        let shape = Shape::new(&dims).unwrap();
        let n = shape.numel();
        let a: Vec<f32> = noise(1, n * 2 + 1).iter().map(|&v| v as f32).collect();
        let (b, c) = (&a[n.min(1)..], &a[n..]);
        // Every other element, a transposed operand, and a row that is broadcast.
        let strided =
            Layout::strided(shape, &[(2 * dims[1] * dims[2]) as isize, (2 * dims[2]) as isize, 2], 0);
        let across = Layout::contiguous(Shape::new(&[dims[2], dims[1], dims[0]]).unwrap())
            .permute(&[2, 1, 0])
            .unwrap();
        let row = Layout::strided(shape, &[0, 1, 0], 0);
        if n > 0 {
            assert!(strided.bounds().unwrap().1 < a.len());
        }
        for isa in Isa::available() {
            // Into a strided slice, poisoned, whose gaps must stay.
            let mut out = vec![f32::from_bits(u32::MAX); 2 * n + 1];
            let inputs = [View::of(&a, strided), View::of(b, across), View::of(c, row)];
            map_on(isa, &f, DType::F32, &inputs, &mut ViewMut::of(&mut out, strided));
            let at = |l: &Layout, i: [usize; 3]| {
                (0..3).map(|k| i[k] as isize * l.strides()[k]).sum::<isize>() as usize
            };
            let mut written = vec![false; out.len()];
            for i in 0..n {
                let index = [i / (dims[1] * dims[2]), i / dims[2] % dims[1], i % dims[2]];
                let want = a[at(&strided, index)] * b[at(&across, index)] + c[at(&row, index)];
                assert_eq!(out[at(&strided, index)], want, "{dims:?} {index:?}");
                written[at(&strided, index)] = true;
            }
            assert!(out.iter().zip(&written).all(|(o, &w)| w || o.to_bits() == u32::MAX));
        }
        // In place: operand and result are the same memory.
        let mut own = a[..n].to_vec();
        let ptr = own.as_mut_ptr();
        let dense = Layout::contiguous(shape);
        // SAFETY: an operand may be the result's memory if the layout is the same.
        let (x, mut y) = unsafe {
            (View::new(ptr.cast(), DType::F32, dense), ViewMut::new(ptr.cast(), DType::F32, dense))
        };
        map::map(&Expr::build(1, |x| x[0] * 3.0), DType::F32, &[x], &mut y);
        assert!(own.iter().zip(&a).all(|(&o, &a)| o == a * 3.0));
    }
}

#[test]
fn copies_transpose_and_fill() {
    for (rows, cols) in [(1, 1), (37, 65), (200, 129), (8, 1000)] {
        let shape = Shape::new(&[2, cols, rows]).unwrap();
        let across = Layout::contiguous(Shape::new(&[2, rows, cols]).unwrap()).permute(&[0, 2, 1]).unwrap();
        fn check<T: Element>(across: Layout, shape: Shape, (rows, cols): (usize, usize)) {
            let x: Vec<T> = (0..2 * rows * cols).map(|i| T::from_i64(i as i64 * 7 % 120)).collect();
            let mut y = vec![T::default(); x.len()];
            copy::copy(&View::of(&x, across), &mut ViewMut::of(&mut y, Layout::contiguous(shape)));
            for b in 0..2 {
                for r in 0..rows {
                    for c in 0..cols {
                        assert_eq!(y[(b * cols + c) * rows + r], x[(b * rows + r) * cols + c]);
                    }
                }
            }
            // And converting: the same through f64.
            let mut wide = vec![0f64; x.len()];
            copy::copy(&View::of(&x, across), &mut ViewMut::of(&mut wide, Layout::contiguous(shape)));
            assert!(wide.iter().zip(&y).all(|(w, y)| *w == y.to_f64()));
        }
        check::<u8>(across, shape, (rows, cols));
        check::<f16>(across, shape, (rows, cols));
        check::<f32>(across, shape, (rows, cols));
        check::<i64>(across, shape, (rows, cols));
    }
    let mut y = vec![0i16; 20];
    let every_third = Layout::strided(Shape::new(&[6]).unwrap(), &[3], 1);
    copy::fill(&mut ViewMut::of(&mut y, every_third), -4.0);
    assert!(y.iter().enumerate().all(|(i, &v)| v == if i % 3 == 1 && i < 17 { -4 } else { 0 }), "{y:?}");
}

#[test]
fn casts_between_all_dtypes_follow_element() {
    fn pair<A: Element, B: Element>(isa: Isa) {
        let identity = Expr::build(1, |x| x[0]);
        let values = [0.0, 1.0, -1.0, 2.5, -2.5, 100.9, 127.0, 200.0, 70000.0, 3e9, 0.3, -0.0];
        let x: Vec<A> = values.iter().cycle().take(77).map(|&v| A::from_f64(v)).collect();
        let mut y = vec![B::default(); x.len()];
        let out = &mut ViewMut::of(&mut y, flat(x.len()));
        map_on(isa, &identity, A::DTYPE.compute(), &[View::of(&x, flat(x.len()))], out);
        for (x, y) in x.iter().zip(&y) {
            let want = if A::DTYPE.is_float() { B::from_f64(x.to_f64()) } else { B::from_i64(x.to_i64()) };
            assert_eq!(*y, want, "{x:?} from {} to {}", A::DTYPE, B::DTYPE);
        }
    }
    macro_rules! all {
        ($isa:expr; $($a:ty),*) => { $( all!(@ $isa; $a; bool, u8, u16, u32, u64, i8, i16, i32, i64, f16, bf16, f32, f64); )* };
        (@ $isa:expr; $a:ty; $($b:ty),*) => { $( pair::<$a, $b>($isa); )* };
    }
    for isa in Isa::available() {
        all!(isa; bool, u8, i8, i16, i32, i64, f16, bf16, f32, f64);
    }
}

#[test]
fn half_conversions_are_exact_for_every_bit_pattern() {
    for bits in 0..=u16::MAX {
        let (h, b) = (f16::from_bits(bits), bf16::from_bits(bits));
        let wide = convert::f16_to_f32(bits);
        assert!(wide.to_bits() == h.to_f32().to_bits() || (wide.is_nan() && h.is_nan()), "{bits:#x}");
        if !h.is_nan() {
            assert_eq!(convert::f32_to_f16(wide), bits);
            assert_eq!(
                convert::f32_to_bf16(b.to_f32()),
                bits & if b.is_nan() { 0 } else { u16::MAX }
                    | if b.is_nan() { convert::f32_to_bf16(b.to_f32()) } else { 0 }
            );
            // Midway to the next, and just beside: ties go to even.
            for x in
                [wide.next_up(), wide.next_down(), (wide + convert::f16_to_f32(bits.wrapping_add(1))) / 2.0]
            {
                if !x.is_nan() {
                    assert_eq!(convert::f32_to_f16(x), f16::from_f32_const(x).to_bits(), "{x:e}");
                }
            }
        }
        let near = f32::from_bits(u32::from(bits) << 16 | 0x8000);
        if !near.is_nan() {
            assert_eq!(convert::f32_to_bf16(near), bf16::from_f32_const(near).to_bits());
            assert_eq!(convert::f32_to_bf16(near.next_up()), bf16::from_f32_const(near.next_up()).to_bits());
        }
    }
    assert!(f16::from_bits(convert::f32_to_f16(f32::NAN)).is_nan());
    assert!(bf16::from_bits(convert::f32_to_bf16(f32::from_bits(0x7f80_0001))).is_nan());
    // The block conversions of each instruction set agree with the scalar ones.
    let x: Vec<f32> = all_magnitudes();
    let mut h = vec![f16::ZERO; x.len()];
    convert::narrow(&x, &mut h);
    let same = |(x, h): (&f32, &f16)| h.is_nan() && x.is_nan() || h.to_bits() == convert::f32_to_f16(*x);
    assert!(x.iter().zip(&h).all(same));
}

#[test]
fn integer_semantics() {
    let run = |f: &Expr, a: &[i64], b: &[i64]| {
        let mut y = vec![0i64; a.len()];
        let n = flat(a.len());
        map::map(f, DType::I64, &[View::of(a, n), View::of(b, n)], &mut ViewMut::of(&mut y, n));
        y
    };
    let div = Expr::build(2, |x| x[0] / x[1]);
    assert_eq!(run(&div, &[7, -7, 5, i64::MIN], &[2, 2, 0, -1]), [3, -3, 0, i64::MIN]);
    let pow = Expr::build(2, |x| x[0].pow(x[1]));
    assert_eq!(run(&pow, &[2, -3, 2, 10, 0], &[10, 3, -1, 0, 0]), [1024, -27, 0, 1, 1]);
    let add = Expr::build(2, |x| x[0] + x[1]);
    assert_eq!(run(&add, &[i64::MAX], &[1]), [i64::MIN]);
    assert_eq!(run(&Map::Maximum.exprs().forward, &[1, -5], &[0, -4]), [1, -4]);
}

#[test]
fn nan_propagates_through_extremes() {
    let x = [f32::NAN, 1.0, f32::NAN, -0.0];
    let y = [1.0, f32::NAN, f32::NAN, 2.0];
    for (op, last) in [(Map::Maximum, 2.0), (Map::Minimum, -0.0)] {
        let mut out = [0f32; 4];
        map::map(
            &op.exprs().forward,
            DType::F32,
            &[View::of(&x, flat(4)), View::of(&y, flat(4))],
            &mut ViewMut::of(&mut out, flat(4)),
        );
        assert!(out[..3].iter().all(|v| v.is_nan()) && out[3] == last, "{out:?}");
    }
}
