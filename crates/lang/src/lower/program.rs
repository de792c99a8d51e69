//! What names mean before any kernel is lowered: of one module, or of definitions from anywhere with a scope each.

use rustc_hash::FxHashMap;

use super::generic::{Instance, Types};
use super::{Custom, Hidden};
use crate::signature::ParamType;
use crate::syntax::ast::{Class, Expr, ExprKind, Function, Module, Names, Symbol};

/// What names mean to a function, other than its own variables. A name may be a path: `math.pi`.
#[derive(Default)]
pub(crate) struct Scope<'a> {
    /// Functions of one name are overloads.
    pub(crate) functions: FxHashMap<Symbol, Vec<&'a Function>>,
    pub(crate) constants: FxHashMap<Symbol, Named<'a>>,
    /// By the index of their class.
    pub(crate) structs: FxHashMap<Symbol, u32>,
    /// Names bound to `warp` or to this package's own front, or to what is in them.
    pub(crate) namespaces: FxHashMap<Symbol, String>,
    /// The types of parameters and fields, where they are known better than by their annotations.
    pub(crate) types: FxHashMap<Symbol, Expr>,
    /// What expressions at a place of the source came to: of `wp.static`.
    pub(crate) statics: FxHashMap<u32, Expr>,
    /// What kernels cannot have, and what it is.
    pub(crate) others: FxHashMap<Symbol, String>,
    /// Whether names of it are paths.
    pub(crate) has_paths: bool,
}

impl Scope<'_> {
    /// Whether a name means a value here.
    pub(crate) fn knows(&self, name: Symbol) -> bool {
        self.constants.contains_key(&name)
            || self.functions.contains_key(&name)
            || self.others.contains_key(&name)
    }
}

/// What a name was defined as.
pub(crate) enum Named<'a> {
    Borrowed(&'a Expr),
    Owned(Expr),
}

impl Named<'_> {
    pub(crate) fn expr(&self) -> &Expr {
        match self {
            Named::Borrowed(expr) => expr,
            Named::Owned(expr) => expr,
        }
    }
}

/// All that is known before a kernel is lowered.
pub(crate) struct Program<'a> {
    pub(crate) names: &'a Names,
    pub(super) hidden: Hidden,
    pub(super) classes: Vec<&'a Class>,
    scopes: Vec<Scope<'a>>,
    kernels: Vec<Instance<'a>>,
    customs: FxHashMap<*const Function, Custom<'a>>,
    /// Functions of wp that are written in the language, by name.
    library: FxHashMap<&'a str, Vec<&'a Function>>,
    /// The first of their scopes.
    library_scope: u32,
}

impl<'a> Program<'a> {
    /// Names that must be interned before a program is made.
    pub(crate) const HIDDEN: [&'static str; 4] = ["$returned", "$value", "$broke", "$continued"];

    /// Of a module: what its decorators say.
    pub(crate) fn new(module: &'a Module, library: &'a [Module]) -> Program<'a> {
        let mut program = Program::with_scopes(&module.names, vec![], vec![], vec![]);
        let mut scope = program.scope_of(module);
        for function in &module.functions {
            if program.has_decorator(&scope, &function.decorators, "kernel") {
                let types = Types::Annotated;
                program.kernels.push(Instance { function, types });
            }
        }
        program.overloads(module, &scope);
        for class in &module.classes {
            if program.has_decorator(&scope, &class.decorators, "struct") {
                scope.structs.insert(class.name, program.classes.len() as u32);
                program.classes.push(class);
            }
        }
        program.scopes.push(scope);
        program.add_library(library);
        program
    }

    /// What a module's imports, constants and functions mean, whose derivatives become known.
    fn scope_of(&mut self, module: &'a Module) -> Scope<'a> {
        let mut scope = Scope {
            constants: module.constants.iter().map(|(name, value)| (*name, Named::Borrowed(value))).collect(),
            namespaces: module.imports.iter().map(|import| (import.alias, import.path.clone())).collect(),
            ..Scope::default()
        };
        for function in &module.functions {
            if self.has_decorator(&scope, &function.decorators, "func") {
                scope.functions.entry(function.name).or_default().push(function);
            }
        }
        self.derivatives(module, &scope);
        scope
    }

    /// Functions of wp that are written in the language. Their scopes are the next ones.
    pub(crate) fn add_library(&mut self, library: &'a [Module]) {
        self.library_scope = self.scopes.len() as u32;
        for module in library {
            let scope = self.scope_of(module);
            for (&name, functions) in &scope.functions {
                self.library.insert(self.names.text(name), functions.clone());
            }
            self.scopes.push(scope);
        }
    }

    /// The functions that a name of wp means, if they are written in the language.
    pub(super) fn library(&self, name: &str) -> Option<&[&'a Function]> {
        self.library.get(name).map(Vec::as_slice)
    }

    /// Whether a function is wp's own.
    pub(super) fn is_library(&self, function: &Function) -> bool {
        function.scope >= self.library_scope
    }

    /// Of definitions whose `scope` is an index into `scopes`.
    pub(crate) fn with_scopes(
        names: &'a Names,
        kernels: Vec<&'a Function>,
        classes: Vec<&'a Class>,
        scopes: Vec<Scope<'a>>,
    ) -> Program<'a> {
        let find = |text| names.find(text).unwrap_or(Symbol(u32::MAX));
        let hidden = Hidden {
            returned: find("$returned"),
            value: find("$value"),
            broke: find("$broke"),
            continued: find("$continued"),
        };
        let instance = |function| Instance { function, types: Types::Annotated };
        let kernels = kernels.into_iter().map(instance).collect();
        Program {
            names,
            hidden,
            classes,
            scopes,
            kernels,
            customs: FxHashMap::default(),
            library: FxHashMap::default(),
            library_scope: u32::MAX,
        }
    }

    /// Replaces kernels that a module declares overloads of by those.
    fn overloads(&mut self, module: &'a Module, scope: &Scope<'a>) {
        let mut found = vec![];
        for function in &module.functions {
            if self.has_decorator(scope, &function.decorators, "overload") {
                found.push((function.span.start, function.name, Types::Overload(function)));
            }
        }
        let constants = module.constants.iter().map(|(_, value)| value);
        for call in constants.chain(&module.calls) {
            let ExprKind::Call { func, args, .. } = &call.kind else { continue };
            if let ([Expr { kind: ExprKind::Name(kernel), .. }, list], Some("overload")) =
                (&args[..], self.builtin_name(scope, func))
            {
                found.push((call.span.start, *kernel, Types::Listed(list)));
            }
        }
        found.sort_by_key(|overload| overload.0);
        let kernels = std::mem::take(&mut self.kernels);
        for kernel in kernels {
            let before = self.kernels.len();
            let name = kernel.function.name;
            let instances = found.iter().filter(|overload| overload.1 == name);
            self.kernels.extend(instances.map(|overload| Instance { types: overload.2, ..kernel }));
            if self.kernels.len() == before {
                self.kernels.push(kernel);
            }
        }
    }

    /// What `@wp.func_grad(f)` and `@wp.func_replay(f)` say: of several `f` about the last before it.
    fn derivatives(&mut self, module: &'a Module, scope: &Scope<'a>) {
        for function in &module.functions {
            for decorator in &function.decorators {
                let ExprKind::Call { func, args, .. } = &decorator.kind else { continue };
                let ([Expr { kind: ExprKind::Name(of), .. }], Some(kind)) =
                    (&args[..], self.builtin_name(scope, func))
                else {
                    continue;
                };
                let is_gradient = match kind {
                    "func_grad" => true,
                    "func_replay" => false,
                    _ => continue,
                };
                let known = scope.functions.get(of).map_or(&[][..], |known| known);
                let before = known.iter().rfind(|known| known.span.start < function.span.start);
                if let Some(of) = before {
                    self.set_custom(of, function, is_gradient);
                }
            }
        }
    }

    /// Gives a function a gradient or replay function of its own.
    pub(crate) fn set_custom(&mut self, of: &'a Function, function: &'a Function, is_gradient: bool) {
        let custom = self.customs.entry(of).or_default();
        *(if is_gradient { &mut custom.gradient } else { &mut custom.replay }) = Some(function);
    }

    /// What a function has of its own.
    pub(super) fn custom(&self, function: &Function) -> Option<Custom<'a>> {
        self.customs.get(&std::ptr::from_ref(function)).copied()
    }

    /// Only the kernel of this name, for these types if they are given; whether there is one.
    pub(crate) fn only(&mut self, name: &str, types: Option<&'a [ParamType]>) -> bool {
        let names = self.names;
        self.kernels.retain(|kernel| names.text(kernel.function.name) == name);
        if let Some(given) = types {
            self.only_first(given);
        }
        !self.kernels.is_empty()
    }

    /// Only the first kernel, for these types.
    pub(crate) fn only_first(&mut self, types: &'a [ParamType]) {
        self.kernels.truncate(1);
        self.kernels.iter_mut().for_each(|kernel| kernel.types = Types::Given(types));
    }

    /// The kernels, in the order of the source.
    pub(crate) fn kernels(&self) -> impl Iterator<Item = Instance<'a>> {
        self.kernels.iter().copied()
    }

    pub(super) fn scope(&self, index: u32) -> &Scope<'a> {
        &self.scopes[index as usize]
    }

    pub(super) fn text(&self, name: Symbol) -> &'a str {
        self.names.text(name)
    }

    fn has_decorator(&self, scope: &Scope<'a>, decorators: &[Expr], name: &str) -> bool {
        decorators.iter().any(|decorator| {
            let target = match &decorator.kind {
                ExprKind::Call { func, .. } => func,
                _ => decorator,
            };
            self.builtin_name(scope, target) == Some(name)
        })
    }

    /// The name in `wp.name`, or of what `from warp import name` bound.
    pub(super) fn builtin_name<'b>(&'b self, scope: &'b Scope<'a>, expr: &Expr) -> Option<&'b str> {
        if let ExprKind::Attribute(base, name) = &expr.kind {
            let known = match &base.kind {
                ExprKind::Name(_) => self.is_namespace(scope, base),
                // `wp.types.vector`, `wp.math.x`
                ExprKind::Attribute(..) => {
                    self.is_namespace(scope, base)
                        || self.builtin_name(scope, base).is_some_and(|b| b == "types" || b == "math")
                }
                _ => false,
            };
            if known {
                return Some(self.names.text(*name));
            }
        }
        let path = scope.namespaces.get(&self.path(scope, expr)?)?;
        path.strip_prefix("warp.").or(path.strip_prefix("bullet_core.lang."))
    }

    fn is_namespace(&self, scope: &Scope<'a>, expr: &Expr) -> bool {
        self.path(scope, expr)
            .and_then(|name| scope.namespaces.get(&name))
            .is_some_and(|path| matches!(path.as_str(), "warp" | "bullet_core.lang" | "bullet_core"))
    }

    /// The name that a name or path of names is looked up by; `None` if no scope could know it.
    pub(super) fn path(&self, scope: &Scope<'a>, expr: &Expr) -> Option<Symbol> {
        fn spell(names: &Names, expr: &Expr, out: &mut String) -> Option<()> {
            match &expr.kind {
                ExprKind::Name(name) => out.push_str(names.text(*name)),
                ExprKind::Attribute(base, name) => {
                    spell(names, base, out)?;
                    out.push('.');
                    out.push_str(names.text(*name));
                }
                _ => return None,
            }
            Some(())
        }
        match &expr.kind {
            ExprKind::Name(name) => Some(*name),
            ExprKind::Attribute(..) if scope.has_paths => {
                let mut path = String::new();
                spell(self.names, expr, &mut path)?;
                self.names.find(&path)
            }
            _ => None,
        }
    }
}
