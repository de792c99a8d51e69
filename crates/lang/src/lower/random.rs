//! Random numbers, by the hash that Warp uses (M. Jarzynski and M. Olano, Hash Functions for GPU Rendering, 2020), so that
//! one seed gives the same numbers here and there. The state is a uint32 variable that each draw replaces.

use bullet_ops::DType;

use super::value::{Data, Form, Val};
use super::{Lower, Result};
use crate::diag::Span;
use crate::ir::{Binary, Unary, Value};
use crate::syntax::ast::{Expr, ExprKind};

impl<'a> Lower<'a> {
    fn u32(&mut self, value: u32) -> Value {
        self.b.int(DType::U32, value.into())
    }

    /// One step of the generator PCG with its output permutation.
    fn pcg(&mut self, state: Value) -> Value {
        let (by, plus) = (self.u32(747_796_405), self.u32(2_891_336_453));
        let scaled = self.b.mul(state, by);
        let b = self.b.add(scaled, plus);
        let (n28, n4, n22, factor) = (self.u32(28), self.u32(4), self.u32(22), self.u32(277_803_737));
        let top = self.b.binary(Binary::Shr, b, n28);
        let count = self.b.add(top, n4);
        let shifted = self.b.binary(Binary::Shr, b, count);
        let mixed = self.b.binary(Binary::Xor, shifted, b);
        let c = self.b.mul(mixed, factor);
        let high = self.b.binary(Binary::Shr, c, n22);
        self.b.binary(Binary::Xor, high, c)
    }

    /// A number of [0, 1) in steps of 2^-24, from a state.
    fn unit(&mut self, state: Value) -> Value {
        let eight = self.u32(8);
        let high = self.b.binary(Binary::Shr, state, eight);
        let float = self.b.cast(DType::F32, high);
        let step = self.b.float(DType::F32, 1.0 / 16_777_216.0);
        self.b.mul(float, step)
    }

    /// A function of a random state; `None` if it has another name, or takes what these are not.
    pub(super) fn random_builtin(
        &mut self,
        span: Span,
        name: &str,
        exprs: &[Expr],
        args: &[Val],
    ) -> Result<Option<Val>> {
        if name == "rand_init" {
            return self.rand_init(span, args).map(Some);
        }
        let drawn = super::spatial::draws(name);
        let is_number = matches!(name, "randf" | "randi" | "randu" | "randn") && matches!(args.len(), 1 | 3);
        if !is_number && (drawn == 0 || args.len() != 1) {
            return Ok(None);
        }
        let (Val::Data(Data { form: Form::Scalar, dtype: DType::U32 }, parts), ExprKind::Name(variable)) =
            (&args[0], &exprs[0].kind)
        else {
            return self.error_hint(
                span,
                format!("`{name}` takes a variable that holds a random state"),
                "write `state = wp.rand_init(seed, i)` first",
            );
        };
        if drawn > 0 {
            let (mut state, mut numbers) = (parts[0], vec![]);
            for _ in 0..drawn {
                state = self.pcg(state);
                numbers.push(self.unit(state));
            }
            let new = Val::scalar(DType::U32, state);
            self.name_parts(*variable, &new);
            self.env.set(*variable, new);
            return Ok(self.sample(name, &numbers));
        }
        let state = self.pcg(parts[0]);
        let state = if name == "randn" { self.pcg(state) } else { state };
        let value = match (name, args.len()) {
            ("randf", 1) => self.unit(state),
            ("randf", _) => {
                let (low, high) = self.bounds(span, args, DType::F32)?;
                let (unit, range) = (self.unit(state), self.b.sub(high, low));
                let scaled = self.b.mul(range, unit);
                self.b.add(scaled, low)
            }
            ("randi", 1) => self.b.cast(DType::I32, state),
            ("randu", 1) => state,
            ("randi" | "randu", _) => {
                let dtype = if name == "randi" { DType::I32 } else { DType::U32 };
                let (low, high) = self.bounds(span, args, dtype)?;
                let range = self.b.sub(high, low);
                let range = self.b.cast(DType::U32, range);
                let rest = self.b.binary(Binary::Mod, state, range);
                let low = self.b.cast(DType::U32, low);
                let sum = self.b.add(rest, low);
                self.b.cast(dtype, sum)
            }
            ("randn", 1) => {
                // Box and Muller, of the first draw and the second.
                let first = self.pcg(parts[0]);
                let (u, v) = (self.unit(first), self.unit(state));
                let epsilon = self.b.float(DType::F32, 5.96e-8);
                let u = self.b.add(u, epsilon);
                let (minus_two, turn) =
                    (self.b.float(DType::F32, -2.0), self.b.float(DType::F32, std::f64::consts::TAU));
                let log = self.b.unary(Unary::Log, u);
                let square = self.b.mul(minus_two, log);
                let (radius, angle) = (self.b.unary(Unary::Sqrt, square), self.b.mul(turn, v));
                let cos = self.b.unary(Unary::Cos, angle);
                self.b.mul(radius, cos)
            }
            _ => return Ok(None),
        };
        let new = Val::scalar(DType::U32, state);
        self.name_parts(*variable, &new);
        self.env.set(*variable, new);
        Ok(Some(self.val(value)))
    }

    fn bounds(&mut self, span: Span, args: &[Val], dtype: DType) -> Result<(Value, Value)> {
        let low = self.scalar_of(span, args[1].clone(), dtype)?;
        Ok((low, self.scalar_of(span, args[2].clone(), dtype)?))
    }

    fn rand_init(&mut self, span: Span, args: &[Val]) -> Result<Val> {
        let mut values = vec![];
        for arg in args {
            let int = self.scalar_of(span, arg.clone(), DType::I32)?;
            values.push(self.b.cast(DType::U32, int));
        }
        let state = match values[..] {
            [seed] => self.pcg(seed),
            [seed, offset] => {
                let mixed = self.pcg(offset);
                let sum = self.b.add(seed, mixed);
                self.pcg(sum)
            }
            _ => return self.error(span, "`rand_init` takes a seed, and perhaps an offset"),
        };
        Ok(self.val(state))
    }
}
