//! Every op x dtype x device x layout against the oracle.

use bullet_ops::reference::cases::{Case, cases, is_free};
use bullet_ops::reference::{self, Array, eval, magnitudes};
use bullet_ops::table::{Row, TABLE};
use bullet_ops::{AxisSet, DType, DropoutSpec, Meta, Op, Reduce, Shape};
use bullet_tensor::{Device, Tensor, dispatch};

use crate::harness::{Laid, Variation, devices, download, epsilon, is_wanted, seed, uniform, upload};

/// Cases with more elements than this are run in two layouts only.
const LARGE: usize = 4000;

macro_rules! dtypes {
    ($($name:ident $dtype:ident),*) => {$(
        #[test]
        fn $name() {
            check_dtype(DType::$dtype);
        }
    )*};
}
dtypes!(bool Bool, u8 U8, u16 U16, u32 U32, u64 U64, i8 I8, i16 I16, i32 I32, i64 I64, f16 F16, bf16 BF16, f32 F32, f64 F64);

/// All rows; the failures are listed together, so that one run shows them all.
fn check_dtype(dtype: DType) {
    let mut failures = Vec::new();
    for row in TABLE.iter().filter(|row| row.name != "dropout" && is_wanted(row)) {
        let mut rng = uniform(seed(row.name) ^ dtype as u64);
        for (n, case) in cases(row, dtype, &mut rng).iter().enumerate() {
            failures.extend(check_case(row, n, case).err());
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

fn check_case(row: &Row, n: usize, case: &Case) -> Result<(), String> {
    let size: usize = case.inputs.iter().map(|x| x.data.len()).sum();
    // Which variation an operand gets, by its position.
    let mut runs: Vec<Box<dyn Fn(usize) -> Variation>> = Variation::ALL
        .iter()
        .enumerate()
        .filter(|&(v, _)| size < LARGE || v == 0 || v == 1 + n % 5)
        .map(|(_, &v)| Box::new(move |_| v) as _)
        .collect();
    if size < LARGE && case.inputs.len() > 1 {
        runs.push(Box::new(|i| Variation::ALL[(i + 1) % 6]));
        runs.push(Box::new(|i| Variation::ALL[(3 * i + 4) % 6]));
    }
    let mut dense = None;
    for variation in &runs {
        // Stride 0 changes values, which some operands must keep.
        let variation = |i: usize| match variation(i) {
            Variation::Broadcast if !is_free(&case.op, i) => Variation::Negative,
            other => other,
        };
        let laid: Vec<Laid> =
            case.inputs.iter().enumerate().map(|(i, x)| Laid::new(x, variation(i))).collect();
        let same = laid.iter().zip(&case.inputs).all(|(l, x)| l.value == *x);
        let values: Vec<Array> = laid.iter().map(|l| l.value.clone()).collect();
        let fresh;
        let wanted = if same {
            dense.get_or_insert_with(|| want(&case.op, &values))
        } else {
            fresh = want(&case.op, &values);
            &fresh
        };
        for device in devices() {
            check_run(row, &case.op, &laid, wanted, device).map_err(|e| {
                let names: Vec<String> = values
                    .iter()
                    .enumerate()
                    .map(|(i, x)| format!("{} {} {:?}", x.dtype, x.shape, variation(i)))
                    .collect();
                format!("{:?} of [{}] on {device}: {e}", case.op, names.join(", "))
            })?;
        }
    }
    Ok(())
}

/// Results and what errors in them are measured against.
fn want(op: &Op, x: &[Array]) -> (Vec<Array>, Vec<Array>) {
    let results = eval(op, x).unwrap_or_else(|e| panic!("the oracle refuses {op:?}: {e}"));
    let magnitudes = magnitudes(op, x, &results);
    (results, magnitudes)
}

fn check_run(
    row: &Row,
    op: &Op,
    laid: &[Laid],
    (results, magnitudes): &(Vec<Array>, Vec<Array>),
    device: &Device,
) -> Result<(), String> {
    let run = || {
        let bases: Vec<Tensor> = laid.iter().map(|l| upload(&l.base, device)).collect::<Result<_, _>>()?;
        let views: Vec<Tensor> = laid.iter().zip(&bases).map(|(l, b)| l.view(b)).collect::<Result<_, _>>()?;
        let outputs = dispatch::run(op.clone(), &views.iter().collect::<Vec<_>>())?;
        let after: Vec<Array> = bases.iter().map(download).collect::<Result<_, _>>()?;
        Ok::<_, bullet_tensor::Error>((outputs.iter().map(download).collect::<Result<Vec<_>, _>>()?, after))
    };
    let (got, after) = run().map_err(|e| e.to_string())?;
    if let Some(i) = (0..laid.len()).find(|&i| !same(&after[i], &laid[i].base)) {
        return Err(format!("operand {i} was overwritten"));
    }
    if got.len() != results.len() {
        return Err(format!("{} results instead of {}", got.len(), results.len()));
    }
    for (r, got) in got.iter().enumerate() {
        let (want, magnitude) = (&results[r], &magnitudes[r]);
        if got.meta() != want.meta() {
            return Err(format!("result {r} is {:?} instead of {:?}", got.meta(), want.meta()));
        }
        compare(row, got, want, magnitude).map_err(|e| format!("result {r}, {e}"))?;
    }
    Ok(())
}

/// Equal, NaN for NaN.
fn same(a: &Array, b: &Array) -> bool {
    a.meta() == b.meta() && a.data.iter().zip(&b.data).all(|(a, b)| a == b || (a.is_nan() && b.is_nan()))
}

/// A result may be off by the row's tolerance in the type of the computation, and by one rounding to its own dtype.
fn compare(row: &Row, got: &Array, want: &Array, magnitude: &Array) -> Result<(), String> {
    let dtype = got.dtype;
    let (compute, storage) = (epsilon(dtype.compute()), epsilon(dtype));
    for (i, (&got, &want)) in got.data.iter().zip(&want.data).enumerate() {
        let rounded = reference::round(dtype, want);
        if got == rounded || (got.is_nan() && rounded.is_nan()) {
            continue;
        }
        let rounding = if dtype == dtype.compute() { 0.0 } else { 0.5 * storage * want.abs() };
        let scale = magnitude.data[i].max(want.abs());
        let allowed = if row.ulps == 0.0 { 0.0 } else { row.tolerance(compute, scale) + rounding };
        if (got - want).abs() <= allowed {
            continue;
        }
        let ulps = (got - want).abs() / (compute * scale.max(1.0));
        return Err(format!(
            "element {i}: {got} instead of {want} ({ulps:.1} ulps of {scale:.3}; {} allowed)",
            row.ulps
        ));
    }
    Ok(())
}

/// Dropout has no expected values: zeros come as often as they should, the rest is scaled, and the same seed, step and
/// stream give the same zeros.
#[test]
fn dropout_is_a_seeded_coin() {
    const N: usize = 40_000;
    let run = |device: &Device, dtype: DType, p: f64, stream: u64, step: f64| {
        let x = Array::new(&[N], dtype, vec![1.5; N]).unwrap();
        let rng = Array::new(&[2], DType::I64, vec![1234.0, step]).unwrap();
        let (x, rng) = (upload(&x, device).unwrap(), upload(&rng, device).unwrap());
        download(&dispatch::run_one(Op::Dropout(DropoutSpec { p, stream }), &[&x, &rng]).unwrap())
            .unwrap()
            .data
    };
    for device in devices() {
        for dtype in DType::FLOATS {
            for p in [0.0, 0.1, 0.5, 0.9] {
                let y = run(device, dtype, p, 0, 0.0);
                let kept = reference::round(dtype, 1.5 / (1.0 - p));
                let close = |v: f64| (v - kept).abs() <= 2.0 * epsilon(dtype) * kept;
                assert!(y.iter().all(|&v| v == 0.0 || close(v)), "{dtype} p={p}");
                let zeros = y.iter().filter(|&&v| v == 0.0).count() as f64;
                let deviation = (p * (1.0 - p) * N as f64).sqrt();
                assert!((zeros - p * N as f64).abs() <= 5.0 * deviation, "{dtype} p={p}: {zeros} zeros");
            }
            let zeros = |stream, step| -> Vec<bool> {
                run(device, dtype, 0.5, stream, step).iter().map(|&v| v == 0.0).collect()
            };
            let first = zeros(0, 0.0);
            assert_eq!(first, zeros(0, 0.0));
            for other in [zeros(1, 0.0), zeros(0, 1.0)] {
                // Independent coins agree half of the time.
                let agree = first.iter().zip(&other).filter(|(a, b)| a == b).count() as f64;
                assert!((agree - N as f64 / 2.0).abs() < 5.0 * (N as f64).sqrt() / 2.0, "{dtype}: {agree}");
            }
            // Neighbours are independent too.
            let runs = first.windows(2).filter(|w| w[0] == w[1]).count() as f64;
            assert!((runs - N as f64 / 2.0).abs() < 5.0 * (N as f64).sqrt() / 2.0, "{dtype}: {runs}");
        }
    }
}

/// What a value of an index can be wrong in is an error, with NumPy's words, and not a read out of bounds.
#[test]
fn indices_out_of_bounds_are_errors() {
    for device in devices() {
        let x = Tensor::zeros(&[4, 4], DType::F32, device).unwrap();
        for bad in [4i64, -5, i64::MAX, i64::MIN] {
            let column = Tensor::from_slice(&[bad], &[1], device).unwrap();
            let square = Tensor::from_slice(&[bad; 4], &[1, 4], device).unwrap();
            let row = Tensor::zeros(&[1, 4], DType::F32, device).unwrap();
            // One after the other: a GPU reports the first fault when a result is next read, and that only.
            let ops: [&dyn Fn() -> bullet_tensor::Result<Tensor>; 7] = [
                &|| x.embedding(&column),
                &|| x.index_select(0, &column),
                &|| x.index_add(0, &column, &row),
                &|| x.gather(0, &square),
                &|| x.scatter_add(0, &square, &row),
                &|| dispatch::run_one(Op::EmbeddingGrad { rows: 4 }, &[&column, &row]),
                &|| row.cross_entropy(&column, -100, 0.0),
            ];
            for op in ops {
                let message =
                    op().and_then(|t| t.to_bytes()).expect_err("an index out of bounds").to_string();
                assert!(message.contains("out of bounds"), "{message}");
            }
        }
    }
}

/// Extremes of nothing.
#[test]
fn reductions_without_identity_are_errors() {
    for device in devices() {
        let none = Tensor::zeros(&[3, 0], DType::F32, device).unwrap();
        let message = none.max(&[1], false).unwrap_err().to_string();
        assert!(
            message.contains("zero-size array to reduction operation maximum which has no identity"),
            "{message}"
        );
        let message = none.min(&[], false).unwrap_err().to_string();
        assert!(
            message.contains("zero-size array to reduction operation minimum which has no identity"),
            "{message}"
        );
        let message = none.argmax(Some(1), false).unwrap_err().to_string();
        assert!(message.contains("attempt to get argmax of an empty sequence"), "{message}");
        assert_eq!(none.max(&[0], false).unwrap().numel(), 0);
    }
}

/// Wherever a NaN stands, an extreme is NaN and its index the NaN's.
#[test]
fn extremes_see_every_nan() {
    for dtype in DType::FLOATS {
        for (rows, columns) in [(1, 1), (1, 7), (3, 33), (70, 65), (2, 1000)] {
            for at in [0, 1, columns / 2, columns - 1] {
                let meta = Meta::new(Shape::new(&[rows, columns]).unwrap(), dtype);
                let wave = |i: &[usize]| ((i[0] * 7 + i[1] * 3) % 11) as f64 - 5.0;
                let hit = |i: &[usize]| i[0] == rows / 2 && i[1] == at.min(columns - 1);
                let x = Array::from_fn(meta, |i| if hit(i) { f64::NAN } else { wave(i) });
                for axis in [0, 1] {
                    let axes = AxisSet::of(&x.shape, &[axis as isize]).unwrap();
                    for op in [
                        Op::Reduce { kind: Reduce::Max, axes, keepdims: false },
                        Op::Reduce { kind: Reduce::Min, axes, keepdims: false },
                        Op::ArgReduce { max: true, axis, keepdims: false },
                        Op::ArgReduce { max: false, axis, keepdims: false },
                    ] {
                        check_plain(&op, std::slice::from_ref(&x));
                    }
                }
            }
        }
    }
}

/// Rows that a formula written without care for range or cancellation gets wrong.
#[test]
fn rows_survive_large_numbers() {
    let mut rng = uniform(9);
    for dtype in DType::FLOATS {
        // Far enough that the mean of squares minus the square of the mean has no digit left in f32, near enough that
        // the rounding of the mean itself does not show: 10 for f16, 1 for bf16, 1000 for the others.
        let far = 0.01 / epsilon(dtype).max(1e-5);
        for columns in [2, 7, 33, 1000] {
            let meta = Meta::new(Shape::new(&[3, columns]).unwrap(), dtype);
            let scattered = Array::from_fn(meta, |_| (rng() - 0.5) * 6e4).rounded();
            let offset = Array::from_fn(meta, |_| far + 2.0 * rng()).rounded();
            let masked = |i: &[usize]| i[1] % 3 == 1;
            let holes =
                Array::from_fn(meta, |i| if masked(i) { f64::NEG_INFINITY } else { 3.0 * rng() }).rounded();
            for x in [&scattered, &offset, &holes] {
                check_plain(&Op::Softmax, std::slice::from_ref(x));
                check_plain(&Op::LogSoftmax, std::slice::from_ref(x));
            }
            let axes = AxisSet::of(&offset.shape, &[1]).unwrap();
            let kind = Reduce::Var { correction: 0.0 };
            check_plain(&Op::Reduce { kind, axes, keepdims: false }, std::slice::from_ref(&offset));
            check_plain(&Op::LayerNorm { eps: 1e-5 }, std::slice::from_ref(&offset));
            let target = Array::new(&[3], DType::I64, vec![0.0, 1.0, 0.0]).unwrap();
            let op = Op::CrossEntropy { ignore_index: -100, label_smoothing: 0.0 };
            check_plain(&op, &[scattered, target]);
        }
    }
}

/// An op on contiguous operands, on every device.
fn check_plain(op: &Op, x: &[Array]) {
    let laid: Vec<Laid> = x.iter().map(|x| Laid::new(x, Variation::Contiguous)).collect();
    let wanted = want(op, x);
    for device in devices() {
        if let Err(e) = check_run(op.row(), op, &laid, &wanted, device) {
            panic!("{op:?} of {} {} on {device}: {e}", x[0].dtype, x[0].shape);
        }
    }
}

/// Infinities, signed zeros, NaN and numbers at the edge of the range, where an approximation is likeliest wrong.
#[test]
fn elementwise_ops_keep_their_limits() {
    use bullet_ops::table::Body;
    let mut failures = Vec::new();
    for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
        let edge: &[f64] = &[
            0.0,
            -0.0,
            1.0,
            -1.0,
            0.5,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::NAN,
            1e-7,
            100.0,
            -100.0,
            6e4,
            -6e4,
        ];
        for row in TABLE {
            let Body::Map(map, _) = row.body else { continue };
            // Large angles are reduced exactly by no backend's fast path; sin, cos and tan are held to theirs.
            let wild = |v: f64| matches!(row.name, "sin" | "cos" | "tan") && v.is_finite() && v.abs() > 100.0;
            let (mut columns, arity) = (vec![Vec::new(); map.arity()], map.arity());
            for n in 0..edge.len().pow(arity as u32) {
                let point: Vec<f64> =
                    (0..arity).map(|i| edge[n / edge.len().pow(i as u32) % edge.len()]).collect();
                if !point.iter().any(|&v| wild(v)) {
                    columns.iter_mut().zip(point).for_each(|(c, v)| c.push(v));
                }
            }
            let inputs: Vec<Array> = columns
                .into_iter()
                .enumerate()
                .map(|(i, data)| {
                    let dtype = if reference::cases::is_mask(map, i) { DType::Bool } else { dtype };
                    Array::new(&[data.len()], dtype, data).unwrap().rounded()
                })
                .collect();
            // Bits are of integers only.
            if map.types(&inputs.iter().map(|x| x.dtype).collect::<Vec<_>>()).is_ok() {
                failures.extend(check_edges(row, &Op::Map(map), &inputs));
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

fn check_edges(row: &Row, op: &Op, inputs: &[Array]) -> Vec<String> {
    let want = eval(op, inputs).unwrap().remove(0);
    let mut failures = Vec::new();
    for device in devices() {
        let x: Vec<Tensor> = inputs.iter().map(|x| upload(x, device).unwrap()).collect();
        let got = download(&dispatch::run_one(op.clone(), &x.iter().collect::<Vec<_>>()).unwrap()).unwrap();
        let dtype = got.dtype;
        for i in 0..got.data.len() {
            let (g, w) = (got.data[i], want.data[i]);
            let rounded = reference::round(dtype, w);
            // The largest finite numbers may round either way at the end of the range.
            let relative = row.ulps * epsilon(dtype.compute()) + 0.5 * epsilon(dtype);
            let close = (g - w).abs() <= relative * w.abs().max(1.0) && g.is_finite();
            if !(g == rounded || (g.is_nan() && rounded.is_nan()) || close) {
                let point: Vec<f64> = inputs.iter().map(|x| x.data[i]).collect();
                failures
                    .push(format!("{} of {point:?} in {dtype} on {device}: {g} instead of {w}", row.name));
            }
        }
    }
    failures
}
