//! Warp's functions of spatial vectors, conversions of quaternions, points of random shapes, and vectors and matrices that are made
//! by a function.

use bullet_ops::DType;

use super::value::{Data, Form, Ty, Val};
use super::{Lower, Result};
use crate::diag::Span;
use crate::ir::{Binary, Compare, Unary, Value, Values};
use crate::syntax::ast::{Expr, ExprKind, Symbol};

/// The shapes that `sample_..` draws points of, and how many draws each takes.
const SHAPES: &[(&str, usize)] = &[
    ("sample_triangle", 2),
    ("sample_unit_ring", 1),
    ("sample_unit_disk", 2),
    ("sample_unit_sphere_surface", 2),
    ("sample_unit_sphere", 3),
    ("sample_unit_hemisphere_surface", 2),
    ("sample_unit_hemisphere", 3),
    ("sample_unit_square", 2),
    ("sample_unit_cube", 3),
    ("sample_unit_hypercube", 4),
];

/// How many random numbers a function draws; 0 if it draws none.
pub(super) fn draws(name: &str) -> usize {
    SHAPES.iter().find(|shape| shape.0 == name).map_or(0, |shape| shape.1)
}

impl<'a> Lower<'a> {
    /// `wp.identity(n, dtype)`, `wp.vector(.., length, dtype)`, `wp.matrix(.., shape, dtype)`; `None` if it has another name.
    pub(super) fn made_by_name(
        &mut self,
        span: Span,
        name: &str,
        args: &[Expr],
        keywords: &[(Symbol, Expr)],
    ) -> Result<Option<Val>> {
        let words: &[&str] = match name {
            "identity" => &["n", "dtype"],
            "vector" => &["length", "dtype"],
            "matrix" => &["shape", "dtype"],
            _ => return Ok(None),
        };
        if let Some((_, value)) = keywords.iter().find(|(key, _)| !words.contains(&self.text(*key))) {
            return self.error(value.span, format!("`{name}` takes {} by name", words.join(" and ")));
        }
        let named = |lower: &Self, word: &str| {
            keywords.iter().find(|(key, _)| lower.text(*key) == word).map(|pair| pair.1.clone())
        };
        if name == "identity" {
            let (n, dtype) =
                (named(self, "n").or(args.first().cloned()), named(self, "dtype").or(args.get(1).cloned()));
            let Some(n) = n else { return self.error(span, "`identity` needs a size") };
            let n = self.static_size(&n)?;
            let dtype = self.scalar_type(dtype.as_ref())?.unwrap_or(DType::F32);
            let (zero, one) = (self.b.zero(dtype), self.number_one(dtype));
            let size = usize::from(n);
            let parts = (0..size * size).map(|at| if at / size == at % size { one } else { zero }).collect();
            return Ok(Some(Val::Data(Data { form: Form::Mat(n, n), dtype }, parts)));
        }
        let dtype = named(self, "dtype");
        let given = self.scalar_type(dtype.as_ref())?;
        let mut values = vec![];
        for arg in args {
            values.push(self.expr(arg)?);
        }
        let form = match (named(self, "length"), named(self, "shape")) {
            (Some(length), _) => Form::Vec(self.static_size(&length)?),
            (_, Some(shape)) => match &shape.kind {
                ExprKind::Tuple(items) if items.len() == 2 => {
                    Form::Mat(self.static_size(&items[0])?, self.static_size(&items[1])?)
                }
                _ => return self.error(shape.span, "the shape of a matrix is two sizes"),
            },
            // As many as numbers are given, or another vector or matrix.
            (None, None) => match &values[..] {
                [Val::Data(data, _)] if data.form != Form::Scalar => data.form,
                values if name == "vector" && !values.is_empty() => Form::Vec(values.len() as u16),
                _ => return self.error(span, format!("`{name}` needs a {}", words[0])),
            },
        };
        let found = values.iter().find_map(|value| match value {
            Val::Data(data, _) => Some(data.dtype),
            _ => None,
        });
        let dtype = given.or(found).unwrap_or(DType::F32);
        self.b.span = span;
        self.construct_data(span, Data { form, dtype }, values).map(Some)
    }

    fn static_size(&mut self, expr: &Expr) -> Result<u16> {
        match self.static_int(expr)? {
            n @ 1..=64 => Ok(n as u16),
            n => self
                .error(expr.span, format!("vectors and matrices have 1 to 64 elements a dimension, not {n}")),
        }
    }

    fn scalar_type(&mut self, expr: Option<&Expr>) -> Result<Option<DType>> {
        let Some(expr) = expr else { return Ok(None) };
        match self.resolve_type(expr)? {
            Ty::Data(Data { form: Form::Scalar, dtype }) => Ok(Some(dtype)),
            other => {
                let found = self.ty_name(other);
                self.error(expr.span, format!("expected a scalar type, found {found}"))
            }
        }
    }

    fn number_one(&mut self, dtype: DType) -> Value {
        if dtype.is_float() { self.b.float(dtype, 1.0) } else { self.b.int(dtype, 1) }
    }

    /// A function of spatial vectors, which hold an angular and a linear part; `None` if it has another name, or takes what
    /// these are not.
    pub(super) fn spatial_builtin(&mut self, name: &str, args: &[Val]) -> Option<Val> {
        let six = |value: &Val| match value {
            Val::Data(data @ Data { form: Form::Vec(6), .. }, parts) if data.dtype.is_float() => {
                Some((*data, parts.clone()))
            }
            _ => None,
        };
        let (data, a) = six(args.first()?)?;
        let three = Data { form: Form::Vec(3), ..data };
        let (top, bottom) = (&a[..3], &a[3..]);
        match (name, &args[1..]) {
            ("spatial_top", []) => return Some(Val::Data(three, top.into())),
            ("spatial_bottom", []) => return Some(Val::Data(three, bottom.into())),
            _ => {}
        }
        let [other] = &args[1..] else { return None };
        let (same, b) = six(other)?;
        if same != data {
            return None;
        }
        match name {
            "spatial_dot" => {
                let value = self.dot(&a, &b);
                Some(self.val(value))
            }
            "spatial_cross" | "spatial_cross_dual" => {
                let (first, second) = (self.cross(top, &b[..3]), self.cross(top, &b[3..]));
                let third = match name {
                    "spatial_cross" => self.cross(bottom, &b[..3]),
                    _ => self.cross(bottom, &b[3..]),
                };
                let mut add = |x: &Values, y: &Values| -> Values {
                    x.iter().zip(y).map(|(&x, &y)| self.b.add(x, y)).collect()
                };
                let parts = match name {
                    "spatial_cross" => first.iter().copied().chain(add(&third, &second)).collect(),
                    _ => add(&first, &third).into_iter().chain(second).collect(),
                };
                Some(Val::Data(data, parts))
            }
            _ => None,
        }
    }

    /// The axis and angle of a rotation, the shorter way.
    pub(super) fn quat_to_axis_angle(&mut self, q: &[Value]) -> (Values, Value) {
        let axis = self.normalize(&q[..3]);
        let dtype = self.b.kernel.dtype(q[3]);
        let (zero, two) = (self.b.float(dtype, 0.0), self.b.float(dtype, 2.0));
        let negative = self.b.compare(Compare::Lt, q[3], zero);
        let axis = axis
            .iter()
            .map(|&part| {
                let other = self.b.neg(part);
                self.b.select(negative, other, part)
            })
            .collect();
        // The slope of the length at 0, where it has none, is 0.
        let (square, real) = (self.dot(&q[..3], &q[..3]), self.b.unary(Unary::Abs, q[3]));
        let (turns, length) = (self.b.compare(Compare::Gt, square, zero), self.b.unary(Unary::Sqrt, square));
        let length = self.b.select(turns, length, zero);
        let half = self.b.binary(Binary::Atan2, length, real);
        (axis, self.b.mul(two, half))
    }

    /// Of Euler angles about x, y and z.
    pub(super) fn quat_rpy(&mut self, angles: [Value; 3]) -> Values {
        let dtype = self.b.kernel.dtype(angles[0]);
        let half = self.b.float(dtype, 0.5);
        let [(cr, sr), (cp, sp), (cy, sy)] = angles.map(|angle| {
            let angle = self.b.mul(angle, half);
            (self.b.unary(Unary::Cos, angle), self.b.unary(Unary::Sin, angle))
        });
        let mut terms = |a: [Value; 3], b: [Value; 3], minus: bool| {
            let [left, right] = [a, b].map(|[x, y, z]| {
                let product = self.b.mul(x, y);
                self.b.mul(product, z)
            });
            if minus { self.b.sub(left, right) } else { self.b.add(left, right) }
        };
        let parts = [
            terms([cy, sr, cp], [sy, cr, sp], true),
            terms([cy, cr, sp], [sy, sr, cp], false),
            terms([sy, cr, cp], [cy, sr, sp], true),
            terms([cy, cr, cp], [sy, sr, sp], false),
        ];
        parts.into_iter().collect()
    }

    /// From one rotation to another along the shorter way.
    pub(super) fn quat_slerp(&mut self, a: &[Value], b: &[Value], t: Value) -> Values {
        let inverse = self.quat_inverse(a);
        let way = self.quat_product(&inverse, b);
        let (axis, angle) = self.quat_to_axis_angle(&way);
        let part = self.b.mul(t, angle);
        let turned = self.quat_from_axis_angle(&axis, part);
        self.quat_product(a, &turned)
    }

    /// Of a rotation matrix of `n` columns, by the largest of its squares.
    pub(super) fn quat_from_matrix(&mut self, m: &[Value], n: usize) -> Values {
        let dtype = self.b.kernel.dtype(m[0]);
        let (zero, one, half) =
            (self.b.float(dtype, 0.0), self.b.float(dtype, 1.0), self.b.float(dtype, 0.5));
        let at = |row: usize, column: usize| m[row * n + column];
        let sum = self.b.add(at(0, 0), at(1, 1));
        let trace = self.b.add(sum, at(2, 2));
        let square = self.b.add(trace, one);
        let root = self.b.unary(Unary::Sqrt, square);
        let (w, by) = (self.b.mul(half, root), self.b.div(half, root));
        let [x, y, z] = [(at(2, 1), at(1, 2)), (at(0, 2), at(2, 0)), (at(1, 0), at(0, 1))].map(|(x, y)| {
            let way = self.b.sub(x, y);
            self.b.mul(way, by)
        });
        let mut best = [x, y, z, w];
        let mut choices = vec![];
        for first in 0..3 {
            let (second, third) = ((first + 1) % 3, (first + 2) % 3);
            let others = self.b.add(at(second, second), at(third, third));
            let square = self.b.sub(at(first, first), others);
            let square = self.b.add(square, one);
            let root = self.b.unary(Unary::Sqrt, square);
            let (own, by) = (self.b.mul(half, root), self.b.div(half, root));
            let mut parts = [own; 4];
            for (place, x, y, minus) in [
                (second, at(first, second), at(second, first), false),
                (third, at(third, first), at(first, third), false),
                (3, at(third, second), at(second, third), true),
            ] {
                let sum = if minus { self.b.sub(x, y) } else { self.b.add(x, y) };
                parts[place] = self.b.mul(sum, by);
            }
            choices.push(parts);
        }
        let positive = self.b.compare(Compare::Ge, trace, zero);
        let second = self.b.compare(Compare::Gt, at(1, 1), at(0, 0));
        let larger = self.b.select(second, at(1, 1), at(0, 0));
        let third = self.b.compare(Compare::Gt, at(2, 2), larger);
        for (place, part) in best.iter_mut().enumerate() {
            let other = self.b.select(second, choices[1][place], choices[0][place]);
            let other = self.b.select(third, choices[2][place], other);
            *part = self.b.select(positive, *part, other);
        }
        self.normalize(&best)
    }

    /// A point of a random shape, of numbers of [0, 1).
    pub(super) fn sample(&mut self, name: &str, u: &[Value]) -> Option<Val> {
        let f32 = |lower: &mut Self, value: f64| lower.b.float(DType::F32, value);
        let turn = |lower: &mut Self, u: Value| {
            let tau = lower.b.float(DType::F32, std::f64::consts::TAU);
            let angle = lower.b.mul(tau, u);
            (lower.b.unary(Unary::Cos, angle), lower.b.unary(Unary::Sin, angle))
        };
        let one = f32(self, 1.0);
        let parts: Values = match name {
            "sample_triangle" => {
                let root = self.b.unary(Unary::Sqrt, u[0]);
                [self.b.sub(one, root), self.b.mul(u[1], root)].into_iter().collect()
            }
            "sample_unit_ring" => <[Value; 2]>::from(turn(self, u[0])).into_iter().collect(),
            "sample_unit_disk" => {
                let radius = self.b.unary(Unary::Sqrt, u[0]);
                let (x, y) = turn(self, u[1]);
                [self.b.mul(radius, x), self.b.mul(radius, y)].into_iter().collect()
            }
            "sample_unit_square" | "sample_unit_cube" | "sample_unit_hypercube" => {
                let half = f32(self, 0.5);
                u.iter().map(|&u| self.b.sub(u, half)).collect()
            }
            _ => {
                let scale = f32(self, if name.contains("hemisphere") { 1.0 } else { 2.0 });
                let way = self.b.mul(scale, u[0]);
                let height = self.b.sub(one, way);
                let phi = self.b.unary(Unary::Acos, height);
                let (cos, sin) = turn(self, u[1]);
                let (flat, height) = (self.b.unary(Unary::Sin, phi), self.b.unary(Unary::Cos, phi));
                let radius = u.get(2).map(|&u| {
                    let third = self.b.float(DType::F32, (1.0f32 / 3.0f32).into());
                    self.b.binary(Binary::Pow, u, third)
                });
                let mut scaled = |x: Value| radius.map_or(x, |radius| self.b.mul(radius, x));
                let (cos, sin, height) = (scaled(cos), scaled(sin), scaled(height));
                [self.b.mul(cos, flat), self.b.mul(sin, flat), height].into_iter().collect()
            }
        };
        Some(Val::Data(Data { form: Form::Vec(parts.len() as u16), dtype: DType::F32 }, parts))
    }
}
