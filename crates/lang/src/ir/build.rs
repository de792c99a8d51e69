//! Building a kernel instruction by instruction, folding on the way.

use bullet_ops::DType;
use smallvec::smallvec;

use super::{Atomic, Binary, Block, Compare, Const, Inst, Kernel, Op, Type, Unary, Value, Values, eval};
use crate::diag::Span;

/// A kernel, and where the next instruction goes.
pub(crate) struct Builder {
    pub(crate) kernel: Kernel,
    /// The block that instructions are appended to.
    pub(crate) block: Block,
    /// The source of the instructions.
    pub(crate) span: Span,
}

impl Builder {
    /// At the end of a kernel's body.
    pub(crate) fn new(kernel: Kernel) -> Builder {
        let block = kernel.body;
        Builder { kernel, block, span: Span::default() }
    }

    /// Appends an instruction.
    pub(crate) fn emit(&mut self, op: Op, args: Values, types: &[Type]) -> Inst {
        let inst = self.kernel.new_inst(op, args, types, self.span);
        self.kernel.blocks[self.block.index()].insts.push(inst);
        inst
    }

    /// Appends an instruction with one scalar result, unless its value is known.
    fn value(&mut self, op: Op, args: Values, dtype: DType) -> Value {
        if let Some(value) = fold(&mut self.kernel, op, &args, dtype) {
            return value;
        }
        let inst = self.emit(op, args, &[Type::Scalar(dtype)]);
        self.kernel.inst(inst).results[0]
    }

    pub(crate) fn int(&mut self, dtype: DType, value: i64) -> Value {
        self.kernel.constant(Const::int(dtype, value))
    }

    pub(crate) fn float(&mut self, dtype: DType, value: f64) -> Value {
        self.kernel.constant(Const::float(dtype, value))
    }

    pub(crate) fn bool(&mut self, value: bool) -> Value {
        self.kernel.constant(Const::bool(value))
    }

    pub(crate) fn zero(&mut self, dtype: DType) -> Value {
        self.kernel.constant(Const::zero(dtype))
    }

    pub(crate) fn tid(&mut self, axis: u8) -> Value {
        self.value(Op::Tid(axis), smallvec![], DType::I32)
    }

    pub(crate) fn dim(&mut self, array: Value, axis: u8) -> Value {
        self.value(Op::Dim(axis), smallvec![array], DType::I32)
    }

    pub(crate) fn unary(&mut self, op: Unary, x: Value) -> Value {
        let dtype = op.result(self.kernel.dtype(x));
        self.value(Op::Unary(op), smallvec![x], dtype)
    }

    pub(crate) fn binary(&mut self, op: Binary, a: Value, b: Value) -> Value {
        let dtype = self.kernel.dtype(a);
        self.value(Op::Binary(op), smallvec![a, b], dtype)
    }

    pub(crate) fn add(&mut self, a: Value, b: Value) -> Value {
        self.binary(Binary::Add, a, b)
    }

    pub(crate) fn sub(&mut self, a: Value, b: Value) -> Value {
        self.binary(Binary::Sub, a, b)
    }

    pub(crate) fn mul(&mut self, a: Value, b: Value) -> Value {
        self.binary(Binary::Mul, a, b)
    }

    pub(crate) fn div(&mut self, a: Value, b: Value) -> Value {
        self.binary(Binary::Div, a, b)
    }

    pub(crate) fn neg(&mut self, x: Value) -> Value {
        self.unary(Unary::Neg, x)
    }

    pub(crate) fn not(&mut self, x: Value) -> Value {
        self.unary(Unary::Not, x)
    }

    pub(crate) fn compare(&mut self, op: Compare, a: Value, b: Value) -> Value {
        self.value(Op::Compare(op), smallvec![a, b], DType::Bool)
    }

    pub(crate) fn select(&mut self, test: Value, a: Value, b: Value) -> Value {
        let dtype = self.kernel.dtype(a);
        self.value(Op::Select, smallvec![test, a, b], dtype)
    }

    pub(crate) fn cast(&mut self, dtype: DType, x: Value) -> Value {
        self.value(Op::Cast, smallvec![x], dtype)
    }

    pub(crate) fn bitcast(&mut self, dtype: DType, x: Value) -> Value {
        self.value(Op::Bitcast, smallvec![x], dtype)
    }

    /// The scalars of an element.
    pub(crate) fn load(&mut self, array: Value, indices: &[Value]) -> Values {
        let types = self.lane_types(array);
        let inst = self.emit(Op::Load, access(array, indices, &[]), &types);
        self.kernel.inst(inst).results.iter().copied().collect()
    }

    /// Stops the kernel unless `low <= index < high`; `of` says what the index is of.
    pub(crate) fn within(&mut self, index: Value, low: i64, high: Value, of: &str) {
        let known = |value: Value| self.kernel.as_const(value).and_then(Const::as_int);
        if let (Some(index), Some(high)) = (known(index), known(high))
            && (low..high).contains(&index)
        {
            return;
        }
        let low = self.int(DType::I32, low);
        let text = self.kernel.add_text(of);
        self.emit(Op::Within(text), smallvec![index, low, high], &[]);
    }

    /// Overwrites an element.
    pub(crate) fn store(&mut self, array: Value, indices: &[Value], lanes: &[Value]) {
        self.emit(Op::Store, access(array, indices, lanes), &[]);
    }

    /// Updates an element; the old scalars.
    pub(crate) fn atomic(&mut self, op: Atomic, array: Value, indices: &[Value], lanes: &[Value]) -> Values {
        let types = self.lane_types(array);
        let inst = self.emit(Op::Atomic(op), access(array, indices, lanes), &types);
        self.kernel.inst(inst).results.iter().copied().collect()
    }

    fn lane_types(&self, array: Value) -> Values4 {
        let Type::Array(ty) = self.kernel.ty(array) else { return smallvec![] };
        smallvec![Type::Scalar(ty.dtype); ty.lanes.into()]
    }

    /// Appends an instruction that owns blocks; results are added as they become known.
    pub(crate) fn region(&mut self, op: Op, args: Values, blocks: &[Block]) -> Inst {
        let inst = self.emit(op, args, &[]);
        self.kernel.insts[inst.index()].blocks = blocks.iter().copied().collect();
        inst
    }
}

type Values4 = smallvec::SmallVec<[Type; 4]>;

fn access(array: Value, indices: &[Value], lanes: &[Value]) -> Values {
    let mut args = Values::with_capacity(1 + indices.len() + lanes.len());
    args.push(array);
    args.extend_from_slice(indices);
    args.extend_from_slice(lanes);
    args
}

/// The value of a pure instruction, if it is a constant or one that is there already.
///
/// Identities hold bit by bit but for the sign of NaN: `x + 0` stays, as it turns -0 into 0.
pub(crate) fn fold(kernel: &mut Kernel, op: Op, args: &[Value], result: DType) -> Option<Value> {
    let dtype = args.first().map(|&x| kernel.dtype(x));
    let constant = |i: usize| args.get(i).and_then(|&x| kernel.as_const(x));
    let found = match op {
        Op::Unary(op) => fold_unary(op, constant(0)?)?,
        Op::Binary(op) => {
            if let (Some(a), Some(b)) = (constant(0), constant(1))
                && let Some(folded) = fold_binary(op, a, b)
            {
                folded
            } else {
                return identity(kernel, op, args[0], args[1]);
            }
        }
        Op::Compare(op) => {
            let (a, b) = (constant(0)?, constant(1)?);
            Const::bool(match (a.as_float(), b.as_float()) {
                (Some(a), Some(b)) => eval::compare(op, a, b),
                _ => eval::compare_int(op, a.dtype(), a.as_int()?, b.as_int()?),
            })
        }
        Op::Select if args[1] == args[2] => return Some(args[1]),
        Op::Select if result == DType::Bool && constant(0).is_none() => {
            let (a, b) = (constant(1)?, constant(2)?);
            return (a.is(1) && b.is(0)).then_some(args[0]);
        }
        Op::Select => return Some(if constant(0)?.is(1) { args[1] } else { args[2] }),
        Op::Cast | Op::Bitcast if dtype == Some(result) => return Some(args[0]),
        Op::Cast => fold_cast(constant(0)?, result),
        _ => return None,
    };
    Some(kernel.constant(found))
}

fn fold_unary(op: Unary, x: Const) -> Option<Const> {
    let dtype = x.dtype();
    match x.as_float() {
        None => Some(Const::int(dtype, eval::unary_int(op, dtype, x.as_int()?)?)),
        Some(x) => match eval::unary_float(op, x) {
            Some(y) => Some(Const::float(dtype, y)),
            None => eval::test_float(op, x).map(Const::bool),
        },
    }
}

fn fold_binary(op: Binary, a: Const, b: Const) -> Option<Const> {
    let dtype = a.dtype();
    match (a.as_float(), b.as_float()) {
        (Some(a), Some(b)) => Some(Const::float(dtype, eval::binary_float(op, a, b)?)),
        _ => Some(Const::int(dtype, eval::binary_int(op, dtype, a.as_int()?, b.as_int()?)?)),
    }
}

fn fold_cast(x: Const, to: DType) -> Const {
    match (x.as_float(), x.as_int()) {
        (Some(x), _) if to.is_float() => Const::float(to, x),
        (Some(x), _) => Const::int(to, eval::to_int(to, x)),
        (_, Some(int)) if to.is_float() => Const::float(to, eval::to_float(x.dtype(), int)),
        (_, int) => Const::int(to, int.unwrap_or(0)),
    }
}

/// `x * 1 = x` and its like.
fn identity(kernel: &mut Kernel, op: Binary, a: Value, b: Value) -> Option<Value> {
    let dtype = kernel.dtype(a);
    let is = |x: Value, n: i32| kernel.as_const(x).is_some_and(|c| c.is(n));
    let exact = !dtype.is_float();
    let negative_zero = |x: Value| {
        kernel.as_const(x).and_then(Const::as_float).is_some_and(|c| c == 0.0 && c.is_sign_negative())
    };
    match op {
        Binary::Mul | Binary::MulMasked if is(b, 1) => Some(a),
        Binary::Mul | Binary::MulMasked if is(a, 1) => Some(b),
        Binary::Mul if exact && is(a, 0) => Some(a),
        Binary::Mul if exact && is(b, 0) => Some(b),
        Binary::MulMasked if is(a, 0) => Some(a),
        Binary::Add if exact && is(a, 0) || negative_zero(a) => Some(b),
        Binary::Add if exact && is(b, 0) || negative_zero(b) => Some(a),
        Binary::Sub if is(b, 0) && !negative_zero(b) => Some(a),
        Binary::Div | Binary::Pow if is(b, 1) => Some(a),
        Binary::Pow if is(b, 0) => Some(kernel.constant(Const::float(dtype, 1.0))),
        Binary::And | Binary::Or if a == b => Some(a),
        Binary::And if dtype == DType::Bool => logic(a, b, is(a, 1) || is(b, 0), is(b, 1) || is(a, 0)),
        Binary::Or if dtype == DType::Bool => logic(a, b, is(a, 0) || is(b, 1), is(b, 0) || is(a, 1)),
        Binary::Shl | Binary::Shr if is(b, 0) => Some(a),
        _ => None,
    }
}

fn logic(a: Value, b: Value, is_b: bool, is_a: bool) -> Option<Value> {
    match (is_b, is_a) {
        (true, _) => Some(b),
        (_, true) => Some(a),
        _ => None,
    }
}
