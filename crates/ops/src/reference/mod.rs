//! The oracle: every op in f64, by naive loops over its definition.
//!
//! Nothing here is fast, blocked or reassociated; each op is written to be read next to its formula. Backends are
//! tested against it, and [`cases`] makes the operands they are tested on.
//!
//! An [`Array`] holds every dtype's values in f64. Float results are not rounded to the result's dtype (so that a
//! test sees the error a backend makes, and not ours); integer and bool results are wrapped to it, which is part of
//! their definition. Integers beyond 2^53 are out of reach.

mod attention;
pub mod cases;
mod conv;
mod elementwise;
mod index;
mod loss;
mod order;
mod product;
mod rows;

use crate::dtype::{DType, Element};
use crate::error::{Error, Result};
use crate::infer::Meta;
use crate::op::Op;
use crate::shape::Shape;

/// A dense tensor of f64, with the dtype that it stands for.
#[derive(Clone, PartialEq, Debug)]
pub struct Array {
    /// Axis lengths.
    pub shape: Shape,
    /// Element type of the tensor that this stands for.
    pub dtype: DType,
    /// The values in row-major order; bools are 0 and 1.
    pub data: Vec<f64>,
}

impl Array {
    /// An array of these values, row-major.
    ///
    /// # Errors
    /// A shape that [`Shape::new`] refuses, or another number of values than it has elements.
    pub fn new(dims: &[usize], dtype: DType, data: Vec<f64>) -> Result<Array> {
        let shape = Shape::new(dims)?;
        if shape.numel() != data.len() {
            return Err(Error::shape(format!(
                "cannot reshape array of size {} into shape {shape}",
                data.len()
            )));
        }
        Ok(Array { shape, dtype, data })
    }

    /// The array whose element at each index is what `value` gives for it.
    pub fn from_fn(meta: Meta, mut value: impl FnMut(&[usize]) -> f64) -> Array {
        let data = indices(&meta.shape).map(|i| value(&i)).collect();
        Array { shape: meta.shape, dtype: meta.dtype, data }
    }

    /// Zeros.
    pub fn zeros(meta: Meta) -> Array {
        Array { shape: meta.shape, dtype: meta.dtype, data: vec![0.0; meta.shape.numel()] }
    }

    /// Shape and dtype.
    pub fn meta(&self) -> Meta {
        Meta::new(self.shape, self.dtype)
    }

    /// The element at `index`.
    ///
    /// # Panics
    /// If the index is out of bounds.
    pub fn at(&self, index: &[usize]) -> f64 {
        self.data[position(&self.shape, index)]
    }

    /// The element at `index`, to be changed.
    ///
    /// # Panics
    /// If the index is out of bounds.
    pub fn at_mut(&mut self, index: &[usize]) -> &mut f64 {
        let at = position(&self.shape, index);
        &mut self.data[at]
    }

    /// The element at `index` of the shape that this one broadcasts to.
    pub fn at_broadcast(&self, index: &[usize]) -> f64 {
        let lead = index.len() - self.shape.rank();
        let own: Vec<usize> =
            self.shape.iter().zip(&index[lead..]).map(|(&d, &i)| if d == 1 { 0 } else { i }).collect();
        self.at(&own)
    }

    /// The values as `dtype` would hold them.
    pub fn cast(&self, dtype: DType) -> Array {
        Array { shape: self.shape, dtype, data: self.data.iter().map(|&x| round(dtype, x)).collect() }
    }

    /// The values that the dtype can hold.
    pub fn rounded(&self) -> Array {
        self.cast(self.dtype)
    }
}

/// The value that a tensor of `dtype` holds when `x` is stored in it: floats round to nearest, integers truncate
/// and wrap, bools are 0 or 1.
pub fn round(dtype: DType, x: f64) -> f64 {
    fn through<T: Element>(x: f64) -> f64 {
        T::from_f64(x).to_f64()
    }
    match dtype {
        DType::Bool => through::<bool>(x),
        DType::U8 => through::<u8>(x),
        DType::U16 => through::<u16>(x),
        DType::U32 => through::<u32>(x),
        DType::U64 => through::<u64>(x),
        DType::I8 => through::<i8>(x),
        DType::I16 => through::<i16>(x),
        DType::I32 => through::<i32>(x),
        DType::I64 => through::<i64>(x),
        DType::F16 => through::<half::f16>(x),
        DType::BF16 => through::<half::bf16>(x),
        DType::F32 => through::<f32>(x),
        DType::F64 => x,
    }
}

/// Every index of a shape, in row-major order.
pub fn indices(shape: &Shape) -> impl Iterator<Item = Vec<usize>> {
    let dims = shape.to_vec();
    (0..shape.numel()).map(move |n| {
        let mut rest = n;
        let mut index: Vec<usize> = dims
            .iter()
            .rev()
            .map(|&d| {
                let i = rest % d;
                rest /= d;
                i
            })
            .collect();
        index.reverse();
        index
    })
}

/// Where the element at `index` stands in row-major order.
fn position(shape: &Shape, index: &[usize]) -> usize {
    assert_eq!(shape.rank(), index.len(), "index {index:?} of shape {shape}");
    shape.iter().zip(index).fold(0, |at, (&d, &i)| {
        assert!(i < d, "index {index:?} is out of bounds of shape {shape}");
        at * d + i
    })
}

/// The sum, with what each addition rounds off carried along (Neumaier 1974): a backend that adds in f64, in whatever
/// order, is further from the truth than this.
fn sum(terms: impl IntoIterator<Item = f64>) -> f64 {
    let (mut sum, mut lost) = (0.0f64, 0.0);
    for x in terms {
        let next = sum + x;
        lost += if sum.abs() >= x.abs() { (sum - next) + x } else { (x - next) + sum };
        sum = next;
    }
    // Infinities lose NaN.
    if sum.is_finite() { sum + lost } else { sum }
}

/// The results of `op` on these operands, in f64.
///
/// The operands of an adjoint (`..._grad`) are those that its forward op had and gave.
///
/// # Errors
/// Operands that [`Op::infer`] refuses, an index out of bounds, a reduction of no elements that has no identity, and
/// dropout, whose result is random: its tests are statistical.
pub fn eval(op: &Op, x: &[Array]) -> Result<Vec<Array>> {
    let metas: Vec<Meta> = x.iter().map(Array::meta).collect();
    let out = op.infer(&metas)?;
    let mut results = match op {
        Op::Map(map) => vec![elementwise::map(*map, x, out[0])?],
        Op::Cast(dtype) => vec![x[0].cast(*dtype)],
        Op::Copy => vec![x[0].clone()],
        Op::Reduce { kind, axes, .. } => vec![elementwise::reduce(*kind, *axes, &x[0], out[0])?],
        Op::ArgReduce { max, axis, .. } => vec![elementwise::arg_reduce(*max, *axis, &x[0], out[0])?],
        Op::Scan { product, axis, reverse, exclusive } => {
            vec![order::scan(*product, *axis, *reverse, *exclusive, &x[0])]
        }
        Op::CumProdGrad { axis } => vec![order::cumprod_grad(*axis, &x[0], &x[1])],
        Op::Sort { descending } => order::sort(*descending, &x[0]),
        Op::NonZero => order::nonzero(&x[0], &out),
        Op::SearchSorted { right } => vec![order::searchsorted(*right, &x[0], &x[1])],
        Op::MatMul => vec![product::matmul(&x[0], &x[1], out[0])],
        Op::Linear { activation } => product::linear(*activation, x, out[0]),
        Op::LinearBiasGrad => x.iter().zip(&out).map(|(g, out)| rows::column_sums(g, *out)).collect(),
        Op::LinearWeightGrad => x
            .as_chunks::<2>()
            .0
            .iter()
            .zip(&out)
            .map(|([g, x], out)| product::weight_grad(g, x, *out))
            .collect(),
        Op::Softmax => vec![rows::softmax(&x[0])],
        Op::SoftmaxGrad => vec![rows::softmax_grad(&x[0], &x[1])],
        Op::LogSoftmax => vec![rows::log_softmax(&x[0])],
        Op::LogSoftmaxGrad => vec![rows::log_softmax_grad(&x[0], &x[1])],
        Op::LayerNorm { eps } => rows::layer_norm(*eps, x, &out),
        Op::LayerNormGrad => rows::layer_norm_grad(x, &out),
        Op::RmsNorm { eps } => rows::rms_norm(*eps, x, &out),
        Op::RmsNormGrad => rows::rms_norm_grad(x, &out),
        Op::AddNorm { rms, eps } => rows::add_norm(*rms, *eps, x, &out),
        Op::AddNormGrad { rms } => rows::add_norm_grad(*rms, x, &out),
        Op::Embedding => vec![index::embedding(&x[0], &x[1], out[0])?],
        Op::EmbeddingGrad { .. } => vec![index::embedding_grad(&x[0], &x[1], out[0])?],
        Op::Gather { axis } => vec![index::gather(*axis, &x[0], &x[1], out[0])?],
        Op::ScatterAdd { axis } => vec![index::scatter_add(*axis, &x[0], &x[1], &x[2])?],
        Op::IndexSelect { axis } => vec![index::index_select(*axis, &x[0], &x[1], out[0])?],
        Op::IndexAdd { axis } => vec![index::index_add(*axis, &x[0], &x[1], &x[2])?],
        Op::Concat { axis } => vec![index::concat(*axis, x, out[0])],
        Op::Pad { widths, value } => vec![index::pad(widths, *value, &x[0], out[0])],
        Op::Dropout(_) => {
            return Err(Error::argument("dropout is random: test its statistics instead of its values"));
        }
        Op::CrossEntropy { ignore_index, label_smoothing } => {
            loss::cross_entropy(*ignore_index, *label_smoothing, x, &out)?
        }
        Op::CrossEntropyGrad { ignore_index, label_smoothing } => {
            vec![loss::cross_entropy_grad(*ignore_index, *label_smoothing, x)?]
        }
        Op::Attention(spec) => attention::forward(*spec, x, &out),
        Op::AttentionGrad(spec) => attention::backward(*spec, x),
        Op::AttentionPacked { spec, heads, kv_heads } => {
            let mut operands = attention::unpack(&x[0], *heads, *kv_heads);
            operands.extend_from_slice(&x[1..]);
            attention::forward(*spec, &operands, &out)
        }
        Op::AttentionPackedGrad { spec, heads, kv_heads } => {
            vec![attention::packed_backward(*spec, *heads, *kv_heads, x)]
        }
        Op::Rope(spec) => vec![attention::rope(*spec, &x[0])],
        Op::Conv1d(spec) => vec![conv::forward(*spec, x, out[0])],
        Op::Conv1dGradInput { spec, .. } => vec![conv::grad_input(*spec, &x[0], &x[1], out[0])],
        Op::Conv1dGradWeight { spec, .. } => vec![conv::grad_weight(*spec, &x[0], &x[1], out[0])],
    };
    for (result, meta) in results.iter_mut().zip(&out) {
        result.dtype = meta.dtype;
        if !meta.dtype.is_float() {
            *result = result.rounded();
        }
    }
    Ok(results)
}

/// For each result of [`eval`], what a rounding error in it is to be measured against, element by element.
///
/// A sum's error grows with its terms, which may cancel. Ops that are linear in each operand are therefore measured
/// against the sum of their terms' absolute values, and layer normalisation, which magnifies the difference of element
/// and mean, against both magnified; of the others an element against the largest finite result.
pub fn magnitudes(op: &Op, x: &[Array], results: &[Array]) -> Vec<Array> {
    if is_multilinear(op) {
        let absolute: Vec<Array> =
            x.iter().map(|a| Array { data: a.data.iter().map(|v| v.abs()).collect(), ..a.clone() }).collect();
        if let Ok(sums) = eval(op, &absolute) {
            return sums;
        }
    }
    if let (Op::LayerNorm { .. }, [_, mean, rstd]) = (op, results) {
        return rows::layer_norm_magnitudes(x, mean, rstd, results);
    }
    if let (Op::AddNorm { rms: false, .. }, [y, sum, mean, rstd]) = (op, results) {
        let of_norm = [&[sum.clone()][..], &x[2..]].concat();
        let mut all = rows::layer_norm_magnitudes(&of_norm, mean, rstd, std::slice::from_ref(y));
        all.insert(1, sum.clone());
        return all;
    }
    results
        .iter()
        .map(|r| {
            let largest = r.data.iter().filter(|v| v.is_finite()).fold(0.0f64, |m, v| m.max(v.abs()));
            Array { data: vec![largest; r.data.len()], ..r.clone() }
        })
        .collect()
}

/// Whether every result is a sum of products of operands (indices aside).
fn is_multilinear(op: &Op) -> bool {
    use crate::op::{Activation, Reduce};
    matches!(
        op,
        Op::Reduce { kind: Reduce::Sum | Reduce::Mean, .. }
            | Op::Scan { .. }
            | Op::CumProdGrad { .. }
            | Op::MatMul
            | Op::Linear { activation: Activation::Identity }
            | Op::LinearBiasGrad
            | Op::LinearWeightGrad
            | Op::EmbeddingGrad { .. }
            | Op::ScatterAdd { .. }
            | Op::IndexAdd { .. }
            | Op::Conv1d(_)
            | Op::Conv1dGradInput { .. }
            | Op::Conv1dGradWeight { .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::Map;

    #[test]
    fn indices_run_in_row_major_order() {
        let all: Vec<Vec<usize>> = indices(&Shape::new(&[2, 2]).unwrap()).collect();
        assert_eq!(all, [[0, 0], [0, 1], [1, 0], [1, 1]]);
        assert_eq!(indices(&Shape::SCALAR).collect::<Vec<_>>(), [[]; 1]);
        assert_eq!(indices(&Shape::new(&[3, 0]).unwrap()).count(), 0);
    }

    #[test]
    fn sums_lose_nothing() {
        assert_eq!(sum([1.0, 1e100, 1.0, -1e100]), 2.0);
        assert_eq!(sum([1.0, f64::INFINITY, 1.0]), f64::INFINITY);
        assert!(sum([f64::INFINITY, f64::NEG_INFINITY]).is_nan());
        assert_eq!(sum([]), 0.0);
    }

    #[test]
    fn arrays_check_their_size() {
        let err = Array::new(&[2, 3], DType::F32, vec![0.0; 5]).unwrap_err();
        assert_eq!(err.message, "cannot reshape array of size 5 into shape (2, 3)");
    }

    #[test]
    fn casts_round_wrap_and_truncate() {
        let x = Array::new(&[3], DType::F64, vec![1.0 + 1e-5, 300.7, -1.5]).unwrap();
        assert_eq!(
            eval(&Op::Cast(DType::F16), std::slice::from_ref(&x)).unwrap()[0].data,
            [1.0, 300.75, -1.5]
        );
        assert_eq!(eval(&Op::Cast(DType::U8), std::slice::from_ref(&x)).unwrap()[0].data, [1.0, 44.0, 255.0]);
        assert_eq!(eval(&Op::Cast(DType::Bool), std::slice::from_ref(&x)).unwrap()[0].data, [1.0; 3]);
        assert_eq!(eval(&Op::Copy, std::slice::from_ref(&x)).unwrap()[0], x);
    }

    #[test]
    fn dropout_is_refused() {
        let x = Array::new(&[1], DType::F32, vec![1.0]).unwrap();
        let rng = Array::new(&[2], DType::I64, vec![0.0; 2]).unwrap();
        assert!(
            eval(&Op::Dropout(crate::op::DropoutSpec { p: 0.5, stream: 0 }), &[x, rng])
                .unwrap_err()
                .message
                .contains("random")
        );
    }

    #[test]
    fn wrong_operands_are_errors() {
        let a = Array::zeros(Meta::new(Shape::new(&[2]).unwrap(), DType::F32));
        let b = Array::zeros(Meta::new(Shape::new(&[3]).unwrap(), DType::F32));
        assert!(eval(&Op::Map(Map::Add), &[a, b]).is_err());
    }

    #[test]
    fn magnitudes_of_a_cancelling_sum_are_those_of_its_terms() {
        let a = Array::new(&[1, 2], DType::F64, vec![3.0, 4.0]).unwrap();
        let b = Array::new(&[2, 1], DType::F64, vec![4.0, -3.0]).unwrap();
        let x = [a, b];
        let results = eval(&Op::MatMul, &x).unwrap();
        assert_eq!(results[0].data, [0.0]);
        assert_eq!(magnitudes(&Op::MatMul, &x, &results)[0].data, [24.0]);
        let results = eval(&Op::Softmax, &x[..1]).unwrap();
        assert_eq!(magnitudes(&Op::Softmax, &x[..1], &results)[0].data, [results[0].data[1]; 2]);
    }
}
