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
//! **Values.** All values of one evaluation have one type: i64, f32 or f64 ([`DType::compute`](crate::DType::compute)).
//! A comparison gives 0 or 1 in that type, and a condition is true where it is not 0.

use std::cell::RefCell;
use std::ops::{Add, Div, Mul, Neg, Sub};

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
            Unary::Erf => erf(x),
            Unary::Floor => x.floor(),
            Unary::Ceil => x.ceil(),
            Unary::Round => x.round_ties_even(),
            Unary::Not => f64::from(x == 0.0),
        }
    }
}

impl Binary {
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
        }
    }
}

/// The error function to a few ulps of f64. Near 0, `2/sqrt(pi) e^(-x^2) * sum of 2^n x^(2n+1) / (1 * 3 * .. * (2n + 1))`,
/// whose terms all have one sign, so that nothing cancels; beyond, the continued fraction of erfc (Abramowitz and Stegun
/// 7.1.6 and 7.1.14).
pub fn erf(x: f64) -> f64 {
    let a = x.abs();
    if a.is_nan() || a < 1.5 {
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term.abs() > 1e-17 * sum.abs() && n < 100.0 {
            n += 1.0;
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            sum += term;
        }
        return sum * (-x * x).exp() * std::f64::consts::FRAC_2_SQRT_PI;
    }
    if a > 6.0 {
        return x.signum();
    }
    let fraction = (1..=150).rev().fold(a, |f, k| a + 0.5 * f64::from(k) / f);
    let erfc = (-a * a).exp() / (fraction * std::f64::consts::PI.sqrt());
    x.signum() * (1.0 - erfc)
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
        ceil Ceil, round Round;
    binary pow Pow, max Max, min Min, lt Lt, le Le, eq Eq, and And, or Or
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

    #[test]
    fn erf_matches_published_values() {
        // Abramowitz and Stegun, table 7.1, and symmetry.
        for (x, want) in [(0.5, 0.5204998778130465), (1.0, 0.8427007929497149), (2.0, 0.9953222650189527)] {
            assert!((erf(x) - want).abs() < 1e-15);
            assert!((erf(-x) + want).abs() < 1e-15);
        }
        assert!((erf(3.0) - 0.9999779095030014).abs() < 1e-15);
        assert!((erf(2.4999999) - erf(2.5000001)).abs() < 1e-9);
        assert_eq!(erf(0.0), 0.0);
        assert!(erf(f64::NAN).is_nan());
    }
}
