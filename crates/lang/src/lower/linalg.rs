//! Vectors and matrices as the scalars they are made of.

use super::value::{Data, Form, Val};
use super::{Lower, Result};
use crate::diag::Span;
use crate::ir::{Binary, Compare, Unary, Value, Values};
use crate::syntax::ast::BinaryOp;

impl<'a> Lower<'a> {
    /// `a0 b0 + a1 b1 + ..`
    pub(super) fn dot(&mut self, a: &[Value], b: &[Value]) -> Value {
        let mut sum = self.b.mul(a[0], b[0]);
        for (&a, &b) in a.iter().zip(b).skip(1) {
            let product = self.b.mul(a, b);
            sum = self.b.add(sum, product);
        }
        sum
    }

    /// A matrix times a matrix or vector, a vector times a matrix, a quaternion times a quaternion, a transform times a
    /// transform.
    pub(super) fn product(
        &mut self,
        op: BinaryOp,
        (x, a): (Data, &Values),
        (y, b): (Data, &Values),
    ) -> Option<Val> {
        let dtype = x.dtype;
        match (x.form, y.form) {
            (Form::Mat(rows, inner), Form::Mat(inner2, columns)) if inner == inner2 => {
                let (n, k, m) = (usize::from(rows), usize::from(inner), usize::from(columns));
                let mut parts = Values::new();
                for row in 0..n {
                    for column in 0..m {
                        let right: Values = (0..k).map(|i| b[i * m + column]).collect();
                        parts.push(self.dot(&a[row * k..][..k], &right));
                    }
                }
                Some(Val::Data(Data { form: Form::Mat(rows, columns), dtype }, parts))
            }
            (Form::Mat(rows, columns), Form::Vec(n)) if columns == n => {
                let n = usize::from(n);
                let parts = a.chunks(n).map(|row| self.dot(row, b)).collect();
                Some(Val::Data(Data { form: Form::Vec(rows), dtype }, parts))
            }
            (Form::Vec(n), Form::Mat(rows, columns)) if rows == n => {
                let m = usize::from(columns);
                let parts = (0..m).map(|column| {
                    let right: Values = (0..usize::from(n)).map(|i| b[i * m + column]).collect();
                    self.dot(a, &right)
                });
                let parts = parts.collect();
                Some(Val::Data(Data { form: Form::Vec(columns), dtype }, parts))
            }
            (Form::Quat, Form::Quat) if op == BinaryOp::Mul => {
                let parts = self.quat_product(a, b);
                Some(Val::Data(x, parts))
            }
            (Form::Transform, Form::Transform) if op == BinaryOp::Mul => {
                let parts = self.transform_product(a, b);
                Some(Val::Data(x, parts))
            }
            _ => None,
        }
    }

    /// A vector or matrix function; `None` if it has another name, or takes what these are not.
    pub(super) fn linear_builtin(&mut self, span: Span, name: &str, args: &[Val]) -> Result<Option<Val>> {
        let mut given = vec![];
        for arg in args {
            match arg {
                Val::Data(data, parts) => given.push((*data, parts.clone())),
                Val::Literal(_) => match self.materialize(arg.clone()) {
                    Val::Data(data, parts) => given.push((data, parts)),
                    _ => return Ok(None),
                },
                _ => return Ok(None),
            }
        }
        if given.windows(2).any(|pair| pair[0].0.dtype != pair[1].0.dtype) {
            return Ok(None);
        }
        let Some((first, a)) = given.first().cloned() else { return Ok(None) };
        let dtype = first.dtype;
        let form = first.form;
        let is_float = dtype.is_float();
        let value = match (name, &given[1..]) {
            ("dot", [(y, b)]) if *y == first && matches!(form, Form::Vec(_) | Form::Quat) => {
                self.scalar_val(|l| l.dot(&a, b))
            }
            ("ddot", [(y, b)]) if *y == first && matches!(form, Form::Mat(..)) => {
                self.scalar_val(|l| l.dot(&a, b))
            }
            ("length_sq", []) if matches!(form, Form::Vec(_) | Form::Quat) => {
                self.scalar_val(|l| l.dot(&a, &a))
            }
            ("length", []) if matches!(form, Form::Vec(_) | Form::Quat) && is_float => {
                self.scalar_val(|l| l.length(&a))
            }
            ("normalize", []) if matches!(form, Form::Vec(_)) && is_float => {
                Val::Data(first, self.normalize(&a))
            }
            ("normalize", []) if form == Form::Quat && is_float => Val::Data(first, self.normalize_quat(&a)),
            ("cross", [(y, b)]) if *y == first && form == Form::Vec(3) => Val::Data(first, self.cross(&a, b)),
            ("cw_mul", [(y, b)]) if *y == first => self.pairs(first, &a, b, Binary::Mul),
            ("cw_div", [(y, b)]) if *y == first => self.pairs(first, &a, b, Binary::Div),
            ("min" | "max", [(y, b)]) if *y == first && matches!(form, Form::Vec(_)) => {
                self.pairs(first, &a, b, if name == "min" { Binary::Min } else { Binary::Max })
            }
            ("min" | "max", []) if matches!(form, Form::Vec(_)) => {
                let op = if name == "min" { Binary::Min } else { Binary::Max };
                let best = a.iter().skip(1).fold(a[0], |best, &part| self.b.binary(op, best, part));
                self.val(best)
            }
            ("abs" | "sign", []) if matches!(form, Form::Vec(_)) => {
                self.each(first, &a, if name == "abs" { Unary::Abs } else { Unary::Sign })
            }
            ("lerp", [(y, b), (t, by)]) if *y == first && t.form == Form::Scalar && is_float => {
                let parts = a.iter().zip(b).map(|(&a, &b)| self.lerp(a, b, by[0])).collect();
                Val::Data(first, parts)
            }
            ("outer", [(y, b)]) => match (form, y.form) {
                (Form::Vec(n), Form::Vec(m)) => {
                    let pairs = a.iter().flat_map(|&a| b.iter().map(move |&b| (a, b)));
                    let parts = pairs.map(|(a, b)| self.b.mul(a, b)).collect();
                    Val::Data(Data { form: Form::Mat(n, m), dtype }, parts)
                }
                _ => return Ok(None),
            },
            _ => match form {
                Form::Mat(rows, columns) => {
                    return Ok(self.matrix_builtin(name, (rows, columns), first, &a, &given[1..]));
                }
                Form::Vec(n) => return self.made_of_vectors(span, name, n, first, &given),
                _ => return Ok(None),
            },
        };
        Ok(Some(value))
    }

    fn scalar_val(&mut self, build: impl FnOnce(&mut Self) -> Value) -> Val {
        let value = build(self);
        self.val(value)
    }

    /// The Euclidean norm.
    pub(super) fn length(&mut self, a: &[Value]) -> Value {
        let square = self.dot(a, a);
        self.b.unary(Unary::Sqrt, square)
    }

    /// Of length 1; 0 stays 0.
    pub(super) fn normalize(&mut self, a: &[Value]) -> Values {
        let length = self.length(a);
        let dtype = self.b.kernel.dtype(length);
        let (zero, one) = (self.b.float(dtype, 0.0), self.b.float(dtype, 1.0));
        let positive = self.b.compare(Compare::Gt, length, zero);
        let inverse = self.b.div(one, length);
        // One choice for all parts, and for their gradients.
        let inverse = self.b.select(positive, inverse, zero);
        a.iter().map(|&part| self.b.mul(part, inverse)).collect()
    }

    /// Of length 1; 0 becomes the rotation that does nothing.
    fn normalize_quat(&mut self, q: &[Value]) -> Values {
        let mut unit = self.normalize(q);
        let square = self.dot(q, q);
        let dtype = self.b.kernel.dtype(square);
        let (zero, one) = (self.b.float(dtype, 0.0), self.b.float(dtype, 1.0));
        let none = self.b.compare(Compare::Eq, square, zero);
        unit[3] = self.b.select(none, one, unit[3]);
        unit
    }

    pub(super) fn cross(&mut self, a: &[Value], b: &[Value]) -> Values {
        let pairs = [(1, 2), (2, 0), (0, 1)];
        pairs
            .into_iter()
            .map(|(i, j)| {
                let (left, right) = (self.b.mul(a[i], b[j]), self.b.mul(a[j], b[i]));
                self.b.sub(left, right)
            })
            .collect()
    }

    fn matrix_builtin(
        &mut self,
        name: &str,
        (rows, columns): (u16, u16),
        data: Data,
        a: &Values,
        rest: &[(Data, Values)],
    ) -> Option<Val> {
        let (n, m) = (usize::from(rows), usize::from(columns));
        Some(match (name, rest) {
            ("transpose", []) => {
                let parts = (0..m).flat_map(|column| (0..n).map(move |row| a[row * m + column])).collect();
                Val::Data(Data { form: Form::Mat(columns, rows), ..data }, parts)
            }
            ("trace", []) if n == m => {
                let sum = (1..n).fold(a[0], |sum, i| self.b.add(sum, a[i * n + i]));
                self.val(sum)
            }
            ("get_diag", []) if n == m => {
                let parts = (0..n).map(|i| a[i * n + i]).collect();
                Val::Data(Data { form: Form::Vec(rows), ..data }, parts)
            }
            ("determinant", []) if n == m && (1..=4).contains(&n) => {
                let value = self.determinant(a, n);
                self.val(value)
            }
            ("inverse", []) if n == m && (2..=4).contains(&n) && data.dtype.is_float() => {
                Val::Data(data, self.inverse(a, n))
            }
            ("matrix_from_rows" | "matrix_from_cols", _) => return None,
            _ => return None,
        })
    }

    /// By the first row.
    fn determinant(&mut self, a: &[Value], n: usize) -> Value {
        if n == 1 {
            return a[0];
        }
        let mut sum = None;
        for column in 0..n {
            let minor = self.minor(a, n, 0, column);
            let below = self.determinant(&minor, n - 1);
            let term = self.b.mul(a[column], below);
            sum = Some(match sum {
                None => term,
                Some(sum) if column % 2 == 1 => self.b.sub(sum, term),
                Some(sum) => self.b.add(sum, term),
            });
        }
        sum.unwrap_or(a[0])
    }

    /// Without a row and a column.
    fn minor(&mut self, a: &[Value], n: usize, row: usize, column: usize) -> Values {
        let places = (0..n * n).filter(|at| at / n != row && at % n != column);
        places.map(|at| a[at]).collect()
    }

    /// The adjugate over the determinant; zero if that is 0, as Warp has it.
    fn inverse(&mut self, a: &[Value], n: usize) -> Values {
        let det = self.determinant(a, n);
        let dtype = self.b.kernel.dtype(det);
        let (zero, one) = (self.b.float(dtype, 0.0), self.b.float(dtype, 1.0));
        let singular = self.equals(det, zero);
        let scale = self.b.div(one, det);
        let mut parts = Values::new();
        for row in 0..n {
            for column in 0..n {
                let minor = self.minor(a, n, column, row);
                let mut cofactor = self.determinant(&minor, n - 1);
                if (row + column) % 2 == 1 {
                    cofactor = self.b.neg(cofactor);
                }
                let scaled = self.b.mul(cofactor, scale);
                parts.push(self.b.select(singular, zero, scaled));
            }
        }
        parts
    }

    /// Matrices made of vectors.
    fn made_of_vectors(
        &mut self,
        span: Span,
        name: &str,
        n: u16,
        data: Data,
        given: &[(Data, Values)],
    ) -> Result<Option<Val>> {
        let same = given.iter().all(|(other, _)| *other == data);
        let a = &given[0].1;
        let zero = self.b.zero(data.dtype);
        let count = given.len();
        Ok(Some(match (name, count) {
            ("matrix_from_rows", 1..) if same => {
                let parts = given.iter().flat_map(|(_, row)| row.iter().copied()).collect();
                Val::Data(Data { form: Form::Mat(count as u16, n), ..data }, parts)
            }
            ("matrix_from_cols", 1..) if same => {
                let parts =
                    (0..usize::from(n)).flat_map(|row| given.iter().map(move |(_, column)| column[row]));
                Val::Data(Data { form: Form::Mat(n, count as u16), ..data }, parts.collect())
            }
            ("diag", 1) => {
                let size = usize::from(n);
                let place = |at: usize| if at / size == at % size { a[at / size] } else { zero };
                let parts = (0..size * size).map(place).collect();
                Val::Data(Data { form: Form::Mat(n, n), ..data }, parts)
            }
            ("skew", 1) if n == 3 => {
                let (x, y, z) = (a[0], a[1], a[2]);
                let (nx, ny, nz) = (self.b.neg(x), self.b.neg(y), self.b.neg(z));
                let parts = Values::from_slice(&[zero, nz, y, z, zero, nx, ny, x, zero]);
                Val::Data(Data { form: Form::Mat(3, 3), ..data }, parts)
            }
            ("matrix_from_rows" | "matrix_from_cols", _) => {
                return self.error(span, "rows and columns have one length and type");
            }
            _ => return Ok(None),
        }))
    }
}
