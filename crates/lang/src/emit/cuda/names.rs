//! C++ identifiers for values.

use std::borrow::Cow;
use std::fmt::Write;

use rustc_hash::FxHashMap;

/// Words of C++ and of its compilers' dialects, macros among them.
const WORDS: &[&str] = &[
    "EOF",
    "FALSE",
    "INFINITY",
    "NAN",
    "NULL",
    "TRUE",
    "alignas",
    "alignof",
    "and",
    "and_eq",
    "asm",
    "assert",
    "auto",
    "bitand",
    "bitor",
    "bool",
    "break",
    "case",
    "catch",
    "char",
    "char16_t",
    "char32_t",
    "char8_t",
    "class",
    "co_await",
    "co_return",
    "co_yield",
    "compl",
    "concept",
    "const",
    "const_cast",
    "consteval",
    "constexpr",
    "constinit",
    "continue",
    "decltype",
    "default",
    "delete",
    "do",
    "double",
    "dynamic_cast",
    "else",
    "enum",
    "errno",
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
    "linux",
    "long",
    "mutable",
    "namespace",
    "new",
    "noexcept",
    "not",
    "not_eq",
    "nullptr",
    "operator",
    "or",
    "or_eq",
    "private",
    "protected",
    "public",
    "register",
    "reinterpret_cast",
    "requires",
    "return",
    "short",
    "signed",
    "sizeof",
    "static",
    "static_assert",
    "static_cast",
    "stderr",
    "stdin",
    "stdout",
    "struct",
    "switch",
    "template",
    "this",
    "thread",
    "thread_local",
    "throw",
    "true",
    "try",
    "typedef",
    "typeid",
    "typename",
    "typeof",
    "union",
    "unix",
    "unsigned",
    "using",
    "virtual",
    "void",
    "volatile",
    "wchar_t",
    "while",
    "xor",
    "xor_eq",
];

/// What the emitter and CUDA call things that kernels use.
const USED: &[&str] = &[
    "Array1",
    "Array2",
    "Array3",
    "Array4",
    "Bfloat",
    "Fault",
    "Faults",
    "Half",
    "Records",
    "Scalars2",
    "Scalars4",
    "Tape",
    "atomicAdd",
    "atomicAnd",
    "atomicCAS",
    "atomicExch",
    "atomicMax",
    "atomicMin",
    "atomicOr",
    "atomicSub",
    "atomicXor",
    "atomic_max",
    "atomic_min",
    "atomic_narrow",
    "blockDim",
    "blockIdx",
    "dim0",
    "dim1",
    "dim2",
    "dim3",
    "faults",
    "gridDim",
    "leads_sum",
    "llabs",
    "llmax",
    "llmin",
    "mul_masked",
    "pack",
    "printf",
    "read2",
    "read4",
    "record_cells",
    "record_first",
    "record_keys",
    "record_log",
    "record_need",
    "record_size",
    "record_slot",
    "record_stride",
    "record_values",
    "round_bfloat",
    "round_half",
    "tape",
    "tape_need",
    "tape_size",
    "tape_words",
    "tape_words_needed",
    "threadIdx",
    "ullmax",
    "ullmin",
    "umax",
    "umin",
    "unpack",
    "warpSize",
    "write2",
    "write4",
];

/// Functions of numbers, which have a second one with an `f` for floats.
const MATH: &[&str] = &[
    "abs",
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "cbrt",
    "ceil",
    "copysign",
    "cos",
    "cosh",
    "cospi",
    "cyl_bessel_i0",
    "cyl_bessel_i1",
    "erf",
    "erfc",
    "erfcinv",
    "erfcx",
    "erfinv",
    "exp",
    "exp10",
    "exp2",
    "expm1",
    "fabs",
    "fdim",
    "fdivide",
    "floor",
    "fma",
    "fmax",
    "fmin",
    "fmod",
    "frexp",
    "hypot",
    "ilogb",
    "isfinite",
    "isinf",
    "isnan",
    "j0",
    "j1",
    "jn",
    "labs",
    "ldexp",
    "lgamma",
    "llrint",
    "llround",
    "log",
    "log10",
    "log1p",
    "log2",
    "logb",
    "lrint",
    "lround",
    "max",
    "min",
    "modf",
    "nan",
    "nearbyint",
    "nextafter",
    "norm",
    "norm3d",
    "norm4d",
    "normcdf",
    "normcdfinv",
    "pow",
    "powi",
    "rcbrt",
    "remainder",
    "remquo",
    "rhypot",
    "rint",
    "rnorm",
    "rnorm3d",
    "rnorm4d",
    "round",
    "rsqrt",
    "saturate",
    "scalbln",
    "scalbn",
    "signbit",
    "sin",
    "sincos",
    "sincospi",
    "sinh",
    "sinpi",
    "sqrt",
    "tan",
    "tanh",
    "tgamma",
    "trunc",
    "y0",
    "y1",
    "yn",
];

/// Other functions and types that a name at the level of a file meets, those of the standalone programs among them.
const OUTER: &[&str] = &[
    "CHECK",
    "NarrowAdd",
    "NarrowMax",
    "NarrowMin",
    "Site",
    "abort",
    "atexit",
    "atof",
    "atoi",
    "atomicDec",
    "atomicInc",
    "atomic_add",
    "calloc",
    "clock",
    "clock64",
    "compare",
    "dim3",
    "div",
    "exit",
    "failed",
    "filled",
    "fprintf",
    "free",
    "ldiv",
    "lldiv",
    "made",
    "main",
    "malloc",
    "mbstowcs",
    "memchr",
    "memcmp",
    "memcpy",
    "memmove",
    "memset",
    "nanosleep",
    "number",
    "putchar",
    "puts",
    "qsort",
    "rand",
    "read",
    "realloc",
    "size_t",
    "srand",
    "std",
    "strcat",
    "strchr",
    "strcmp",
    "strcpy",
    "strlen",
    "strncmp",
    "strncpy",
    "system",
    "time",
    "vprintf",
    "write",
];

/// Whether a value cannot be called so.
fn is_used(name: &str) -> bool {
    let is_math = |name: &str| MATH.binary_search(&name).is_ok();
    name.starts_with("__")
        || WORDS.binary_search(&name).is_ok()
        || USED.binary_search(&name).is_ok()
        || is_math(name)
        || name.strip_suffix('f').is_some_and(is_math)
}

/// `float4`, `uchar2` and their like.
fn is_vector_type(name: &str) -> bool {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let scalars = ["char", "short", "int", "long", "longlong"];
    stem.len() + 1 == name.len()
        && (matches!(stem, "float" | "double")
            || scalars.contains(&stem)
            || stem.strip_prefix('u').is_some_and(|signed| scalars.contains(&signed)))
}

/// What a kernel of this name is called in CUDA C++, where C++, CUDA or the emitter may have another meaning for its name, and
/// where it may be no identifier of C++.
pub fn symbol(name: &str) -> Cow<'_, str> {
    let is_taken = |name: &str| {
        is_used(name)
            || OUTER.binary_search(&name).is_ok()
            || is_vector_type(name)
            || name.starts_with("make_")
            || name.starts_with("cuda")
            // Nor is it an identifier of PTX.
            || name == "_"
    };
    if name.is_ascii() && !is_taken(name) {
        return name.into();
    }
    let mut made = String::from("kernel_");
    for c in name.chars() {
        match c.is_ascii() {
            true => made.push(c),
            false => drop(write!(made, "u{:04x}", u32::from(c))),
        }
    }
    made.into()
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
        let headless =
            hint.is_empty() || hint.starts_with(|c: char| c.is_ascii_digit()) || hint.starts_with("__");
        let stem: Cow<'_, str> = match !headless && hint.chars().all(is_good) {
            true => hint.into(),
            false => {
                let head = if headless { "v" } else { "" };
                head.chars().chain(hint.chars().map(|c| if is_good(c) { c } else { '_' })).collect()
            }
        };
        let count = match self.taken.get(&*stem) {
            Some(count) => *count,
            None if is_used(&stem) => 1,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted() {
        for list in [WORDS, USED, MATH, OUTER] {
            assert!(list.is_sorted(), "{:?}", list.iter().zip(&list[1..]).find(|pair| pair.0 > pair.1));
        }
    }

    #[test]
    fn kernels_keep_names_that_mean_nothing_else() {
        for name in ["step", "scale2", "float4x", "k", "Tapes"] {
            assert_eq!(symbol(name), name);
        }
        for (name, expected) in [
            ("double", "kernel_double"),
            ("uint4", "kernel_uint4"),
            ("größe", "kernel_gru00f6u00dfe"),
            ("sinf", "kernel_sinf"),
        ] {
            assert_eq!(symbol(name), expected);
        }
    }
}
