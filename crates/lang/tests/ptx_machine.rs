//! PTX of our own on a machine that is a test: random kernels, every kind, their adjoints and every mathematical function do what the
//! interpreter says, but for last bits. `BULLET_LANG_KERNELS` and `BULLET_LANG_SEED` as of the other random tests.

#[path = "random/arguments.rs"]
mod arguments;
#[path = "random/generate.rs"]
mod generate;
mod machine;
#[allow(dead_code)]
mod sources;

use std::env;

use arguments::Given;
use bullet_lang::adjoint::{AdjointOptions, Tape, Use, adjoint};
use bullet_lang::emit::cuda::{Checks, CudaOptions, Layout, Sharing, sites, symbol, takes_tape};
use bullet_lang::emit::ptx::{Target, module};
use bullet_lang::interp::{Arg, Array, Cells, Options as Run, run};
use bullet_lang::ir::{Kernel, Type};
use bullet_lang::order::{most_records, summed};
use bullet_lang::{Options, compile};
use bullet_ops::{DType, scalar};
use machine::{Machine, Module};

/// How many threads run each random kernel.
const THREADS: usize = 7;

/// A kernel and what it is given.
struct Case<'a> {
    kernel: &'a Kernel,
    uses: &'a [Use],
    args: &'a [Arg<f64>],
    before: &'a [Array<f64>],
    grid: &'a [usize],
    layout: Layout,
    target: Target,
    records: Option<Sharing>,
}

fn to_bytes(array: &Array<f64>) -> Vec<u8> {
    let float = |x: f64| match array.dtype {
        DType::F64 => x.to_le_bytes().to_vec(),
        DType::F32 => (x as f32).to_le_bytes().to_vec(),
        DType::F16 => half::f16::from_f32(x as f32).to_le_bytes().to_vec(),
        _ => half::bf16::from_f32(x as f32).to_le_bytes().to_vec(),
    };
    match &array.cells {
        Cells::Float(cells) => cells.iter().flat_map(|&x| float(x)).collect(),
        Cells::Int(cells) => {
            cells.iter().flat_map(|n| n.to_le_bytes()[..array.dtype.size()].to_vec()).collect()
        }
    }
}

fn of_bytes(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    let number = |bytes: &[u8]| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        let bits = u64::from_le_bytes(word);
        match dtype {
            DType::F64 => f64::from_bits(bits),
            DType::F32 => f32::from_bits(bits as u32).into(),
            DType::F16 => half::f16::from_bits(bits as u16).into(),
            DType::BF16 => half::bf16::from_bits(bits as u16).into(),
            // As the interpreter holds both.
            DType::I64 | DType::U64 => bits as i64 as f64,
            DType::I32 => f64::from(bits as i32),
            DType::I16 => f64::from(bits as i16),
            DType::I8 => f64::from(bits as i8),
            _ => bits as f64,
        }
    };
    bytes.chunks(dtype.size()).map(number).collect()
}

fn floats(array: &Array<f64>) -> Vec<f64> {
    match &array.cells {
        Cells::Float(cells) => cells.clone(),
        Cells::Int(cells) => cells.iter().map(|&n| n as f64).collect(),
    }
}

/// Arguments as a launch packs them.
#[derive(Default)]
struct Packed(Vec<u8>);

impl Packed {
    fn push(&mut self, bytes: &[u8], alignment: usize) {
        self.0.resize(self.0.len().next_multiple_of(alignment), 0);
        self.0.extend(bytes);
    }
}

/// Room for records of sums, by threads.
#[derive(Clone, Default)]
struct Records {
    /// How many parameters they are of.
    arrays: usize,
    /// So many a thread, and of all threads.
    size: u32,
    places: usize,
    need: u64,
    /// Keys, cells, values.
    lists: [u64; 3],
}

impl Records {
    /// Of a launch that only measures its tape.
    fn measuring(&self) -> Records {
        Records { size: 0, ..self.clone() }
    }

    /// Adds up what was put down.
    fn apply(&self, machine: &mut Machine<'_>) {
        if self.arrays == 0 {
            return;
        }
        let need = u32::from_le_bytes(machine.read(self.need, 4).try_into().expect("a word"));
        assert!(need <= self.size, "{need} records a thread, not {}", self.size);
        for place in 0..self.places as u64 {
            let [key, cell, value] = self.lists.map(|list| {
                u64::from_le_bytes(machine.read(list + 8 * place, 8).try_into().expect("eight bytes"))
            });
            if key == u64::MAX {
                continue;
            }
            let address = cell & ((1 << 60) - 1);
            assert_eq!(key, address);
            let dtype = [DType::F32, DType::F64, DType::F16, DType::BF16][(cell >> 60) as usize];
            let old = of_bytes(dtype, machine.read(address, dtype.size()))[0];
            let sum = Cells::Float(vec![old + f64::from_bits(value)]);
            machine.write(address, &to_bytes(&Array { dtype, shape: vec![1], cells: sum }));
        }
    }
}

impl Case<'_> {
    /// What the interpreter leaves; none if it runs too long.
    fn expected(&self) -> Option<Vec<Array<f64>>> {
        let mut after = self.before.to_vec();
        let options = Run { rounded: true, fuel: 1_000_000 };
        match run(self.kernel, self.grid, self.args, &mut after, options) {
            Ok(_) => Some(after),
            Err(fault) if fault.to_string().contains("too long") => None,
            Err(fault) => panic!("{fault}\n{}", self.kernel),
        }
    }

    /// Indices are in range, and checks of them do nothing.
    fn options(&self) -> CudaOptions {
        let checks = if self.target == Target::Sm35 { Checks::All } else { Checks::Off };
        CudaOptions { layout: self.layout, records: self.records, checks }
    }

    /// The bytes of an array's element, and from one to the next: apart where it is the field of a struct.
    fn element(&self, array: usize) -> (usize, usize) {
        let is_it = |arg: &&Arg<f64>| matches!(arg, Arg::Array(i) if *i == array);
        let param = self.args.iter().position(|arg| is_it(&arg)).expect("every array is an argument");
        let ty = self.kernel.ty(self.kernel.params[param]).array().expect("an array");
        let size = ty.dtype.size();
        let pitch = if self.layout == Layout::Contiguous { ty.pitch } else { ty.lanes };
        (usize::from(ty.lanes) * size, usize::from(pitch) * size)
    }

    fn bytes(&self, array: usize) -> Vec<u8> {
        let (element, pitch) = self.element(array);
        let gap = vec![0xcc; pitch - element];
        to_bytes(&self.before[array]).chunks(element).flat_map(|chunk| [chunk, &gap].concat()).collect()
    }

    fn text(&self) -> String {
        let options = self.options();
        module(&[self.kernel], options, self.target).unwrap_or_else(|e| panic!("{e}\n{}", self.kernel))
    }

    /// What the machine leaves.
    fn found(&self, text: &str) -> Vec<Vec<f64>> {
        let parsed = Module::parse(text);
        let mut machine = Machine::new(&parsed);
        let places: Vec<u64> =
            (0..self.before.len()).map(|array| machine.alloc(&self.bytes(array))).collect();
        let records = self.records_of(&mut machine);
        let need = machine.alloc(&[0; 4]);
        let words = |machine: &Machine<'_>| {
            u64::from(u32::from_le_bytes(machine.read(need, 4).try_into().expect("a word")))
        };
        let mut most = 0;
        let mut tape = None;
        if takes_tape(self.kernel) {
            most = match Tape::of(self.kernel) {
                Tape::Words(words) => words,
                Tape::Measured => {
                    let given = self.to_measure(&mut machine, &places);
                    self.launch(&mut machine, &given, Some((0, 0, need)), &records.measuring());
                    words(&machine)
                }
            };
            tape =
                Some((machine.alloc(&vec![0xdd; 4 * most as usize * self.threads() + 4]), most as u32, need));
        }
        self.launch(&mut machine, &places, tape, &records);
        assert!(words(&machine) <= most, "{most} words are too few\n{}", self.kernel);
        records.apply(&mut machine);
        let read = |array: usize| {
            let (element, pitch) = self.element(array);
            let bytes = machine.read(places[array], self.bytes(array).len());
            let dense: Vec<u8> = bytes.chunks(pitch).flat_map(|chunk| chunk[..element].to_vec()).collect();
            of_bytes(self.before[array].dtype, &dense)
        };
        (0..self.before.len()).map(read).collect()
    }

    /// Copies of what a launch that measures overwrites.
    fn to_measure(&self, machine: &mut Machine<'_>, places: &[u64]) -> Vec<u64> {
        let mut given = places.to_vec();
        for (arg, usage) in self.args.iter().zip(self.uses) {
            if let (Arg::Array(i), Use::Scratch) = (arg, usage) {
                given[*i] = machine.alloc(&self.bytes(*i));
            }
        }
        given
    }

    fn threads(&self) -> usize {
        self.grid.iter().product()
    }

    fn launch(
        &self,
        machine: &mut Machine<'_>,
        places: &[u64],
        tape: Option<(u64, u32, u64)>,
        records: &Records,
    ) {
        let mut packed = self.pack(places);
        let fails = !sites(self.kernel, self.options()).is_empty();
        let cell = machine.alloc(&[0; 64]);
        if fails {
            packed.push(&[&cell.to_le_bytes()[..], &[0; 8], &1u32.to_le_bytes(), &[0; 20]].concat(), 8);
        }
        if let Some((words, size, need)) = tape {
            packed.push(&words.to_le_bytes(), 8);
            packed.push(&size.to_le_bytes(), 4);
            packed.push(&need.to_le_bytes(), 8);
        }
        if records.arrays > 0 {
            [0, self.threads() as u64].iter().for_each(|x| packed.push(&x.to_le_bytes(), 8));
            packed.push(&records.size.to_le_bytes(), 4);
            let places = [records.need].into_iter().chain(records.lists);
            places.for_each(|place| packed.push(&place.to_le_bytes(), 8));
            // What is added to addresses: here they are the keys themselves.
            (0..records.arrays).for_each(|_| packed.push(&[0; 8], 8));
        }
        machine.launch(&symbol(&self.kernel.name), self.threads() as u64, &packed.0);
        assert_eq!(machine.read(cell, 64), [0; 64], "a fault\n{}", self.kernel);
    }

    /// Room for what the kernel records.
    fn records_of(&self, machine: &mut Machine<'_>) -> Records {
        let Some(sharing) = self.records else { return Records::default() };
        let distinct = sharing == Sharing::Distinct;
        let size = most_records(self.kernel, distinct).unwrap_or(2000) as u32;
        let places = size as usize * self.threads();
        let lists = [0xff, 0, 0].map(|byte| machine.alloc(&vec![byte; 8 * places + 8]));
        let (need, arrays) = (machine.alloc(&[0; 4]), summed(self.kernel, distinct).len());
        Records { arrays, size, places, need, lists }
    }

    fn pack(&self, places: &[u64]) -> Packed {
        let mut packed = Packed::default();
        self.grid.iter().for_each(|&length| packed.push(&(length as i32).to_le_bytes(), 4));
        for (&param, arg) in self.kernel.params.iter().zip(self.args) {
            match (self.kernel.ty(param), arg) {
                (Type::Array(ty), &Arg::Array(array)) => {
                    let shape = &self.before[array].shape;
                    packed.push(&places[array].to_le_bytes(), 8);
                    shape.iter().for_each(|&length| packed.push(&(length as i32).to_le_bytes(), 4));
                    packed.push(&[], 8);
                    if self.layout == Layout::Strided {
                        let stride =
                            |axis: usize| shape[axis + 1..].iter().product::<usize>() * usize::from(ty.lanes);
                        (0..shape.len())
                            .for_each(|axis| packed.push(&(stride(axis) as i64).to_le_bytes(), 8));
                    }
                }
                (Type::Scalar(dtype), arg) => {
                    let cells = match *arg {
                        Arg::Float(x) => Cells::Float(vec![x]),
                        Arg::Int(n) => Cells::Int(vec![n]),
                        Arg::Array(_) => unreachable!("arguments fit"),
                    };
                    packed.push(&to_bytes(&Array { dtype, shape: vec![1], cells }), dtype.size());
                }
                _ => unreachable!("arguments fit"),
            }
        }
        packed
    }

    /// Whether it was compared.
    fn check(&self, what: &str, tolerance: f64) -> bool {
        let Some(expected) = self.expected() else { return false };
        let text = self.text();
        let found = self.found(&text);
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            for (place, (&a, &b)) in found.iter().zip(&floats(expected)).enumerate() {
                let near =
                    (a.is_nan() && b.is_nan()) || a == b || (a - b).abs() <= tolerance * (1.0 + b.abs());
                assert!(near, "{what}, array {i}, place {place}: {a}, not {b}\n{}\n{text}", self.kernel);
            }
        }
        true
    }
}

#[test]
fn random_kernels_do_what_the_interpreter_says() {
    let number =
        |name: &str, default| env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (first, count): (u64, u64) = (number("BULLET_LANG_SEED", 1), number("BULLET_LANG_KERNELS", 150));
    let mut compared = 0;
    for seed in first..first + count {
        let given = Given::new(seed, THREADS);
        let layout = if seed % 3 == 0 { Layout::Strided } else { Layout::Contiguous };
        let target = if seed % 2 == 0 { Target::Sm35 } else { Target::Sm80 };
        let grid = &[THREADS];
        let records = if seed % 5 < 2 { Some(Sharing::Distinct) } else { None };
        let (kernel, args, before) = (&given.kernel, given.args(), &given.before[..]);
        compared += u64::from(
            Case { kernel, uses: &[], args, before, grid, layout, target, records }
                .check(&format!("seed {seed}"), 1e-6),
        );
        let (kernel, uses) = (&given.adjoint.kernel, &given.adjoint.uses[..]);
        let (args, before) = (given.args_adjoint(), &given.before_adjoint[..]);
        compared += u64::from(
            Case { kernel, uses, args, before, grid, layout, target, records }
                .check(&format!("adjoint of {seed}"), 1e-6),
        );
    }
    println!("{compared} of {} kernels and adjoints were compared", 2 * count);
    assert!(compared * 10 >= 2 * count * 7);
}

/// A number in [0.3, 1.7] or its negative, from a counter.
fn number(counter: &mut u64) -> f64 {
    *counter += 1;
    let x = (*counter as f64 * 0.754_877_666_246_693).fract();
    if counter.is_multiple_of(3) { -0.3 - x } else { 0.3 + x }
}

#[test]
fn kinds_do_what_the_interpreter_says() {
    const LENGTH: usize = 6;
    for (name, text) in sources::kinds() {
        for kernel in compile(&name, &text, Options::default()).unwrap_or_else(|e| panic!("{e}")) {
            let made = adjoint(&kernel, AdjointOptions::default()).unwrap_or_else(|e| panic!("{e:?}"));
            for (kernel, uses) in [(&kernel, &[][..]), (&made.kernel, &made.uses[..])] {
                let (mut counter, mut before) = (7, vec![]);
                let args = kernel.params.iter().map(|&param| match kernel.ty(param) {
                    Type::Scalar(dtype) if dtype.is_float() => Arg::Float(number(&mut counter) as f32 as f64),
                    Type::Scalar(_) => Arg::Int(5),
                    Type::Array(ty) => {
                        let shape = vec![LENGTH; ty.ndim.into()];
                        let count = shape.iter().product::<usize>() * usize::from(ty.lanes);
                        let round = |x: f64| half::f16::from_f64((x * 64.0).round() / 64.0).to_f64();
                        let cells = match ty.dtype.is_float() {
                            true => Cells::Float((0..count).map(|_| round(number(&mut counter))).collect()),
                            false => {
                                Cells::Int((0..count).map(|i| (i * 5 + 2) as i64 % LENGTH as i64).collect())
                            }
                        };
                        before.push(Array { dtype: ty.dtype, shape, cells });
                        Arg::Array(before.len() - 1)
                    }
                });
                let args: Vec<Arg<f64>> = args.collect();
                let grid = vec![LENGTH; kernel.grid.into()];
                for layout in [Layout::Contiguous, Layout::Strided] {
                    for target in [Target::Sm35, Target::Sm80] {
                        let case = Case {
                            kernel,
                            uses,
                            args: &args,
                            before: &before,
                            grid: &grid,
                            layout,
                            target,
                            records: None,
                        };
                        let tolerance = if name == "half.py" { 2e-2 } else { 1e-4 };
                        assert!(case.check(&name, tolerance));
                    }
                }
            }
        }
    }
}

#[test]
fn a_thread_that_cannot_go_on_says_why_and_stops() {
    let text = "import warp as wp\n\n@wp.kernel\ndef k(x: wp.array2d(dtype=float), n: int):\n    i = wp.tid()\n    assert n > 2\n    \
                x[1, i] = 7.0\n";
    let kernel = &compile("k.py", text, Options::default()).unwrap_or_else(|e| panic!("{e}"))[0];
    let options = CudaOptions { checks: Checks::All, ..CudaOptions::default() };
    let text = module(&[kernel], options, Target::Sm80).unwrap_or_else(|e| panic!("{e}"));
    let parsed = Module::parse(&text);
    for (n, expected) in [(3, [42, 5, 1005, 9, 2, 5]), (2, [40, 0, 1000, 9, 0, 0])] {
        let mut machine = Machine::new(&parsed);
        let (x, cell) = (machine.alloc(&[0; 40]), machine.alloc(&[0; 64]));
        let mut packed = Packed::default();
        packed.push(&7i32.to_le_bytes(), 4);
        packed.push(&x.to_le_bytes(), 8);
        [2i32, 5, n].iter().for_each(|x| packed.push(&x.to_le_bytes(), 4));
        let head = [cell.to_le_bytes(), 1000u64.to_le_bytes()].concat();
        let grid = [40, 9, 1, 1, 1, 0].map(i32::to_le_bytes).concat();
        packed.push(&[head, grid].concat(), 8);
        machine.launch("k", 7, &packed.0);
        let word = |at: u64| i32::from_le_bytes(machine.read(cell + at, 4).try_into().expect("a word"));
        assert_eq!([0, 8, 24, 32, 48, 52].map(word), expected, "{text}");
        let written = of_bytes(DType::F32, machine.read(x + 20, 20));
        assert_eq!(written, [if n > 2 { 7.0 } else { 0.0 }; 5]);
    }
}

/// Kernels of every type: arithmetic of the type itself, and conversions to all others.
fn typed(name: &str, float: bool) -> String {
    let mut text = String::from("import warp as wp\n\n@wp.kernel\ndef f(");
    let (mut params, mut body) = (vec![], String::new());
    let binary: &[&str] = match float {
        true => &["a + b", "a - b", "a * b", "a / b", "wp.min(a, b)", "wp.max(a, b)", "wp.mod(a, b)"],
        false => &[
            "a + b",
            "a - b",
            "a * b",
            "a / b",
            "a % b",
            "a & b",
            "a | b",
            "a ^ b",
            "wp.min(a, b)",
            "wp.max(a, b)",
            "-a",
            "~a",
            "wp.abs(a)",
            "wp.sign(a)",
            "a << c",
            "a >> c",
        ],
    };
    for (number, op) in binary.iter().enumerate() {
        params.push(format!("o{number}: wp.array(dtype=wp.{name})"));
        body += &format!("    o{number}[i] = {op}\n");
    }
    for to in TYPES {
        params.push(format!("to_{to}: wp.array(dtype=wp.{to})"));
        body += &format!("    to_{to}[i] = wp.{to}(a)\n");
    }
    text += &format!("x: wp.array(dtype=wp.{name}), y: wp.array(dtype=wp.{name}), {}):\n", params.join(", "));
    text += "    i = wp.tid()\n    a = x[i]\n    b = y[i]\n";
    if !float {
        text += &format!("    c = b & wp.{name}(7)\n");
    }
    let sums = float || !name.ends_with('8') && !name.ends_with("16");
    text + &body + if sums { "    wp.atomic_add(o0, 0, b)\n    wp.atomic_max(o1, 1, a)\n" } else { "" }
}

const TYPES: [&str; 12] = [
    "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "bfloat16",
    "float32", "float64",
];

#[test]
fn every_type_does_what_the_interpreter_says() {
    for name in TYPES {
        let float = name.contains("float");
        let kernel = &compile("typed.py", &typed(name, float), Options::default())
            .unwrap_or_else(|e| panic!("{e}"))[0];
        let x = [
            0.0, 1.0, -1.0, 2.5, 127.0, -128.0, 255.0, 65535.0, -3e4, 3e9, -2e18, 1.7, 300.4, -0.75, 1e-3,
            40000.0,
        ];
        let y = [1.0, 3.0, -2.0, 7.0, 5.0, -1.0, 100.0, 9.0, 11.0, 1.5];
        let count = x.len() * y.len();
        let number = |k: usize, i: usize| if k == 0 { x[i % x.len()] } else { y[i / x.len()] };
        let mut before: Vec<Array<f64>> = vec![];
        for (k, &param) in kernel.params.iter().enumerate() {
            let dtype = kernel.ty(param).array().expect("an array").dtype;
            let zero = Array::zeros(dtype, &[count], 1);
            let given = |i: usize| if k < 2 { number(k, i) } else { 0.0 };
            let cells = match dtype.is_float() {
                // Numbers that the type has.
                true => Cells::Float(of_bytes(
                    dtype,
                    &to_bytes(&Array {
                        cells: Cells::Float((0..count).map(given).collect()),
                        ..zero.clone()
                    }),
                )),
                false => {
                    let wrapped = to_bytes(&Array {
                        cells: Cells::Int((0..count).map(|i| given(i) as i64).collect()),
                        ..zero.clone()
                    });
                    let int = |bytes: &[u8]| {
                        let negative = !dtype.is_unsigned() && bytes[bytes.len() - 1] & 0x80 != 0;
                        let mut word = [if negative { 0xff } else { 0 }; 8];
                        word[..bytes.len()].copy_from_slice(bytes);
                        i64::from_le_bytes(word)
                    };
                    Cells::Int(
                        wrapped
                            .chunks(dtype.size())
                            .map(int)
                            .map(|n| if k == 1 && n == 0 { 1 } else { n })
                            .collect(),
                    )
                }
            };
            before.push(Array { cells, ..zero });
        }
        let args: Vec<Arg<f64>> = (0..before.len()).map(Arg::Array).collect();
        for target in [Target::Sm35, Target::Sm80] {
            let (grid, layout) = (&[count][..], Layout::Contiguous);
            let case =
                Case { kernel, uses: &[], args: &args, before: &before, grid, layout, target, records: None };
            assert!(case.check(name, 1e-6));
        }
    }
}

/// A function's name, its values in f64, and where it is asked for them.
type Known = (&'static str, fn(f64) -> f64, (f64, f64));

/// A function of two numbers, and what it is in f64.
type OfTwo = (&'static str, fn(f64, f64) -> f64);

const FUNCTIONS: [Known; 20] = [
    ("sin", f64::sin, (-1e5, 1e5)),
    ("cos", f64::cos, (-1e5, 1e5)),
    ("tan", f64::tan, (-1e4, 1e4)),
    ("exp", f64::exp, (-110.0, 90.0)),
    ("log", f64::ln, (0.0, 1e3)),
    ("log2", f64::log2, (0.0, 1e3)),
    ("log10", f64::log10, (0.0, 1e3)),
    ("sqrt", f64::sqrt, (0.0, 1e3)),
    ("cbrt", f64::cbrt, (-1e3, 1e3)),
    ("tanh", f64::tanh, (-12.0, 12.0)),
    ("sinh", f64::sinh, (-90.0, 90.0)),
    ("cosh", f64::cosh, (-90.0, 90.0)),
    ("asin", f64::asin, (-1.0, 1.0)),
    ("acos", f64::acos, (-1.0, 1.0)),
    ("atan", f64::atan, (-30.0, 30.0)),
    ("erf", scalar::erf, (-6.0, 6.0)),
    ("erfc", scalar::erfc, (-4.0, 10.0)),
    ("erfinv", scalar::erfinv, (-1.0, 1.0)),
    ("round", f64::round, (-9.0, 9.0)),
    ("floor", f64::floor, (-9.0, 9.0)),
];

/// Numbers that functions are asked for: between two, near 0, large, and the special ones.
fn samples((low, high): (f64, f64), single: bool) -> Vec<f64> {
    let mut out = vec![0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1.0, -1.0, 0.5, 2.0];
    for i in 0..4000 {
        out.push(low + (high - low) * (f64::from(i) * 0.754_877_666_246_693).fract());
    }
    for i in 0..200 {
        let size = 1.1f64.powi(i - 250);
        out.extend([size, -size, 1.0 - size, 1.0 + size]);
        let size = 1.4f64.powi(i);
        out.extend([size, -size]);
    }
    out.extend((1..12).map(|k| f64::from(k) * std::f64::consts::FRAC_PI_2));
    if single { out.into_iter().map(|x| x as f32 as f64).collect() } else { out }
}

/// What functions of the arrays `x` and `y` give.
fn computed(function: &str, ty: &str, x: &[f64], y: &[f64]) -> Vec<f64> {
    let text = format!(
        "import warp as wp\n\n@wp.kernel\ndef f(x: wp.array(dtype={ty}), y: wp.array(dtype={ty}), out: wp.array(dtype={ty})):\n    i = wp.tid()\n    \
         out[i] = {function}\n"
    );
    let kernel = &compile("f.py", &text, Options::default()).unwrap_or_else(|e| panic!("{e}"))[0];
    let dtype = if ty == "wp.float64" { DType::F64 } else { DType::F32 };
    let array = |x: &[f64]| Array { dtype, shape: vec![x.len()], cells: Cells::Float(x.to_vec()) };
    let before = [array(x), array(y), array(&vec![7.0; x.len()])];
    let args = [Arg::Array(0), Arg::Array(1), Arg::Array(2)];
    let (grid, layout) = (&[x.len()][..], Layout::Contiguous);
    let case = Case {
        kernel,
        uses: &[],
        args: &args,
        before: &before,
        grid,
        layout,
        target: Target::Sm80,
        records: None,
    };
    case.found(&case.text()).swap_remove(2)
}

/// How far apart two numbers are, in units of the last place of the second; 0 where both are the same special number.
fn distance(found: f64, exact: f64, single: bool) -> f64 {
    let rounded = if single { exact as f32 as f64 } else { exact };
    if found.to_bits() == rounded.to_bits() || (found.is_nan() && rounded.is_nan()) {
        return 0.0;
    }
    if !found.is_finite() || !rounded.is_finite() {
        // One step beyond the largest number.
        let most = if single { f64::from(f32::MAX) } else { f64::MAX };
        return if found.abs() >= most && rounded.abs() >= most && found * rounded > 0.0 {
            1.0
        } else {
            f64::INFINITY
        };
    }
    let unit = match single {
        true => {
            let x = (rounded as f32).abs().max(f32::MIN_POSITIVE);
            f64::from(f32::from_bits(x.to_bits() + 1) - x)
        }
        false => {
            let x = rounded.abs().max(f64::MIN_POSITIVE);
            f64::from_bits(x.to_bits() + 1) - x
        }
    };
    (found - exact).abs() / unit
}

#[test]
fn functions_are_exact_to_few_last_places() {
    for (ty, single) in [("float", true), ("wp.float64", false)] {
        for (name, exact, range) in FUNCTIONS {
            let x = samples(range, single);
            let found = computed(&format!("wp.{name}(x[i])"), ty, &x, &x);
            let errors =
                x.iter().zip(&found).map(|(&x, &found)| (distance(found, exact(x), single), x, found));
            let (most, x, found) = errors.max_by(|a, b| a.0.total_cmp(&b.0)).expect("samples");
            println!("{name} of {ty}: {most:.2} at {x:e}");
            // What these are compared with has fewer digits in f64.
            let limit = if !single && name.starts_with("erf") { 2000.0 } else { 4.0 };
            assert!(most <= limit, "{name}({x:e}) of {ty} is {found:e}, not {:e}: {most} units", exact(x));
        }
    }
}

#[test]
fn functions_of_two_numbers_are_exact_to_few_last_places() {
    let functions: [OfTwo; 4] = [
        ("wp.pow(x[i], y[i])", f64::powf),
        ("wp.atan2(x[i], y[i])", f64::atan2),
        ("wp.mod(x[i], y[i])", |x, y| x % y),
        ("wp.copysign(x[i], y[i])", f64::copysign),
    ];
    for (ty, single) in [("float", true), ("wp.float64", false)] {
        for (function, exact) in functions {
            let special = [
                0.0,
                -0.0,
                1.0,
                -1.0,
                2.0,
                -3.0,
                0.5,
                -2.5,
                f64::INFINITY,
                f64::NEG_INFINITY,
                f64::NAN,
                1e30,
                1e-30,
            ];
            let mut pairs: Vec<(f64, f64)> = vec![];
            special.iter().for_each(|&x| pairs.extend(special.iter().map(|&y| (x, y))));
            for i in 0..4000 {
                let part = |k: f64| (f64::from(i) * k).fract();
                pairs.push((20.0 * part(0.754_877_666_246_693), 60.0 * part(0.569_840_290_998_053) - 30.0));
                pairs.push((-4.0 * part(0.754_877_666_246_693), (9.0 * part(0.569_840_290_998_053)).floor()));
            }
            let round = |x: f64| if single { x as f32 as f64 } else { x };
            let (x, y): (Vec<f64>, Vec<f64>) = pairs.iter().map(|&(x, y)| (round(x), round(y))).unzip();
            let found = computed(function, ty, &x, &y);
            let errors = (0..x.len()).map(|i| (distance(found[i], exact(x[i], y[i]), single), i));
            let (most, i) = errors.max_by(|a, b| a.0.total_cmp(&b.0)).expect("samples");
            println!("{function} of {ty}: {most:.2} at {:e}, {:e}", x[i], y[i]);
            assert!(
                most <= 4.0,
                "{function} of {:e}, {:e} is {:e}, not {:e}",
                x[i],
                y[i],
                found[i],
                exact(x[i], y[i])
            );
        }
    }
}
