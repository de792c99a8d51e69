//! The invariants of a kernel, checked. Passes run between two checks in tests and debug builds.
//!
//! - Every operand is a constant, a parameter, an argument of a block around the user, or a result of an instruction that
//!   stands before it in its block or in one around it; instructions and blocks have one owner.
//! - Operands and results have the types that [`Op`] says; array references are parameters or allocations, and only the
//!   first operands of memory ops.
//! - A `for` counts in i32 or i64, in which its way back can count below 0.
//! - What a block yields has the types of what its owner gives or carries.
//! - The body has neither arguments nor yields.

use std::fmt;

use bullet_ops::DType;

use super::{ArrayType, Block, Inst, Kernel, Op, Space, Type, Value};

/// What is wrong with a kernel; a mistake of a pass, never of a user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifyError(String);

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for VerifyError {}

type Result<T = ()> = std::result::Result<T, VerifyError>;

const BOOL: Type = Type::Scalar(DType::Bool);
const I32: Type = Type::Scalar(DType::I32);

struct Verifier<'a> {
    kernel: &'a Kernel,
    visible: Vec<bool>,
    /// In the order in which they became visible, to hide them at the end of their block.
    scope: Vec<Value>,
    seen: Vec<bool>,
}

impl Kernel {
    /// Checks the invariants.
    ///
    /// # Errors
    /// The first instruction that breaks one, and how.
    pub fn verify(&self) -> Result {
        let mut verifier = Verifier {
            kernel: self,
            visible: vec![false; self.values.len()],
            scope: vec![],
            seen: vec![false; self.blocks.len()],
        };
        for (i, value) in self.values.iter().enumerate() {
            verifier.visible[i] = matches!(value.def, super::Def::Const(_));
        }
        for &param in &self.params {
            verifier.visible[param.index()] = true;
        }
        let body = self.block(self.body);
        if !body.args.is_empty() || !body.yields.is_empty() {
            return Err(VerifyError("the body has arguments or yields".into()));
        }
        if !(1..=4).contains(&self.grid) {
            return Err(VerifyError(format!("the grid has {} dimensions, not 1 to 4", self.grid)));
        }
        verifier.block(self.body, &[])
    }
}

impl Verifier<'_> {
    fn types(&self, values: &[Value]) -> Vec<Type> {
        values.iter().map(|&value| self.kernel.ty(value)).collect()
    }

    fn fail<T>(&self, inst: Inst, message: impl fmt::Display) -> Result<T> {
        let data = self.kernel.inst(inst);
        let name = super::print::mnemonic(data.op);
        let args = self.types(&data.args).iter().map(Type::to_string).collect::<Vec<_>>().join(", ");
        Err(VerifyError(format!("instruction {} `{name} {args}`: {message}", inst.0)))
    }

    fn show(&mut self, value: Value) {
        self.visible[value.index()] = true;
        self.scope.push(value);
    }

    /// A block that must yield these types.
    fn block(&mut self, block: Block, yields: &[Type]) -> Result {
        if std::mem::replace(&mut self.seen[block.index()], true) {
            return Err(VerifyError(format!("block {} has two owners", block.0)));
        }
        let data = self.kernel.block(block);
        let outer = self.scope.len();
        for &arg in &data.args {
            self.show(arg);
        }
        for &inst in &data.insts {
            self.inst(inst)?;
            for &result in &self.kernel.inst(inst).results {
                self.show(result);
            }
        }
        if let Some(hidden) = data.yields.iter().find(|value| !self.visible[value.index()]) {
            return Err(VerifyError(format!(
                "block {} yields value {}, which it does not see",
                block.0, hidden.0
            )));
        }
        if self.types(&data.yields) != yields {
            return Err(VerifyError(format!(
                "block {} yields {:?}, its owner takes {yields:?}",
                block.0,
                self.types(&data.yields)
            )));
        }
        for value in self.scope.drain(outer..) {
            self.visible[value.index()] = false;
        }
        Ok(())
    }

    fn inst(&mut self, inst: Inst) -> Result {
        let data = self.kernel.inst(inst);
        if let Some(hidden) = data.args.iter().find(|value| !self.visible[value.index()]) {
            return self.fail(inst, format!("operand {} is not visible", hidden.0));
        }
        let args = self.types(&data.args);
        let results = self.types(&data.results);
        let first_array =
            matches!(data.op, Op::Dim(_) | Op::Load | Op::Store | Op::Atomic(_) | Op::CompareExchange);
        if args.iter().skip(usize::from(first_array)).any(|ty| ty.array().is_some()) {
            return self.fail(inst, "an array is an operand");
        }
        let expected = self.signature(inst, &args, &results)?;
        if results != expected {
            return self.fail(inst, format!("gives {results:?}, expected {expected:?}"));
        }
        Ok(())
    }

    /// The types of the results, once operands and blocks are right.
    fn signature(&mut self, inst: Inst, args: &[Type], results: &[Type]) -> Result<Vec<Type>> {
        let data = self.kernel.inst(inst);
        let scalar = |i: usize| args.get(i).and_then(|ty| ty.scalar());
        let good = |ok: bool, result: Vec<Type>| -> Result<Vec<Type>> {
            if ok { Ok(result) } else { self.fail(inst, "wrong operands") }
        };
        match data.op {
            Op::Tid(axis) => good(args.is_empty() && axis < self.kernel.grid, vec![I32]),
            Op::Dim(axis) => good(matches!(args, [Type::Array(array)] if axis < array.ndim), vec![I32]),
            Op::Unary(op) => match scalar(0) {
                Some(dtype) if args.len() == 1 && op.takes(dtype) => Ok(vec![Type::Scalar(op.result(dtype))]),
                _ => self.fail(inst, "wrong operands"),
            },
            Op::Binary(op) => good(
                args.len() == 2 && args[0] == args[1] && scalar(0).is_some_and(|d| op.takes(d)),
                args[..1].into(),
            ),
            Op::Compare(op) => good(
                args.len() == 2 && args[0] == args[1] && scalar(0).is_some_and(|d| op.takes(d)),
                vec![BOOL],
            ),
            Op::Select => good(args.len() == 3 && args[0] == BOOL && args[1] == args[2], args[1..2].into()),
            Op::Cast => good(args.len() == 1 && results.len() == 1, results.into()),
            Op::Bitcast => {
                let size = |ty: Option<&Type>| ty.and_then(|ty| ty.scalar()).map(DType::size);
                good(args.len() == 1 && size(args.first()) == size(results.first()), results.into())
            }
            Op::Load | Op::Store | Op::Atomic(_) | Op::CompareExchange => self.memory(inst, args),
            Op::Alloc(count) => {
                let fits = |array: &ArrayType| {
                    array.space != Space::Global && array.ndim == 1 && array.pitch == array.lanes
                };
                let ok =
                    matches!(results, [Type::Array(array)] if fits(array)) && args.is_empty() && count > 0;
                good(ok, results.into())
            }
            Op::If => {
                if args != [BOOL] || data.blocks.len() != 2 {
                    return self.fail(inst, "wrong operands");
                }
                self.block(data.blocks[0], results)?;
                self.block(data.blocks[1], results)?;
                Ok(results.into())
            }
            Op::For | Op::While => self.repeat(inst, args, results),
            Op::Custom(number) => {
                if data.blocks.len() != 1 + (number & 1) as usize + (number >> 1) as usize || number > 3 {
                    return self.fail(inst, "wrong blocks");
                }
                for (at, &block) in data.blocks.iter().enumerate() {
                    let is_gradient = at == 1 && number & 1 == 1;
                    let given = self.types(&self.kernel.block(block).args);
                    if given != if is_gradient { results } else { &[] } {
                        return self.fail(inst, "wrong arguments of a block");
                    }
                    self.block(block, if is_gradient { args } else { results })?;
                }
                Ok(results.into())
            }
            Op::Push(_) => good(args.len() == 1, vec![]),
            Op::Pop(_) => good(args.is_empty() && results.len() == 1, results.into()),
            Op::Turn => good(args.is_empty() || args == [Type::Scalar(DType::I64)], vec![]),
            Op::Barrier => good(args.is_empty(), vec![]),
            Op::Shuffle(_) => good(args.len() == 2 && args[1] == I32, args[..1].into()),
            Op::Print(_) => Ok(vec![]),
            Op::Assert(_) => good(args == [BOOL], vec![]),
            Op::Within(_) => good(args == [I32; 3], vec![]),
        }
    }

    fn memory(&self, inst: Inst, args: &[Type]) -> Result<Vec<Type>> {
        let Some(Type::Array(array)) = args.first() else { return self.fail(inst, "no array") };
        if array.pitch < array.lanes {
            return self.fail(inst, "elements overlap");
        }
        let (indices, lanes) = args[1..].split_at((array.ndim as usize).min(args.len() - 1));
        if indices.len() != array.ndim as usize || indices.iter().any(|&ty| ty != I32) {
            return self.fail(inst, "wrong indices");
        }
        let element = vec![Type::Scalar(array.dtype); array.lanes.into()];
        let (takes, gives) = match self.kernel.inst(inst).op {
            Op::Load => (vec![], element),
            Op::Store => (element, vec![]),
            Op::Atomic(op) if op.takes(array.dtype) => (element.clone(), element),
            Op::CompareExchange if array.lanes == 1 => (vec![element[0]; 2], element),
            _ => return self.fail(inst, "not of this dtype"),
        };
        if lanes == takes { Ok(gives) } else { self.fail(inst, "wrong lanes") }
    }

    fn repeat(&mut self, inst: Inst, args: &[Type], results: &[Type]) -> Result<Vec<Type>> {
        let data = self.kernel.inst(inst);
        let counted = data.op == Op::For;
        let bounds = if counted { 3 } else { 1 };
        let &[body] = &data.blocks[..] else { return self.fail(inst, "no body") };
        if args.len() < bounds {
            return self.fail(inst, "too few operands");
        }
        let (head, carried) = args.split_at(bounds);
        let int = matches!(head[0], Type::Scalar(DType::I32 | DType::I64));
        let head_fits = if counted { int && head.iter().all(|ty| *ty == head[0]) } else { head[0] == BOOL };
        let body_args = self.types(&self.kernel.block(body).args);
        let (index, body_carried) = body_args.split_at(usize::from(counted).min(body_args.len()));
        if !head_fits || (counted && index != &head[..1]) || body_carried != carried || results != carried {
            return self.fail(inst, "wrong operands");
        }
        let yields = if counted { carried.to_vec() } else { [&[BOOL], carried].concat() };
        self.block(body, &yields)?;
        Ok(results.into())
    }
}
