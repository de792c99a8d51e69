//! Reductions against naive f64 sums and scans: axes, layouts, dtypes and instruction sets.

use bullet_kernels::cpu::reduce::{arg_reduce_on, reduce, reduce_on};
use bullet_kernels::cpu::simd::Isa;
use bullet_kernels::{View, ViewMut};
use bullet_ops::{AxisSet, Element, Layout, Reduce, Shape};
use half::{bf16, f16};

fn noise(seed: u64, n: usize) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn shape(dims: &[usize]) -> Shape {
    Shape::new(dims).unwrap()
}

/// The elements that come together in each result, in order.
fn groups<T: Element>(x: &[T], layout: &Layout, axes: AxisSet) -> Vec<Vec<f64>> {
    let dims = layout.shape;
    let mut out = vec![Vec::new(); dims.reduce(axes, false).numel()];
    let dense = dims.strides();
    for n in 0..dims.numel() {
        let index: Vec<usize> = (0..dims.rank()).map(|a| n / dense[a] as usize % dims[a]).collect();
        let at = layout.offset as isize
            + (0..dims.rank()).map(|a| index[a] as isize * layout.strides()[a]).sum::<isize>();
        let group = (0..dims.rank()).filter(|&a| !axes.contains(a)).fold(0, |g, a| g * dims[a] + index[a]);
        out[group].push(x[at as usize].to_f64());
    }
    out
}

fn expected(kind: Reduce, v: &[f64]) -> f64 {
    let n = v.len() as f64;
    let sum: f64 = v.iter().sum();
    match kind {
        Reduce::Sum => sum,
        Reduce::Mean => sum / n,
        Reduce::Max => v.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        Reduce::Min => v.iter().copied().fold(f64::INFINITY, f64::min),
        Reduce::Var { correction } => {
            v.iter().map(|x| (x - sum / n).powi(2)).sum::<f64>() / (n - correction).max(0.0)
        }
        Reduce::Prod => v.iter().product(),
        Reduce::All => f64::from(v.iter().all(|&x| x != 0.0)),
        Reduce::Any => f64::from(v.iter().any(|&x| x != 0.0)),
    }
}

fn check<T: Element, O: Element>(
    isa: Isa,
    x: &[T],
    layout: Layout,
    axes: AxisSet,
    kind: Reduce,
    epsilon: f64,
) {
    let groups = groups(x, &layout, axes);
    let mut out = vec![O::from_f64(77.0); groups.len()];
    let dense = Layout::contiguous(layout.shape.reduce(axes, true));
    reduce_on(isa, kind, &View::of(x, layout), axes, &mut ViewMut::of(&mut out, dense)).unwrap();
    for (got, group) in out.iter().zip(&groups) {
        let want = expected(kind, group);
        let scale = match kind {
            Reduce::Sum => group.iter().map(|x| x.abs()).sum::<f64>(),
            Reduce::Max | Reduce::Min | Reduce::All | Reduce::Any => 0.0,
            // Each factor rounds once; long products underflow.
            Reduce::Prod => 1.0 + group.len() as f64 * want.abs(),
            Reduce::Mean | Reduce::Var { .. } => 4.0,
        };
        let ok = (got.to_f64() - want).abs() <= epsilon * scale || (want.is_nan() && got.to_f64().is_nan());
        assert!(
            ok,
            "{kind:?} of {layout:?} over {axes:?} in {} on {}: {got:?}, not {want}",
            T::DTYPE,
            isa.name()
        );
    }
}

const KINDS: [Reduce; 9] = [
    Reduce::Sum,
    Reduce::Mean,
    Reduce::Max,
    Reduce::Min,
    Reduce::Var { correction: 0.0 },
    Reduce::Var { correction: 1.0 },
    Reduce::Prod,
    Reduce::All,
    Reduce::Any,
];

fn layouts() -> Vec<Layout> {
    let base = Layout::contiguous(shape(&[5, 37, 70]));
    vec![
        base,
        base.permute(&[2, 0, 1]).unwrap(),
        base.permute(&[1, 2, 0]).unwrap(),
        base.slice(2, 1, 33, 2),
        base.slice(1, 36, 37, -1),
        Layout::contiguous(shape(&[5, 1, 70])).broadcast_to(shape(&[5, 9, 70])).unwrap(),
        Layout::contiguous(shape(&[1, 1, 1])),
        Layout::contiguous(shape(&[2, 1500, 1])),
        Layout::contiguous(shape(&[1, 3, 1600])),
    ]
}

#[test]
fn any_axes_of_any_layout() {
    let x: Vec<f32> = noise(5, 5 * 37 * 70).iter().map(|&v| v as f32).collect();
    for isa in Isa::available() {
        for layout in layouts() {
            for axes in [&[][..], &[0], &[1], &[2], &[0, 1], &[1, 2], &[0, 2], &[0, 1, 2]] {
                let axes = AxisSet::of(&layout.shape, axes).unwrap();
                for kind in KINDS {
                    check::<f32, f32>(isa, &x, layout, axes, kind, 4e-7);
                }
            }
        }
    }
}

#[test]
fn every_dtype() {
    let layout = Layout::contiguous(shape(&[9, 130])).permute(&[1, 0]).unwrap();
    fn all<T: Element, O: Element>(layout: Layout, scale: f64, epsilon: f64, kinds: &[Reduce]) {
        let x: Vec<T> = noise(6, 9 * 130).iter().map(|&v| T::from_f64(v * scale)).collect();
        for isa in Isa::available() {
            for axes in [&[0][..], &[1], &[0, 1]] {
                let axes = AxisSet::of(&layout.shape, axes).unwrap();
                kinds.iter().for_each(|&kind| check::<T, O>(isa, &x, layout, axes, kind, epsilon));
            }
        }
    }
    all::<f16, f32>(layout, 1.0, 4e-7, &KINDS);
    all::<bf16, f32>(layout, 1.0, 4e-7, &KINDS);
    all::<f16, f16>(layout, 1.0, 1e-3, &KINDS);
    all::<f64, f64>(layout, 1.0, 1e-15, &KINDS);
    let exact = [Reduce::Sum, Reduce::Max, Reduce::Min, Reduce::All, Reduce::Any];
    all::<bool, i64>(layout, 1.0, 0.0, &exact);
    all::<u8, i64>(layout, 100.0, 0.0, &exact);
    all::<i8, i64>(layout, 100.0, 0.0, &exact);
    all::<i16, i64>(layout, 1e4, 0.0, &exact);
    all::<i32, i64>(layout, 1e9, 0.0, &exact);
    all::<i64, i64>(layout, 1e12, 0.0, &exact);
    // Few bits: true and false both come up, and products do not leave i64.
    all::<bool, i64>(layout, 1.0, 0.0, &[Reduce::Prod]);
    all::<i8, bool>(layout, 1.5, 0.0, &[Reduce::All, Reduce::Any]);
    all::<i32, f64>(layout, 4.0, 1e-15, &[Reduce::Mean, Reduce::Var { correction: 1.0 }]);
}

#[test]
fn long_sums_keep_their_accuracy() {
    // 0.1 in f32, four million times: naive summation is off by a percent.
    let n = 1 << 22;
    let x = vec![0.1f32; n];
    for dims in [[1, n], [n / 4, 4]] {
        let layout = Layout::contiguous(shape(&dims));
        let axes = AxisSet::of(&layout.shape, &[if dims[0] == 1 { 1 } else { 0 }]).unwrap();
        let mut out = vec![0f32; layout.shape.reduce(axes, false).numel()];
        let kept = Layout::contiguous(shape(&[out.len()]));
        reduce(Reduce::Sum, &View::of(&x, layout), axes, &mut ViewMut::of(&mut out, kept)).unwrap();
        let want = f64::from(0.1f32) * (n / out.len()) as f64;
        assert!(out.iter().all(|&s| (f64::from(s) / want - 1.0).abs() < 3e-7), "{} not {want}", out[0]);
    }
    // A variance far from zero.
    let x: Vec<f32> = noise(9, 100_000).iter().map(|v| 1000.0 + *v as f32).collect();
    let layout = Layout::contiguous(shape(&[x.len()]));
    check::<f32, f32>(
        Isa::Portable,
        &x,
        layout,
        AxisSet::all(&layout.shape),
        Reduce::Var { correction: 0.0 },
        1e-5,
    );
}

/// A mean of 10000 and a deviation of 0.01: the f32 mean alone is off by up to a twentieth of the deviation.
#[test]
fn variance_of_values_far_from_zero() {
    let dims = [6, 20, 30, 70];
    let n: usize = dims.iter().product();
    // Sums of four uniform numbers in -1..1 have a deviation of sqrt(4 / 3).
    let spread = 1e-2 / (4f64 / 3.0).sqrt();
    let x: Vec<f32> =
        noise(5, 4 * n).chunks_exact(4).map(|u| (1e4 + spread * u.iter().sum::<f64>()) as f32).collect();
    let dense = Layout::contiguous(shape(&dims));
    let across = dense.permute(&[3, 1, 0, 2]).unwrap();
    let axes: [&[isize]; 9] = [&[3], &[0], &[1], &[2], &[2, 3], &[0, 1], &[0, 3], &[1, 2, 3], &[0, 1, 2, 3]];
    let kind = Reduce::Var { correction: 1.0 };
    for (layout, axes) in [dense, across].into_iter().flat_map(|l| axes.map(|a| (l, a))) {
        let axes = AxisSet::of(&layout.shape, axes).unwrap();
        let groups = groups(&x, &layout, axes);
        let result = Layout::contiguous(shape(&[groups.len()]));
        for isa in Isa::available() {
            let mut out = vec![0f32; groups.len()];
            reduce_on(isa, kind, &View::of(&x, layout), axes, &mut ViewMut::of(&mut out, result)).unwrap();
            for (got, group) in out.iter().zip(&groups) {
                let want = expected(kind, group);
                assert!((f64::from(*got) / want - 1.0).abs() < 2e-6, "{isa:?} {axes:?}: {got} for {want}");
            }
        }
    }
}

fn arg<T: Element>(isa: Isa, max: bool, x: &[T], layout: Layout, axis: usize) -> Vec<i64> {
    let axes = AxisSet::of(&layout.shape, &[axis as isize]).unwrap();
    let kept = layout.shape.reduce(axes, false);
    let mut out = vec![-1i64; kept.numel()];
    arg_reduce_on(isa, max, &View::of(x, layout), axis, &mut ViewMut::of(&mut out, Layout::contiguous(kept)))
        .unwrap();
    out
}

#[test]
fn places_of_extremes() {
    // Few distinct values, so that there are equals; and some NaN.
    let mut x: Vec<f32> = noise(8, 5 * 37 * 70).iter().map(|v| (v * 20.0).round() as f32).collect();
    (0..x.len()).step_by(311).for_each(|i| x[i] = f32::NAN);
    for isa in Isa::available() {
        for layout in layouts() {
            for axis in 0..3 {
                let axes = AxisSet::of(&layout.shape, &[axis as isize]).unwrap();
                for max in [true, false] {
                    let got = arg(isa, max, &x, layout, axis);
                    for (got, group) in got.iter().zip(groups(&x, &layout, axes)) {
                        let nan = group.iter().position(|v| v.is_nan());
                        let best = expected(if max { Reduce::Max } else { Reduce::Min }, &group);
                        let want = nan.unwrap_or_else(|| group.iter().position(|&v| v == best).unwrap());
                        assert_eq!(*got, want as i64, "{layout:?} axis {axis} on {}", isa.name());
                    }
                }
            }
        }
        assert_eq!(arg(isa, true, &[3i32, 9, 9, i32::MIN], Layout::contiguous(shape(&[4])), 0), [1]);
        assert_eq!(arg(isa, false, &[true, false, false], Layout::contiguous(shape(&[3])), 0), [1]);
        assert_eq!(arg(isa, true, &[f64::NEG_INFINITY; 3], Layout::contiguous(shape(&[3])), 0), [0]);
    }
}

#[test]
fn nan_infinity_and_nothing() {
    let one = |kind: Reduce, x: &[f32]| {
        let layout = Layout::contiguous(shape(&[x.len()]));
        let mut out = [0f32];
        let result = reduce(
            kind,
            &View::of(x, layout),
            AxisSet::all(&layout.shape),
            &mut ViewMut::of(&mut out, Layout::contiguous(Shape::SCALAR)),
        );
        result.map(|()| out[0]).map_err(|e| e.message)
    };
    assert!(one(Reduce::Max, &[1.0, f32::NAN, 3.0]).unwrap().is_nan());
    assert!(one(Reduce::Min, &[f32::NAN, 1.0]).unwrap().is_nan());
    assert_eq!(one(Reduce::Max, &[f32::NEG_INFINITY; 2]).unwrap(), f32::NEG_INFINITY);
    assert_eq!(one(Reduce::Sum, &[f32::INFINITY, 1.0]).unwrap(), f32::INFINITY);
    assert_eq!(one(Reduce::Sum, &[]).unwrap(), 0.0);
    assert_eq!(one(Reduce::Prod, &[]).unwrap(), 1.0);
    assert_eq!(one(Reduce::All, &[]).unwrap(), 1.0);
    assert_eq!(one(Reduce::Any, &[]).unwrap(), 0.0);
    assert_eq!(one(Reduce::Any, &[0.0, -0.0]).unwrap(), 0.0);
    assert_eq!(one(Reduce::All, &[1e-45, f32::NAN]).unwrap(), 1.0);
    assert!(one(Reduce::Prod, &[0.0, f32::INFINITY]).unwrap().is_nan());
    assert!(one(Reduce::Mean, &[]).unwrap().is_nan());
    assert!(one(Reduce::Var { correction: 1.0 }, &[2.0]).unwrap().is_nan());
    let text = |name| format!("zero-size array to reduction operation {name} which has no identity");
    assert_eq!(one(Reduce::Max, &[]).unwrap_err(), text("maximum"));
    assert_eq!(one(Reduce::Min, &[]).unwrap_err(), text("minimum"));
    // No results, hence no error: axis 1 of (0, 3).
    let empty = Layout::contiguous(shape(&[0, 3]));
    let axes = AxisSet::of(&empty.shape, &[1]).unwrap();
    let none: [f32; 0] = [];
    let out = &mut ViewMut::of(&mut [0f32; 0], Layout::contiguous(shape(&[0])));
    reduce(Reduce::Max, &View::of(&none, empty), axes, out).unwrap();
}
