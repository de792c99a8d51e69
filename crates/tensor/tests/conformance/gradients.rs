//! Every gradient, in f64 and through the real tape, against central differences.
//!
//! The scalar that is differentiated is the sum of the op's first result with fixed random weights. Small cases are
//! checked element by element, larger ones along random directions.

use bullet_ops::reference::cases::{Case, cases, is_free};
use bullet_ops::reference::{Array, eval};
use bullet_ops::table::{Adjoint, Row, TABLE};
use bullet_ops::{DType, Op};
use bullet_tensor::{Device, Result, Tensor, dispatch, no_grad};

use crate::harness::{Laid, Variation, devices, download, is_wanted, seed, uniform, upload};

/// Cases with more elements than this are left to the ops' own tests.
const LARGE: usize = 3000;
/// Up to this many elements each is perturbed by itself.
const SMALL: usize = 24;
const STEP: f64 = 1e-6;
const TOLERANCE: f64 = 1e-6;

/// Whether a gradient flows to operand `i`.
pub(crate) fn has_gradient(op: &Op, i: usize, x: &Array) -> bool {
    // The mask of attention is data.
    x.dtype.is_float() && !(matches!(op, Op::Attention(_)) && i == 3)
}

/// The cases of a row that differences can check: f64 throughout.
fn smooth_cases(row: &Row) -> Vec<Case> {
    let mut rng = uniform(seed(row.name) ^ 0x6772_6164);
    let mut all = cases(row, DType::F64, &mut rng);
    all.retain(|case| {
        let size: usize = case.inputs.iter().map(|x| x.data.len()).sum();
        // A narrower float is a staircase.
        let narrow = |dtype: DType| dtype.is_float() && dtype != DType::F64;
        let staircase = matches!(case.op, Op::Cast(to) if to != DType::F64)
            || case.inputs.iter().any(|x| narrow(x.dtype));
        size <= LARGE && !staircase
    });
    all
}

fn differentiable() -> impl Iterator<Item = &'static Row> {
    TABLE.iter().filter(|row| !matches!(row.adjoint, Adjoint::NotDifferentiable) && is_wanted(row))
}

/// Rows are dealt out over several tests, which run side by side.
macro_rules! shards {
    ($count:expr; $($name:ident $n:expr),*) => {$(
        #[test]
        fn $name() {
            check_rows(differentiable().skip($n).step_by($count));
        }
    )*};
}
shards!(4; rows_0_match_differences 0, rows_1_match_differences 1, rows_2_match_differences 2, rows_3_match_differences 3);

fn check_rows(rows: impl Iterator<Item = &'static Row>) {
    let mut failures = Vec::new();
    for row in rows {
        let all = smooth_cases(row);
        assert!(!all.is_empty(), "{} has no case to differentiate", row.name);
        for (n, case) in all.iter().enumerate() {
            let mixed = |i: usize| match Variation::ALL[(n + i) % 6] {
                Variation::Broadcast if !is_free(&case.op, i) => Variation::Negative,
                other => other,
            };
            let layouts: [&dyn Fn(usize) -> Variation; 2] = [&|_| Variation::Contiguous, &mixed];
            for layout in layouts {
                let laid = case.inputs.iter().enumerate().map(|(i, x)| Laid::new(x, layout(i))).collect();
                failures.extend(check(&Graph::new(&case.op, laid, false), row.name).err());
            }
            // One tensor as every operand, where they have one shape.
            let moving: Vec<&Array> = tracked(&case.op, &case.inputs).map(|i| &case.inputs[i]).collect();
            if moving.len() > 1 && moving.iter().all(|x| x.shape == moving[0].shape) {
                let laid = case.inputs.iter().map(|x| Laid::new(x, Variation::Contiguous)).collect();
                failures.extend(check(&Graph::new(&case.op, laid, true), row.name).err());
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

fn tracked<'a>(op: &'a Op, x: &'a [Array]) -> impl Iterator<Item = usize> + 'a {
    (0..x.len()).filter(|&i| has_gradient(op, i, &x[i]))
}

/// An op over operands that are views of leaves.
struct Graph<'a> {
    op: &'a Op,
    laid: Vec<Laid>,
    /// Which operands are leaves.
    moving: Vec<usize>,
    /// Whether they are all the first of them.
    shared: bool,
}

impl Graph<'_> {
    fn new(op: &Op, laid: Vec<Laid>, shared: bool) -> Graph<'_> {
        let moving = (0..laid.len()).filter(|&i| has_gradient(op, i, &laid[i].base)).collect();
        Graph { op, laid, moving, shared }
    }

    /// The values of the leaves.
    fn leaves(&self) -> Vec<Array> {
        let leaves = if self.shared { &self.moving[..1] } else { &self.moving };
        leaves.iter().map(|&i| self.laid[i].base.clone()).collect()
    }

    fn operands(&self, leaves: &[Tensor], device: &Device) -> Result<Vec<Tensor>> {
        let operand = |i: usize| {
            let base = match self.moving.iter().position(|&m| m == i) {
                Some(_) if self.shared => leaves[0].clone(),
                Some(n) => leaves[n].clone(),
                None => upload(&self.laid[i].base, device)?,
            };
            self.laid[i].view(&base)
        };
        (0..self.laid.len()).map(operand).collect()
    }

    fn result(&self, leaves: &[Tensor], device: &Device) -> Result<Tensor> {
        let operands = self.operands(leaves, device)?;
        dispatch::run_one(self.op.clone(), &operands.iter().collect::<Vec<_>>())
    }

    /// The scalar: the result with these weights.
    fn value(&self, leaves: &[Array], weights: &[f64], device: &Device) -> Result<f64> {
        let leaves: Vec<Tensor> = leaves.iter().map(|x| upload(x, device)).collect::<Result<_>>()?;
        let y = download(&no_grad(|| self.result(&leaves, device))?)?;
        Ok(y.data.iter().zip(weights).map(|(y, w)| y * w).sum())
    }

    /// The gradient of the scalar in each leaf, by the tape; a leaf that nothing reached has zeros.
    fn gradient(&self, leaves: &[Array], weights: &Array, device: &Device) -> Result<Vec<Array>> {
        let leaves: Vec<Tensor> =
            leaves.iter().map(|x| upload(x, device)?.requires_grad()).collect::<Result<_>>()?;
        self.result(&leaves, device)?.backward_with(&upload(weights, device)?)?;
        leaves
            .iter()
            .map(|leaf| leaf.grad().map_or_else(|| leaf.zeros_like(), Ok))
            .map(|g| download(&g?))
            .collect()
    }
}

fn check(graph: &Graph<'_>, name: &str) -> Result<(), String> {
    devices().iter().try_for_each(|device| {
        check_on(graph, name, device).map_err(|e| {
            let shapes: Vec<String> = graph.laid.iter().map(|l| l.value.shape.to_string()).collect();
            format!(
                "{:?} of {} on {device}{}: {e}",
                graph.op,
                shapes.join(" "),
                if graph.shared { ", shared" } else { "" }
            )
        })
    })
}

fn check_on(graph: &Graph<'_>, name: &str, device: &Device) -> Result<(), String> {
    let text = |e: bullet_tensor::Error| e.to_string();
    let mut rng = uniform(seed(name) ^ 0x77);
    let leaves = graph.leaves();
    let bases: Vec<Tensor> = leaves.iter().map(|x| upload(x, device)).collect::<Result<_>>().map_err(text)?;
    let y = graph.result(&bases, device).map_err(text)?;
    let weights = Array::from_fn(bullet_ops::Meta::new(*y.shape(), y.dtype()), |_| 2.0 * rng() - 1.0);
    let grads = graph.gradient(&leaves, &weights, device).map_err(text)?;
    for (leaf, grad) in grads.iter().enumerate() {
        if grad.meta() != leaves[leaf].meta() {
            return Err(format!("the gradient of leaf {leaf} is {:?}", grad.meta()));
        }
    }
    if !download(&y).map_err(text)?.data.iter().all(|v| v.is_finite()) {
        // A variance of nothing, a quotient by 0: there is no slope to compare.
        return Ok(());
    }
    for direction in directions(&leaves, &mut rng) {
        let at = |h: f64| {
            let mut moved = leaves.clone();
            for (x, d) in moved.iter_mut().zip(&direction) {
                x.data.iter_mut().zip(d).for_each(|(x, d)| *x += h * d);
            }
            graph.value(&moved, &weights.data, device).map_err(text)
        };
        let want = (at(STEP)? - at(-STEP)?) / (2.0 * STEP);
        let terms =
            || grads.iter().zip(&direction).flat_map(|(g, d)| g.data.iter().zip(d).map(|(g, d)| g * d));
        let got: f64 = terms().sum();
        let scale = 1.0 + terms().map(f64::abs).sum::<f64>();
        let close = (got - want).abs() <= TOLERANCE * scale;
        if !close {
            return Err(format!("slope {got} instead of {want}, along {}", describe(&direction)));
        }
    }
    Ok(())
}

/// Unit vectors if there are few elements; else some vectors of random signs.
fn directions(leaves: &[Array], rng: &mut impl FnMut() -> f64) -> Vec<Vec<Vec<f64>>> {
    let zeros: Vec<Vec<f64>> = leaves.iter().map(|x| vec![0.0; x.data.len()]).collect();
    let total: usize = zeros.iter().map(Vec::len).sum();
    if total > SMALL {
        let signs = |_| {
            zeros.iter().map(|z| z.iter().map(|_| if rng() < 0.5 { 1.0 } else { -1.0 }).collect()).collect()
        };
        return (0..4).map(signs).collect();
    }
    let units = (0..leaves.len()).flat_map(|leaf| (0..zeros[leaf].len()).map(move |e| (leaf, e)));
    units
        .map(|(leaf, e)| {
            let mut unit = zeros.clone();
            unit[leaf][e] = 1.0;
            unit
        })
        .collect()
}

fn describe(direction: &[Vec<f64>]) -> String {
    let moving: Vec<(usize, usize)> = direction
        .iter()
        .enumerate()
        .flat_map(|(leaf, d)| (0..d.len()).filter(|&e| d[e] != 0.0).map(move |e| (leaf, e)))
        .collect();
    match moving[..] {
        [(leaf, e)] => format!("element {e} of leaf {leaf}"),
        _ => "random signs".into(),
    }
}

/// An op that ran twice on the same leaves gives twice the gradient, to the last bit.
#[test]
fn gradients_of_two_uses_add_up() {
    let device = &devices()[0];
    for row in differentiable() {
        let all = smooth_cases(row);
        for case in all.iter().filter(|c| c.inputs.iter().any(|x| !x.data.is_empty())).take(3) {
            let laid = |_| case.inputs.iter().map(|x| Laid::new(x, Variation::Contiguous)).collect();
            let graph = Graph::new(&case.op, laid(()), false);
            let leaves = graph.leaves();
            let run = || -> Result<(Vec<Array>, Vec<Array>)> {
                let bases: Vec<Tensor> = leaves.iter().map(|x| upload(x, device)).collect::<Result<_>>()?;
                let y = graph.result(&bases, device)?;
                let weights = Tensor::ones(y.shape(), y.dtype(), device)?;
                let once = graph.gradient(&leaves, &download(&weights)?, device)?;
                let tracked: Vec<Tensor> = bases.iter().map(Tensor::requires_grad).collect::<Result<_>>()?;
                let sum = graph.result(&tracked, device)?.add(&graph.result(&tracked, device)?)?;
                sum.backward_with(&weights)?;
                let twice = tracked
                    .iter()
                    .map(|x| x.grad().map_or_else(|| x.zeros_like(), Ok))
                    .map(|g| download(&g?));
                Ok((once, twice.collect::<Result<_>>()?))
            };
            let (once, twice) = run().unwrap_or_else(|e| panic!("{:?}: {e}", case.op));
            for (once, twice) in once.iter().zip(&twice) {
                let doubled: Vec<f64> = once.data.iter().map(|g| 2.0 * g).collect();
                assert_eq!(twice.data, doubled, "{:?}", case.op);
            }
        }
    }
}

/// In narrow dtypes the tape is the same; its gradients must agree with those in f64 on the same numbers.
#[test]
fn gradients_in_other_dtypes_agree_with_f64() {
    let mut failures = Vec::new();
    for row in differentiable().filter(|row| !matches!(row.name, "cast" | "dropout")) {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let mut rng = uniform(seed(row.name) ^ 0x6e61);
            let epsilon = crate::harness::epsilon(dtype);
            let uniform_dtype = |c: &&Case| {
                c.inputs.iter().all(|x| !x.dtype.is_float() || x.dtype == dtype || x.dtype == dtype.compute())
            };
            for case in cases(row, dtype, &mut rng).iter().filter(uniform_dtype) {
                if case.inputs.iter().map(|x| x.data.len()).sum::<usize>() > LARGE {
                    continue;
                }
                failures.extend(agree(case, dtype, epsilon).err());
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

fn agree(case: &Case, dtype: DType, epsilon: f64) -> Result<(), String> {
    let device = &devices()[0];
    let text = |e: bullet_tensor::Error| format!("{:?}: {e}", case.op);
    let widen = |x: &Array| if x.dtype.is_float() { x.cast(DType::F64) } else { x.clone() };
    let graph =
        |inputs: &[Array]| inputs.iter().map(|x| Laid::new(x, Variation::Contiguous)).collect::<Vec<_>>();
    let narrow = Graph::new(&case.op, graph(&case.inputs), false);
    let wide_inputs: Vec<Array> = case.inputs.iter().map(widen).collect();
    let wide = Graph::new(&case.op, graph(&wide_inputs), false);
    let meta = eval(&case.op, &case.inputs).map_err(|e| e.to_string())?[0].meta();
    let mut rng = uniform(seed(case.op.name()));
    let weights = Array::from_fn(meta, |_| 2.0 * rng() - 1.0).rounded();
    let got = narrow.gradient(&narrow.leaves(), &weights, device).map_err(text)?;
    let want = wide.gradient(&wide.leaves(), &weights.cast(DType::F64), device).map_err(text)?;
    for (leaf, (got, want)) in got.iter().zip(&want).enumerate() {
        let largest = want.data.iter().filter(|v| v.is_finite()).fold(1.0f64, |m, v| m.max(v.abs()));
        for (e, (g, w)) in got.data.iter().zip(&want.data).enumerate() {
            // A few roundings to the storage dtype (the result that the adjoint reads, and each step of it) are due.
            if !((g - w).abs() <= 16.0 * epsilon * largest || g == w || (g.is_nan() && w.is_nan())) {
                return Err(format!(
                    "{:?} in {dtype}: leaf {leaf}, element {e}: {g} instead of {w}",
                    case.op
                ));
            }
        }
    }
    Ok(())
}

/// 1/n is 0 in f16 from n = 2^25 on, and a few bits long before.
#[test]
fn means_of_many_keep_their_gradient_in_f16() {
    const N: usize = 300_000;
    for device in devices() {
        for var in [false, true] {
            let data = Array::new(&[N], DType::F16, (0..N).map(|i| (i % 2) as f64).collect()).unwrap();
            let x = upload(&data, device).unwrap().requires_grad().unwrap();
            let y = if var { x.var(&[], 0.0, false) } else { x.mean(&[], false) }.unwrap();
            y.backward_with(&Tensor::full(32768.0, &[], DType::F16, device).unwrap()).unwrap();
            // 32768 / n for the mean; twice that times the deviation, -1/2 or 1/2, for the variance.
            let slope = 32768.0 / N as f64;
            for (i, g) in download(&x.grad().unwrap()).unwrap().data.into_iter().enumerate() {
                let want = if var && i % 2 == 0 { -slope } else { slope };
                assert!((g - want).abs() <= 1e-3 * slope, "element {i}: {g} instead of {want}");
            }
        }
    }
}

/// A cast's gradient comes back in the operand's dtype.
#[test]
fn casts_give_gradients_back_in_the_dtype_they_came_from() {
    for device in devices() {
        for from in DType::FLOATS {
            for to in DType::FLOATS {
                let x = Tensor::full(1.5, &[2, 3], from, device).unwrap().requires_grad().unwrap();
                let y = dispatch::run_one(Op::Cast(to), &[&x]).unwrap();
                y.backward_with(&Tensor::full(0.25, &[2, 3], to, device).unwrap()).unwrap();
                let grad = x.grad().unwrap();
                assert_eq!((grad.dtype(), download(&grad).unwrap().data), (from, vec![0.25; 6]));
            }
        }
    }
}
