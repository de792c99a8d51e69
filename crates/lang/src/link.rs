//! Kernels from definitions that were gathered anywhere: by a decorator, out of several files, closures and notebooks.
//!
//! Whoever gathers them has looked up the names that each one uses, and says what they mean; nothing is found by itself.
//! The texts are put together to one, each in a part of its own, so that a place in the source is still one number; a
//! diagnostic finds its file and line back by the part.

use rustc_hash::FxHashMap;

use crate::diag::{Diagnostic, Origin, Span};
use crate::lower::{Named, Program, Scope};
use crate::syntax::ast::{Class, Function, Module, Names};
use crate::syntax::{parse_definitions, parse_expression};
use crate::{Diagnostics, Options, ParamType, Signature, ir, library};

/// What a definition is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Compiled.
    Kernel,
    /// A function that others call.
    Function,
    /// The `@wp.func_grad` of the function at this place among the definitions.
    Gradient(usize),
    /// The `@wp.func_replay` of the function at this place among the definitions.
    Replay(usize),
    /// A struct; its text is the class.
    Struct,
}

/// What a name means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Binding {
    /// What this expression says: a constant or a type, of names of the same scope.
    Expr(String),
    /// The front itself, `warp`, or something in it: `warp.vec3`.
    Builtin(String),
    /// Functions by their place among the definitions; several are overloads.
    Functions(Vec<usize>),
    /// A struct by its place among the definitions.
    Struct(usize),
    /// Something that kernels cannot have, and what it is: "a numpy.ndarray"; on a second line perhaps what to write instead.
    Other(String),
}

/// A function or class, and what it must know to be compiled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Definition {
    /// What it is.
    pub kind: Kind,
    /// Where it was written, for diagnostics.
    pub file: String,
    /// The line of its `def` or `class`, counted from 1.
    pub line: usize,
    /// How many columns its lines were moved to the left.
    pub indent: usize,
    /// From its `def` or `class` on, without decorators, moved to the left.
    pub text: String,
    /// The meaning of the names it uses. A name may be a path: `math.pi`.
    pub names: Vec<(String, Binding)>,
    /// The types of its parameters or fields, where they are known better than by their annotations.
    pub types: Vec<(String, String)>,
    /// What the argument of `wp.static` came to that begins at this byte of the text.
    pub statics: Vec<(usize, String)>,
}

/// Kernels, and the text they are of.
#[derive(Clone, Debug)]
pub struct Linked {
    /// In the order of their definitions, each with its parameters.
    pub kernels: Vec<(ir::Kernel, Signature)>,
    origins: Vec<Origin>,
    text: String,
}

impl Linked {
    /// Mistakes found in the kernels, by an adjoint, with the source they are in.
    pub fn diagnostics(&self, items: Vec<Diagnostic>) -> Diagnostics {
        Diagnostics::of_parts(self.origins.clone(), self.text.clone(), items)
    }
}

/// The kernels among these definitions.
///
/// # Errors
/// Everything that is wrong with their source.
pub fn link(definitions: &[Definition], options: Options) -> Result<Linked, Diagnostics> {
    link_for(definitions, None, options)
}

/// The first kernel among these definitions, for these types of its parameters: those of its annotations, or what fills what
/// they leave open (`Any`, `wp.array(dtype=Any)`). Without types, all kernels.
///
/// # Errors
/// Everything that is wrong with their source; types that do not fit.
pub fn link_for(
    definitions: &[Definition],
    types: Option<&[ParamType]>,
    options: Options,
) -> Result<Linked, Diagnostics> {
    let (text, origins) = put_together(definitions);
    let mut names = Names::default();
    for name in Program::HIDDEN {
        names.intern(name);
    }
    let (mut module, errors) = parse_definitions(&text, names);
    if !errors.is_empty() {
        return Err(Diagnostics::of_parts(origins, text, errors));
    }
    let part = |span: Span| origins.partition_point(|origin| origin.start <= span.start) - 1;
    module.functions.iter_mut().for_each(|function| function.scope = part(function.span) as u32);
    module.classes.iter_mut().for_each(|class| class.scope = part(class.span) as u32);
    let mut names = std::mem::take(&mut module.names);
    let scopes = scopes(definitions, &origins, &module, &mut names);
    let library = library::load(&mut names, scopes.len());
    let of_kind = |kind| {
        let functions = module.functions.iter();
        functions.filter(move |function| definitions[function.scope as usize].kind == kind)
    };
    let kernels = of_kind(Kind::Kernel).collect();
    let mut program = Program::with_scopes(&names, kernels, module.classes.iter().collect(), scopes);
    for function in &module.functions {
        let (of, is_gradient) = match definitions[function.scope as usize].kind {
            Kind::Gradient(of) => (of, true),
            Kind::Replay(of) => (of, false),
            Kind::Kernel | Kind::Function | Kind::Struct => continue,
        };
        if let Some(of) = module.functions.iter().find(|known| known.scope as usize == of) {
            program.set_custom(of, function, is_gradient);
        }
    }
    program.add_library(&library);
    if let Some(types) = types {
        program.only_first(types);
    }
    match crate::lower_all(&program, options) {
        Ok(kernels) => Ok(Linked { kernels, origins, text }),
        Err(errors) => Err(Diagnostics::of_parts(origins, text, errors)),
    }
}

/// One text of all definitions, and where each begins.
fn put_together(definitions: &[Definition]) -> (String, Vec<Origin>) {
    let (mut text, mut origins) = (String::new(), vec![]);
    for definition in definitions {
        origins.push(Origin {
            start: text.len() as u32,
            file: definition.file.clone(),
            line: definition.line,
            indent: definition.indent,
        });
        text += &definition.text;
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    if origins.is_empty() {
        origins.push(Origin { start: 0, file: String::new(), line: 1, indent: 0 });
    }
    (text, origins)
}

/// The scope of each definition.
fn scopes<'a>(
    definitions: &[Definition],
    origins: &[Origin],
    module: &'a Module,
    names: &mut Names,
) -> Vec<Scope<'a>> {
    let functions: FxHashMap<u32, &'a Function> = module.functions.iter().map(|f| (f.scope, f)).collect();
    let classes: FxHashMap<u32, (u32, &'a Class)> =
        module.classes.iter().zip(0..).map(|(class, index)| (class.scope, (index, class))).collect();
    let place = |index: usize| match (functions.get(&(index as u32)), classes.get(&(index as u32))) {
        (Some(function), _) => function.span,
        (None, Some((_, class))) => class.span,
        (None, None) => Span::default(),
    };
    let scope = |(index, definition): (usize, &Definition)| {
        let mut scope = Scope::default();
        let span = place(index);
        for (name, binding) in &definition.names {
            scope.has_paths |= name.contains('.');
            let symbol = names.intern(name);
            match binding {
                Binding::Expr(text) => {
                    if let Some(expr) = parse_expression(text, span, names) {
                        scope.constants.insert(symbol, Named::Owned(expr));
                    }
                }
                Binding::Builtin(path) => {
                    names.intern(library::last(path));
                    scope.namespaces.insert(symbol, path.clone());
                }
                Binding::Functions(indices) => {
                    let known = indices.iter().filter_map(|&index| functions.get(&(index as u32)));
                    scope.functions.insert(symbol, known.copied().collect());
                }
                Binding::Struct(index) => {
                    if let Some(&(class, _)) = classes.get(&(*index as u32)) {
                        scope.structs.insert(symbol, class);
                    }
                }
                Binding::Other(what) => {
                    scope.others.insert(symbol, what.clone());
                }
            }
        }
        for (name, text) in &definition.types {
            let symbol = names.intern(name);
            if let Some(expr) = parse_expression(text, span, names) {
                scope.types.insert(symbol, expr);
            }
        }
        for (byte, text) in &definition.statics {
            if let Some(expr) = parse_expression(text, span, names) {
                scope.statics.insert(origins[index].start + *byte as u32, expr);
            }
        }
        scope
    };
    definitions.iter().enumerate().map(scope).collect()
}
