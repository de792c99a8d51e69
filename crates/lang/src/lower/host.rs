//! A function called from the host: a kernel that stores what it gives.

use bullet_ops::DType;

use super::generic::data_of;
use super::value::Val;
use super::{Env, Lower, Program};
use crate::diag::{Diagnostic, Span};
use crate::ir::{ArrayType, Kernel, Space, Type, Values};
use crate::signature::Element;
use crate::syntax::ast::Function;

/// What a call gives.
pub(crate) enum Given {
    /// Values of these types, and whether as a tuple.
    Types(Vec<Element>, bool),
    /// What is no value, as a message calls it.
    Nothing(String),
}

/// A kernel that takes the scalars of arguments of these types, calls a function with them, and stores each scalar of what it
/// gives to an array of one number.
pub(crate) fn lower_call<'a>(
    program: &'a Program<'a>,
    function: &'a Function,
    types: &[&Element],
) -> Result<(Kernel, Given), Vec<Diagnostic>> {
    let mut lower = Lower::new(program, function);
    let mut env = Env::default();
    for (param, element) in function.params.iter().zip(types) {
        let data = data_of(element);
        let part = |_| lower.b.kernel.param("", Type::Scalar(data.dtype));
        let parts: Values = (0..element.lanes()).map(part).collect();
        env.set(param.name, Val::Data(data, parts));
    }
    let span = Span::default();
    let value = match lower.inline(span, function, env) {
        Ok(value) if lower.errors.is_empty() => lower.materialize(value),
        _ => return Err(lower.errors),
    };
    let is_tuple = matches!(value, Val::Tuple(_));
    let values = if let Val::Tuple(items) = value { items } else { vec![value] };
    let mut types = vec![];
    for value in values {
        let Val::Data(data, parts) = &value else {
            let what = lower.type_name(&value);
            return Ok((lower.b.kernel, Given::Nothing(what)));
        };
        types.push(data.element());
        for &part in parts {
            let ty = ArrayType { dtype: data.dtype, lanes: 1, pitch: 1, ndim: 1, space: Space::Global };
            let out = lower.b.kernel.param("", Type::Array(ty));
            let first = lower.b.int(DType::I32, 0);
            lower.b.store(out, &[first], &[part]);
        }
    }
    Ok((lower.b.kernel, Given::Types(types, is_tuple)))
}
