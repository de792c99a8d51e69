//! Annotations and other expressions that name a type.

use bullet_ops::DType;

use super::value::{Data, Element, Form, Literal, Numbers, Open, OpenForm, Ty, Val};
use super::{Fields, Lower, Named, Result};
use crate::diag::Span;
use crate::signature::ParamType;
use crate::syntax::ast::{Expr, ExprKind, Symbol};

/// What `array`, `array1d` .. are called.
const ARRAYS: [(&str, u8); 5] =
    [("array", 1), ("array1d", 1), ("array2d", 2), ("array3d", 3), ("array4d", 4)];

impl<'a> Lower<'a> {
    /// The type that an annotation names.
    pub(super) fn resolve_type(&mut self, expr: &Expr) -> Result<Ty> {
        match self.find_type(expr)? {
            Some(ty) => Ok(ty),
            None => self.error_hint(
                expr.span,
                "this is no type that kernels know",
                "types are float, int, bool, wp.float64, wp.vec3, wp.mat33, wp.array(dtype=..), a @wp.struct, and so on",
            ),
        }
    }

    /// The type that an expression names, if it does.
    pub(super) fn find_type(&mut self, expr: &Expr) -> Result<Option<Ty>> {
        if let Some(name) = self.builtin_name(expr) {
            return Ok(if name == "array" { None } else { named(name) });
        }
        if let Some(found) = self.type_of_variable(expr) {
            return Ok(Some(found));
        }
        match &expr.kind {
            ExprKind::Name(_) | ExprKind::Attribute(..) => match self.program.path(self.scope, expr) {
                Some(name) => self.find_named(expr.span, name),
                None => Ok(None),
            },
            ExprKind::Call { func, args, keywords } => match self.builtin_name(func) {
                Some(name) => self.constructed(name, args, keywords),
                None => Ok(None),
            },
            // `wp.array[float]`
            ExprKind::Subscript(base, items) => match self.builtin_name(base) {
                Some(name) if ARRAYS.iter().any(|array| array.0 == name) => {
                    self.constructed(name, items, &[])
                }
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }

    /// `a.dtype` of an array or vector that a variable holds, and `type(x)`.
    fn type_of_variable(&self, expr: &Expr) -> Option<Ty> {
        let (variable, is_element) = match &expr.kind {
            ExprKind::Attribute(base, name) if self.text(*name) == "dtype" => (&**base, true),
            ExprKind::Call { func, args, keywords } if keywords.is_empty() => match (&func.kind, &args[..]) {
                (ExprKind::Name(name), [of]) if self.text(*name) == "type" => (of, false),
                _ => return None,
            },
            _ => return None,
        };
        let ExprKind::Name(name) = variable.kind else { return None };
        match (self.env.get(name)?, is_element) {
            (Val::Data(data, _), true) => Some(Ty::scalar(data.dtype)),
            (Val::Data(data, _), false) => Some(Ty::Data(*data)),
            (Val::Struct(id, _), false) => Some(Ty::Struct(*id)),
            (Val::Array(array), true) => match array.element {
                Element::Data(data) => Some(Ty::Data(data)),
                Element::Struct(id) => Some(Ty::Struct(id)),
                Element::Any => None,
            },
            _ => None,
        }
    }

    fn find_named(&mut self, span: Span, name: Symbol) -> Result<Option<Ty>> {
        match self.text(name) {
            "float" => return Ok(Some(Ty::scalar(DType::F32))),
            "int" => return Ok(Some(Ty::scalar(DType::I32))),
            "bool" => return Ok(Some(Ty::scalar(DType::Bool))),
            "Any" => return Ok(Some(Ty::Any)),
            _ => {}
        }
        if let Some(&id) = self.scope.structs.get(&name) {
            return Ok(Some(Ty::Struct(id)));
        }
        let Some(constant) = self.scope.constants.get(&name).map(Named::expr) else { return Ok(None) };
        let address: *const () = std::ptr::from_ref(constant).cast();
        if self.looking_up.contains(&address) {
            return self.error(span, format!("`{}` is defined by itself", self.text(name)));
        }
        self.looking_up.push(address);
        let found = self.find_type(constant);
        self.looking_up.pop();
        found
    }

    /// `wp.array(dtype=float, ndim=2)`, `wp.types.vector(length=5, dtype=float)`, `wp.types.matrix(shape=(2, 3), dtype=float)`.
    fn constructed(&mut self, name: &str, args: &[Expr], keywords: &[(Symbol, Expr)]) -> Result<Option<Ty>> {
        let find = |lower: &Self, word: &str, at: usize| {
            let named = keywords.iter().find(|(key, _)| lower.text(*key) == word);
            named.map(|(_, value)| value).or(args.get(at)).cloned()
        };
        if let Some(&(_, ndim)) = ARRAYS.iter().find(|array| array.0 == name) {
            let Some(dtype) = find(self, "dtype", 0) else { return Ok(None) };
            let element = self.element_type(&dtype)?;
            let ndim = match find(self, "ndim", 1) {
                Some(count) => match self.static_int(&count)? {
                    n @ 1..=4 => n as u8,
                    n => return self.error(count.span, format!("arrays have 1 to 4 dimensions, not {n}")),
                },
                None => ndim,
            };
            return Ok(Some(Ty::Array(element, ndim)));
        }
        let form = match name {
            "vector" => {
                let Some(length) = find(self, "length", 0) else { return Ok(None) };
                self.open_length(&length)?.map_or(OpenForm::Vec, |length| OpenForm::Known(Form::Vec(length)))
            }
            "matrix" => {
                let Some(shape) = find(self, "shape", 0) else { return Ok(None) };
                let ExprKind::Tuple(items) = &shape.kind else { return Ok(None) };
                let [rows, columns] = &items[..] else { return Ok(None) };
                match (self.open_length(rows)?, self.open_length(columns)?) {
                    (Some(rows), Some(columns)) => OpenForm::Known(Form::Mat(rows, columns)),
                    (rows, columns) => OpenForm::Mat(rows, columns),
                }
            }
            "quaternion" => OpenForm::Known(Form::Quat),
            "transformation" => OpenForm::Known(Form::Transform),
            _ => return Ok(None),
        };
        let at = usize::from(matches!(name, "vector" | "matrix"));
        let Some(dtype) = find(self, "dtype", at) else { return Ok(None) };
        let numbers = match self.resolve_type(&dtype)? {
            Ty::Data(Data { form: Form::Scalar, dtype }) => Numbers::Only(dtype),
            Ty::Open(Open { form: OpenForm::Known(Form::Scalar), numbers }) => numbers,
            Ty::Any => Numbers::Any,
            other => {
                let found = self.ty_name(other);
                return self.error(dtype.span, format!("expected a scalar type, found {found}"));
            }
        };
        Ok(Some(match (form, numbers) {
            (OpenForm::Known(form), Numbers::Only(dtype)) => Ty::Data(Data { form, dtype }),
            (form, numbers) => Ty::Open(Open { form, numbers }),
        }))
    }

    /// The number of elements of a vector or row; `None` if it is `Any`.
    fn open_length(&mut self, expr: &Expr) -> Result<Option<u16>> {
        if let ExprKind::Name(name) = expr.kind
            && self.text(name) == "Any"
        {
            return Ok(None);
        }
        match self.static_int(expr)? {
            n @ 1..=64 => Ok(Some(n as u16)),
            n => self
                .error(expr.span, format!("vectors and matrices have 1 to 64 elements a dimension, not {n}")),
        }
    }

    /// What an array can hold.
    pub(super) fn element_type(&mut self, expr: &Expr) -> Result<Element> {
        match self.resolve_type(expr)? {
            Ty::Data(data) => Ok(Element::Data(data)),
            Ty::Struct(id) => Ok(Element::Struct(id)),
            Ty::Any => Ok(Element::Any),
            Ty::Open(open) => self.error_hint(
                expr.span,
                format!("the elements of an array have one type, and `{}` stands for several", open.name()),
                "name the type, or leave it to the argument by `dtype=Any`",
            ),
            Ty::Array(..) => self.error(
                expr.span,
                "arrays hold numbers, vectors, matrices, quaternions, transforms or structs of these",
            ),
        }
    }

    /// An integer known at compile time.
    pub(super) fn static_int(&mut self, expr: &Expr) -> Result<i64> {
        let value = self.expr(expr)?;
        let known = match &value {
            Val::Literal(Literal::Int(n)) => i64::try_from(*n).ok(),
            Val::Data(Data { form: Form::Scalar, .. }, parts) => {
                self.b.kernel.as_const(parts[0]).and_then(|constant| constant.as_int())
            }
            _ => None,
        };
        match known {
            Some(n) => Ok(n),
            None => self.error(expr.span, "this must be an integer that is known at compile time"),
        }
    }

    /// The fields of a struct with their types.
    pub(super) fn struct_fields(&mut self, id: u32) -> Result<Fields> {
        if let Some(known) = self.fields.get(&id) {
            return Ok(known.clone());
        }
        let class = self.program.classes[id as usize];
        let address: *const () = std::ptr::from_ref(class).cast();
        if self.looking_up.contains(&address) {
            let span = class.fields.first().map_or(Span::default(), |field| field.1.span);
            return self.error(span, format!("struct `{}` holds itself", self.text(class.name)));
        }
        self.looking_up.push(address);
        let outer = std::mem::replace(&mut self.scope, self.program.scope(class.scope));
        let mut fields = Ok(vec![]);
        for (name, annotation) in &class.fields {
            let annotation = self.scope.types.get(name).unwrap_or(annotation);
            let ty = self.resolve_type(annotation).and_then(|ty| {
                if let Ty::Struct(inner) | Ty::Array(Element::Struct(inner), _) = ty {
                    self.struct_fields(inner)?;
                }
                Ok(ty)
            });
            match (ty, &mut fields) {
                (Ok(ty), Ok(fields)) => fields.push((*name, ty)),
                (Err(reported), _) => fields = Err(reported),
                _ => {}
            }
        }
        self.scope = outer;
        self.looking_up.pop();
        let fields: Fields = fields?.into();
        self.fields.insert(id, fields.clone());
        Ok(fields)
    }
}

impl Lower<'_> {
    /// A type as those who launch the kernel see it.
    pub(super) fn param_type(&mut self, ty: Ty) -> Result<ParamType> {
        Ok(match ty {
            Ty::Data(data) => ParamType::Value(data.element()),
            Ty::Struct(id) => {
                let mut fields = vec![];
                for &(field, ty) in self.struct_fields(id)?.iter() {
                    fields.push((self.text(field).into(), self.param_type(ty)?));
                }
                ParamType::Struct(self.text(self.program.classes[id as usize].name).into(), fields)
            }
            Ty::Array(Element::Data(data), ndim) => ParamType::Array(data.element(), ndim),
            Ty::Array(Element::Struct(id), ndim) => {
                ParamType::StructArray(Box::new(self.param_type(Ty::Struct(id))?), ndim)
            }
            Ty::Array(Element::Any, _) | Ty::Open(_) | Ty::Any => return Err(super::Reported),
        })
    }
}

/// A type of Warp's by its name: `float32`, `vec3`, `vec3d`, `mat44f`, `quat`, `transformd`.
pub(super) fn named(name: &str) -> Option<Ty> {
    let scalar = |name: &str| {
        Some(match name {
            "float" => DType::F32,
            "int" => DType::I32,
            // NumPy's names only: `wp.f32` is not Warp's.
            "bool" | "int8" | "int16" | "int32" | "int64" | "uint8" | "uint16" | "uint32" | "uint64"
            | "float16" | "bfloat16" | "float32" | "float64" => DType::parse(name).ok()?,
            _ => return None,
        })
    };
    if let Some(dtype) = scalar(name) {
        return Some(Ty::scalar(dtype));
    }
    match name {
        "Float" => return Some(Ty::Open(Open::scalar(Numbers::Float))),
        "Int" => return Some(Ty::Open(Open::scalar(Numbers::Int))),
        "Scalar" => return Some(Ty::Open(Open::scalar(Numbers::Scalar))),
        _ => {}
    }
    let split = name.find(|c: char| c.is_ascii_digit()).unwrap_or(name.len());
    let (stem, rest) = name.split_at(split);
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (size, suffix) = rest.split_at(digits);
    let suffixed = |suffix: &str| {
        Some(match suffix {
            "" | "f" => DType::F32,
            "d" => DType::F64,
            "h" => DType::F16,
            "i" => DType::I32,
            "b" => DType::I8,
            "ub" => DType::U8,
            "s" => DType::I16,
            "us" => DType::U16,
            "ui" => DType::U32,
            "l" => DType::I64,
            "ul" => DType::U64,
            _ => return None,
        })
    };
    let (form, suffix) = match (stem, size) {
        ("vec", "2" | "3" | "4") => (Form::Vec(size.parse().ok()?), suffix),
        ("mat", "22") => (Form::Mat(2, 2), suffix),
        ("mat", "33") => (Form::Mat(3, 3), suffix),
        ("mat", "44") => (Form::Mat(4, 4), suffix),
        ("quat" | "quatf" | "quatd" | "quath", "") => (Form::Quat, &stem[4..]),
        ("transform" | "transformf" | "transformd" | "transformh", "") => (Form::Transform, &stem[9..]),
        ("spatial_vector" | "spatial_vectorf" | "spatial_vectord", "") => (Form::Vec(6), &stem[14..]),
        ("spatial_matrix" | "spatial_matrixf" | "spatial_matrixd", "") => (Form::Mat(6, 6), &stem[14..]),
        _ => return None,
    };
    Some(Ty::Data(Data { form, dtype: suffixed(suffix)? }))
}
