// tidy: table
//! Operands to test every row of the table on: ordinary, odd, empty, single and large shapes, and every attribute.
//!
//! Values are drawn from the row's domain and are already what their dtype can hold. Operands that come from a
//! forward op (its result, its statistics) are computed by the oracle and rounded, so that they fit each other.

use super::{Array, eval};
use crate::dtype::{DType, Kind};
use crate::op::{Activation, AttentionSpec, ConvSpec, DropoutSpec, Map, Op, Reduce, RopeSpec};
use crate::shape::{AxisSet, Shape};
use crate::table::{Adjoint, Body, Row};

/// One op with operands.
#[derive(Clone, Debug)]
pub struct Case {
    /// What to compute.
    pub op: Op,
    /// Of what.
    pub inputs: Vec<Array>,
}

/// Operands of `dtype` for the op of `row`; none if it doesn't take that dtype. `rng` draws uniformly from 0..1.
///
/// Dropout's operands are made, though its results are random.
pub fn cases(row: &Row, dtype: DType, rng: &mut dyn FnMut() -> f64) -> Vec<Case> {
    let mut draw = Draw { dtype, domain: row.domain, grid: None, rng };
    match row.body {
        Body::Map(map, _) => map_cases(row, map, &mut draw),
        Body::Kernel if dtype.is_float() || takes_integers(row.name) => kernel_cases(row.name, &mut draw),
        Body::Kernel => Vec::new(),
    }
}

/// The rows besides elementwise ones that are defined on integers and bools too.
fn takes_integers(name: &str) -> bool {
    matches!(
        name,
        "cast"
            | "copy"
            | "sum"
            | "mean"
            | "max"
            | "min"
            | "var"
            | "argmax"
            | "argmin"
            | "prod"
            | "all"
            | "any"
            | "cumsum"
            | "cumprod"
            | "sort"
            | "nonzero"
            | "searchsorted"
            | "matmul"
            | "embedding"
            | "gather"
            | "scatter_add"
            | "index_select"
            | "index_add"
            | "concat"
            | "pad"
    )
}

/// Draws operands.
struct Draw<'a> {
    dtype: DType,
    domain: (f64, f64),
    /// Values are multiples of this, where it is given: so that equal ones come up.
    grid: Option<f64>,
    rng: &'a mut dyn FnMut() -> f64,
}

impl Draw<'_> {
    /// A tensor of the dtype under test.
    fn tensor(&mut self, dims: &[usize]) -> Array {
        self.tensor_of(dims, self.dtype)
    }

    fn tensor_of(&mut self, dims: &[usize], dtype: DType) -> Array {
        let n = dims.iter().product::<usize>();
        let data = (0..n).map(|_| self.value(dtype)).collect();
        Array::new(dims, dtype, data).expect("test shapes are small").rounded()
    }

    fn value(&mut self, dtype: DType) -> f64 {
        let (lo, hi) = self.domain;
        let u = (self.rng)();
        match dtype.kind() {
            Kind::Bool => f64::from(u < 0.5),
            // Whole numbers inside the domain, without the negative ones where the dtype has none.
            Kind::Int => {
                let lo = if dtype.is_unsigned() { lo.max(0.0) } else { lo }.ceil();
                lo + (u * (hi.floor() - lo + 1.0)).floor()
            }
            Kind::Float => {
                let x = lo + u * (hi - lo);
                self.grid.map_or(x, |grid| (x / grid).round() * grid)
            }
        }
    }

    /// Indices below `len`, with repetitions.
    fn indices(&mut self, dims: &[usize], len: usize) -> Array {
        let n = dims.iter().product::<usize>();
        let data = (0..n).map(|_| ((self.rng)() * len as f64).floor()).collect();
        Array::new(dims, DType::I64, data).expect("test shapes are small")
    }

    fn bools(&mut self, dims: &[usize]) -> Array {
        self.tensor_of(dims, DType::Bool)
    }
}

/// What `forward` gives, as the tensors of its dtypes hold it.
fn results(forward: &Op, x: &[Array]) -> Vec<Array> {
    let y = eval(forward, x).expect("test operands fit their op");
    y.iter().map(Array::rounded).collect()
}

fn map_cases(row: &Row, map: Map, d: &mut Draw<'_>) -> Vec<Case> {
    if matches!(row.adjoint, Adjoint::NotDifferentiable) {
        d.grid = Some(0.25);
    }
    // The last crosses every vector width and the threshold above which threads share the work.
    let mut shapes: Vec<Vec<Vec<usize>>> =
        [&[][..], &[1], &[7], &[0], &[2, 0, 3], &[5, 33], &[2, 3, 4, 5], &[3, 11003]]
            .iter()
            .map(|dims| vec![dims.to_vec(); map.arity()])
            .collect();
    let broadcast: &[[&[usize]; 3]] = &[
        [&[4, 6], &[6], &[4, 1]],
        [&[3, 1, 5], &[4, 1], &[]],
        [&[], &[2, 3], &[1]],
        [&[1, 0], &[5, 1], &[1]],
        [&[300, 1], &[1, 70], &[300, 70]],
    ];
    if map.arity() > 1 {
        shapes.extend(broadcast.iter().map(|s| s[..map.arity()].iter().map(|dims| dims.to_vec()).collect()));
    }
    let mut cases: Vec<Case> = shapes
        .iter()
        .map(|shapes| {
            let operand = |(i, dims): (usize, &Vec<usize>)| {
                if is_mask(map, i) { d.bools(dims) } else { d.tensor(dims) }
            };
            Case { op: Op::Map(map), inputs: shapes.iter().enumerate().map(operand).collect() }
        })
        .collect();
    if map.arity() == 2 {
        // Mixed dtypes are promoted; the domain keeps negative numbers from unsigned ones.
        let others =
            [DType::Bool, DType::U8, DType::U32, DType::U64, DType::I16, DType::I64, DType::BF16, DType::F64];
        for other in others {
            let inputs = vec![d.tensor(&[3, 5]), d.tensor_of(&[5], other)];
            cases.push(Case { op: Op::Map(map), inputs });
        }
    }
    cases.retain(|case| case.op.infer(&case.inputs.iter().map(Array::meta).collect::<Vec<_>>()).is_ok());
    cases
}

/// Whether operand `i` may have any values, whatever the others are: not what a forward op gave or was given.
pub fn is_free(op: &Op, i: usize) -> bool {
    match op {
        Op::SoftmaxGrad | Op::LogSoftmaxGrad => i == 1,
        Op::LayerNormGrad => i >= 3,
        Op::RmsNormGrad => i >= 2,
        Op::AddNormGrad { rms } => i >= if *rms { 2 } else { 3 },
        Op::CrossEntropyGrad { .. } => i == 4,
        Op::AttentionGrad(_) => i == 5,
        Op::AttentionPackedGrad { .. } => i == 3,
        // Seed and step are two numbers.
        Op::Attention(spec) if spec.dropout.is_some() => i < 3,
        Op::AttentionPacked { spec, .. } if spec.dropout.is_some() => i == 0,
        Op::Dropout(_) => i == 0,
        Op::Map(_)
        | Op::Cast(_)
        | Op::Copy
        | Op::Reduce { .. }
        | Op::ArgReduce { .. }
        | Op::Scan { .. }
        | Op::CumProdGrad { .. }
        | Op::Sort { .. }
        | Op::NonZero
        | Op::SearchSorted { .. }
        | Op::MatMul
        | Op::Linear { .. }
        | Op::Softmax
        | Op::LogSoftmax
        | Op::LayerNorm { .. }
        | Op::RmsNorm { .. }
        | Op::AddNorm { .. }
        | Op::LinearBiasGrad
        | Op::LinearWeightGrad
        | Op::Embedding
        | Op::EmbeddingGrad { .. }
        | Op::Gather { .. }
        | Op::ScatterAdd { .. }
        | Op::IndexSelect { .. }
        | Op::IndexAdd { .. }
        | Op::Concat { .. }
        | Op::Pad { .. }
        | Op::CrossEntropy { .. }
        | Op::Attention(_)
        | Op::AttentionPacked { .. }
        | Op::Rope(_)
        | Op::Conv1d(_)
        | Op::Conv1dGradInput { .. }
        | Op::Conv1dGradWeight { .. } => true,
    }
}

/// Whether operand `i` is a condition.
pub fn is_mask(map: Map, i: usize) -> bool {
    matches!((map, i), (Map::Where, 0) | (Map::MaskedFill, 1))
}

fn kernel_cases(name: &str, d: &mut Draw<'_>) -> Vec<Case> {
    let cases = match name {
        "cast" => DType::ALL.iter().flat_map(|&to| unary(Op::Cast(to), SHAPES, d)).collect(),
        "copy" => unary(Op::Copy, SHAPES, d),
        "sum" => reductions(&[Reduce::Sum], d),
        "mean" => reductions(&[Reduce::Mean], d),
        "max" => reductions(&[Reduce::Max], d),
        "min" => reductions(&[Reduce::Min], d),
        "prod" => [reductions(&[Reduce::Prod], d), gridded(&[Reduce::Prod], 0.5, d)].concat(),
        "all" => gridded(&[Reduce::All], 0.1, d),
        "any" => gridded(&[Reduce::Any], 3.0, d),
        "cumsum" | "cumprod" => scans(name == "cumprod", d),
        "cumprod_grad" => cumprod_grads(d),
        "sort" => sorts(d),
        "nonzero" => nonzeros(d),
        "searchsorted" => searches(d),
        "var" => reductions(&[Reduce::Var { correction: 0.0 }, Reduce::Var { correction: 1.0 }], d),
        "argmax" => arg_reductions(true, d),
        "argmin" => arg_reductions(false, d),
        "matmul" => matmuls(d),
        "linear" => linears(d),
        "softmax" => unary(Op::Softmax, ROWS, d),
        "softmax_grad" => row_grads(Op::Softmax, Op::SoftmaxGrad, d),
        "log_softmax" => unary(Op::LogSoftmax, ROWS, d),
        "log_softmax_grad" => row_grads(Op::LogSoftmax, Op::LogSoftmaxGrad, d),
        "layer_norm" | "layer_norm_grad" => norms(Op::LayerNorm { eps: 1e-5 }, 2, name, d),
        "rms_norm" | "rms_norm_grad" => norms(Op::RmsNorm { eps: 1e-5 }, 1, name, d),
        "add_layer_norm" | "add_layer_norm_grad" => add_norms(false, name, d),
        "add_rms_norm" | "add_rms_norm_grad" => add_norms(true, name, d),
        "linear_bias_grad" => bias_grads(d),
        "linear_weight_grad" => weight_grads(d),
        "embedding" | "embedding_grad" => embeddings(name, d),
        "gather" | "scatter_add" | "index_select" | "index_add" => indexing(name, d),
        "concat" => concats(d),
        "pad" => pads(d),
        "dropout" => dropouts(d),
        "cross_entropy" | "cross_entropy_grad" => cross_entropies(name, d),
        "attention" | "attention_grad" => attentions(name, d),
        "attention_packed" | "attention_packed_grad" => packed_attentions(name, d),
        "rope" => ropes(d),
        "conv1d" | "conv1d_grad_input" | "conv1d_grad_weight" => convs(name, d),
        // The test below asserts that every row has cases, so that a new one is not forgotten here.
        _ => Vec::new(),
    };
    cases.into_iter().map(|(op, inputs)| Case { op, inputs }).collect()
}

type Pair = (Op, Vec<Array>);

const SHAPES: &[&[usize]] = &[&[], &[1], &[0], &[2, 0, 3], &[17], &[5, 33], &[2, 3, 4, 5], &[70, 521]];
const ROWS: &[&[usize]] =
    &[&[1], &[7], &[0, 5], &[3, 0], &[4, 1], &[2, 3, 33], &[5, 1000], &[129, 260], &[2, 1, 64]];

fn unary(op: Op, shapes: &[&[usize]], d: &mut Draw<'_>) -> Vec<Pair> {
    shapes.iter().map(|dims| (op.clone(), vec![d.tensor(dims)])).collect()
}

fn reductions(kinds: &[Reduce], d: &mut Draw<'_>) -> Vec<Pair> {
    // Shape, axes.
    let over: &[(&[usize], &[isize])] = &[
        (&[], &[]),
        (&[1], &[0]),
        (&[7], &[0]),
        (&[3, 4], &[]),
        (&[5, 33], &[0]),
        (&[5, 33], &[1]),
        (&[5, 33], &[0, 1]),
        (&[2, 3, 4, 5], &[1]),
        (&[2, 3, 4, 5], &[0, 2]),
        (&[2, 3, 4, 5], &[1, 2, 3]),
        (&[2, 1, 3], &[1]),
        (&[0, 3], &[1]),
        (&[3, 0], &[1]),
        (&[0], &[0]),
        (&[40003], &[0]),
        (&[4, 10007], &[1]),
        (&[1031, 37], &[0]),
        (&[3, 211, 65], &[0, 2]),
    ];
    let mut cases = Vec::new();
    for &kind in kinds {
        for (n, (dims, axes)) in over.iter().enumerate() {
            let x = d.tensor(dims);
            let axes = AxisSet::of(&x.shape, axes).expect("test axes are in range");
            let reduced: usize = axes.iter().map(|a| dims[a]).product();
            // These have no value of no elements.
            if reduced == 0
                && x.shape.reduce(axes, false).numel() > 0
                && matches!(kind, Reduce::Max | Reduce::Min)
            {
                continue;
            }
            cases.push((Op::Reduce { kind, axes, keepdims: n % 2 == 1 }, vec![x]));
        }
    }
    cases
}

/// Reductions of multiples of `grid`: with zeros among them.
fn gridded(kinds: &[Reduce], grid: f64, d: &mut Draw<'_>) -> Vec<Pair> {
    d.grid = Some(grid);
    reductions(kinds, d)
}

fn scans(product: bool, d: &mut Draw<'_>) -> Vec<Pair> {
    let over: &[(&[usize], usize)] = &[
        (&[1], 0),
        (&[7], 0),
        (&[5, 33], 0),
        (&[5, 33], 1),
        (&[2, 3, 4, 5], 1),
        (&[0, 3], 0),
        (&[3, 0], 0),
        (&[3, 0], 1),
        (&[1031, 5], 1),
        (&[4, 1500], 1),
        (&[300, 70], 0),
        (&[9, 700, 2], 1),
        (&[100_000], 0),
    ];
    let mut cases = Vec::new();
    for (n, &(dims, axis)) in over.iter().enumerate() {
        for (reverse, exclusive) in [(false, false), (true, false), (false, true), (true, true)] {
            // Every third case has zeros, and so do the long ones of products.
            d.grid = (n % 3 == 0).then_some(0.5);
            let op = Op::Scan { product, axis, reverse, exclusive };
            // All four of the small ones, one each of the large.
            if dims.iter().product::<usize>() < 4000
                || n % 4 == usize::from(reverse) + 2 * usize::from(exclusive)
            {
                cases.push((op, vec![d.tensor(dims)]));
            }
        }
    }
    cases
}

fn cumprod_grads(d: &mut Draw<'_>) -> Vec<Pair> {
    let over: &[(&[usize], usize)] = &[
        (&[1], 0),
        (&[7], 0),
        (&[5, 33], 0),
        (&[5, 33], 1),
        (&[2, 3, 4, 5], 2),
        (&[3, 0], 1),
        (&[70, 66], 1),
        (&[300, 20], 0),
        (&[2, 3000], 1),
    ];
    let case = |(n, &(dims, axis)): (usize, &(&[usize], usize))| {
        d.grid = (n % 2 == 0).then_some(0.5);
        (Op::CumProdGrad { axis }, vec![d.tensor(dims), d.tensor(dims)])
    };
    over.iter().enumerate().map(case).collect()
}

fn sorts(d: &mut Draw<'_>) -> Vec<Pair> {
    let shapes: &[&[usize]] = &[
        &[1],
        &[7],
        &[0],
        &[3, 0],
        &[0, 5],
        &[5, 33],
        &[2, 3, 16],
        &[2000, 3],
        &[17, 260],
        &[3, 1025],
        &[2, 2500],
        &[100_000],
    ];
    let mut cases = Vec::new();
    for (n, dims) in shapes.iter().enumerate() {
        for descending in [false, true] {
            // Equals come up, but where slopes are compared: there is none where elements change places.
            d.grid = (d.dtype != DType::F64).then_some(0.125);
            if dims.iter().product::<usize>() < 4000 || descending == (n % 2 == 0) {
                cases.push((Op::Sort { descending }, vec![d.tensor(dims)]));
            }
        }
    }
    cases
}

fn nonzeros(d: &mut Draw<'_>) -> Vec<Pair> {
    let shapes: &[&[usize]] =
        &[&[], &[1], &[0], &[2, 0, 3], &[17], &[5, 33], &[2, 3, 4, 5], &[70, 521], &[100_000]];
    d.grid = Some(1.0);
    unary(Op::NonZero, shapes, d)
}

fn searches(d: &mut Draw<'_>) -> Vec<Pair> {
    let sizes: &[(usize, &[usize])] =
        &[(0, &[3]), (1, &[]), (1, &[4]), (5, &[0]), (33, &[2, 3, 5]), (1000, &[7]), (37, &[70, 61])];
    let mut cases = Vec::new();
    for &(n, dims) in sizes {
        for right in [false, true] {
            d.grid = Some(0.125);
            let mut sorted = d.tensor(&[n]);
            sorted.data.sort_by(f64::total_cmp);
            cases.push((Op::SearchSorted { right }, vec![sorted, d.tensor(dims)]));
        }
    }
    cases
}

fn arg_reductions(max: bool, d: &mut Draw<'_>) -> Vec<Pair> {
    let over: &[(&[usize], usize)] = &[
        (&[1], 0),
        (&[7], 0),
        (&[5, 33], 0),
        (&[5, 33], 1),
        (&[2, 3, 4], 1),
        (&[0, 3], 1),
        (&[40003], 0),
        (&[1031, 37], 0),
        (&[129, 300], 1),
    ];
    // Equal elements come up: the first of them is meant.
    d.grid = Some(0.25);
    over.iter()
        .enumerate()
        .map(|(n, &(dims, axis))| (Op::ArgReduce { max, axis, keepdims: n % 2 == 1 }, vec![d.tensor(dims)]))
        .collect()
}

fn matmuls(d: &mut Draw<'_>) -> Vec<Pair> {
    let shapes: &[[&[usize]; 2]] = &[
        [&[1, 1], &[1, 1]],
        [&[2, 3], &[3, 4]],
        [&[1, 17], &[17, 9]],
        [&[33, 5], &[5, 1]],
        [&[0, 3], &[3, 4]],
        [&[2, 0], &[0, 3]],
        [&[0, 2, 3], &[3, 2]],
        [&[2, 5, 7], &[2, 7, 3]],
        [&[2, 1, 5, 7], &[3, 7, 2]],
        [&[4, 5, 6], &[6, 3]],
        [&[65, 33], &[33, 70]],
        [&[100, 301], &[301, 17]],
    ];
    shapes.iter().map(|[a, b]| (Op::MatMul, vec![d.tensor(a), d.tensor(b)])).collect()
}

fn linears(d: &mut Draw<'_>) -> Vec<Pair> {
    use Activation::*;
    // Input, outputs.
    let shapes: &[(&[usize], usize)] = &[
        (&[3], 4),
        (&[1, 1], 1),
        (&[2, 5], 7),
        (&[0, 5], 3),
        (&[2, 0], 3),
        (&[2, 3, 33], 17),
        (&[61, 48], 65),
    ];
    let mut cases = Vec::new();
    for activation in [Identity, Relu, Gelu, GeluTanh, Silu] {
        for (n, &(dims, outputs)) in shapes.iter().enumerate() {
            let mut x = vec![d.tensor(dims), d.tensor(&[outputs, dims[dims.len() - 1]])];
            if n % 2 == 0 {
                x.push(d.tensor(&[outputs]));
            }
            cases.push((Op::Linear { activation }, x));
        }
    }
    cases
}

fn row_grads(forward: Op, backward: Op, d: &mut Draw<'_>) -> Vec<Pair> {
    let case = |dims: &&[usize]| {
        let y = results(&forward, &[d.tensor(dims)]).remove(0);
        (backward.clone(), vec![y, d.tensor(dims)])
    };
    ROWS.iter().map(case).collect()
}

/// Layer and RMS normalisation with 0 to `parameters` of weight and bias; their adjoints know at most the weight.
fn norms(forward: Op, parameters: usize, name: &str, d: &mut Draw<'_>) -> Vec<Pair> {
    let mut cases = Vec::new();
    // Rows without elements have no mean.
    for dims in ROWS.iter().filter(|dims| dims.last() != Some(&0)) {
        let n = dims[dims.len() - 1];
        for given in 0..=parameters {
            let mut x = vec![d.tensor(dims)];
            x.extend((0..given).map(|_| d.tensor(&[n])));
            if !name.ends_with("_grad") {
                cases.push((forward.clone(), x));
            } else if given <= 1 {
                let statistics = results(&forward, &x).split_off(1);
                let g = d.tensor(dims);
                let weight = x.split_off(1);
                let backward = if parameters == 2 { Op::LayerNormGrad } else { Op::RmsNormGrad };
                cases.push((backward, [x, statistics, vec![g], weight].concat()));
            }
        }
    }
    cases
}

/// As [`norms`], of a sum.
fn add_norms(rms: bool, name: &str, d: &mut Draw<'_>) -> Vec<Pair> {
    let forward = Op::AddNorm { rms, eps: 1e-5 };
    let mut cases = Vec::new();
    for dims in ROWS.iter().filter(|dims| dims.last() != Some(&0)) {
        let n = dims[dims.len() - 1];
        for given in 0..=if rms { 1 } else { 2 } {
            let mut x = vec![d.tensor(dims), d.tensor(dims)];
            x.extend((0..given).map(|_| d.tensor(&[n])));
            if !name.ends_with("_grad") {
                cases.push((forward.clone(), x));
            } else if given <= 1 {
                let sum_and_statistics = results(&forward, &x).split_off(1);
                let grads = vec![d.tensor(dims), d.tensor(dims)];
                let weight = x.split_off(2);
                cases.push((Op::AddNormGrad { rms }, [sum_and_statistics, grads, weight].concat()));
            }
        }
    }
    cases
}

fn bias_grads(d: &mut Draw<'_>) -> Vec<Pair> {
    // More than one launch takes; and none of a kind.
    let many: Vec<Vec<usize>> = (0..67).map(|i| vec![i % 5 + 1, 7 * i % 40]).collect();
    let lists: &[&[&[usize]]] = &[
        &[&[1]],
        &[&[0, 3], &[3, 0], &[4]],
        &[&[2, 3, 33]],
        &[&[5, 33], &[1031, 37], &[2, 1, 64], &[300, 128], &[129, 260]],
        &[&[4000, 6]],
    ];
    let mut cases: Vec<Pair> = lists
        .iter()
        .map(|list| (Op::LinearBiasGrad, list.iter().map(|dims| d.tensor(dims)).collect()))
        .collect();
    cases.push((Op::LinearBiasGrad, many.iter().map(|dims| d.tensor(dims)).collect()));
    cases
}

fn weight_grads(d: &mut Draw<'_>) -> Vec<Pair> {
    // Leading axes, outputs and inputs of each pair.
    type Sizes<'a> = (&'a [usize], usize, usize);
    let lists: &[&[Sizes<'_>]] = &[
        &[(&[], 3, 2)],
        &[(&[1], 1, 1)],
        &[(&[0], 3, 2), (&[4], 0, 2), (&[4], 2, 0), (&[2, 3], 33, 17)],
        &[(&[70], 64, 72), (&[2, 35], 128, 64), (&[70], 8, 200), (&[33], 40, 24)],
        &[(&[300], 37, 41), (&[129], 65, 3), (&[300], 3, 65)],
    ];
    let pair = |d: &mut Draw<'_>, (lead, outputs, inputs): Sizes<'_>| {
        [outputs, inputs].map(|width| d.tensor(&[lead, &[width]].concat()))
    };
    let mut cases: Vec<Pair> = lists
        .iter()
        .map(|list| (Op::LinearWeightGrad, list.iter().flat_map(|&sizes| pair(d, sizes)).collect()))
        .collect();
    // More than one launch takes.
    let many = (0..40).flat_map(|i| pair(d, (&[i % 7 + 60], i % 3 * 32 + 16, 24))).collect();
    cases.push((Op::LinearWeightGrad, many));
    cases
}

fn embeddings(name: &str, d: &mut Draw<'_>) -> Vec<Pair> {
    // Rows, width, indices.
    let shapes: &[(usize, usize, &[usize])] = &[
        (1, 1, &[1]),
        (5, 3, &[]),
        (7, 4, &[2, 3]),
        (3, 0, &[4]),
        (4, 8, &[0]),
        (65, 33, &[4, 64]),
        (3, 130, &[300]),
        (1000, 64, &[8, 70]),
    ];
    let case = |&(rows, width, dims): &(usize, usize, &[usize])| {
        let i = d.indices(dims, rows);
        if name == "embedding" {
            (Op::Embedding, vec![d.tensor(&[rows, width]), i])
        } else {
            (Op::EmbeddingGrad { rows }, vec![i, d.tensor(&[dims, &[width]].concat())])
        }
    };
    shapes.iter().map(case).collect()
}

fn indexing(name: &str, d: &mut Draw<'_>) -> Vec<Pair> {
    // Tensor, axis, index of gather and scatter_add, number of indices of index_select and index_add.
    let shapes: &[(&[usize], usize, &[usize], usize)] = &[
        (&[1], 0, &[1], 1),
        (&[5], 0, &[9], 9),
        (&[3, 4], 0, &[2, 4], 2),
        (&[3, 4], 1, &[3, 7], 7),
        (&[2, 3, 4], 1, &[2, 5, 3], 5),
        (&[4, 3], 0, &[0, 3], 0),
        (&[0, 3], 1, &[0, 2], 2),
        (&[37, 65], 1, &[37, 130], 130),
        (&[301, 130], 0, &[400, 130], 400),
    ];
    let case = |&(dims, axis, index, count): &(&[usize], usize, &[usize], usize)| {
        let whole = Shape::new(dims).expect("test shapes are small").with(axis, count);
        let x = d.tensor(dims);
        let i = d.indices(index, dims[axis]);
        let slices = d.indices(&[count], dims[axis]);
        match name {
            "gather" => (Op::Gather { axis }, vec![x, i]),
            "scatter_add" => (Op::ScatterAdd { axis }, vec![x, i, d.tensor(index)]),
            "index_select" => (Op::IndexSelect { axis }, vec![x, slices]),
            _ => (Op::IndexAdd { axis }, vec![x, slices, d.tensor(&whole)]),
        }
    };
    let mut cases: Vec<Pair> = shapes.iter().map(case).collect();
    // Indices of another integer type.
    for (_, x) in cases.iter_mut().skip(1).step_by(3) {
        x[1] = x[1].cast(DType::I32);
    }
    cases
}

fn concats(d: &mut Draw<'_>) -> Vec<Pair> {
    let parts: &[(usize, &[&[usize]])] = &[
        (0, &[&[3]]),
        (0, &[&[3], &[4]]),
        (0, &[&[0], &[2], &[0]]),
        (1, &[&[2, 3], &[2, 1], &[2, 5]]),
        (0, &[&[2, 3], &[1, 3]]),
        (1, &[&[2, 3, 4], &[2, 2, 4]]),
        (2, &[&[2, 0, 4], &[2, 0, 1]]),
        (1, &[&[129, 100], &[129, 33], &[129, 170]]),
    ];
    parts
        .iter()
        .map(|&(axis, shapes)| (Op::Concat { axis }, shapes.iter().map(|dims| d.tensor(dims)).collect()))
        .collect()
}

fn pads(d: &mut Draw<'_>) -> Vec<Pair> {
    type Border = (&'static [usize], &'static [(usize, usize)], f64);
    let borders: &[Border] = &[
        (&[], &[], 1.0),
        (&[1], &[(0, 0)], 1.0),
        (&[5], &[(2, 1)], 0.0),
        (&[0], &[(1, 2)], 3.0),
        (&[3, 4], &[(0, 1), (2, 0)], 1.0),
        (&[2, 3, 4], &[(1, 1), (0, 0), (2, 3)], 0.5),
        (&[2, 0], &[(1, 0), (0, 0)], 0.0),
        (&[130, 257], &[(1, 2), (3, 4)], 0.0),
    ];
    borders
        .iter()
        .map(|&(dims, widths, value)| (Op::Pad { widths: widths.to_vec(), value }, vec![d.tensor(dims)]))
        .collect()
}

fn dropouts(d: &mut Draw<'_>) -> Vec<Pair> {
    let mut cases = Vec::new();
    for (step, p) in [0.0, 0.1, 0.9].into_iter().enumerate() {
        for dims in SHAPES {
            cases.push((Op::Dropout(DropoutSpec { p, stream: 3 }), vec![d.tensor(dims), random_state(step)]));
        }
    }
    cases
}

/// Seed and step.
fn random_state(step: usize) -> Array {
    Array::new(&[2], DType::I64, vec![42.0, step as f64]).expect("two numbers")
}

fn cross_entropies(name: &str, d: &mut Draw<'_>) -> Vec<Pair> {
    // Rows, classes, ignored targets, smoothing.
    let settings: &[(usize, usize, bool, f64)] = &[
        (1, 1, false, 0.0),
        (3, 7, false, 0.0),
        (5, 33, true, 0.0),
        (4, 10, true, 0.1),
        (2, 3, false, 1.0),
        (64, 65, false, 0.0),
        (33, 1100, true, 0.2),
    ];
    let case = |&(rows, classes, ignored, label_smoothing): &(usize, usize, bool, f64)| {
        // The default of other libraries, and an index that is a class otherwise.
        let ignore_index = if rows % 2 == 1 { -100 } else { 0 };
        let logits = d.tensor(&[rows, classes]);
        let mut target = d.indices(&[rows], classes);
        if ignored {
            target.data.iter_mut().step_by(3).for_each(|t| *t = ignore_index as f64);
        }
        // At least one row counts: the mean of none is not a number.
        target.data[rows - 1] = (classes - 1) as f64;
        let forward = Op::CrossEntropy { ignore_index, label_smoothing };
        let mut x = vec![logits, target];
        if name == "cross_entropy" {
            return (forward, x);
        }
        let y = results(&forward, &x);
        let g = d.tensor_of(&[], y[0].dtype);
        x.extend([y[1].clone(), y[2].clone(), g]);
        (Op::CrossEntropyGrad { ignore_index, label_smoothing }, x)
    };
    settings.iter().map(case).collect()
}

/// The shape of the optional mask of an attention case.
#[derive(Clone, Copy)]
enum Mask {
    None,
    Bool(&'static [usize]),
    Float(&'static [usize]),
}

fn attentions(name: &str, d: &mut Draw<'_>) -> Vec<Pair> {
    // Batch, heads, kv heads, queries, keys, head dim.
    let settings: &[([usize; 6], bool, Mask)] = &[
        ([1, 1, 1, 1, 1, 1], false, Mask::None),
        ([2, 3, 3, 5, 5, 8], false, Mask::None),
        ([2, 3, 3, 5, 5, 8], true, Mask::None),
        ([1, 4, 2, 3, 7, 16], true, Mask::None),
        ([1, 6, 1, 9, 4, 5], false, Mask::None),
        ([1, 2, 1, 5, 3, 4], true, Mask::None),
        ([2, 2, 2, 6, 9, 33], false, Mask::Bool(&[2, 1, 6, 9])),
        ([2, 2, 2, 6, 9, 8], true, Mask::Bool(&[9])),
        ([2, 4, 2, 6, 9, 8], false, Mask::Float(&[4, 6, 9])),
        ([1, 2, 2, 6, 6, 8], true, Mask::Float(&[6, 6])),
        ([1, 1, 1, 0, 4, 8], false, Mask::None),
        ([1, 2, 1, 3, 0, 8], false, Mask::None),
        ([0, 2, 2, 3, 3, 8], true, Mask::None),
        ([1, 2, 2, 130, 130, 16], true, Mask::None),
        ([1, 2, 1, 70, 150, 64], false, Mask::None),
        ([1, 2, 2, 1, 200, 32], true, Mask::None),
        // Every second one drops weights.
        ([2, 2, 2, 64, 64, 32], true, Mask::None),
        ([2, 4, 2, 70, 70, 32], true, Mask::None),
        ([2, 4, 2, 6, 9, 8], true, Mask::None),
        ([2, 4, 2, 6, 9, 8], true, Mask::Float(&[4, 6, 9])),
    ];
    let case = |(n, &([b, h, hk, s, t, width], causal, mask)): (usize, &([usize; 6], bool, Mask))| {
        let scale = if h == 3 { 0.3 } else { (width as f64).powf(-0.5) };
        let dropout = (n % 2 == 1).then_some(DropoutSpec { p: 0.3, stream: n as u64 });
        let spec = AttentionSpec { causal, scale, dropout };
        let mut x =
            vec![d.tensor(&[b, h, s, width]), d.tensor(&[b, hk, t, width]), d.tensor(&[b, hk, t, width])];
        x.extend(match mask {
            Mask::None => None,
            Mask::Bool(dims) => Some(blinding(d.bools(dims))),
            Mask::Float(dims) => {
                let mut m = d.tensor(dims);
                m.data.iter_mut().step_by(5).for_each(|v| *v = f64::NEG_INFINITY);
                Some(m)
            }
        });
        x.extend(dropout.map(|_| random_state(n)));
        if name == "attention" {
            return (Op::Attention(spec), x);
        }
        let y = results(&Op::Attention(spec), &x);
        let g = d.tensor(&y[0].shape);
        let rest = x.split_off(3);
        x.extend(y);
        x.push(g);
        x.extend(rest);
        (Op::AttentionGrad(spec), x)
    };
    settings.iter().enumerate().map(case).collect()
}

/// Makes the first row of a mask of more than one all false: that query sees no key.
fn blinding(mut mask: Array) -> Array {
    if mask.shape.rank() > 1 {
        let n = mask.shape[mask.shape.rank() - 1];
        mask.data[..n].fill(0.0);
    }
    mask
}

fn packed_attentions(name: &str, d: &mut Draw<'_>) -> Vec<Pair> {
    // Batch, sequence, heads, kv heads, head dim.
    let settings: &[([usize; 5], bool)] = &[
        ([1, 1, 1, 1, 1], true),
        ([2, 5, 3, 3, 8], true),
        ([2, 5, 4, 2, 8], false),
        ([1, 7, 6, 1, 5], true),
        ([1, 0, 2, 2, 8], true),
        ([0, 4, 2, 2, 8], true),
        ([2, 64, 4, 4, 16], true),
        ([1, 129, 2, 1, 32], true),
        ([2, 5, 4, 2, 8], true),
        ([2, 64, 4, 4, 16], true),
    ];
    let case = |(n, &([b, s, heads, kv_heads, width], causal)): (usize, &([usize; 5], bool))| {
        let dropout = (n % 2 == 1).then_some(DropoutSpec { p: 0.2, stream: n as u64 });
        let spec = AttentionSpec { causal, scale: (width as f64).powf(-0.5), dropout };
        let forward = Op::AttentionPacked { spec, heads, kv_heads };
        let mut x = vec![d.tensor(&[b, s, (heads + 2 * kv_heads) * width])];
        x.extend(dropout.map(|_| random_state(n)));
        if name == "attention_packed" {
            return (forward, x);
        }
        let y = results(&forward, &x);
        let g = d.tensor(&y[0].shape);
        let state = x.split_off(1);
        x.extend(y);
        x.push(g);
        x.extend(state);
        (Op::AttentionPackedGrad { spec, heads, kv_heads }, x)
    };
    settings.iter().enumerate().map(case).collect()
}

fn ropes(d: &mut Draw<'_>) -> Vec<Pair> {
    // Shape, offset, rotated heads.
    let settings: &[([usize; 4], usize, usize)] = &[
        ([1, 1, 1, 2], 0, 1),
        ([2, 5, 3, 8], 0, 3),
        ([2, 5, 3, 6], 7, 2),
        ([1, 4, 2, 66], 100, 2),
        ([1, 0, 2, 4], 0, 2),
        ([2, 3, 2, 0], 0, 2),
        ([2, 64, 6, 32], 0, 4),
    ];
    let mut cases = Vec::new();
    for &(dims, offset, heads) in settings {
        for (interleaved, inverse) in [(false, false), (true, false), (false, true), (true, true)] {
            let base = if interleaved { 10000.0 } else { 500.0 };
            let spec = RopeSpec { base, offset, interleaved, heads, inverse };
            cases.push((Op::Rope(spec), vec![d.tensor(&dims)]));
        }
    }
    cases
}

fn convs(name: &str, d: &mut Draw<'_>) -> Vec<Pair> {
    // Batch, channels in, length, channels out, taps; stride, padding, dilation, groups.
    let settings: &[([usize; 5], [usize; 4])] = &[
        ([1, 1, 1, 1, 1], [1, 0, 1, 1]),
        ([2, 3, 10, 4, 3], [1, 0, 1, 1]),
        ([2, 3, 10, 4, 3], [2, 1, 1, 1]),
        ([1, 4, 11, 6, 2], [1, 2, 3, 2]),
        ([1, 4, 9, 4, 4], [3, 1, 2, 4]),
        ([0, 2, 5, 3, 2], [1, 0, 1, 1]),
        ([1, 2, 0, 3, 2], [1, 1, 1, 1]),
        ([2, 16, 130, 24, 5], [1, 2, 1, 1]),
    ];
    let case = |(n, &([b, ci, length, co, taps], s)): (usize, &([usize; 5], [usize; 4]))| {
        let spec = ConvSpec { stride: s[0], padding: s[1], dilation: s[2], groups: s[3] };
        let (x, w) = (d.tensor(&[b, ci, length]), d.tensor(&[co, ci / spec.groups, taps]));
        let out = Op::Conv1d(spec).infer(&[x.meta(), w.meta()]).expect("test operands fit")[0].shape;
        let g = d.tensor(&out);
        match name {
            "conv1d_grad_input" => (Op::Conv1dGradInput { spec, length }, vec![w, g]),
            "conv1d_grad_weight" => (Op::Conv1dGradWeight { spec, taps }, vec![x, g]),
            _ if n % 2 == 1 => (Op::Conv1d(spec), vec![x, w, d.tensor(&[co])]),
            _ => (Op::Conv1d(spec), vec![x, w]),
        }
    };
    settings.iter().enumerate().map(case).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infer::Meta;
    use crate::table::TABLE;

    /// A multiplicative congruential generator (Park and Miller 1988).
    fn uniform(mut seed: u64) -> impl FnMut() -> f64 {
        move || {
            seed = seed * 48271 % 0x7fff_ffff;
            seed as f64 / f64::from(0x7fff_ffff)
        }
    }

    /// Whether it is defined on integers and bools alone.
    fn is_of_bits(row: &Row) -> bool {
        row.name.starts_with("bitwise")
    }

    #[test]
    fn every_row_has_cases_and_the_oracle_agrees_with_inference() {
        let mut rng = uniform(7);
        for row in TABLE {
            for dtype in [DType::F32, DType::F16, DType::I32] {
                let cases = cases(row, dtype, &mut rng);
                let refused = is_of_bits(row) || (row.name == "nextafter" && dtype == DType::F16);
                let due = dtype.is_float() != refused;
                assert!(!cases.is_empty() || !due, "{} has no cases in {dtype}", row.name);
                for Case { op, inputs } in cases {
                    assert_eq!(op.name(), row.name);
                    assert!(inputs.iter().all(|x| x.rounded() == *x), "{op:?}");
                    let metas: Vec<Meta> = inputs.iter().map(Array::meta).collect();
                    let inferred = op.infer(&metas).unwrap_or_else(|e| panic!("{op:?} of {metas:?}: {e}"));
                    if row.name == "dropout" {
                        continue;
                    }
                    let results = eval(&op, &inputs).unwrap_or_else(|e| panic!("{op:?} of {metas:?}: {e}"));
                    assert_eq!(results.iter().map(Array::meta).collect::<Vec<_>>(), inferred, "{op:?}");
                    for r in &results {
                        assert_eq!(r.data.len(), r.shape.numel(), "{op:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_row_has_an_empty_case_and_one_that_threads_would_share() {
        let mut rng = uniform(11);
        for row in TABLE {
            let dtype = if is_of_bits(row) { DType::I32 } else { DType::F32 };
            let cases = cases(row, dtype, &mut rng);
            let sizes: Vec<usize> =
                cases.iter().map(|c| c.inputs.iter().map(|x| x.data.len()).sum::<usize>()).collect();
            let empty = cases.iter().any(|c| c.inputs.iter().any(|x| x.data.is_empty()));
            // Cross-entropy of no rows has no value.
            assert!(empty || row.name.starts_with("cross_entropy"), "{} has no empty case", row.name);
            assert!(sizes.iter().any(|&n| n >= 4000), "{} has no large case", row.name);
        }
    }
}
