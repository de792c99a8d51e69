//! What can go wrong at an instruction while a kernel runs, where in the source that is, and the words for it. Code of every device
//! numbers its [`Site`]s, says by its number which one stopped a thread, and what was found there.

use rustc_hash::FxHashMap;

use crate::diag::Span;
use crate::ir::{Def, Inst, Kernel, Op, Value};
use crate::passes::bounds;

/// Whose mistake a fault is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// An index out of range.
    Index,
    /// An assertion of the kernel.
    Assert,
    /// A launch that does not fit the kernel, or memory.
    Other,
}

/// An instruction that may stop its thread.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Site {
    /// An index of an array.
    Index {
        /// Of the array.
        name: String,
        /// Where its shape is known.
        place: Place,
        /// Which of its dimensions.
        axis: u8,
        /// Of the access.
        span: Span,
    },
    /// An assertion.
    Assert {
        /// Its message.
        text: String,
        /// Of the statement.
        span: Span,
    },
    /// An index of something else.
    Within {
        /// Of what.
        text: String,
        /// Of the index.
        span: Span,
    },
}

/// An array that is indexed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// The argument of this number.
    Param(u32),
    /// The thread's own, of so many elements.
    Local(u32),
}

impl Site {
    /// Of the op [`Assert`](Op::Assert) or [`Within`](Op::Within); `None` of others.
    pub fn of(kernel: &Kernel, inst: Inst) -> Option<Site> {
        let data = kernel.inst(inst);
        match data.op {
            Op::Assert(text) => Some(Site::Assert { text: kernel.text(text).into(), span: data.span }),
            Op::Within(text) => Some(Site::Within { text: kernel.text(text).into(), span: data.span }),
            _ => None,
        }
    }

    /// Of an index of an op that accesses memory.
    pub fn of_index(kernel: &Kernel, inst: Inst, axis: usize) -> Site {
        let data = kernel.inst(inst);
        let array = data.args[0];
        let place = match kernel.value(array).def {
            Def::Param(number) => Place::Param(number),
            _ => Place::Local(length(kernel, array).unwrap_or(0)),
        };
        let name = kernel.name_of(array).unwrap_or("array").to_string();
        Site::Index { name, place, axis: axis as u8, span: data.span }
    }

    /// Whose mistake it is.
    pub fn kind(&self) -> FaultKind {
        match self {
            Site::Index { .. } | Site::Within { .. } => FaultKind::Index,
            Site::Assert { .. } => FaultKind::Assert,
        }
    }

    /// Where in the source.
    pub fn span(&self) -> Span {
        match self {
            Site::Index { span, .. } | Site::Assert { span, .. } | Site::Within { span, .. } => *span,
        }
    }

    /// What went wrong, with the index that was found and the shape of the argument that it was to be within, if it is one.
    pub fn message(&self, index: i64, shape: &[i32]) -> String {
        match self {
            Site::Index { name, place, axis, .. } => {
                let own;
                let shape = match *place {
                    Place::Param(_) => shape,
                    Place::Local(count) => {
                        own = [count as i32];
                        &own
                    }
                };
                let length = shape.get(usize::from(*axis)).copied().unwrap_or(0);
                let shape = tuple(shape.iter().map(|&length| length.into()));
                format!(
                    "index {index} of `{name}` is outside 0 to {length} in dimension {axis} of its shape {shape}"
                )
            }
            Site::Assert { text, .. } => text.clone(),
            Site::Within { text, .. } => format!("index {index} is outside of {text}"),
        }
    }
}

/// The sites of a kernel's code, in the order of its text.
pub(crate) struct Sites {
    pub(crate) all: Vec<Site>,
    /// Of assertions and of indices that are checked by themselves, with axis 0; of the axes of memory ops whose index may be outside.
    numbers: FxHashMap<(Inst, u8), u32>,
}

impl Sites {
    /// Of assertions and checks; of the memory ops that are `checked`, too, where an index may be outside of its array.
    pub(crate) fn of(kernel: &Kernel, checked: Option<&dyn Fn(Inst) -> bool>) -> Sites {
        let mut sites = Sites { all: vec![], numbers: FxHashMap::default() };
        let unsure = checked.map_or(vec![], |checked| bounds::unsure(kernel, checked));
        for inst in kernel.instructions() {
            if let Some(site) = Site::of(kernel, inst) {
                sites.push((inst, 0), site);
            }
            let axes = unsure.get(inst.index()).copied().unwrap_or(0);
            for axis in (0..4).filter(|axis| axes >> axis & 1 != 0) {
                sites.push((inst, axis), Site::of_index(kernel, inst, axis.into()));
            }
        }
        sites
    }

    fn push(&mut self, at: (Inst, u8), site: Site) {
        self.numbers.insert(at, self.all.len() as u32);
        self.all.push(site);
    }

    /// The number of a site.
    pub(crate) fn number(&self, inst: Inst, axis: usize) -> Option<u32> {
        self.numbers.get(&(inst, axis as u8)).copied()
    }
}

/// How many elements an array has that the kernel makes for itself.
pub(crate) fn length(kernel: &Kernel, array: Value) -> Option<u32> {
    match kernel.value(array).def {
        Def::Inst(inst, _) => match kernel.inst(inst).op {
            Op::Alloc(count) => Some(count),
            _ => None,
        },
        _ => None,
    }
}

/// The place in a grid of the thread of this number, the last dimension fastest.
pub fn place(thread: i64, grid: &[i32]) -> Vec<i64> {
    let mut place = vec![0; grid.len()];
    let mut rest = thread;
    for axis in (0..grid.len()).rev() {
        let length = i64::from(grid[axis]).max(1);
        place[axis] = if axis == 0 { rest } else { rest % length };
        rest /= length;
    }
    place
}

/// What every message begins with: which thread of which kernel.
pub fn head(kernel: &str, place: &[i64]) -> String {
    format!("kernel `{kernel}`, thread {}", tuple(place.iter().copied()))
}

/// As Python writes a tuple.
fn tuple(items: impl Iterator<Item = i64>) -> String {
    let items: Vec<String> = items.map(|item| item.to_string()).collect();
    if items.len() == 1 { format!("({},)", items[0]) } else { format!("({})", items.join(", ")) }
}
