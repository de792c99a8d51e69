//! The ops as methods of [`Tensor`], and operators on `&Tensor`.
//!
//! Methods convert arguments (axes that count from the end, scalars, vectors in a matrix product) to what [`Op`] takes;
//! what an op means is in its row of the op table.

use bullet_ops::{
    Activation, AttentionSpec, AxisSet, ConvSpec, DType, DropoutSpec, Error as OpError, Kind, Map, Op,
    Reduce, RopeSpec, Shape,
};

use smallvec::smallvec;

use crate::dispatch::{self, Few, run, run_one};
use crate::error::Result;
use crate::random::Generator;
use crate::tensor::Tensor;

macro_rules! maps {
    (unary: $($unary:ident $Unary:ident),*; binary: $($binary:ident $Binary:ident),* $(,)?) => {
        impl Tensor {
            $(#[doc = concat!("The op table's `", stringify!($unary), "` of each element.")]
            pub fn $unary(&self) -> Result<Tensor> { run_one(Op::Map(Map::$Unary), &[self]) })*
            $(#[doc = concat!("The op table's `", stringify!($binary), "` of elements; operands broadcast and promote.")]
            pub fn $binary(&self, other: &Tensor) -> Result<Tensor> { run_one(Op::Map(Map::$Binary), &[self, other]) })*
        }
    };
}
maps! {
    unary: neg Neg, abs Abs, sign Sign, square Square, reciprocal Reciprocal, exp Exp, log Log, sqrt Sqrt, rsqrt Rsqrt,
        sin Sin, cos Cos, tanh Tanh, erf Erf, sigmoid Sigmoid, relu Relu, gelu Gelu, gelu_tanh GeluTanh, silu Silu,
        floor Floor, ceil Ceil, round Round, logical_not LogicalNot, tan Tan, asin Asin, acos Acos, atan Atan, sinh Sinh,
        cosh Cosh, asinh Asinh, acosh Acosh, atanh Atanh, expm1 Expm1, log1p Log1p, log2 Log2, log10 Log10,
        signbit Signbit, trunc Trunc, isnan Isnan, isinf Isinf, isfinite Isfinite;
    binary: add Add, sub Sub, mul Mul, div Div, maximum Maximum, minimum Minimum, eq Eq, ne Ne, lt Lt, le Le,
        gt Gt, ge Ge, logical_and LogicalAnd, logical_or LogicalOr, logical_xor LogicalXor, floor_divide FloorDivide,
        remainder Remainder, bitwise_and BitwiseAnd, bitwise_or BitwiseOr, bitwise_xor BitwiseXor,
        bitwise_left_shift BitwiseLeftShift, bitwise_right_shift BitwiseRightShift, atan2 Atan2, hypot Hypot,
        copysign Copysign, nextafter Nextafter, logaddexp Logaddexp,
}

macro_rules! operators {
    ($($Trait:ident $method:ident),*) => {$(
        impl std::ops::$Trait<&Tensor> for &Tensor {
            type Output = Result<Tensor>;
            fn $method(self, other: &Tensor) -> Result<Tensor> { Tensor::$method(self, other) }
        }
    )*};
}
operators!(Add add, Sub sub, Mul mul, Div div);

/// Elementwise with scalars, and in place.
impl Tensor {
    /// A scalar tensor to combine with this one: of this dtype, unless that would lose a fraction.
    fn weak_scalar(&self, value: f64) -> Result<Tensor> {
        let dtype = match self.dtype().kind() {
            Kind::Float => self.dtype(),
            Kind::Int if value.fract() == 0.0 => self.dtype(),
            Kind::Bool if value.fract() == 0.0 => DType::I64,
            Kind::Bool | Kind::Int => DType::F64,
        };
        Tensor::constant(value, dtype, self.device())
    }

    /// Each element plus `value`.
    pub fn add_scalar(&self, value: f64) -> Result<Tensor> {
        self.add(&self.weak_scalar(value)?)
    }

    /// Each element times `value`.
    pub fn mul_scalar(&self, value: f64) -> Result<Tensor> {
        self.mul(&self.weak_scalar(value)?)
    }

    /// Each element to the power of `exponent`'s.
    ///
    /// # Errors
    /// An integer to a negative power.
    pub fn pow(&self, exponent: &Tensor) -> Result<Tensor> {
        // u64 to the power of a signed integer is computed in f64.
        let integers = self.dtype().promote(exponent.dtype()).kind() != Kind::Float;
        // Of operands that broadcast to nothing, none is a power.
        let none = self.numel() == 0 || exponent.numel() == 0;
        if integers && !none && exponent.cast(DType::F64)?.min(&[], false)?.item()? < 0.0 {
            return Err(OpError::argument("Integers to negative integer powers are not allowed.").into());
        }
        run_one(Op::Map(Map::Pow), &[self, exponent])
    }

    /// Each element to the power of `exponent`.
    pub fn pow_scalar(&self, exponent: f64) -> Result<Tensor> {
        if exponent == 2.0 && self.dtype().is_float() {
            return self.square();
        }
        self.pow(&self.weak_scalar(exponent)?)
    }

    /// `a` where this (bool) is true, else `b`.
    pub fn where_(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        run_one(Op::Map(Map::Where), &[self, a, b])
    }

    /// This tensor, but `value` where `mask` (bool) is true.
    pub fn masked_fill(&self, mask: &Tensor, value: f64) -> Result<Tensor> {
        let value = Tensor::constant(value, self.dtype(), self.device())?;
        run_one(Op::Map(Map::MaskedFill), &[self, mask, &value])
    }

    /// Every bit of an integer inverted; a bool negated.
    ///
    /// # Errors
    /// Floating-point elements.
    pub fn bitwise_invert(&self) -> Result<Tensor> {
        if self.dtype() == DType::Bool {
            self.logical_not()
        } else {
            run_one(Op::Map(Map::BitwiseInvert), &[self])
        }
    }

    /// Elements no less than `min`'s and no more than `max`'s, which goes first; operands broadcast and promote.
    pub fn clip(&self, min: &Tensor, max: &Tensor) -> Result<Tensor> {
        run_one(Op::Map(Map::Clip), &[self, min, max])
    }

    /// Elements as `dtype`: this tensor itself if it has it.
    pub fn cast(&self, dtype: DType) -> Result<Tensor> {
        if dtype == self.dtype() { Ok(self.clone()) } else { run_one(Op::Cast(dtype), &[self]) }
    }

    /// Overwrites this with its sum with `other`, which broadcasts to it.
    pub fn add_(&self, other: &Tensor) -> Result<()> {
        dispatch::update(self, &Map::Add.exprs().forward, &[self, other])
    }

    /// Overwrites this with its difference from `other`.
    pub fn sub_(&self, other: &Tensor) -> Result<()> {
        dispatch::update(self, &Map::Sub.exprs().forward, &[self, other])
    }

    /// Overwrites this with its product with `other`.
    pub fn mul_(&self, other: &Tensor) -> Result<()> {
        dispatch::update(self, &Map::Mul.exprs().forward, &[self, other])
    }

    /// Overwrites this with its quotient by `other`; floating-point tensors only.
    pub fn div_(&self, other: &Tensor) -> Result<()> {
        if !self.dtype().is_float() {
            return Err(OpError::dtype(format!(
                "div_: the quotient of {} tensors is floating-point and does not fit them; use div",
                self.dtype()
            ))
            .into());
        }
        dispatch::update(self, &Map::Div.exprs().forward, &[self, other])
    }
}

/// Reductions: over `axes`, or over all if `axes` is empty.
impl Tensor {
    fn reduce(&self, kind: Reduce, axes: &[isize], keepdims: bool) -> Result<Tensor> {
        let axes =
            if axes.is_empty() { AxisSet::all(self.shape()) } else { AxisSet::of(self.shape(), axes)? };
        run_one(Op::Reduce { kind, axes, keepdims }, &[self])
    }

    /// Sums; bools and signed integers add up in i64, unsigned ones in u64.
    pub fn sum(&self, axes: &[isize], keepdims: bool) -> Result<Tensor> {
        self.reduce(Reduce::Sum, axes, keepdims)
    }

    /// Means.
    pub fn mean(&self, axes: &[isize], keepdims: bool) -> Result<Tensor> {
        self.reduce(Reduce::Mean, axes, keepdims)
    }

    /// Products; integers and bools multiply in i64.
    pub fn prod(&self, axes: &[isize], keepdims: bool) -> Result<Tensor> {
        self.reduce(Reduce::Prod, axes, keepdims)
    }

    /// Whether no element is zero (bool); true of none. NaN is not zero.
    pub fn all(&self, axes: &[isize], keepdims: bool) -> Result<Tensor> {
        self.reduce(Reduce::All, axes, keepdims)
    }

    /// Whether any element is not zero (bool); false of none.
    pub fn any(&self, axes: &[isize], keepdims: bool) -> Result<Tensor> {
        self.reduce(Reduce::Any, axes, keepdims)
    }

    /// Largest elements.
    ///
    /// # Errors
    /// There are none to choose from.
    pub fn max(&self, axes: &[isize], keepdims: bool) -> Result<Tensor> {
        self.reduce(Reduce::Max, axes, keepdims)
    }

    /// Smallest elements.
    ///
    /// # Errors
    /// There are none to choose from.
    pub fn min(&self, axes: &[isize], keepdims: bool) -> Result<Tensor> {
        self.reduce(Reduce::Min, axes, keepdims)
    }

    /// Variances; `correction` is 0 for the population's, 1 for the sample's.
    pub fn var(&self, axes: &[isize], correction: f64, keepdims: bool) -> Result<Tensor> {
        self.reduce(Reduce::Var { correction }, axes, keepdims)
    }

    /// Index of the largest element along `axis`; along all elements in row-major order if it is `None`.
    pub fn argmax(&self, axis: Option<isize>, keepdims: bool) -> Result<Tensor> {
        self.arg_reduce(true, axis, keepdims)
    }

    /// Index of the smallest element along `axis`.
    pub fn argmin(&self, axis: Option<isize>, keepdims: bool) -> Result<Tensor> {
        self.arg_reduce(false, axis, keepdims)
    }

    fn arg_reduce(&self, max: bool, axis: Option<isize>, keepdims: bool) -> Result<Tensor> {
        let Some(axis) = axis else {
            let flat = run_one(Op::ArgReduce { max, axis: 0, keepdims: false }, &[&self.reshape(&[-1])?])?;
            return if keepdims { flat.reshape_to(Shape::new(&vec![1; self.rank()])?) } else { Ok(flat) };
        };
        run_one(Op::ArgReduce { max, axis: self.shape().axis(axis)?, keepdims }, &[self])
    }
}

/// Products, normalisation, indexing, models.
impl Tensor {
    /// Matrix product of the last two axes, as NumPy's `matmul`: leading axes broadcast, a vector is a row on the left and
    /// a column on the right.
    pub fn matmul(&self, other: &Tensor) -> Result<Tensor> {
        if self.rank() == 0 || other.rank() == 0 {
            return Err(OpError::shape("matmul: Input operand does not have enough dimensions").into());
        }
        if self.rank() == 1 {
            return self.unsqueeze(0)?.matmul(other)?.squeeze(if other.rank() == 1 { -1 } else { -2 });
        }
        if other.rank() == 1 {
            return self.matmul(&other.unsqueeze(1)?)?.squeeze(-1);
        }
        // One matrix on the right serves all rows on the left: one large product instead of many.
        if other.rank() == 2
            && self.rank() > 2
            && self.numel() > 0
            && self.dim(self.rank() - 1) == other.dim(0)
        {
            let mut dims = self.shape().to_vec();
            dims[self.rank() - 1] = other.dim(1);
            let rows = self.reshape(&[-1, other.dim(0) as isize])?;
            return run_one(Op::MatMul, &[&rows, other])?.reshape_to(Shape::new(&dims)?);
        }
        run_one(Op::MatMul, &[self, other])
    }

    /// `activation(self W^T + bias)`, with `weight` of shape (outputs, inputs).
    pub fn linear(&self, weight: &Tensor, bias: Option<&Tensor>, activation: Activation) -> Result<Tensor> {
        let mut operands: Few<&Tensor> = smallvec![self, weight];
        operands.extend(bias);
        run_one(Op::Linear { activation }, &operands)
    }

    /// Runs an op of the last axis along `axis`.
    fn along(&self, axis: isize, op: Op) -> Result<Tensor> {
        let axis = self.shape().axis(axis)? as isize;
        if axis as usize + 1 == self.rank() {
            return run_one(op, &[self]);
        }
        run_one(op, &[&self.transpose(axis, -1)?])?.transpose(axis, -1)
    }

    /// Softmax along `axis`.
    pub fn softmax(&self, axis: isize) -> Result<Tensor> {
        self.along(axis, Op::Softmax)
    }

    /// Logarithm of the softmax along `axis`.
    pub fn log_softmax(&self, axis: isize) -> Result<Tensor> {
        self.along(axis, Op::LogSoftmax)
    }

    /// Layer normalisation over the last axis, scaled by `weight` and shifted by `bias`.
    pub fn layer_norm(&self, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f64) -> Result<Tensor> {
        if weight.is_none() && bias.is_some() {
            return Err(OpError::argument("layer_norm: a bias without a weight is not supported").into());
        }
        let mut operands: Few<&Tensor> = smallvec![self];
        operands.extend(weight);
        operands.extend(bias);
        run_one(Op::LayerNorm { eps }, &operands)
    }

    /// Root-mean-square normalisation over the last axis, scaled by `weight`.
    pub fn rms_norm(&self, weight: Option<&Tensor>, eps: f64) -> Result<Tensor> {
        let mut operands: Few<&Tensor> = smallvec![self];
        operands.extend(weight);
        run_one(Op::RmsNorm { eps }, &operands)
    }

    /// The sum with `other`, normalised as [`Tensor::layer_norm`] does, and the sum: a residual connection with the norm
    /// that follows, in one pass over memory.
    ///
    /// # Errors
    /// The summands are not of one shape and dtype.
    pub fn add_layer_norm(
        &self,
        other: &Tensor,
        weight: Option<&Tensor>,
        bias: Option<&Tensor>,
        eps: f64,
    ) -> Result<(Tensor, Tensor)> {
        if weight.is_none() && bias.is_some() {
            return Err(OpError::argument("add_layer_norm: a bias without a weight is not supported").into());
        }
        self.add_norm(false, [Some(other), weight, bias], eps)
    }

    /// As [`Tensor::add_layer_norm`], with [`Tensor::rms_norm`].
    ///
    /// # Errors
    /// The summands are not of one shape and dtype.
    pub fn add_rms_norm(
        &self,
        other: &Tensor,
        weight: Option<&Tensor>,
        eps: f64,
    ) -> Result<(Tensor, Tensor)> {
        self.add_norm(true, [Some(other), weight, None], eps)
    }

    fn add_norm(&self, rms: bool, others: [Option<&Tensor>; 3], eps: f64) -> Result<(Tensor, Tensor)> {
        let operands: Vec<&Tensor> = [self].into_iter().chain(others.into_iter().flatten()).collect();
        let mut results = run(Op::AddNorm { rms, eps }, &operands)?.into_iter();
        let (norm, sum) = (results.next(), results.next());
        Ok((norm.expect("add_norm has a norm"), sum.expect("add_norm has a sum")))
    }

    /// Rows of this table (rows, width) at `indices`, whose shape comes before the width.
    pub fn embedding(&self, indices: &Tensor) -> Result<Tensor> {
        run_one(Op::Embedding, &[self, indices])
    }

    /// Elements picked along `axis` by `indices`, which has as many axes.
    pub fn gather(&self, axis: isize, indices: &Tensor) -> Result<Tensor> {
        run_one(Op::Gather { axis: self.shape().axis(axis)? }, &[self, indices])
    }

    /// This tensor with `source`'s elements added where `indices` says along `axis`.
    pub fn scatter_add(&self, axis: isize, indices: &Tensor, source: &Tensor) -> Result<Tensor> {
        run_one(Op::ScatterAdd { axis: self.shape().axis(axis)? }, &[self, indices, source])
    }

    /// Whole slices along `axis`, picked by a vector of indices.
    pub fn index_select(&self, axis: isize, indices: &Tensor) -> Result<Tensor> {
        run_one(Op::IndexSelect { axis: self.shape().axis(axis)? }, &[self, indices])
    }

    /// This tensor with whole slices of `source` added where the vector `indices` says along `axis`.
    pub fn index_add(&self, axis: isize, indices: &Tensor, source: &Tensor) -> Result<Tensor> {
        run_one(Op::IndexAdd { axis: self.shape().axis(axis)? }, &[self, indices, source])
    }

    /// Tensors joined along `axis`.
    pub fn concat(tensors: &[&Tensor], axis: isize) -> Result<Tensor> {
        let Some(first) = tensors.first() else {
            return Err(OpError::argument("need at least one array to concatenate").into());
        };
        run_one(Op::Concat { axis: first.shape().axis(axis)? }, tensors)
    }

    /// A border of `value`: `widths[i]` elements before and after axis `i`.
    pub fn pad(&self, widths: &[(usize, usize)], value: f64) -> Result<Tensor> {
        if widths.len() != self.rank() {
            return Err(OpError::shape(format!(
                "pad: {} widths for an array of dimension {}",
                widths.len(),
                self.rank()
            ))
            .into());
        }
        run_one(Op::Pad { widths: widths.to_vec(), value }, &[self])
    }

    /// Elements zeroed with probability `p`, the others scaled by `1 / (1 - p)`; this tensor itself if `p` is 0.
    pub fn dropout(&self, p: f64, generator: &Generator) -> Result<Tensor> {
        if p == 0.0 {
            return Ok(self.clone());
        }
        let (stream, state) = (generator.next_stream(), generator.state_on(self.device())?);
        run_one(Op::Dropout(DropoutSpec { p, stream }), &[self, state])
    }

    /// Mean cross-entropy of these logits (.., classes) against class indices (..): a scalar.
    ///
    /// Targets of `ignore_index` count for nothing; if all are, the loss is NaN.
    pub fn cross_entropy(&self, targets: &Tensor, ignore_index: i64, label_smoothing: f64) -> Result<Tensor> {
        let classes =
            *self.shape().last().ok_or_else(|| OpError::shape("cross_entropy: logits need a class axis"))?;
        if self.shape()[..self.rank() - 1] != targets.shape()[..] {
            return Err(OpError::shape(format!(
                "cross_entropy: logits of shape {} need targets of shape {}, got {}",
                self.shape(),
                Shape::new(&self.shape()[..self.rank() - 1])?,
                targets.shape()
            ))
            .into());
        }
        if targets.dtype().is_float() || targets.dtype() == DType::Bool {
            return Err(OpError::dtype(format!(
                "cross_entropy: targets are indices of classes, expected integers, got {}",
                targets.dtype()
            ))
            .into());
        }
        let rows = targets.numel();
        let logits = self.reshape_to(Shape::new(&[rows, classes])?)?;
        let targets = targets.cast(DType::I64)?.reshape_to(Shape::new(&[rows])?)?;
        run_one(Op::CrossEntropy { ignore_index, label_smoothing }, &[&logits, &targets])
    }

    /// Scaled-dot-product attention of queries (batch, heads, Sq, d) on keys and values (batch, kv heads, Sk, d).
    ///
    /// `mask` broadcasts to (batch, heads, Sq, Sk): bool keeps where it is true, floating-point is added to the scores;
    /// no gradient flows to it. `scale` is 1 / sqrt(d) if `None`. The result is (batch, heads, Sq, d), a view of memory
    /// in (batch, Sq, heads, d) order.
    pub fn attention(
        &self,
        keys: &Tensor,
        values: &Tensor,
        mask: Option<&Tensor>,
        causal: bool,
        scale: Option<f64>,
    ) -> Result<Tensor> {
        if crate::tape::grad_enabled() && mask.is_some_and(Tensor::is_tracked) {
            return Err(crate::Error::Autograd(
                "attention has no gradient for its mask, but this one requires gradients; detach() it".into(),
            ));
        }
        let d = self.shape().last().copied().unwrap_or(1);
        let spec = AttentionSpec { causal, scale: scale.unwrap_or(1.0 / (d as f64).sqrt()), dropout: None };
        let mut operands: Few<&Tensor> = smallvec![self, keys, values];
        operands.extend(mask);
        run_one(Op::Attention(spec), &operands)?.transpose(1, 2)
    }

    /// As [`Tensor::attention`], causal, on one tensor (batch, sequence, (heads + 2 kv_heads) * d) that packs queries, keys
    /// and values; the result is (batch, sequence, heads, d). With `dropout`, weights are dropped with that probability.
    pub fn attention_packed(
        &self,
        heads: usize,
        kv_heads: usize,
        causal: bool,
        dropout: Option<(f64, &Generator)>,
    ) -> Result<Tensor> {
        let d = self.shape().last().copied().unwrap_or(1) / (heads + 2 * kv_heads).max(1);
        let dropout = dropout.filter(|&(p, _)| p != 0.0);
        let drop = dropout.map(|(p, generator)| DropoutSpec { p, stream: generator.next_stream() });
        let spec = AttentionSpec { causal, scale: 1.0 / (d as f64).sqrt(), dropout: drop };
        let mut operands: Few<&Tensor> = smallvec![self];
        if let Some((_, generator)) = dropout {
            operands.push(generator.state_on(self.device())?);
        }
        run_one(Op::AttentionPacked { spec, heads, kv_heads }, &operands)
    }

    /// Rotary embedding of (batch, sequence, heads, d), with the first element at position `offset`.
    pub fn rope(&self, base: f64, offset: usize, interleaved: bool) -> Result<Tensor> {
        let heads = self.shape().get(2).copied().unwrap_or(0);
        self.rope_heads(base, offset, interleaved, heads)
    }

    /// As [`Tensor::rope`], for the first `heads` heads; the others are copied (packed queries, keys and values).
    pub fn rope_heads(&self, base: f64, offset: usize, interleaved: bool, heads: usize) -> Result<Tensor> {
        run_one(Op::Rope(RopeSpec { base, offset, interleaved, heads, inverse: false }), &[self])
    }

    /// One-dimensional convolution of (batch, channels, length) with `weight` (channels out, channels / groups, taps).
    pub fn conv1d(&self, weight: &Tensor, bias: Option<&Tensor>, spec: ConvSpec) -> Result<Tensor> {
        let mut operands = vec![self, weight];
        operands.extend(bias);
        Ok(run(Op::Conv1d(spec), &operands)?.swap_remove(0))
    }
}
