//! Warp's built-in functions of scalars and arrays, by name. What is not here is a diagnostic that says so.

use bullet_ops::DType;

use super::value::{Array, Data, Element, Form, Literal, Val};
use super::{Lower, Reported, Result};
use crate::diag::Span;
use crate::ir::{Atomic, Binary, Compare, Op, Unary, Value, Values};
use crate::syntax::ast::Expr;

/// Functions of one float that the IR has.
const FLOAT_FUNCTIONS: &[(&str, Unary)] = &[
    ("sqrt", Unary::Sqrt),
    ("cbrt", Unary::Cbrt),
    ("exp", Unary::Exp),
    ("log", Unary::Log),
    ("log2", Unary::Log2),
    ("log10", Unary::Log10),
    ("sin", Unary::Sin),
    ("cos", Unary::Cos),
    ("tan", Unary::Tan),
    ("asin", Unary::Asin),
    ("acos", Unary::Acos),
    ("atan", Unary::Atan),
    ("sinh", Unary::Sinh),
    ("cosh", Unary::Cosh),
    ("tanh", Unary::Tanh),
    ("erf", Unary::Erf),
    ("erfc", Unary::Erfc),
    ("erfinv", Unary::Erfinv),
    ("floor", Unary::Floor),
    ("ceil", Unary::Ceil),
    ("round", Unary::Round),
    ("rint", Unary::Rint),
    ("trunc", Unary::Trunc),
    ("isnan", Unary::IsNan),
    ("isinf", Unary::IsInf),
    ("isfinite", Unary::IsFinite),
];

/// Functions of one number of any type.
const NUMBER_FUNCTIONS: &[(&str, Unary)] = &[
    ("abs", Unary::Abs),
    ("sign", Unary::Sign),
    ("step", Unary::Step),
    ("nonzero", Unary::Nonzero),
    ("neg", Unary::Neg),
];

/// Functions of two numbers of one type.
const PAIR_FUNCTIONS: &[(&str, Binary)] = &[
    ("min", Binary::Min),
    ("max", Binary::Max),
    ("pow", Binary::Pow),
    ("atan2", Binary::Atan2),
    ("copysign", Binary::Copysign),
    ("add", Binary::Add),
    ("sub", Binary::Sub),
    ("mul", Binary::Mul),
    ("div", Binary::Div),
    ("mod", Binary::Mod),
];

const ATOMICS: &[(&str, Atomic)] = &[
    ("atomic_add", Atomic::Add),
    ("atomic_sub", Atomic::Add),
    ("atomic_min", Atomic::Min),
    ("atomic_max", Atomic::Max),
    ("atomic_and", Atomic::And),
    ("atomic_or", Atomic::Or),
    ("atomic_xor", Atomic::Xor),
    ("atomic_exch", Atomic::Exchange),
];

/// The indices among the arguments of a call: what they are, and where they stand. They were evaluated, and are not again, as
/// that may have effects.
fn places(exprs: &[Expr], args: &[Val], ndim: usize) -> impl ExactSizeIterator<Item = (Span, Val)> {
    exprs[1..=ndim].iter().map(|expr| expr.span).zip(args[1..=ndim].iter().cloned())
}

/// The entry of a name.
fn find<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table.iter().find(|entry| entry.0 == name).map(|entry| entry.1)
}

impl<'a> Lower<'a> {
    /// A built-in function of arguments that were evaluated.
    pub(super) fn builtin(&mut self, span: Span, name: &str, exprs: &[Expr], args: Vec<Val>) -> Result<Val> {
        if let Some(result) = self.scalar_builtin(span, name, &args)? {
            return Ok(result);
        }
        if let Some(atomic) = find(ATOMICS, name) {
            return self.atomic(span, name, atomic, exprs, &args);
        }
        if let Some(result) = self.linear_builtin(span, name, &args)? {
            return Ok(result);
        }
        if let Some(result) = self.quaternion_builtin(span, name, &args)? {
            return Ok(result);
        }
        if let Some(result) = self.spatial_builtin(name, &args) {
            return Ok(result);
        }
        if let Some(result) = self.random_builtin(span, name, exprs, &args)? {
            return Ok(result);
        }
        match (name, &args[..]) {
            ("len", [Val::Array(array)]) => {
                let dim = self.dim(array, 0);
                Ok(self.val(dim))
            }
            ("len", [Val::Data(data, _)]) if data.form != Form::Scalar => {
                let count = match data.form {
                    Form::Mat(rows, _) => rows.into(),
                    form => form.lanes(),
                };
                Ok(Val::Literal(Literal::Int(count as i128)))
            }
            ("load" | "store", [Val::Array(array), ..]) => self.access(span, name, array, exprs, &args),
            ("atomic_cas", [Val::Array(array), ..]) => self.exchange(span, array, exprs, &args),
            ("printf", [Val::Str(format), rest @ ..]) => self.print(span, format, rest),
            ("print", [_, ..]) => self.print_values(span, &args),
            ("len", [Val::Tuple(items)]) => Ok(Val::Literal(Literal::Int(items.len() as i128))),
            _ => self.unknown(span, name, &args),
        }
    }

    fn unknown(&mut self, span: Span, name: &str, args: &[Val]) -> Result<Val> {
        let types: Vec<String> = args.iter().map(|arg| self.type_name(arg)).collect();
        let message = match is_known(name) {
            true if types.is_empty() => format!("`{name}` needs arguments"),
            true => format!("`{name}` does not take {}", types.join(", ")),
            false => format!("`{name}` is no function that kernels know"),
        };
        self.error_hint(span, message, "docs/kernel-language.md lists the functions and what they take")
    }

    /// A function of scalars; `None` if it has another name, or takes what these are not.
    fn scalar_builtin(&mut self, span: Span, name: &str, args: &[Val]) -> Result<Option<Val>> {
        let result = self.scalar_function(span, name, args)?;
        // Of numbers in the source it is such a number again, which takes the type of what it meets.
        let literals = args.iter().all(|arg| matches!(arg, Val::Literal(_)));
        if let (true, Some(Val::Data(_, parts))) = (literals, &result)
            && let Some(known) = self.b.kernel.as_const(parts[0])
            && known.dtype() != DType::Bool
        {
            let int = known.as_int().map(|n| Literal::Int(n.into()));
            let literal = known.as_float().map(Literal::Float).or(int);
            return Ok(literal.map(Val::Literal));
        }
        Ok(result)
    }

    fn scalar_function(&mut self, span: Span, name: &str, args: &[Val]) -> Result<Option<Val>> {
        let Some((dtype, parts)) = self.scalars(span, name, args)? else { return Ok(None) };
        if let (Some(op), [x]) = (find(FLOAT_FUNCTIONS, name), &parts[..]) {
            if !op.takes(dtype) {
                return self.needs_float(span, name);
            }
            let value = self.b.unary(op, *x);
            return Ok(Some(self.val(value)));
        }
        if let (Some(op), [x]) = (find(NUMBER_FUNCTIONS, name), &parts[..]) {
            let value = self.b.unary(op, *x);
            return Ok(Some(self.val(value)));
        }
        if let (Some(op), [a, b]) = (find(PAIR_FUNCTIONS, name), &parts[..]) {
            if !op.takes(dtype) {
                return self.needs_float(span, name);
            }
            let value = self.b.binary(op, *a, *b);
            return Ok(Some(self.val(value)));
        }
        let value = match (name, &parts[..]) {
            ("clamp", [x, low, high]) => {
                let above = self.b.binary(Binary::Max, *low, *x);
                self.b.binary(Binary::Min, above, *high)
            }
            ("floordiv", [a, b]) => {
                if dtype.is_float() {
                    let quotient = self.b.div(*a, *b);
                    self.b.unary(Unary::Floor, quotient)
                } else {
                    self.floor_div(*a, *b)
                }
            }
            ("radians" | "degrees" | "frac" | "lerp" | "smoothstep", _) if !dtype.is_float() => {
                return self.needs_float(span, name);
            }
            ("radians", [x]) => {
                let by = self.b.float(dtype, std::f64::consts::PI / 180.0);
                self.b.mul(*x, by)
            }
            ("degrees", [x]) => {
                let by = self.b.float(dtype, 180.0 / std::f64::consts::PI);
                self.b.mul(*x, by)
            }
            ("frac", [x]) => {
                let whole = self.b.unary(Unary::Trunc, *x);
                self.b.sub(*x, whole)
            }
            ("lerp", [a, b, t]) => self.lerp(*a, *b, *t),
            ("smoothstep", [low, high, x]) => {
                let (range, from) = (self.b.sub(*high, *low), self.b.sub(*x, *low));
                let (zero, one) = (self.b.float(dtype, 0.0), self.b.float(dtype, 1.0));
                let t = self.b.div(from, range);
                let t = self.b.binary(Binary::Max, zero, t);
                let t = self.b.binary(Binary::Min, t, one);
                let (two, three) = (self.b.float(dtype, 2.0), self.b.float(dtype, 3.0));
                let double = self.b.mul(two, t);
                let (square, rest) = (self.b.mul(t, t), self.b.sub(three, double));
                self.b.mul(square, rest)
            }
            _ => return Ok(None),
        };
        Ok(Some(self.val(value)))
    }

    /// `a * (1 - t) + b * t`.
    pub(super) fn lerp(&mut self, a: Value, b: Value, t: Value) -> Value {
        let dtype = self.b.kernel.dtype(t);
        let one = self.b.float(dtype, 1.0);
        let rest = self.b.sub(one, t);
        let (left, right) = (self.b.mul(a, rest), self.b.mul(b, t));
        self.b.add(left, right)
    }

    fn needs_float<T>(&mut self, span: Span, name: &str) -> Result<T> {
        self.error_hint(span, format!("`{name}` takes floats"), "convert with float(x)")
    }

    /// All arguments as scalars of one type, if they are such and `name` is a function of scalars.
    fn scalars(&mut self, span: Span, name: &str, args: &[Val]) -> Result<Option<(DType, Vec<Value>)>> {
        const OTHERS: &[&str] = &["clamp", "floordiv", "radians", "degrees", "frac", "lerp", "smoothstep"];
        let is_float = find(FLOAT_FUNCTIONS, name).is_some();
        let known = is_float
            || find(NUMBER_FUNCTIONS, name).is_some()
            || find(PAIR_FUNCTIONS, name).is_some()
            || OTHERS.contains(&name);
        let scalar = |arg: &Val| match arg {
            Val::Literal(_) => true,
            Val::Data(data, _) => data.form == Form::Scalar,
            _ => false,
        };
        if !known || args.is_empty() || !args.iter().all(scalar) {
            return Ok(None);
        }
        let typed = args.iter().find_map(|arg| match arg {
            Val::Data(data, _) => Some(data.dtype),
            _ => None,
        });
        let has_float = args.iter().any(|arg| matches!(arg, Val::Literal(Literal::Float(_))));
        let default = if is_float || has_float { DType::F64 } else { DType::I32 };
        let dtype = typed.unwrap_or(default);
        if dtype == DType::Bool {
            return self.error(span, format!("`{name}` takes numbers, not bools"));
        }
        let parts = args.iter().map(|arg| match arg {
            Val::Data(data, _) if data.dtype != dtype => {
                let (a, b) = (super::value::dtype_name(dtype), data.name());
                self.error_hint(
                    span,
                    format!("`{name}` takes numbers of one type, not {a} and {b}"),
                    "types are not converted unasked: write float(x), int(x), wp.float64(x) and so on",
                )
            }
            arg => self.scalar_of(span, arg.clone(), dtype),
        });
        Ok(Some((dtype, parts.collect::<Result<_>>()?)))
    }

    /// `wp.atomic_add(a, i, x)`.
    fn atomic(&mut self, span: Span, name: &str, op: Atomic, exprs: &[Expr], args: &[Val]) -> Result<Val> {
        let Some(Val::Array(array)) = args.first() else {
            return self.error(span, format!("`{name}` updates an element of an array"));
        };
        let ndim = array.ndim();
        if args.len() != ndim + 2 {
            return self.error(span, format!("`{name}` takes an array, {ndim} indices and a value"));
        }
        let Element::Data(data) = array.element else {
            return self.error_hint(span, format!("`{name}` does not update structs"), "update their fields");
        };
        if !op.takes(data.dtype) {
            let dtype = super::value::dtype_name(data.dtype);
            return self.error(span, format!("`{name}` is not there for {dtype}"));
        }
        let indices = self.indices(span, array, places(exprs, args, ndim))?;
        let value = args.last().cloned().unwrap_or(Val::Bad);
        let mut lanes = self.element(span, data, value)?;
        if name == "atomic_sub" {
            lanes = lanes.iter().map(|&lane| self.b.neg(lane)).collect();
        }
        Ok(Val::Data(data, self.update_atomically(op, array, &indices, &lanes)))
    }

    /// `wp.atomic_cas(a, i, expected, new)`.
    fn exchange(&mut self, span: Span, array: &Array, exprs: &[Expr], args: &[Val]) -> Result<Val> {
        let ndim = array.ndim();
        let data = match array.element {
            Element::Data(data)
                if args.len() == ndim + 3
                    && data.form == Form::Scalar
                    && Atomic::Exchange.takes(data.dtype) =>
            {
                data
            }
            _ => {
                return self.error(
                    span,
                    "`atomic_cas` takes an array of 32- or 64-bit numbers, indices and two values",
                );
            }
        };
        let indices = self.indices(span, array, places(exprs, args, ndim))?;
        let expected = self.scalar_of(span, args[args.len() - 2].clone(), data.dtype)?;
        let new = self.scalar_of(span, args[args.len() - 1].clone(), data.dtype)?;
        let old = self.exchange_element(array, &indices, expected, new);
        Ok(self.val(old))
    }

    /// `wp.load(a, i)` and `wp.store(a, i, x)`.
    fn access(&mut self, span: Span, name: &str, array: &Array, exprs: &[Expr], args: &[Val]) -> Result<Val> {
        let (ndim, extra) = (array.ndim(), usize::from(name == "store"));
        if args.len() != ndim + 1 + extra {
            return self.error(span, format!("`{name}` takes an array and {ndim} indices"));
        }
        let indices = self.indices(span, array, places(exprs, args, ndim))?;
        if name == "load" {
            return self.load_element(array, &indices);
        }
        self.store_element(span, array, &indices, args[args.len() - 1].clone())?;
        Ok(Val::None)
    }

    fn print(&mut self, span: Span, format: &str, args: &[Val]) -> Result<Val> {
        let mut operands = Values::new();
        for arg in args {
            match self.materialize(arg.clone()) {
                Val::Data(Data { form: Form::Scalar, .. }, parts) => operands.push(parts[0]),
                other => {
                    let found = self.type_name(&other);
                    return self.error(span, format!("printf takes numbers, not {found}"));
                }
            }
        }
        let holes = format.replace("%%", "").matches('%').count();
        if holes != operands.len() {
            return self.error(span, format!("the format has {holes} places for {} values", operands.len()));
        }
        self.emit_print(format, operands);
        Ok(Val::None)
    }

    fn emit_print(&mut self, format: &str, operands: Values) {
        // printf of C has no types narrower than int, and wants doubles.
        let operands = operands.iter().map(|&value| match self.b.kernel.dtype(value) {
            DType::F16 | DType::BF16 | DType::F32 => self.b.cast(DType::F64, value),
            DType::Bool | DType::I8 | DType::I16 => self.b.cast(DType::I32, value),
            DType::U8 | DType::U16 => self.b.cast(DType::U32, value),
            _ => value,
        });
        let operands: Values = operands.collect();
        let text = self.b.kernel.add_text(format);
        self.b.emit(Op::Print(text), operands, &[]);
    }

    /// `print(..)`: texts and values, with spaces between them.
    fn print_values(&mut self, span: Span, values: &[Val]) -> Result<Val> {
        let (mut words, mut operands) = (vec![], Values::new());
        for value in values {
            if let Val::Str(text) = value {
                words.push(text.replace('%', "%%"));
                continue;
            }
            let value = self.materialize_at(span, value.clone())?;
            let mut parts = Values::new();
            value.parts(&mut parts);
            if parts.is_empty() || matches!(value, Val::Array(_)) {
                let found = self.type_name(&value);
                return self.error(span, format!("{found} cannot be printed"));
            }
            let formats = parts.iter().map(|&part| match self.b.kernel.dtype(part) {
                DType::U8 | DType::U16 | DType::U32 => "%u",
                DType::U64 => "%llu",
                DType::I64 => "%lld",
                dtype if dtype.is_float() => "%g",
                _ => "%d",
            });
            words.extend(formats.map(String::from));
            operands.extend(parts);
        }
        self.emit_print(&(words.join(" ") + "\n"), operands);
        Ok(Val::None)
    }

    /// A scalar of a new value from the source's numbers: conversions, vectors, matrices, quaternions.
    pub(super) fn construct_data(&mut self, span: Span, data: Data, values: Vec<Val>) -> Result<Val> {
        if data.form == Form::Scalar {
            return match &values[..] {
                [] => {
                    let zero = self.b.zero(data.dtype);
                    Ok(self.val(zero))
                }
                [value] => {
                    let part = self.cast_scalar(span, value.clone(), data.dtype)?;
                    Ok(Val::scalar(data.dtype, part))
                }
                _ => self.error(span, "a conversion takes one number"),
            };
        }
        let lanes = data.form.lanes();
        if let [Val::Data(found, parts)] = &values[..]
            && found.form == data.form
        {
            let parts = parts.iter().map(|&part| self.b.cast(data.dtype, part)).collect();
            return Ok(Val::Data(data, parts));
        }
        let mut parts = Values::new();
        for value in &values {
            match value {
                Val::Literal(_) => parts.push(self.literal(span, value, data.dtype)?),
                // A transform from a position and a rotation, a matrix from its columns.
                Val::Data(found, inner) if found.dtype == data.dtype => parts.extend_from_slice(inner),
                other => {
                    let (found, expected) = (self.type_name(other), data.name());
                    return self.error_hint(
                        span,
                        format!("{expected} cannot be made of {found}"),
                        "types are not converted unasked: write float(x), int(x), wp.float64(x) and so on",
                    );
                }
            }
        }
        let is_columns = matches!(data.form, Form::Mat(..))
            && values.iter().any(|value| match value {
                Val::Data(found, _) => found.form != Form::Scalar,
                _ => false,
            });
        if is_columns {
            return self.error_hint(
                span,
                "a matrix is not made of vectors here",
                "use wp.matrix_from_rows or wp.matrix_from_cols, or give all numbers",
            );
        }
        match parts.len() {
            0 => {
                let zero = self.b.zero(data.dtype);
                Ok(Val::Data(data, std::iter::repeat_n(zero, lanes).collect()))
            }
            1 if lanes > 1 && !matches!(data.form, Form::Quat | Form::Transform) => {
                Ok(Val::Data(data, std::iter::repeat_n(parts[0], lanes).collect()))
            }
            n if n == lanes => Ok(Val::Data(data, parts)),
            n => {
                let name = data.name();
                self.error(span, format!("{name} is made of {lanes} numbers, or one for all, not {n}"))
            }
        }
    }

    /// Whether `a == b`, as 0 or 1 of their type; for functions that choose without a branch.
    pub(super) fn equals(&mut self, a: Value, b: Value) -> Value {
        self.b.compare(Compare::Eq, a, b)
    }

    /// The parts of a value of a form that is asked for.
    pub(super) fn parts_of(&mut self, value: &Val) -> Result<(Data, Values)> {
        match value {
            Val::Data(data, parts) => Ok((*data, parts.clone())),
            _ => Err(Reported),
        }
    }
}

/// Functions that exist, for another message than for those that do not.
const KNOWN: &[&str] = &[
    "adjoint",
    "atomic_cas",
    "cast",
    "clamp",
    "cross",
    "cw_div",
    "cw_mul",
    "ddot",
    "degrees",
    "determinant",
    "diag",
    "dot",
    "floordiv",
    "frac",
    "get_diag",
    "grad",
    "identity",
    "inverse",
    "len",
    "length",
    "length_sq",
    "lerp",
    "load",
    "matrix",
    "matrix_from_cols",
    "matrix_from_rows",
    "normalize",
    "outer",
    "print",
    "printf",
    "quat_from_axis_angle",
    "quat_from_matrix",
    "quat_identity",
    "quat_inverse",
    "quat_rotate",
    "quat_rotate_inv",
    "quat_rpy",
    "quat_slerp",
    "quat_to_axis_angle",
    "quat_to_matrix",
    "radians",
    "rand_init",
    "randf",
    "randi",
    "randn",
    "randu",
    "sample_triangle",
    "sample_unit_cube",
    "sample_unit_disk",
    "sample_unit_hemisphere",
    "sample_unit_hemisphere_surface",
    "sample_unit_hypercube",
    "sample_unit_ring",
    "sample_unit_sphere",
    "sample_unit_sphere_surface",
    "sample_unit_square",
    "skew",
    "smoothstep",
    "spatial_bottom",
    "spatial_cross",
    "spatial_cross_dual",
    "spatial_dot",
    "spatial_top",
    "spatial_vector",
    "static",
    "store",
    "tid",
    "trace",
    "transform_get_rotation",
    "transform_get_translation",
    "transform_identity",
    "transform_inverse",
    "transform_multiply",
    "transform_point",
    "transform_vector",
    "transpose",
    "vector",
    "where",
];

/// Whether there is a function of this name, whatever it takes.
fn is_known(name: &str) -> bool {
    find(FLOAT_FUNCTIONS, name).or(find(NUMBER_FUNCTIONS, name)).is_some()
        || find(PAIR_FUNCTIONS, name).is_some()
        || find(ATOMICS, name).is_some()
        || KNOWN.contains(&name)
}
