//! Shapes and dtypes of results: [`Op::infer`], and the checks of operands that come with it.
//!
//! A backend may rely on what is checked here; it need not check again. Values of indices are not known here.

use crate::dtype::{DType, Kind};
use crate::error::{Error, Result};
use crate::op::{Activation, AttentionSpec, ConvSpec, DropoutSpec, Map, Op, Reduce};
use crate::shape::Shape;

/// What is known of a tensor without its data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Meta {
    /// Axis lengths.
    pub shape: Shape,
    /// Element type.
    pub dtype: DType,
}

impl Meta {
    /// A meta of this shape and dtype.
    pub fn new(shape: Shape, dtype: DType) -> Meta {
        Meta { shape, dtype }
    }

    fn with(self, shape: Shape) -> Meta {
        Meta { shape, ..self }
    }

    /// The dtype that statistics of this one (means, log-sums) are kept in.
    fn statistic(self, shape: Shape) -> Meta {
        Meta { shape, dtype: self.dtype.compute() }
    }
}

impl Map {
    /// The type to compute in, and the dtype of the result, for operands of these dtypes (NumPy's promotion).
    pub fn types(self, operands: &[DType]) -> Result<(DType, DType)> {
        use Map::*;
        let joint =
            operands.iter().copied().reduce(DType::promote).expect("no elementwise op is without operands");
        let refuse_bool = |joint: DType| {
            if joint == DType::Bool {
                return Err(Error::dtype(format!(
                    "{} of bool tensors is not defined; use logical_not or ne, or cast to an integer first",
                    self.row().name
                )));
            }
            Ok((joint.compute(), joint))
        };
        match self {
            Add | Mul | Maximum | Minimum | Abs | Square | Relu | Floor | Ceil | Round | Trunc | Clip => {
                Ok((joint.compute(), joint))
            }
            // Of bools, NumPy divides, shifts and takes powers of numbers of 8 bits.
            FloorDivide | Remainder | Pow => {
                let number = if joint == DType::Bool { DType::I8 } else { joint };
                Ok((number.compute(), number))
            }
            BitwiseLeftShift | BitwiseRightShift => {
                self.need_integers(joint)?;
                let number = if joint == DType::Bool { DType::I8 } else { joint };
                Ok((number.compute(), number))
            }
            BitwiseAnd | BitwiseOr | BitwiseXor => {
                self.need_integers(joint)?;
                Ok((joint.compute(), joint))
            }
            BitwiseInvert => {
                self.need_integers(joint)?;
                refuse_bool(joint)
            }
            Sub | Neg | Sign => refuse_bool(joint),
            // Integers are divided in f64, so that NumPy's quotient of two integers comes out.
            Div | Reciprocal if joint.kind() != Kind::Float => Ok((DType::F64, DType::F64)),
            Div | Reciprocal | Exp | Log | Sqrt | Rsqrt | Sin | Cos | Tanh | Erf | Sigmoid | Gelu
            | GeluTanh | Silu | Tan | Asin | Acos | Atan | Atan2 | Sinh | Cosh | Asinh | Acosh | Atanh
            | Expm1 | Log1p | Log2 | Log10 | Hypot | Copysign | Logaddexp => {
                let float = joint_float(joint, operands);
                Ok((float.compute(), float))
            }
            Nextafter => match joint_float(joint, operands) {
                float @ (DType::F32 | DType::F64) => Ok((float, float)),
                short => Err(Error::dtype(format!(
                    "nextafter: {short} is computed in f32, whose neighbours it does not have; cast to f32 or f64 first"
                ))),
            },
            Eq | Ne | Lt | Le | Gt | Ge | LogicalAnd | LogicalOr | LogicalXor | LogicalNot | Isnan => {
                Ok((joint.compute(), DType::Bool))
            }
            // No integer is infinite, though one equals what infinity would become; none has a sign apart from its value.
            Isinf | Isfinite | Signbit => Ok((joint.to_float().compute(), DType::Bool)),
            Where => {
                self.need_bool(operands[0], "condition")?;
                let out = operands[1].promote(operands[2]);
                Ok((out.compute(), out))
            }
            MaskedFill => {
                self.need_bool(operands[1], "mask")?;
                Ok((operands[0].compute(), operands[0]))
            }
        }
    }

    fn need_integers(self, dtype: DType) -> Result<()> {
        if dtype.is_float() {
            return Err(Error::dtype(format!(
                "{} is defined of integers and bools, not {dtype}; cast to an integer first",
                self.row().name
            )));
        }
        Ok(())
    }

    fn need_bool(self, dtype: DType, what: &str) -> Result<()> {
        if dtype == DType::Bool {
            return Ok(());
        }
        Err(Error::dtype(format!("{}: the {what} must be of dtype bool, not {dtype}", self.row().name)))
    }
}

/// The float that operands of these dtypes become. Of integers each becomes its own, and these are promoted: NumPy's u8 with
/// i8 is f16, though an integer that holds both would be f32.
fn joint_float(joint: DType, operands: &[DType]) -> DType {
    match joint.kind() {
        Kind::Float => joint,
        Kind::Bool | Kind::Int => {
            operands.iter().map(|d| d.to_float()).reduce(DType::promote).unwrap_or(joint.to_float())
        }
    }
}

impl Op {
    /// The results of this op on operands of these shapes and dtypes, in the order of the row's signature.
    ///
    /// # Errors
    /// Operands that don't fit the op or each other, said in NumPy's words where NumPy has them.
    pub fn infer(&self, x: &[Meta]) -> Result<Vec<Meta>> {
        let one = |m: Meta| Ok(vec![m]);
        match self {
            Op::Map(map) => infer_map(*map, x),
            Op::Cast(dtype) => one(Meta::new(x[0].shape, *dtype)),
            Op::Copy => one(x[0]),
            Op::Reduce { kind, axes, keepdims } => {
                let dtype = match (kind, x[0].dtype.kind()) {
                    (Reduce::All | Reduce::Any, _) => DType::Bool,
                    (_, Kind::Float) | (Reduce::Max | Reduce::Min, _) => x[0].dtype,
                    (Reduce::Sum | Reduce::Prod, Kind::Bool | Kind::Int) => x[0].dtype.to_sum(),
                    (Reduce::Mean | Reduce::Var { .. }, Kind::Bool | Kind::Int) => DType::F64,
                };
                one(Meta::new(x[0].shape.reduce(*axes, *keepdims), dtype))
            }
            Op::ArgReduce { axis, keepdims, .. } => {
                let set = crate::AxisSet::of(&x[0].shape, &[*axis as isize])?;
                one(Meta::new(x[0].shape.reduce(set, *keepdims), DType::I64))
            }
            Op::Scan { axis, .. } => {
                x[0].shape.axis(*axis as isize)?;
                one(Meta::new(x[0].shape, x[0].dtype.to_sum()))
            }
            Op::CumProdGrad { .. } => one(x[0]),
            Op::Sort { .. } => {
                self.need_rank(x[0], 1)?;
                Ok(vec![x[0], Meta::new(x[0].shape, DType::I64)])
            }
            Op::NonZero => {
                let places = Shape::new(&[x[0].shape.numel()])?;
                Ok(vec![Meta::new(places, DType::I64), Meta::new(Shape::SCALAR, DType::I64)])
            }
            Op::SearchSorted { .. } => {
                same_dtype(self.name(), x)?;
                if x[0].shape.rank() != 1 {
                    return Err(Error::shape(format!(
                        "searchsorted: the sorted tensor must have one axis, got shape {}",
                        x[0].shape
                    )));
                }
                one(Meta::new(x[1].shape, DType::I64))
            }
            Op::MatMul => one(infer_matmul(x)?),
            Op::Linear { activation } => infer_linear(*activation, x),
            Op::LinearBiasGrad => {
                same_dtype(self.name(), x)?;
                let sums = |g: &Meta| {
                    self.need_float(*g)?;
                    self.need_rank(*g, 1)?;
                    Ok(g.with(Shape::new(&g.shape[g.shape.rank() - 1..])?))
                };
                x.iter().map(sums).collect()
            }
            Op::LinearWeightGrad => infer_weight_grads(self, x),
            Op::Softmax | Op::LogSoftmax => {
                self.need_float(x[0])?;
                self.need_rank(x[0], 1)?;
                one(x[0])
            }
            Op::SoftmaxGrad | Op::LogSoftmaxGrad => one(x[0]),
            Op::LayerNorm { .. } => {
                let lead = self.norm_checks(x)?;
                Ok(vec![x[0], x[0].statistic(lead), x[0].statistic(lead)])
            }
            Op::RmsNorm { .. } => {
                let lead = self.norm_checks(x)?;
                Ok(vec![x[0], x[0].statistic(lead)])
            }
            Op::LayerNormGrad => Ok([&[x[0]][..], &x[4..], &x[4..]].concat()),
            Op::RmsNormGrad => Ok([&[x[0]][..], &x[3..]].concat()),
            Op::AddNorm { rms, .. } => {
                if x[1] != x[0] {
                    return Err(Error::shape(format!(
                        "{}: the summands must be alike, got {} of shape {} and {} of shape {}",
                        self.name(),
                        x[0].dtype,
                        x[0].shape,
                        x[1].dtype,
                        x[1].shape
                    )));
                }
                let lead = self.norm_checks(&x[1..])?;
                let statistics = vec![x[0].statistic(lead); if *rms { 1 } else { 2 }];
                Ok([&[x[0], x[0]][..], &statistics].concat())
            }
            Op::AddNormGrad { rms: false } => Ok([&[x[0]][..], &x[5..], &x[5..]].concat()),
            Op::AddNormGrad { rms: true } => Ok([&[x[0]][..], &x[4..]].concat()),
            Op::Embedding => {
                if x[0].shape.rank() != 2 {
                    return Err(Error::shape(format!(
                        "embedding: the table must have 2 axes, not {}",
                        x[0].shape
                    )));
                }
                self.need_index(x[1])?;
                one(x[0].with(Shape::new(&[&x[1].shape[..], &x[0].shape[1..]].concat())?))
            }
            Op::EmbeddingGrad { rows } => {
                let width = *x[1].shape.last().expect("the gradient of an embedding has an axis");
                one(x[1].with(Shape::new(&[*rows, width])?))
            }
            Op::Gather { .. } | Op::ScatterAdd { .. } | Op::IndexSelect { .. } | Op::IndexAdd { .. } => {
                one(self.infer_index(x)?)
            }
            Op::Concat { axis } => one(infer_concat(*axis, x)?),
            Op::Pad { widths, .. } => {
                let dims: Vec<usize> =
                    x[0].shape.iter().zip(widths).map(|(d, (lo, hi))| d + lo + hi).collect();
                one(x[0].with(Shape::new(&dims)?))
            }
            Op::Dropout(spec) => {
                self.need_float(x[0])?;
                check_dropout(*spec, x.get(1))?;
                one(x[0])
            }
            Op::CrossEntropy { label_smoothing, .. } => infer_cross_entropy(*label_smoothing, x),
            Op::CrossEntropyGrad { .. } => one(x[0]),
            Op::Attention(spec) => infer_attention(*spec, x),
            Op::AttentionGrad(_) => Ok(x[..3].to_vec()),
            Op::AttentionPacked { spec, heads, kv_heads } => infer_packed(*spec, *heads, *kv_heads, x),
            Op::AttentionPackedGrad { .. } => one(x[0]),
            Op::Rope(_) => {
                self.need_float(x[0])?;
                if x[0].shape.rank() != 4 || !x[0].shape[3].is_multiple_of(2) {
                    return Err(Error::shape(format!(
                        "rope takes [batch, sequence, heads, head dim] with an even head dim, not {}",
                        x[0].shape
                    )));
                }
                one(x[0])
            }
            Op::Conv1d(spec) => one(infer_conv(*spec, x)?),
            Op::Conv1dGradInput { spec, length } => {
                let channels = x[0].shape[1] * spec.groups;
                one(x[1].with(Shape::new(&[x[1].shape[0], channels, *length])?))
            }
            Op::Conv1dGradWeight { spec, taps } => {
                let dims = [x[1].shape[1], x[0].shape[1] / spec.groups, *taps];
                one(x[0].with(Shape::new(&dims)?))
            }
        }
    }

    fn need_float(&self, x: Meta) -> Result<()> {
        if x.dtype.is_float() {
            return Ok(());
        }
        Err(Error::dtype(format!(
            "{} needs a floating-point tensor, not {}; cast it first",
            self.name(),
            x.dtype
        )))
    }

    fn need_rank(&self, x: Meta, least: usize) -> Result<()> {
        if x.shape.rank() >= least {
            return Ok(());
        }
        Err(Error::shape(format!("{} needs at least {least} axes, got shape {}", self.name(), x.shape)))
    }

    fn need_index(&self, x: Meta) -> Result<()> {
        match x.dtype {
            DType::U64 => Err(Error::dtype(format!(
                "{}: indices of u64 may not fit i64, in which places are counted; cast them",
                self.name()
            ))),
            dtype if dtype.kind() == Kind::Int => Ok(()),
            dtype => Err(Error::dtype(format!("{}: indices must be integers, not {dtype}", self.name()))),
        }
    }

    /// Checks `x` and the weight and bias after it; returns the shape without the normalised axis.
    fn norm_checks(&self, x: &[Meta]) -> Result<Shape> {
        self.need_float(x[0])?;
        self.need_rank(x[0], 1)?;
        let n = &x[0].shape[x[0].shape.rank() - 1..];
        for w in &x[1..] {
            if &w.shape[..] != n || w.dtype != x[0].dtype {
                return Err(Error::shape(format!(
                    "{}: weight and bias must be {} of shape ({},), got {} of shape {}",
                    self.name(),
                    x[0].dtype,
                    n[0],
                    w.dtype,
                    w.shape
                )));
            }
        }
        Shape::new(&x[0].shape[..x[0].shape.rank() - 1])
    }

    fn infer_index(&self, x: &[Meta]) -> Result<Meta> {
        let (Op::Gather { axis }
        | Op::ScatterAdd { axis }
        | Op::IndexSelect { axis }
        | Op::IndexAdd { axis }) = *self
        else {
            unreachable!("called for indexing ops only")
        };
        self.need_index(x[1])?;
        let (data, index) = (x[0].shape, x[1].shape);
        data.axis(axis as isize)?;
        let elementwise = matches!(self, Op::Gather { .. } | Op::ScatterAdd { .. });
        let fits = if elementwise {
            index.rank() == data.rank() && (0..data.rank()).all(|i| i == axis || index[i] <= data[i])
        } else {
            index.rank() == 1
        };
        if !fits {
            let wanted = if elementwise {
                "as many axes as the tensor, none but the indexed one longer"
            } else {
                "one axis"
            };
            return Err(Error::shape(format!(
                "{}: the index must have {wanted}; tensor {data}, index {index}",
                self.name()
            )));
        }
        let picked = if elementwise { index } else { data.with(axis, index[0]) };
        match self {
            Op::Gather { .. } | Op::IndexSelect { .. } => Ok(x[0].with(picked)),
            _ if x[2].shape != picked || x[2].dtype != x[0].dtype => Err(Error::shape(format!(
                "{}: the source must be {} of shape {picked}, got {} of shape {}",
                self.name(),
                x[0].dtype,
                x[2].dtype,
                x[2].shape
            ))),
            _ => Ok(x[0]),
        }
    }
}

fn infer_map(map: Map, x: &[Meta]) -> Result<Vec<Meta>> {
    // No elementwise op has more operands.
    let mut dtypes = [DType::Bool; 3];
    dtypes.iter_mut().zip(x).for_each(|(dtype, m)| *dtype = m.dtype);
    let shape = if x.iter().all(|m| m.shape == x[0].shape) {
        x[0].shape
    } else {
        Shape::broadcast_all(&x.iter().map(|m| m.shape).collect::<Vec<_>>())?
    };
    Ok(vec![Meta::new(shape, map.types(&dtypes[..x.len()])?.1)])
}

fn same_dtype(op: &str, x: &[Meta]) -> Result<()> {
    match x.iter().find(|m| m.dtype != x[0].dtype) {
        None => Ok(()),
        Some(other) => Err(Error::dtype(format!(
            "{op}: operands must have the same dtype, got {} and {}; cast one",
            x[0].dtype, other.dtype
        ))),
    }
}

/// Both operands have at least two axes here; vectors are promoted by the caller.
fn infer_matmul(x: &[Meta]) -> Result<Meta> {
    same_dtype("matmul", x)?;
    let (a, b) = (x[0].shape, x[1].shape);
    let (ra, rb) = (a.rank(), b.rank());
    if ra < 2 || rb < 2 || a[ra - 1] != b[rb - 2] {
        return Err(Error::shape(format!(
            "matmul: mismatch in core dimension: shapes {a} and {b} need the last axis of the first to equal the \
             second to last of the second"
        )));
    }
    let lead = Shape::new(&a[..ra - 2])?.broadcast(&Shape::new(&b[..rb - 2])?)?;
    Ok(x[0].with(Shape::new(&[&lead[..], &[a[ra - 2], b[rb - 1]]].concat())?))
}

fn infer_weight_grads(op: &Op, x: &[Meta]) -> Result<Vec<Meta>> {
    same_dtype(op.name(), x)?;
    let (pairs, rest) = x.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(Error::argument(format!(
            "{}: expected pairs of a gradient and an input, got {} operands",
            op.name(),
            x.len()
        )));
    }
    let weight = |[g, x]: &[Meta; 2]| {
        op.need_float(*g)?;
        op.need_rank(*g, 1)?;
        op.need_rank(*x, 1)?;
        let (lead_g, lead_x) = (&g.shape[..g.shape.rank() - 1], &x.shape[..x.shape.rank() - 1]);
        if lead_g != lead_x {
            return Err(Error::shape(format!(
                "{}: a gradient of shape {} does not belong to an input of shape {}: all axes but the last must agree",
                op.name(),
                g.shape,
                x.shape
            )));
        }
        Ok(g.with(Shape::new(&[g.shape[lead_g.len()], x.shape[lead_x.len()]])?))
    };
    pairs.iter().map(weight).collect()
}

fn infer_linear(activation: Activation, x: &[Meta]) -> Result<Vec<Meta>> {
    let (input, weight) = (x[0].shape, x[1].shape);
    same_dtype("linear", x)?;
    if !x[0].dtype.is_float()
        || weight.rank() != 2
        || input.rank() < 1
        || input[input.rank() - 1] != weight[1]
    {
        return Err(Error::shape(format!(
            "linear: input {input} needs a floating-point weight of shape (outputs, inputs) whose inputs equal the \
             input's last axis, got {} {weight}",
            x[0].dtype
        )));
    }
    if let Some(bias) = x.get(2).filter(|b| b.shape[..] != weight[..1]) {
        return Err(Error::shape(format!(
            "linear: bias must have shape ({},), got {}",
            weight[0], bias.shape
        )));
    }
    let y = x[0].with(input.with(input.rank() - 1, weight[0]));
    Ok(if activation == Activation::Identity { vec![y] } else { vec![y, y] })
}

fn infer_concat(axis: usize, x: &[Meta]) -> Result<Meta> {
    same_dtype("concat", x)?;
    let first = x[0].shape;
    first.axis(axis as isize)?;
    let mut total = 0;
    for (i, m) in x.iter().enumerate() {
        if m.shape.rank() != first.rank() || m.shape.with(axis, first[axis]) != first {
            return Err(Error::shape(format!(
                "all the input array dimensions except for the concatenation axis must match exactly, but along axis \
                 {axis} the array at index 0 has shape {first} and the array at index {i} has shape {}",
                m.shape
            )));
        }
        total += m.shape[axis];
    }
    let mut dims = first.to_vec();
    dims[axis] = total;
    Ok(x[0].with(Shape::new(&dims)?))
}

fn infer_cross_entropy(label_smoothing: f64, x: &[Meta]) -> Result<Vec<Meta>> {
    let (logits, target) = (x[0], x[1]);
    if !(0.0..=1.0).contains(&label_smoothing) {
        return Err(Error::argument(format!("label_smoothing must be in [0, 1], got {label_smoothing}")));
    }
    if logits.shape.rank() != 2 || target.shape[..] != logits.shape[..1] {
        return Err(Error::shape(format!(
            "cross_entropy takes logits of shape (rows, classes) and targets of shape (rows,), got {} and {}",
            logits.shape, target.shape
        )));
    }
    if !logits.dtype.is_float() || target.dtype != DType::I64 {
        return Err(Error::dtype(format!(
            "cross_entropy takes floating-point logits and i64 targets, got {} and {}",
            logits.dtype, target.dtype
        )));
    }
    let scalar = logits.statistic(Shape::SCALAR);
    Ok(vec![scalar, logits.statistic(target.shape), scalar])
}

fn check_dropout(spec: DropoutSpec, state: Option<&Meta>) -> Result<()> {
    if !(0.0..1.0).contains(&spec.p) {
        return Err(Error::argument(format!("dropout probability must be in [0, 1), got {}", spec.p)));
    }
    match state {
        Some(state) if state.dtype == DType::I64 && state.shape[..] == [2] => Ok(()),
        other => Err(Error::shape(format!(
            "dropout needs its random state, seed and step (i64 of shape (2,)), got {}",
            other.map_or("none".into(), |m| format!("{} of shape {}", m.dtype, m.shape))
        ))),
    }
}

fn infer_attention(spec: AttentionSpec, x: &[Meta]) -> Result<Vec<Meta>> {
    let (q, k, v) = (x[0].shape, x[1].shape, x[2].shape);
    same_dtype("attention", &x[..3])?;
    let ok = [q, k, v].iter().all(|s| s.rank() == 4)
        && k == v
        && q[0] == k[0]
        && q[3] == k[3]
        && (q[1] == 0 || (k[1] > 0 && q[1] % k[1] == 0))
        && x[0].dtype.is_float();
    if !ok {
        return Err(Error::shape(format!(
            "attention takes floating-point q (batch, heads, queries, head dim) and k, v (batch, kv heads, keys, head \
             dim) with kv heads dividing heads, got {q}, {k}, {v}"
        )));
    }
    let (mask, state) = spec.optional(&x[3..]);
    if let Some(dropout) = spec.dropout {
        check_dropout(dropout, state)?;
    }
    if let Some(mask) = mask {
        let scores = Shape::new(&[q[0], q[1], q[2], k[2]])?;
        let fits = scores.broadcast(&mask.shape).is_ok_and(|s| s == scores);
        if !fits || !(mask.dtype == DType::Bool || mask.dtype == x[0].dtype) {
            return Err(Error::shape(format!(
                "attention: the mask must be bool or {} and broadcast to {scores}, got {} of shape {}",
                x[0].dtype, mask.dtype, mask.shape
            )));
        }
    }
    let o = Shape::new(&[q[0], q[2], q[1], q[3]])?;
    Ok(vec![x[0].with(o), x[0].statistic(Shape::new(&q[..3])?)])
}

fn infer_packed(spec: AttentionSpec, heads: usize, kv_heads: usize, x: &[Meta]) -> Result<Vec<Meta>> {
    let s = x[0].shape;
    let slots = heads + 2 * kv_heads;
    if s.rank() != 3
        || heads == 0
        || kv_heads == 0
        || !heads.is_multiple_of(kv_heads)
        || !s[2].is_multiple_of(slots)
    {
        return Err(Error::shape(format!(
            "attention_packed takes (batch, sequence, ({heads} + 2 * {kv_heads}) * head dim) with kv heads dividing \
             heads, got {s}"
        )));
    }
    if let Some(dropout) = spec.dropout {
        check_dropout(dropout, x.get(1))?;
    }
    let o = Shape::new(&[s[0], s[1], heads, s[2] / slots])?;
    Ok(vec![x[0].with(o), x[0].statistic(Shape::new(&[s[0], heads, s[1]])?)])
}

fn infer_conv(spec: ConvSpec, x: &[Meta]) -> Result<Meta> {
    same_dtype("conv1d", x)?;
    let (input, weight) = (x[0].shape, x[1].shape);
    let fail =
        |why: &str| Err(Error::shape(format!("conv1d: {why}; input {input}, weight {weight}, {spec:?}")));
    if input.rank() != 3 || weight.rank() != 3 || !x[0].dtype.is_float() {
        return fail(
            "input (batch, channels, length) and weight (channels out, channels in / groups, taps) expected",
        );
    }
    if spec.stride == 0 || spec.dilation == 0 || spec.groups == 0 {
        return fail("stride, dilation and groups must be at least 1");
    }
    if input[1] != weight[1] * spec.groups || weight[0] % spec.groups != 0 {
        return fail("channels don't match the weight and the groups");
    }
    if x.get(2).is_some_and(|b| b.shape[..] != weight[..1]) {
        return fail("the bias must have one element a channel out");
    }
    let window = spec.dilation.saturating_mul(weight[2].max(1) - 1).saturating_add(1);
    let padded = input[2].saturating_add(spec.padding.saturating_mul(2));
    if weight[2] == 0 || padded < window {
        return fail("the window is empty or longer than the padded input");
    }
    Ok(x[0].with(Shape::new(&[input[0], weight[0], (padded - window) / spec.stride + 1])?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(dims: &[usize], dtype: DType) -> Meta {
        Meta::new(Shape::new(dims).unwrap(), dtype)
    }

    #[test]
    fn arithmetic_promotes_as_numpy() {
        let types = |map: Map, x: &[DType]| map.types(x).unwrap();
        assert_eq!(types(Map::Add, &[DType::I32, DType::F32]), (DType::F64, DType::F64));
        assert_eq!(types(Map::Div, &[DType::I64, DType::I64]), (DType::F64, DType::F64));
        assert_eq!(types(Map::Exp, &[DType::F16]), (DType::F32, DType::F16));
        assert_eq!(types(Map::Lt, &[DType::U8, DType::I8]), (DType::I64, DType::Bool));
        assert!(Map::Sub.types(&[DType::Bool, DType::Bool]).is_err());
        assert!(Map::Where.types(&[DType::F32, DType::F32, DType::F32]).is_err());
    }

    #[test]
    fn shapes() {
        let f = DType::F32;
        let out = Op::MatMul.infer(&[meta(&[5, 1, 2, 3], f), meta(&[4, 3, 7], f)]).unwrap();
        assert_eq!(out[0].shape[..], [5, 4, 2, 7]);
        let err = Op::MatMul.infer(&[meta(&[2, 3], f), meta(&[2, 3], f)]).unwrap_err();
        assert!(err.message.contains("(2, 3) and (2, 3)"), "{err}");
        let out =
            Op::Linear { activation: Activation::Relu }.infer(&[meta(&[2, 3], f), meta(&[5, 3], f)]).unwrap();
        assert_eq!(out.len(), 2);
        let out = Op::Attention(AttentionSpec { causal: true, scale: 1.0, dropout: None })
            .infer(&[meta(&[2, 4, 5, 8], f), meta(&[2, 2, 7, 8], f), meta(&[2, 2, 7, 8], f)])
            .unwrap();
        assert_eq!((out[0].shape[..].to_vec(), out[1].shape[..].to_vec()), (vec![2, 5, 4, 8], vec![2, 4, 5]));
        let spec = ConvSpec { stride: 2, padding: 1, dilation: 2, groups: 1 };
        let out = Op::Conv1d(spec).infer(&[meta(&[1, 3, 10], f), meta(&[4, 3, 3], f)]).unwrap();
        assert_eq!(out[0].shape[..], [1, 4, 4]);
    }

    #[test]
    fn wrong_operands_are_named() {
        let f = DType::F32;
        let cases: Vec<(Op, Vec<Meta>, &str)> = vec![
            (Op::Softmax, vec![meta(&[3], DType::I32)], "floating-point"),
            (Op::Concat { axis: 0 }, vec![meta(&[2, 3], f), meta(&[2, 4], f)], "must match exactly"),
            (Op::Gather { axis: 0 }, vec![meta(&[2], f), meta(&[2], f)], "integers"),
            (Op::Dropout(DropoutSpec { p: 1.0, stream: 0 }), vec![meta(&[2], f)], "[0, 1)"),
            (Op::LayerNorm { eps: 1e-5 }, vec![meta(&[2, 3], f), meta(&[4], f)], "(3,)"),
        ];
        for (op, x, words) in cases {
            let err = op.infer(&x).unwrap_err();
            assert!(err.message.contains(words), "{}: {err}", op.name());
        }
    }
}
