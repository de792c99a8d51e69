//! [`Op`]: everything a device can be asked to compute, with its attributes, as data.
//!
//! An op is recorded on the autograd tape, traced into graphs and matched, exhaustively, by every backend. What it
//! means is in its row of the [table](crate::table); the shapes and dtypes of its results are in [`Op::infer`].
//!
//! Transposed, broadcast and sliced operands are not attributes: kernels take strided views.

use crate::dtype::DType;
use crate::shape::AxisSet;

/// An elementwise function of one result; operands broadcast. The [table](crate::table) gives its expression.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs)] // each is documented by its row
pub enum Map {
    Add,
    Sub,
    Mul,
    Div,
    Pow,
    Maximum,
    Minimum,
    Neg,
    Abs,
    Sign,
    Square,
    Reciprocal,
    Exp,
    Log,
    Sqrt,
    Rsqrt,
    Sin,
    Cos,
    Tanh,
    Erf,
    Sigmoid,
    Relu,
    Gelu,
    GeluTanh,
    Silu,
    Floor,
    Ceil,
    Round,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    LogicalAnd,
    LogicalOr,
    LogicalNot,
    Where,
    MaskedFill,
    FloorDivide,
    Remainder,
    BitwiseAnd,
    BitwiseOr,
    BitwiseXor,
    BitwiseInvert,
    BitwiseLeftShift,
    BitwiseRightShift,
    LogicalXor,
    Tan,
    Asin,
    Acos,
    Atan,
    Atan2,
    Sinh,
    Cosh,
    Asinh,
    Acosh,
    Atanh,
    Expm1,
    Log1p,
    Log2,
    Log10,
    Hypot,
    Copysign,
    Nextafter,
    Logaddexp,
    Signbit,
    Trunc,
    Isnan,
    Isinf,
    Isfinite,
    Clip,
}

/// What a reduction computes of the elements it brings together.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Reduce {
    /// Sum; 0 of none.
    Sum,
    /// Arithmetic mean; NaN of none.
    Mean,
    /// Largest; NaN if any is NaN.
    Max,
    /// Smallest; NaN if any is NaN.
    Min,
    /// Product; 1 of none.
    Prod,
    /// Whether none is zero; true of none. NaN is not zero.
    All,
    /// Whether any is not zero; false of none.
    Any,
    /// Variance: the sum of squared deviations over `n - correction`.
    Var {
        /// 0 for the population's variance, 1 for the sample's.
        correction: f64,
    },
}

/// An activation that [`Op::Linear`] applies to its result.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Activation {
    /// None.
    #[default]
    Identity,
    /// max(x, 0).
    Relu,
    /// The exact GELU, by the error function.
    Gelu,
    /// The GELU by its tanh approximation.
    GeluTanh,
    /// x * sigmoid(x).
    Silu,
}

impl Activation {
    /// The elementwise op of the same function; `None` for the identity.
    pub const fn map(self) -> Option<Map> {
        match self {
            Activation::Identity => None,
            Activation::Relu => Some(Map::Relu),
            Activation::Gelu => Some(Map::Gelu),
            Activation::GeluTanh => Some(Map::GeluTanh),
            Activation::Silu => Some(Map::Silu),
        }
    }
}

/// What attention does besides its operands.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct AttentionSpec {
    /// Query `i` of `Sq` sees keys up to `i + Sk - Sq`.
    pub causal: bool,
    /// Factor on the scores, usually 1 / sqrt(head dim).
    pub scale: f64,
    /// Dropout of the weights, by [`WeightDropout`](crate::random::WeightDropout); the op's last operand is then the
    /// random state, i64 (seed, step).
    pub dropout: Option<DropoutSpec>,
}

impl AttentionSpec {
    /// Which of the operands behind the ones that are always there are the mask and the random state.
    pub fn optional<'a, T>(&self, rest: &'a [T]) -> (Option<&'a T>, Option<&'a T>) {
        match (self.dropout, rest) {
            (Some(_), [rest @ .., state]) => (rest.first(), Some(state)),
            _ => (rest.first(), None),
        }
    }
}

/// Which elements dropout takes, and from what they are drawn.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct DropoutSpec {
    /// Probability of a zero, in 0..1.
    pub p: f64,
    /// Which of the random streams of one training step this use draws from.
    pub stream: u64,
}

/// How rotary embedding pairs the elements of a head, and which positions it gives them.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RopeSpec {
    /// Base of the geometric series of angles, usually 10000.
    pub base: f64,
    /// Position of the first element of the sequence axis.
    pub offset: usize,
    /// Pairs (2i, 2i+1) if true, else (i, i + D/2).
    pub interleaved: bool,
    /// Only heads below this are rotated, the others copied; for packed query, key and value.
    pub heads: usize,
    /// Rotates by the negative angle: the adjoint.
    pub inverse: bool,
}

/// The window of a one-dimensional convolution.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConvSpec {
    /// Distance between outputs.
    pub stride: usize,
    /// Zeros on both ends.
    pub padding: usize,
    /// Distance between taps.
    pub dilation: usize,
    /// Channel groups that do not mix.
    pub groups: usize,
}

/// One op with its attributes. Operands and results are listed in the [table](crate::table) row.
#[derive(Clone, PartialEq, Debug)]
pub enum Op {
    /// An elementwise op.
    Map(Map),
    /// Elements as another dtype.
    Cast(DType),
    /// A row-major copy of a strided operand.
    Copy,
    /// A reduction over `axes`.
    Reduce {
        /// What is computed.
        kind: Reduce,
        /// Over which axes.
        axes: AxisSet,
        /// Keep the reduced axes with length 1.
        keepdims: bool,
    },
    /// Index of the largest (or smallest) element along an axis; the first of equals; a NaN counts as the largest.
    ArgReduce {
        /// Largest or smallest.
        max: bool,
        /// Along which axis.
        axis: usize,
        /// Keep the axis with length 1.
        keepdims: bool,
    },
    /// Running sums or products along an axis.
    Scan {
        /// Products instead of sums.
        product: bool,
        /// Along which axis.
        axis: usize,
        /// From the axis' end to its start.
        reverse: bool,
        /// Of what comes before each element, without itself: the first result is 0, or 1.
        exclusive: bool,
    },
    /// Adjoint of the running product from the start, each element included.
    CumProdGrad {
        /// As in the forward op.
        axis: usize,
    },
    /// Elements along the last axis in order, and where they were; equals keep theirs, NaN is last.
    Sort {
        /// From the largest to the smallest.
        descending: bool,
    },
    /// Where elements are not zero, and how many: row-major positions, in order, then zeros up to as many as elements.
    NonZero,
    /// Where values go into a sorted vector so that it stays sorted.
    SearchSorted {
        /// Behind equals instead of before them.
        right: bool,
    },
    /// Batched matrix product of the last two axes.
    MatMul,
    /// `activation(x W^T + b)`.
    Linear {
        /// What follows the product.
        activation: Activation,
    },
    /// Adjoint of [`Op::Linear`] in its bias, of several such ops at once, with one dtype.
    LinearBiasGrad,
    /// Adjoint of [`Op::Linear`] in its weight, of several such ops at once, with one dtype: operands are pairs of a
    /// gradient (.., outputs) and an input (.., inputs), results are (outputs, inputs).
    LinearWeightGrad,
    /// Softmax along the last axis.
    Softmax,
    /// Adjoint of [`Op::Softmax`].
    SoftmaxGrad,
    /// Logarithm of the softmax along the last axis.
    LogSoftmax,
    /// Adjoint of [`Op::LogSoftmax`].
    LogSoftmaxGrad,
    /// Layer normalisation over the last axis (Ba et al. 2016).
    LayerNorm {
        /// Added to the variance.
        eps: f64,
    },
    /// Adjoint of [`Op::LayerNorm`].
    LayerNormGrad,
    /// Root-mean-square normalisation over the last axis (Zhang and Sennrich 2019).
    RmsNorm {
        /// Added to the mean square.
        eps: f64,
    },
    /// Adjoint of [`Op::RmsNorm`].
    RmsNormGrad,
    /// A sum, and [`Op::LayerNorm`] or [`Op::RmsNorm`] of it: a residual connection with the norm that follows.
    AddNorm {
        /// Which norm.
        rms: bool,
        /// As in the norm.
        eps: f64,
    },
    /// Adjoint of [`Op::AddNorm`] where both of its results have a gradient.
    AddNormGrad {
        /// Which norm.
        rms: bool,
    },
    /// Rows of a table.
    Embedding,
    /// Adjoint of [`Op::Embedding`].
    EmbeddingGrad {
        /// Rows of the table.
        rows: usize,
    },
    /// Elements picked along an axis by an index tensor of the same rank.
    Gather {
        /// Along which axis.
        axis: usize,
    },
    /// A tensor with a source's elements added at the places an index tensor names.
    ScatterAdd {
        /// Along which axis.
        axis: usize,
    },
    /// Whole slices picked along an axis by a vector of indices.
    IndexSelect {
        /// Along which axis.
        axis: usize,
    },
    /// A tensor with whole slices of a source added at the indices a vector names.
    IndexAdd {
        /// Along which axis.
        axis: usize,
    },
    /// Tensors joined along an axis.
    Concat {
        /// Along which axis.
        axis: usize,
    },
    /// A constant border around a tensor.
    Pad {
        /// Elements before and after, an axis.
        widths: Vec<(usize, usize)>,
        /// Their value.
        value: f64,
    },
    /// Elements zeroed with probability `p`, the others scaled by `1 / (1 - p)` (Srivastava et al. 2014).
    Dropout(DropoutSpec),
    /// Mean cross-entropy of logits against class indices, with the softmax fused in.
    CrossEntropy {
        /// Targets of this value count for nothing.
        ignore_index: i64,
        /// Weight of the uniform distribution in the target, in 0..=1 (Szegedy et al. 2016).
        label_smoothing: f64,
    },
    /// Adjoint of [`Op::CrossEntropy`].
    CrossEntropyGrad {
        /// As in the forward op.
        ignore_index: i64,
        /// As in the forward op.
        label_smoothing: f64,
    },
    /// Scaled-dot-product attention, fused: no matrix of scores is kept (Dao et al. 2022).
    Attention(AttentionSpec),
    /// Adjoint of [`Op::Attention`].
    AttentionGrad(AttentionSpec),
    /// [`Op::Attention`] on one tensor that packs queries, keys and values.
    AttentionPacked {
        /// As in [`Op::Attention`].
        spec: AttentionSpec,
        /// Query heads.
        heads: usize,
        /// Key and value heads; divides `heads`.
        kv_heads: usize,
    },
    /// Adjoint of [`Op::AttentionPacked`].
    AttentionPackedGrad {
        /// As in the forward op.
        spec: AttentionSpec,
        /// As in the forward op.
        heads: usize,
        /// As in the forward op.
        kv_heads: usize,
    },
    /// Rotary position embedding (Su et al. 2021).
    Rope(RopeSpec),
    /// One-dimensional convolution (cross-correlation, as deep learning has it).
    Conv1d(ConvSpec),
    /// Adjoint of [`Op::Conv1d`] in its input.
    Conv1dGradInput {
        /// As in the forward op.
        spec: ConvSpec,
        /// Length of the forward input.
        length: usize,
    },
    /// Adjoint of [`Op::Conv1d`] in its weight.
    Conv1dGradWeight {
        /// As in the forward op.
        spec: ConvSpec,
        /// Taps of the forward weight.
        taps: usize,
    },
}
