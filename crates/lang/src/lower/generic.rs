//! Kernels of generic types: which types each is compiled for, and what those instances are called.
//!
//! A module says it by `wp.overload`: as a decorator of a kernel's signature without a body, or as a call with a list of types.
//! Who launches kernels says it by the types of the arguments.

use std::fmt::Write;

use super::value::{Data, Element, Form, Ty, dtype_name};
use super::{Lower, Result};
use crate::diag::Span;
use crate::ir::Kernel;
use crate::signature::{self, ParamType};
use crate::syntax::ast::{Expr, ExprKind, Function};

/// A kernel to be compiled.
#[derive(Clone, Copy)]
pub(crate) struct Instance<'a> {
    pub(crate) function: &'a Function,
    pub(crate) types: Types<'a>,
}

/// The types of a kernel's parameters, where its annotations leave them open.
#[derive(Clone, Copy)]
pub(crate) enum Types<'a> {
    /// They leave nothing open.
    Annotated,
    /// The annotations of a `@wp.overload`.
    Overload(&'a Function),
    /// The list of a `wp.overload(kernel, [..])`.
    Listed(&'a Expr),
    /// Of arguments.
    Given(&'a [ParamType]),
}

impl<'a> Lower<'a> {
    /// The types of the parameters that are given beside their annotations; `None` if none are.
    pub(super) fn given_types(&mut self, instance: Instance<'a>) -> Result<Option<Vec<(Span, Ty)>>> {
        let function = instance.function;
        let place = function.span;
        let (span, types) = match instance.types {
            Types::Annotated => return Ok(None),
            Types::Overload(overload) => {
                let mut types = vec![];
                for param in &overload.params {
                    let Some(annotation) = &param.annotation else {
                        return self.error(param.span, "an overload names all types");
                    };
                    types.push((annotation.span, self.resolve_type(annotation)?));
                }
                (overload.span, types)
            }
            Types::Listed(list) => {
                let ExprKind::Tuple(items) = &list.kind else {
                    return self.error(list.span, "`overload` takes a kernel and a list of types");
                };
                let mut types = vec![];
                for item in items {
                    types.push((item.span, self.resolve_type(item)?));
                }
                (list.span, types)
            }
            Types::Given(given) => {
                let mut types = vec![];
                for ty in given {
                    types.push((place, self.type_of(place, ty)?));
                }
                (place, types)
            }
        };
        if types.len() != function.params.len() {
            let (name, count) = (self.text(function.name), function.params.len());
            return self.error(
                span,
                format!("`{name}` has {count} parameters, but {} types are given", types.len()),
            );
        }
        Ok(Some(types))
    }

    /// What a parameter is whose annotation says `declared` and whose given type is another.
    pub(super) fn instance_type(
        &mut self,
        name: &str,
        declared: Ty,
        (span, given): (Span, Ty),
    ) -> Result<Ty> {
        match (declared, given) {
            (Ty::Any, _) => Ok(given),
            (Ty::Open(open), Ty::Data(data)) if open.takes(data) => Ok(given),
            (Ty::Array(Element::Any, a), Ty::Array(_, b)) if a == b => Ok(given),
            _ if declared == given => Ok(given),
            _ => {
                let (expected, found) = (self.ty_name(declared), self.ty_name(given));
                self.error(span, format!("parameter `{name}` is {expected}, not {found}"))
            }
        }
    }

    /// A type of a launch's argument.
    fn type_of(&mut self, span: Span, ty: &ParamType) -> Result<Ty> {
        Ok(match ty {
            ParamType::Value(element) => Ty::Data(data_of(element)),
            ParamType::Array(element, ndim) => Ty::Array(Element::Data(data_of(element)), *ndim),
            ParamType::Struct(name, _) => {
                let known = self.scope.structs.iter().find(|(known, _)| self.text(**known) == name);
                match known {
                    Some((_, &id)) => Ty::Struct(id),
                    None => return self.error(span, format!("the struct `{name}` is not known here")),
                }
            }
            ParamType::StructArray(inner, ndim) => match self.type_of(span, inner)? {
                Ty::Struct(id) => Ty::Array(Element::Struct(id), *ndim),
                _ => return Err(super::Reported),
            },
        })
    }

    /// The name of an instance: the kernel's, and the types that its annotations leave open.
    pub(super) fn instance_name(&self, name: &str, open: &[Ty]) -> String {
        let mut out = format!("{name}_");
        for &ty in open {
            out.push('_');
            match ty {
                Ty::Data(data) => mangle(data, &mut out),
                Ty::Array(Element::Data(data), ndim) => {
                    mangle(data, &mut out);
                    let _ = write!(out, "_{ndim}d");
                }
                Ty::Struct(id) => out.push_str(self.text(self.program.classes[id as usize].name)),
                Ty::Array(Element::Struct(id), ndim) => {
                    let _ = write!(out, "{}_{ndim}d", self.text(self.program.classes[id as usize].name));
                }
                Ty::Array(Element::Any, _) | Ty::Open(_) | Ty::Any => out.push_str("any"),
            }
        }
        out
    }

    pub(super) fn rename(&mut self, name: String) {
        let kernel: &mut Kernel = &mut self.b.kernel;
        kernel.name = name;
    }
}

fn mangle(data: Data, out: &mut String) {
    out.push_str(dtype_name(data.dtype));
    let _ = match data.form {
        Form::Scalar => Ok(()),
        Form::Vec(n) => write!(out, "_vec{n}"),
        Form::Mat(rows, columns) => write!(out, "_mat{rows}x{columns}"),
        Form::Quat => write!(out, "_quat"),
        Form::Transform => write!(out, "_transform"),
    };
}

/// Of what a launch calls an element.
pub(super) fn data_of(element: &signature::Element) -> Data {
    let form = match &element.dims[..] {
        [] => Form::Scalar,
        [4] if element.name.starts_with("quat") => Form::Quat,
        [7] if element.name.starts_with("transform") => Form::Transform,
        [n] => Form::Vec(*n),
        [rows, columns, ..] => Form::Mat(*rows, *columns),
    };
    Data { form, dtype: element.dtype }
}
