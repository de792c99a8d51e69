//! Quaternions (x, y, z, w) and rigid transforms (position, rotation).

use bullet_ops::DType;

use super::value::{Data, Form, Val};
use super::{Lower, Result};
use crate::diag::Span;
use crate::ir::{Unary, Value, Values};

impl<'a> Lower<'a> {
    /// Hamilton's product.
    pub(super) fn quat_product(&mut self, a: &[Value], b: &[Value]) -> Values {
        // The vector part is aw bv + bw av + av x bv, the real part aw bw - av . bv.
        let cross = self.cross(&a[..3], &b[..3]);
        let mut parts = Values::new();
        for i in 0..3 {
            let (left, right) = (self.b.mul(a[3], b[i]), self.b.mul(b[3], a[i]));
            let sum = self.b.add(left, right);
            parts.push(self.b.add(sum, cross[i]));
        }
        let (real, dot) = (self.b.mul(a[3], b[3]), self.dot(&a[..3], &b[..3]));
        parts.push(self.b.sub(real, dot));
        parts
    }

    pub(super) fn quat_inverse(&mut self, q: &[Value]) -> Values {
        let mut parts: Values = q[..3].iter().map(|&part| self.b.neg(part)).collect();
        parts.push(q[3]);
        parts
    }

    /// Of an axis of length 1.
    pub(super) fn quat_from_axis_angle(&mut self, axis: &[Value], angle: Value) -> Values {
        let half = self.b.float(self.b.kernel.dtype(angle), 0.5);
        let angle = self.b.mul(angle, half);
        let (sin, cos) = (self.b.unary(Unary::Sin, angle), self.b.unary(Unary::Cos, angle));
        let mut result: Values = axis.iter().map(|&part| self.b.mul(part, sin)).collect();
        result.push(cos);
        result
    }

    /// `x (2 w^2 - 1) + 2 w (q x x) + 2 q (q . x)`, of a quaternion of length 1.
    fn quat_rotate(&mut self, q: &[Value], x: &[Value]) -> Values {
        let dtype = self.b.kernel.dtype(q[3]);
        let (one, two) = (self.b.float(dtype, 1.0), self.b.float(dtype, 2.0));
        let (square, twice_w) = (self.b.mul(q[3], q[3]), self.b.mul(two, q[3]));
        let twice_square = self.b.mul(two, square);
        let scale = self.b.sub(twice_square, one);
        let (cross, dot) = (self.cross(&q[..3], x), self.dot(&q[..3], x));
        let twice_dot = self.b.mul(two, dot);
        (0..3)
            .map(|i| {
                let (a, b) = (self.b.mul(x[i], scale), self.b.mul(cross[i], twice_w));
                let c = self.b.mul(q[i], twice_dot);
                let sum = self.b.add(a, b);
                self.b.add(sum, c)
            })
            .collect()
    }

    /// The position of the first, moved by the second's rotated; the product of the rotations.
    pub(super) fn transform_product(&mut self, a: &[Value], b: &[Value]) -> Values {
        let rotated = self.quat_rotate(&a[3..], &b[..3]);
        let mut parts: Values = (0..3).map(|i| self.b.add(a[i], rotated[i])).collect();
        parts.extend(self.quat_product(&a[3..], &b[3..]));
        parts
    }

    fn transform_inverse(&mut self, t: &[Value]) -> Values {
        let inverse = self.quat_inverse(&t[3..]);
        let rotated = self.quat_rotate(&inverse, &t[..3]);
        let mut parts: Values = rotated.iter().map(|&part| self.b.neg(part)).collect();
        parts.extend(inverse);
        parts
    }

    fn quat_to_matrix(&mut self, q: &[Value]) -> Values {
        let dtype = self.b.kernel.dtype(q[3]);
        let (zero, one) = (self.b.float(dtype, 0.0), self.b.float(dtype, 1.0));
        let columns: Vec<Values> = (0..3)
            .map(|axis| {
                let unit: Values = (0..3).map(|i| if i == axis { one } else { zero }).collect();
                self.quat_rotate(q, &unit)
            })
            .collect();
        (0..9).map(|at| columns[at % 3][at / 3]).collect()
    }

    /// A quaternion or transform function; `None` if it has another name, or takes what these are not.
    pub(super) fn quaternion_builtin(
        &mut self,
        _span: Span,
        name: &str,
        args: &[Val],
    ) -> Result<Option<Val>> {
        let identity = |lower: &mut Self| {
            let (zero, one) = (lower.b.float(DType::F32, 0.0), lower.b.float(DType::F32, 1.0));
            Values::from_slice(&[zero, zero, zero, one])
        };
        let f32_of = |form| Data { form, dtype: DType::F32 };
        match (name, args) {
            ("quat_identity", []) => return Ok(Some(Val::Data(f32_of(Form::Quat), identity(self)))),
            ("transform_identity", []) => {
                let zero = self.b.float(DType::F32, 0.0);
                let parts = [zero; 3].into_iter().chain(identity(self)).collect();
                return Ok(Some(Val::Data(f32_of(Form::Transform), parts)));
            }
            _ => {}
        }
        let mut given = vec![];
        for arg in args {
            match self.materialize(arg.clone()) {
                value @ Val::Data(..) => given.push(self.parts_of(&value)?),
                _ => return Ok(None),
            }
        }
        let Some(dtype) = given.first().map(|first| first.0.dtype) else { return Ok(None) };
        if !dtype.is_float() || given.iter().any(|one| one.0.dtype != dtype) {
            return Ok(None);
        }
        let forms: Vec<Form> = given.iter().map(|one| one.0.form).collect();
        let parts: Vec<&Values> = given.iter().map(|one| &one.1).collect();
        let (form, result) = match (name, &forms[..]) {
            ("quat_inverse", [Form::Quat]) => (Form::Quat, self.quat_inverse(parts[0])),
            ("quat_rotate", [Form::Quat, Form::Vec(3)]) => {
                (Form::Vec(3), self.quat_rotate(parts[0], parts[1]))
            }
            ("quat_rotate_inv", [Form::Quat, Form::Vec(3)]) => {
                let inverse = self.quat_inverse(parts[0]);
                (Form::Vec(3), self.quat_rotate(&inverse, parts[1]))
            }
            ("quat_to_matrix", [Form::Quat]) => (Form::Mat(3, 3), self.quat_to_matrix(parts[0])),
            ("quat_from_axis_angle", [Form::Vec(3), Form::Scalar]) => {
                (Form::Quat, self.quat_from_axis_angle(parts[0], parts[1][0]))
            }
            ("quat_rpy", [Form::Scalar, Form::Scalar, Form::Scalar]) => {
                (Form::Quat, self.quat_rpy([parts[0][0], parts[1][0], parts[2][0]]))
            }
            ("quat_slerp", [Form::Quat, Form::Quat, Form::Scalar]) => {
                (Form::Quat, self.quat_slerp(parts[0], parts[1], parts[2][0]))
            }
            ("quat_from_matrix", [Form::Mat(n @ (3 | 4), m)]) if n == m => {
                (Form::Quat, self.quat_from_matrix(parts[0], usize::from(*n)))
            }
            ("quat_to_axis_angle", [Form::Quat]) => {
                let (axis, angle) = self.quat_to_axis_angle(parts[0]);
                let axis = Val::Data(Data { form: Form::Vec(3), dtype }, axis);
                return Ok(Some(Val::Tuple(vec![axis, Val::scalar(dtype, angle)])));
            }
            ("transform_point", [Form::Transform, Form::Vec(3)]) => {
                let rotated = self.quat_rotate(&parts[0][3..], parts[1]);
                (Form::Vec(3), (0..3).map(|i| self.b.add(parts[0][i], rotated[i])).collect())
            }
            ("transform_vector", [Form::Transform, Form::Vec(3)]) => {
                (Form::Vec(3), self.quat_rotate(&parts[0][3..], parts[1]))
            }
            ("transform_multiply", [Form::Transform, Form::Transform]) => {
                (Form::Transform, self.transform_product(parts[0], parts[1]))
            }
            ("transform_inverse", [Form::Transform]) => (Form::Transform, self.transform_inverse(parts[0])),
            ("transform_get_translation", [Form::Transform]) => (Form::Vec(3), parts[0][..3].into()),
            ("transform_get_rotation", [Form::Transform]) => (Form::Quat, parts[0][3..].into()),
            _ => return Ok(None),
        };
        Ok(Some(Val::Data(Data { form, dtype }, result)))
    }
}
