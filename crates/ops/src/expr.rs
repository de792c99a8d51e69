//! Scalar expressions: what an elementwise op computes, as data.
//!
//! An [`Expr`] is a short program in SSA form over a few scalar primitives ([`Unary`], [`Binary`], select). The op table
//! states each elementwise op and its adjoint as one; the CPU evaluates it over blocks of elements, CUDA source is
//! printed from it, and [`Expr::eval`] is the f64 oracle of both. It is written with ordinary operators:
//!
//! ```
//! use bullet_ops::expr::Expr;
//! let silu = Expr::build(1, |x| x[0] / (1.0 + (-x[0]).exp()));
//! assert_eq!(silu.eval(&[0.0]), 0.0);
//! ```
//!
//! **Values.** All values of one evaluation have one type: i64, u64, f32 or f64
//! ([`DType::compute`](crate::DType::compute)). A comparison gives 0 or 1 in that type, and a condition is true where it is not 0.

use std::cell::RefCell;
use std::ops::{Add, Div, Mul, Neg, Sub};

use crate::scalar::{self, Division, Fraction, Integer};

/// Index of a value in an [`Expr`]'s program.
pub type Id = u16;

/// Primitives of one argument.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Unary {
    /// `-x`.
    Neg,
    /// `|x|`.
    Abs,
    /// `e^x`.
    Exp,
    /// Natural logarithm.
    Log,
    /// Square root.
    Sqrt,
    /// `1 / sqrt(x)`.
    Rsqrt,
    /// Sine, of radians.
    Sin,
    /// Cosine, of radians.
    Cos,
    /// Hyperbolic tangent.
    Tanh,
    /// Error function, `2/sqrt(pi) * integral of e^(-t^2) from 0 to x`.
    Erf,
    /// Largest integer not above `x`.
    Floor,
    /// Smallest integer not below `x`.
    Ceil,
    /// Nearest integer, ties to even, as NumPy rounds.
    Round,
    /// 1 where `x` is 0, else 0.
    Not,
    /// Tangent, of radians.
    Tan,
    /// Inverse sine, in radians; NaN outside of -1..=1.
    Asin,
    /// Inverse cosine, in radians; NaN outside of -1..=1.
    Acos,
    /// Inverse tangent, in radians.
    Atan,
    /// Hyperbolic sine.
    Sinh,
    /// Hyperbolic cosine.
    Cosh,
    /// Inverse hyperbolic sine.
    Asinh,
    /// Inverse hyperbolic cosine; NaN below 1.
    Acosh,
    /// Inverse hyperbolic tangent; NaN outside of -1..=1.
    Atanh,
    /// `e^x - 1`, with all its digits near 0.
    Expm1,
    /// Logarithm of `1 + x`, with all its digits near 0.
    Log1p,
    /// Logarithm to base 2; exact of powers of 2.
    Log2,
    /// Logarithm to base 10.
    Log10,
    /// `x` without its fraction.
    Trunc,
    /// Every bit of an integer inverted: `-1 - x`.
    Invert,
}

/// Primitives of two arguments.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Binary {
    /// `a + b`; integers wrap.
    Add,
    /// `a - b`; integers wrap.
    Sub,
    /// `a * b`; integers wrap.
    Mul,
    /// `a / b`; integers truncate, and division by 0 gives 0.
    Div,
    /// `a` to the power `b`; an integer to a negative power is 0.
    Pow,
    /// The larger; NaN if either is.
    Max,
    /// The smaller; NaN if either is.
    Min,
    /// `a < b`.
    Lt,
    /// `a <= b`.
    Le,
    /// `a == b`.
    Eq,
    /// Both true.
    And,
    /// Either true.
    Or,
    /// The largest whole number not above `a / b`; see [`Division::floor_divide`].
    FloorDiv,
    /// What that leaves, with the sign of `b`; see [`Division::remainder`].
    Rem,
    /// The angle of the point (`b`, `a`), in radians.
    Atan2,
    /// `sqrt(a^2 + b^2)` without overflow; infinite if either is, even if the other is NaN.
    Hypot,
    /// `a` with the sign of `b`.
    CopySign,
    /// The next number of the type computed in from `a` towards `b`.
    NextAfter,
    /// Bits of integers that both have.
    BitAnd,
    /// Bits of integers that either has.
    BitOr,
    /// Bits of integers that one has.
    BitXor,
    /// `a * 2^b`; see [`Integer::shift_left`].
    Shl,
    /// `a / 2^b`, rounded down; see [`Integer::shift_right`].
    Shr,
}

/// One instruction; arguments are [`Id`]s of earlier ones.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Node {
    /// The `n`-th input.
    Input(u8),
    /// A constant.
    Const(f64),
    /// A primitive of one argument.
    Unary(Unary, Id),
    /// A primitive of two arguments.
    Binary(Binary, Id, Id),
    /// `if condition { a } else { b }`.
    Select(Id, Id, Id),
}

impl Node {
    /// The values this instruction reads.
    pub fn args(self) -> impl Iterator<Item = Id> {
        let args = match self {
            Node::Input(_) | Node::Const(_) => [None; 3],
            Node::Unary(_, a) => [Some(a), None, None],
            Node::Binary(_, a, b) => [Some(a), Some(b), None],
            Node::Select(c, a, b) => [Some(c), Some(a), Some(b)],
        };
        args.into_iter().flatten()
    }
}

/// A scalar function of some inputs, as a program without dead or repeated instructions.
#[derive(Clone, PartialEq, Debug)]
pub struct Expr {
    inputs: usize,
    nodes: Vec<Node>,
}

impl Expr {
    /// Builds the expression that `f` writes over `inputs` inputs.
    pub fn build(inputs: usize, f: impl FnOnce(&[V]) -> V) -> Expr {
        let mut exprs = Expr::build_many(inputs, |x| vec![f(x)]);
        exprs.pop().expect("one output was given")
    }

    /// Builds several expressions over the same inputs.
    pub fn build_many(inputs: usize, f: impl FnOnce(&[V]) -> Vec<V>) -> Vec<Expr> {
        let outer = ARENA.with_borrow_mut(std::mem::take);
        let args: Vec<V> = (0..inputs).map(|i| V::push(Node::Input(i as u8))).collect();
        let outputs = f(&args);
        let nodes = ARENA.with_borrow_mut(|arena| std::mem::replace(arena, outer));
        outputs.into_iter().map(|v| Expr { inputs, nodes: live(&nodes, v.0) }).collect()
    }

    /// The program; its value is that of the last instruction.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Number of inputs it was built over, used or not.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Whether the value depends on input `i`.
    pub fn uses(&self, i: usize) -> bool {
        self.nodes.iter().any(|n| matches!(n, Node::Input(j) if *j as usize == i))
    }

    /// `Some(i)` if the expression is just input `i`.
    pub fn as_input(&self) -> Option<usize> {
        match self.nodes[..] {
            [Node::Input(i)] => Some(i as usize),
            _ => None,
        }
    }

    /// `Some(c)` if the expression is just the constant `c`.
    pub fn as_const(&self) -> Option<f64> {
        match self.nodes[..] {
            [Node::Const(c)] => Some(c),
            _ => None,
        }
    }

    /// The value for these inputs, in f64 throughout: the oracle of every other evaluator.
    pub fn eval(&self, inputs: &[f64]) -> f64 {
        assert_eq!(inputs.len(), self.inputs);
        let mut v: Vec<f64> = Vec::with_capacity(self.nodes.len());
        for &node in &self.nodes {
            let value = match node {
                Node::Input(i) => inputs[i as usize],
                Node::Const(c) => c,
                Node::Unary(op, a) => op.eval(v[a as usize]),
                Node::Binary(op, a, b) => op.eval(v[a as usize], v[b as usize]),
                Node::Select(c, a, b) => v[if v[c as usize] != 0.0 { a } else { b } as usize],
            };
            v.push(value);
        }
        v[v.len() - 1]
    }
}

impl Unary {
    /// Whether it takes about as long as an addition.
    pub fn is_cheap(self) -> bool {
        matches!(self, Unary::Neg | Unary::Abs | Unary::Not | Unary::Invert)
    }

    /// The primitive in f64.
    pub fn eval(self, x: f64) -> f64 {
        match self {
            Unary::Neg => -x,
            Unary::Abs => x.abs(),
            Unary::Exp => x.exp(),
            Unary::Log => x.ln(),
            Unary::Sqrt => x.sqrt(),
            Unary::Rsqrt => 1.0 / x.sqrt(),
            Unary::Sin => x.sin(),
            Unary::Cos => x.cos(),
            Unary::Tanh => x.tanh(),
            Unary::Erf => scalar::erf(x),
            Unary::Floor => x.floor(),
            Unary::Ceil => x.ceil(),
            Unary::Round => x.round_ties_even(),
            Unary::Not => f64::from(x == 0.0),
            Unary::Tan => x.tan(),
            Unary::Asin => x.asin(),
            Unary::Acos => x.acos(),
            Unary::Atan => x.atan(),
            Unary::Sinh => x.sinh(),
            Unary::Cosh => x.cosh(),
            Unary::Asinh => scalar::asinh(x),
            Unary::Acosh => scalar::acosh(x),
            Unary::Atanh => scalar::atanh(x),
            Unary::Expm1 => x.exp_m1(),
            Unary::Log1p => x.ln_1p(),
            Unary::Log2 => x.log2(),
            Unary::Log10 => x.log10(),
            Unary::Trunc => x.trunc(),
            Unary::Invert => !(x as i64) as f64,
        }
    }
}

impl Binary {
    /// Whether it takes about as long as an addition.
    pub fn is_cheap(self) -> bool {
        use Binary::{Atan2, Div, FloorDiv, Hypot, NextAfter, Pow, Rem};
        !matches!(self, Div | Pow | FloorDiv | Rem | Atan2 | Hypot | NextAfter)
    }

    /// The primitive in f64.
    pub fn eval(self, a: f64, b: f64) -> f64 {
        match self {
            Binary::Add => a + b,
            Binary::Sub => a - b,
            Binary::Mul => a * b,
            Binary::Div => a / b,
            Binary::Pow => a.powf(b),
            Binary::Max if a.is_nan() || b.is_nan() => f64::NAN,
            Binary::Max => a.max(b),
            Binary::Min if a.is_nan() || b.is_nan() => f64::NAN,
            Binary::Min => a.min(b),
            Binary::Lt => f64::from(a < b),
            Binary::Le => f64::from(a <= b),
            Binary::Eq => f64::from(a == b),
            Binary::And => f64::from(a != 0.0 && b != 0.0),
            Binary::Or => f64::from(a != 0.0 || b != 0.0),
            Binary::FloorDiv => a.floor_divide(b),
            Binary::Rem => a.remainder(b),
            Binary::Atan2 => a.atan2(b),
            Binary::Hypot => a.hypot(b),
            Binary::CopySign => a.copysign(b),
            Binary::NextAfter => a.next_after(b),
            Binary::BitAnd => (a as i64 & b as i64) as f64,
            Binary::BitOr => (a as i64 | b as i64) as f64,
            Binary::BitXor => (a as i64 ^ b as i64) as f64,
            Binary::Shl => (a as i64).shift_left(b as i64) as f64,
            Binary::Shr => (a as i64).shift_right(b as i64) as f64,
        }
    }
}

thread_local! {
    /// Where the [`V`]s of the expression under construction live.
    static ARENA: RefCell<Vec<Node>> = const { RefCell::new(Vec::new()) };
}

/// The part of `nodes` that `root` needs, renumbered.
fn live(nodes: &[Node], root: Id) -> Vec<Node> {
    let mut needed = vec![false; nodes.len()];
    needed[root as usize] = true;
    for i in (0..=root as usize).rev().filter(|&i| i < nodes.len()) {
        if needed[i] {
            nodes[i].args().for_each(|a| needed[a as usize] = true);
        }
    }
    let mut place = vec![0; nodes.len()];
    let mut out = Vec::new();
    for (i, &node) in nodes.iter().enumerate().take(root as usize + 1).filter(|(i, _)| needed[*i]) {
        let at = |id: Id| place[id as usize];
        out.push(match node {
            Node::Input(_) | Node::Const(_) => node,
            Node::Unary(op, a) => Node::Unary(op, at(a)),
            Node::Binary(op, a, b) => Node::Binary(op, at(a), at(b)),
            Node::Select(c, a, b) => Node::Select(at(c), at(a), at(b)),
        });
        place[i] = (out.len() - 1) as Id;
    }
    out
}

/// A value of the expression under construction; only meaningful inside [`Expr::build`].
#[derive(Clone, Copy, Debug)]
pub struct V(Id);

impl V {
    fn push(node: Node) -> V {
        ARENA.with_borrow_mut(|nodes| {
            // The program is short; a scan finds common subexpressions.
            let at = nodes.iter().position(|&n| n == node).unwrap_or_else(|| {
                nodes.push(node);
                nodes.len() - 1
            });
            V(at as Id)
        })
    }

    /// `if self != 0 { a } else { b }`.
    pub fn select(self, a: impl Into<V>, b: impl Into<V>) -> V {
        V::push(Node::Select(self.0, a.into().0, b.into().0))
    }

    /// `self * self`.
    pub fn square(self) -> V {
        self * self
    }

    /// 1 / (1 + e^-x).
    pub fn sigmoid(self) -> V {
        1.0 / (1.0 + (-self).exp())
    }
}

macro_rules! methods {
    (unary $($name:ident $op:ident),*; binary $($bname:ident $bop:ident),*) => {
        impl V {
            $(#[doc = concat!("[`Unary::", stringify!($op), "`] of this.")]
            pub fn $name(self) -> V { V::push(Node::Unary(Unary::$op, self.0)) })*
            $(#[doc = concat!("[`Binary::", stringify!($bop), "`] of this and `b`.")]
            pub fn $bname(self, b: impl Into<V>) -> V { V::push(Node::Binary(Binary::$bop, self.0, b.into().0)) })*
        }
    };
}
methods! {
    unary abs Abs, exp Exp, log Log, sqrt Sqrt, rsqrt Rsqrt, sin Sin, cos Cos, tanh Tanh, erf Erf, floor Floor,
        ceil Ceil, round Round, tan Tan, asin Asin, acos Acos, atan Atan, sinh Sinh, cosh Cosh, asinh Asinh, acosh Acosh,
        atanh Atanh, expm1 Expm1, log1p Log1p, log2 Log2, log10 Log10, trunc Trunc, invert Invert;
    binary pow Pow, max Max, min Min, lt Lt, le Le, eq Eq, and And, or Or, floor_divide FloorDiv, remainder Rem,
        atan2 Atan2, hypot Hypot, copysign CopySign, next_after NextAfter, bit_and BitAnd, bit_or BitOr, bit_xor BitXor,
        shift_left Shl, shift_right Shr
}

impl From<f64> for V {
    fn from(c: f64) -> V {
        V::push(Node::Const(c))
    }
}

impl Neg for V {
    type Output = V;
    fn neg(self) -> V {
        V::push(Node::Unary(Unary::Neg, self.0))
    }
}

impl std::ops::Not for V {
    type Output = V;
    fn not(self) -> V {
        V::push(Node::Unary(Unary::Not, self.0))
    }
}

macro_rules! operators {
    ($($Trait:ident $method:ident),*) => {$(
        impl $Trait<V> for V {
            type Output = V;
            fn $method(self, b: V) -> V { V::push(Node::Binary(Binary::$Trait, self.0, b.0)) }
        }
        impl $Trait<f64> for V {
            type Output = V;
            fn $method(self, b: f64) -> V { $Trait::$method(self, V::from(b)) }
        }
        impl $Trait<V> for f64 {
            type Output = V;
            fn $method(self, b: V) -> V { $Trait::$method(V::from(self), b) }
        }
    )*};
}
operators!(Add add, Sub sub, Mul mul, Div div);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_and_repeated_values_vanish() {
        let e = Expr::build(2, |x| {
            let _dead = x[1].exp();
            (x[0] * x[0]) + (x[0] * x[0])
        });
        assert_eq!(e.nodes().len(), 3);
        assert!(e.uses(0) && !e.uses(1));
        assert_eq!(e.eval(&[3.0, 0.0]), 18.0);
    }

    #[test]
    fn building_inside_building_keeps_both_apart() {
        let outer = Expr::build(1, |x| {
            let inner = Expr::build(1, |y| y[0].exp());
            assert_eq!(inner.nodes().len(), 2);
            x[0] + 1.0
        });
        assert_eq!(outer.eval(&[1.0]), 2.0);
    }

    #[test]
    fn constants_and_inputs_are_recognised() {
        assert_eq!(Expr::build(3, |x| x[2]).as_input(), Some(2));
        assert_eq!(Expr::build(0, |_| 4.0.into()).as_const(), Some(4.0));
        assert_eq!(Expr::build(1, |x| -x[0]).as_input(), None);
    }
}
