//! From the syntax tree to the IR: names, types, control flow, calls.
//!
//! One pass over a kernel's statements, with an environment of what each variable is right now; functions are lowered
//! anew into each caller, with the types of its arguments, so that generics need nothing more. Types are Warp's: no
//! conversion happens unasked, but a number in the source takes the type of what it meets.
//!
//! Control flow becomes structured here. `return`, `break` and `continue` set a flag, a hidden variable that is merged and
//! carried as any other; what follows runs only if none is set. A branch that always leaves takes the rest of its block
//! into the other branch instead, so that `if i >= n: return` costs no flag.

use std::rc::Rc;

use rustc_hash::FxHashMap;

use bullet_ops::DType;

use crate::diag::{Diagnostic, Span};
use crate::ir::{Builder, Kernel, Type, Value};
use crate::signature::Signature;
use crate::syntax::ast::{Expr, Function, Symbol};
pub(crate) use custom::Custom;
pub(crate) use generic::Instance;
pub(crate) use host::{Given, lower_call};
pub(crate) use program::{Named, Program, Scope};
use value::{Data, Ty, Val};

mod arith;
mod array;
mod builtins;
mod call;
mod control;
mod custom;
mod expr;
mod flow;
mod generic;
mod host;
mod linalg;
mod loops;
mod memory;
mod program;
mod quat;
mod random;
mod spatial;
mod stmt;
mod types;
pub(crate) mod value;

/// A mistake that was recorded.
#[derive(Clone, Copy, Debug)]
struct Reported;

type Result<T> = std::result::Result<T, Reported>;

/// The fields of a struct with their types.
type Fields = Rc<[(Symbol, Ty)]>;

/// A variable and what it is.
#[derive(Clone, Debug, Default)]
struct Env(Vec<(Symbol, Val)>);

impl Env {
    fn get(&self, name: Symbol) -> Option<&Val> {
        self.0.iter().find(|entry| entry.0 == name).map(|entry| &entry.1)
    }

    fn set(&mut self, name: Symbol, value: Val) {
        match self.0.iter_mut().find(|entry| entry.0 == name) {
            Some(entry) => entry.1 = value,
            None => self.0.push((name, value)),
        }
    }

    fn remove(&mut self, name: Symbol) -> Option<Val> {
        let at = self.0.iter().position(|entry| entry.0 == name)?;
        Some(self.0.remove(at).1)
    }
}

/// The hidden variables of control flow.
#[derive(Clone, Copy, Debug)]
struct Hidden {
    returned: Symbol,
    value: Symbol,
    broke: Symbol,
    continued: Symbol,
}

/// A kernel in the making.
struct Lower<'a> {
    program: &'a Program<'a>,
    b: Builder,
    env: Env,
    errors: Vec<Diagnostic>,
    /// Where the names of the function that is being lowered are looked up.
    scope: &'a Scope<'a>,
    /// The functions that are being lowered, to find recursion.
    stack: Vec<*const Function>,
    /// Functions whose variables were checked, and whether control may come to their end.
    checked: Vec<(*const Function, bool)>,
    /// How many dimensions of the grid the kernel asked for; 0 before it did.
    grid: u8,
    /// Constants that are being looked up, and structs, to find circles.
    looking_up: Vec<*const ()>,
    /// The return annotation of the function being lowered.
    returns: Option<Ty>,
    /// Whether a `return` may give a value.
    in_kernel: bool,
    /// Of the gradient function that is being lowered.
    adjoints: Option<custom::Adjoints>,
    /// How many arrays of its own the kernel makes, which stand first in its body.
    allocs: usize,
    /// Of the structs that were looked at.
    fields: FxHashMap<u32, Fields>,
    /// How deep blocks nest here.
    depth: usize,
    /// How many calls were lowered.
    calls: usize,
    /// Whether it was said that there are too many.
    too_large: bool,
}

/// The IR of a kernel, its parameters, and what is wrong with its source.
pub(crate) fn lower<'a>(
    program: &'a Program<'a>,
    instance: Instance<'a>,
) -> (Kernel, Signature, Vec<Diagnostic>) {
    let mut lower = Lower::new(program, instance.function);
    lower.stack.push(instance.function);
    let signature = lower.kernel(instance);
    lower.b.kernel.grid = lower.grid.max(1);
    (lower.b.kernel, signature, lower.errors)
}

impl<'a> Lower<'a> {
    /// An empty kernel by the name of a function.
    fn new(program: &'a Program<'a>, function: &Function) -> Lower<'a> {
        Lower {
            program,
            b: Builder::new(Kernel::new(program.text(function.name), 1)),
            env: Env::default(),
            errors: vec![],
            scope: program.scope(function.scope),
            stack: vec![],
            checked: vec![],
            grid: 0,
            looking_up: vec![],
            returns: None,
            in_kernel: true,
            adjoints: None,
            allocs: 0,
            fields: FxHashMap::default(),
            depth: 0,
            calls: 0,
            too_large: false,
        }
    }

    fn error<T>(&mut self, span: Span, message: impl Into<String>) -> Result<T> {
        self.errors.push(Diagnostic::new(span, message));
        Err(Reported)
    }

    fn error_hint<T>(
        &mut self,
        span: Span,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Result<T> {
        self.errors.push(Diagnostic::new(span, message).hint(hint));
        Err(Reported)
    }

    fn text(&self, name: Symbol) -> &'a str {
        self.program.text(name)
    }

    /// The name in `wp.name`, or of what `from warp import name` bound.
    fn builtin_name(&self, expr: &Expr) -> Option<&'a str> {
        self.program.builtin_name(self.scope, expr)
    }

    /// Runs `f` where the names of another definition are known.
    fn in_scope<R>(&mut self, scope: u32, f: impl FnOnce(&mut Self) -> R) -> R {
        let outer = std::mem::replace(&mut self.scope, self.program.scope(scope));
        let result = f(self);
        self.scope = outer;
        result
    }

    fn kernel(&mut self, instance: Instance<'a>) -> Signature {
        let function = instance.function;
        // What is wrong with them was said; without them what the annotations leave open would be said, too.
        let Ok(given) = self.given_types(instance) else { return vec![] };
        let (mut signature, mut open) = (vec![], vec![]);
        for (number, param) in function.params.iter().enumerate() {
            let name = self.text(param.name);
            if param.by_name {
                let message = format!("parameter `{name}` of a kernel stands behind `*`");
                let _: Result<()> = self.error_hint(
                    param.span,
                    message,
                    "a launch gives all arguments by position: take out the `*`",
                );
            }
            let Some(annotation) = self.annotation(param) else {
                let _: Result<()> = self.error_hint(
                    param.span,
                    format!("parameter `{name}` of a kernel has no type"),
                    format!("write `{name}: float`, or `{name}: wp.array(dtype=float)`"),
                );
                self.env.set(param.name, Val::Bad);
                continue;
            };
            let declared = self.resolve_type(annotation);
            let ty = match (&given, declared) {
                (Some(given), Ok(declared)) => {
                    let ty = self.instance_type(name, declared, given[number]);
                    open.extend(ty.ok().filter(|&ty| ty != declared));
                    ty
                }
                (_, declared) => declared,
            };
            let value = match ty {
                Ok(Ty::Any | Ty::Open(_) | Ty::Array(value::Element::Any, _)) => {
                    let _: Result<()> = self.error_hint(
                        annotation.span,
                        "a kernel of generic types cannot be compiled by itself",
                        "name the types, or say `wp.overload(kernel, [..])` with those it is for",
                    );
                    Val::Bad
                }
                Ok(ty) => {
                    signature.extend(self.param_type(ty).ok().map(|ty| (name.to_string(), ty)));
                    self.param(annotation.span, name, ty).unwrap_or(Val::Bad)
                }
                Err(Reported) => Val::Bad,
            };
            self.env.set(param.name, value);
        }
        if !open.is_empty() {
            let name = self.instance_name(self.text(function.name), &open);
            self.rename(name);
        }
        self.check_variables(function);
        let off = self.b.bool(false);
        self.env.set(self.program.hidden.returned, Val::scalar(DType::Bool, off));
        self.block(&function.body);
        signature
    }

    /// What says the type of a parameter: what its annotation was found to be, or the annotation itself.
    fn annotation(&self, param: &'a crate::syntax::ast::Param) -> Option<&'a Expr> {
        self.scope.types.get(&param.name).or(param.annotation.as_ref())
    }

    /// The parameters of the kernel that a parameter of the source becomes.
    fn param(&mut self, span: Span, name: &str, ty: Ty) -> Result<Val> {
        Ok(match ty {
            Ty::Data(data) => {
                let parts = (0..data.form.lanes()).map(|lane| {
                    let name =
                        if data.form == value::Form::Scalar { name.into() } else { format!("{name}_{lane}") };
                    self.b.kernel.param(&name, Type::Scalar(data.dtype))
                });
                Val::Data(data, parts.collect())
            }
            Ty::Array(element, ndim) => self.array_param(span, name, element, ndim)?,
            Ty::Struct(id) => {
                let fields = self.struct_fields(id)?;
                let fields = fields.iter().map(|&(field, ty)| {
                    let field = format!("{name}_{}", self.text(field));
                    self.param(span, &field, ty)
                });
                Val::Struct(id, fields.collect::<Result<_>>()?)
            }
            Ty::Open(_) | Ty::Any => Val::Bad,
        })
    }

    /// A scalar of a known type.
    fn val(&self, value: Value) -> Val {
        Val::scalar(self.b.kernel.dtype(value), value)
    }

    /// How the source would name the type of a value.
    fn type_name(&self, value: &Val) -> String {
        match value {
            Val::Literal(value::Literal::Int(_)) => "an integer".into(),
            Val::Literal(value::Literal::Float(_)) => "a float".into(),
            Val::Literal(value::Literal::Bool(_)) => "a bool".into(),
            Val::Data(data, _) => data.name(),
            Val::Struct(id, _) => self.text(self.program.classes[*id as usize].name).into(),
            Val::Array(array) => self.ty_name(array.ty()),
            Val::Tuple(_) => "a tuple".into(),
            Val::Str(_) => "a string".into(),
            Val::None => "None".into(),
            Val::Conflict(a, b) => format!("{a} or {b}"),
            Val::Bad => "unknown".into(),
        }
    }
}

impl Ty {
    fn scalar(dtype: DType) -> Ty {
        Ty::Data(Data::scalar(dtype))
    }
}
