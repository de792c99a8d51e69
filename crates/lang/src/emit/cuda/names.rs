//! C++ identifiers for values.

use std::borrow::Cow;
use std::fmt::Write;

use rustc_hash::FxHashMap;

/// Words that values cannot be called: C++'s, CUDA's, and those that the emitter uses itself.
const RESERVED: &[&str] = &[
    "alignas",
    "alignof",
    "and",
    "asm",
    "auto",
    "bool",
    "break",
    "case",
    "catch",
    "char",
    "class",
    "const",
    "constexpr",
    "continue",
    "decltype",
    "default",
    "delete",
    "do",
    "double",
    "else",
    "enum",
    "explicit",
    "export",
    "extern",
    "false",
    "float",
    "for",
    "friend",
    "goto",
    "if",
    "inline",
    "int",
    "long",
    "mutable",
    "namespace",
    "new",
    "noexcept",
    "not",
    "operator",
    "or",
    "private",
    "protected",
    "public",
    "register",
    "return",
    "short",
    "signed",
    "sizeof",
    "static",
    "struct",
    "switch",
    "template",
    "this",
    "thread",
    "throw",
    "true",
    "try",
    "typedef",
    "typename",
    "union",
    "unsigned",
    "using",
    "virtual",
    "void",
    "volatile",
    "while",
    "xor",
    "tape",
    "tape_words",
    "tape_size",
    "tape_need",
    "tape_words_needed",
    "record_cells",
    "record_first",
    "record_keys",
    "record_log",
    "record_need",
    "record_size",
    "record_slot",
    "record_stride",
    "record_values",
    "dim0",
    "dim1",
    "dim2",
    "dim3",
    "blockIdx",
    "blockDim",
    "threadIdx",
    "gridDim",
    "warpSize",
    "printf",
    "min",
    "max",
    "abs",
    "Tape",
    "mul_masked",
    "read2",
    "read4",
    "write2",
    "write4",
    "Scalars2",
    "Scalars4",
    "Half",
    "Bfloat",
    "Records",
    "Array1",
    "Array2",
    "Array3",
    "Array4",
    "j0",
    "j1",
    "y0",
    "y1",
    "jn",
    "yn",
    "exp",
    "log",
    "sin",
    "cos",
    "tan",
    "sqrt",
    "pow",
    "floor",
    "ceil",
    "round",
];

/// Whether a kernel cannot be called so in CUDA C++.
pub(crate) fn is_reserved(name: &str) -> bool {
    const FUNCTIONS: &[&str] = &[
        "main",
        "fabs",
        "fmin",
        "fmax",
        "fmod",
        "cbrt",
        "log2",
        "log10",
        "asin",
        "acos",
        "atan",
        "atan2",
        "sinh",
        "cosh",
        "tanh",
        "erf",
        "erfc",
        "erfinv",
        "rint",
        "trunc",
        "copysign",
        "isnan",
        "isinf",
        "isfinite",
        "round_half",
        "round_bfloat",
        "atomic_narrow",
        "NarrowAdd",
        "NarrowMin",
        "NarrowMax",
        "unpack",
        "pack",
        "made",
        "read",
        "atomic_add",
        "atomic_min",
        "atomic_max",
        "filled",
        "compare",
        "number",
        "malloc",
        "free",
    ];
    RESERVED.contains(&name) || FUNCTIONS.contains(&name)
}

/// The identifiers of one function.
pub(super) struct Names {
    /// How many were made of each stem.
    taken: FxHashMap<Box<str>, u32>,
}

impl Names {
    pub(super) fn new() -> Names {
        Names { taken: FxHashMap::default() }
    }

    /// An identifier like `hint` that is not taken yet.
    pub(super) fn unique(&mut self, hint: &str) -> String {
        let is_good = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let headless = hint.is_empty() || hint.starts_with(|c: char| c.is_ascii_digit());
        let stem: Cow<'_, str> = match !headless && hint.chars().all(is_good) {
            true => hint.into(),
            false => {
                let head = if headless { "v" } else { "" };
                head.chars().chain(hint.chars().map(|c| if is_good(c) { c } else { '_' })).collect()
            }
        };
        let count = match self.taken.get(&*stem) {
            Some(count) => *count,
            None if RESERVED.contains(&&*stem) => 1,
            None => {
                self.taken.insert((*stem).into(), 1);
                return stem.into_owned();
            }
        };
        let mut name = String::with_capacity(stem.len() + 4);
        let mut number = count;
        while name.is_empty() || self.taken.contains_key(&*name) {
            number += 1;
            name.clear();
            let _ = write!(name, "{stem}_{number}");
        }
        match self.taken.get_mut(&*stem) {
            Some(count) => *count = number,
            None => drop(self.taken.insert((*stem).into(), number)),
        }
        self.taken.insert(name.as_str().into(), 1);
        name
    }
}
