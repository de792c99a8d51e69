//! Functions of wp that are written in the kernel language itself, as anybody could: decompositions, norms, Euler angles, frames.
//!
//! Each part is a module of Python, parsed when a kernel's source holds the name of one of its functions. They are called as a
//! user's functions are: lowered into the caller for the types it has, differentiated with it, or by the `@wp.func_grad` beside
//! them. What is wrong inside of one is said of the call. Names with `_` in front are a part's own.

use rustc_hash::FxHashSet;

use crate::syntax;
use crate::syntax::ast::{Module, Names};

/// The parts; one may use functions of another.
const PARTS: [&str; 3] =
    [include_str!("decompositions.py"), include_str!("rotations.py"), include_str!("vectors.py")];

/// Functions that may be given variables for their results behind their arguments, as `wp.svd3(A, U, sigma, V)`.
const FILL: [&str; 4] = ["svd2", "svd3", "qr3", "eig3"];

/// Whether a call of this function may assign variables among its arguments.
pub(crate) fn fills(name: &str) -> bool {
    FILL.contains(&name)
}

/// The functions of a part that others may call.
fn offered(part: &str) -> impl Iterator<Item = &str> {
    let defined = part.lines().filter_map(|line| line.strip_prefix("def ")?.split('(').next());
    defined.filter(|name| !name.starts_with('_'))
}

/// What a path of names ends in.
pub(crate) fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// What a module uses, by any name; its own functions have scope 0.
pub(crate) fn of_module(module: &mut Module) -> Vec<Module> {
    for import in &module.imports {
        module.names.intern(last(&import.path));
    }
    load(&mut module.names, 1)
}

/// The parts with functions whose names are among these, and what those use; their functions' scopes count from `scope`.
pub(crate) fn load(names: &mut Names, scope: usize) -> Vec<Module> {
    let (mut loaded, mut modules) = (FxHashSet::default(), vec![]);
    // Again, as a part brings new names.
    while let Some(number) = (0..PARTS.len()).find(|number| {
        !loaded.contains(number) && offered(PARTS[*number]).any(|name| names.find(name).is_some())
    }) {
        loaded.insert(number);
        let (mut module, errors) = syntax::parse_with(PARTS[number], std::mem::take(names));
        debug_assert!(errors.is_empty(), "{errors:?}");
        *names = std::mem::take(&mut module.names);
        let index = (scope + modules.len()) as u32;
        module.functions.iter_mut().for_each(|function| function.scope = index);
        modules.push(module);
    }
    modules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_right_and_loaded_when_named() {
        let mut names = Names::default();
        assert!(load(&mut names, 1).is_empty());
        for part in PARTS {
            let (module, errors) = syntax::parse_with(part, Names::default());
            assert!(errors.is_empty(), "{errors:?}");
            assert!(!module.functions.is_empty() && offered(part).count() > 0);
        }
        names.intern("qr3");
        assert_eq!(load(&mut names, 1).len(), 1);
    }

    #[test]
    fn no_two_parts_offer_one_name() {
        let mut seen = FxHashSet::default();
        for (number, part) in PARTS.into_iter().enumerate() {
            for name in offered(part).collect::<FxHashSet<_>>() {
                assert!(seen.insert(name), "{name}, again in part {number}");
            }
        }
        assert!(FILL.iter().all(|name| seen.contains(name)));
    }
}
