//! The oracle: runs a kernel's IR one thread after the other, slowly and exactly as the IR says.
//!
//! It is generic over what a float is: [`f64`], rounded to each value's type or not, and [`Dual`], which carries a
//! derivative forward. What a GPU leaves undefined is a [`Fault`] here: an index out of range, an integer divided by 0, a
//! tape that is not empty at the end. Barriers and shuffles need threads side by side, and are faults too.

use std::fmt;

use bullet_ops::DType;

use crate::adjoint::width;
use crate::ir::{Atomic, Binary, Block, Compare, Def, Inst, Kernel, Op, Space, Unary, Value, eval};

mod dual;

pub use dual::{Dual, Real};

/// The scalars of an array, side by side in C order.
#[derive(Clone, PartialEq, Debug)]
pub enum Cells<R> {
    /// Of floats.
    Float(Vec<R>),
    /// Of bools and integers; u64 as the i64 of the same bits.
    Int(Vec<i64>),
}

/// An array that kernels read and write.
#[derive(Clone, PartialEq, Debug)]
pub struct Array<R> {
    /// Of the scalars.
    pub dtype: DType,
    /// The length of each dimension.
    pub shape: Vec<usize>,
    /// Elements times lanes.
    pub cells: Cells<R>,
}

impl<R: Real> Array<R> {
    /// Of zeros, with so many lanes an element.
    pub fn zeros(dtype: DType, shape: &[usize], lanes: usize) -> Array<R> {
        let count = shape.iter().product::<usize>() * lanes;
        let cells = match dtype.is_float() {
            true => Cells::Float(vec![R::from_f64(0.0); count]),
            false => Cells::Int(vec![0; count]),
        };
        Array { dtype, shape: shape.into(), cells }
    }

    /// One-dimensional, of scalars.
    pub fn floats(dtype: DType, values: &[f64]) -> Array<R> {
        let cells = values.iter().map(|&x| R::from_f64(eval::round(dtype, x))).collect();
        Array { dtype, shape: vec![values.len()], cells: Cells::Float(cells) }
    }

    /// One-dimensional, of scalars.
    pub fn ints(dtype: DType, values: &[i64]) -> Array<R> {
        let cells = values.iter().map(|&x| eval::wrap(dtype, x)).collect();
        Array { dtype, shape: vec![values.len()], cells: Cells::Int(cells) }
    }

    /// The floats; empty of other dtypes.
    pub fn as_floats(&self) -> &[R] {
        match &self.cells {
            Cells::Float(cells) => cells,
            Cells::Int(_) => &[],
        }
    }

    /// The integers; empty of floats.
    pub fn as_ints(&self) -> &[i64] {
        match &self.cells {
            Cells::Int(cells) => cells,
            Cells::Float(_) => &[],
        }
    }
}

/// One argument of a launch.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Arg<R> {
    /// Of a float parameter.
    Float(R),
    /// Of a bool or integer.
    Int(i64),
    /// The array of this index; two arguments may be one array.
    Array(usize),
}

/// How to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whether each float is rounded to its type; else all have the digits of f64.
    pub rounded: bool,
    /// How many instructions may run before it is a fault.
    pub fuel: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { rounded: true, fuel: 1 << 32 }
    }
}

/// Why a run stopped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault(String);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}

type Result<T> = std::result::Result<T, Fault>;

fn fault<T>(message: impl Into<String>) -> Result<T> {
    Err(Fault(message.into()))
}

/// What a value is while a thread runs.
#[derive(Clone, Copy, Debug)]
enum Slot<R> {
    Empty,
    Float(R),
    Int(i64),
    Array(usize),
}

struct Thread<'a, R> {
    kernel: &'a Kernel,
    arrays: &'a mut Vec<Array<R>>,
    slots: Vec<Slot<R>>,
    place: [i64; 4],
    tape: Vec<Slot<R>>,
    /// How many words are on the tape, were at most, and may be at most behind the turn.
    words: [u64; 3],
    options: Options,
    fuel: u64,
    printed: &'a mut String,
}

/// Runs a kernel for every thread of a grid, the last dimension fastest; what it prints.
///
/// # Errors
/// The first [`Fault`]; what was stored before it stays.
pub fn run<R: Real>(
    kernel: &Kernel,
    grid: &[usize],
    args: &[Arg<R>],
    arrays: &mut Vec<Array<R>>,
    options: Options,
) -> Result<String> {
    run_measured(kernel, grid, args, arrays, options, &mut 0)
}

/// The same, and raises `peak` to the most words that any thread had on its tape.
///
/// # Errors
/// The first [`Fault`]; what was stored before it stays.
pub fn run_measured<R: Real>(
    kernel: &Kernel,
    grid: &[usize],
    args: &[Arg<R>],
    arrays: &mut Vec<Array<R>>,
    options: Options,
    peak: &mut u64,
) -> Result<String> {
    if args.len() != kernel.params.len() || grid.len() != usize::from(kernel.grid) {
        return fault(format!(
            "{} takes {} arguments and a grid of {} dimensions, not {} and {}",
            kernel.name,
            kernel.params.len(),
            kernel.grid,
            args.len(),
            grid.len()
        ));
    }
    let slots = bind(kernel, args, arrays, options)?;
    let mut printed = String::new();
    let own = arrays.len();
    let mut fuel = options.fuel;
    for linear in 0..grid.iter().product::<usize>() {
        let mut place = [0; 4];
        let mut rest = linear;
        for axis in (0..grid.len()).rev() {
            place[axis] = (rest % grid[axis]) as i64;
            rest /= grid[axis];
        }
        let printed = &mut printed;
        let mut thread = Thread {
            kernel,
            arrays,
            slots: slots.clone(),
            place,
            tape: vec![],
            words: [0, 0, u64::MAX],
            options,
            fuel,
            printed,
        };
        let ended = thread.block(kernel.body);
        let (left, remaining) = (thread.tape.len(), thread.fuel);
        *peak = (*peak).max(thread.words[1]);
        // Local arrays end with their thread.
        arrays.truncate(own);
        ended
            .map_err(|fault| Fault(format!("{}, thread {:?}: {fault}", kernel.name, &place[..grid.len()])))?;
        if left > 0 {
            return fault(format!("{left} values are left on the tape"));
        }
        fuel = remaining;
    }
    Ok(printed)
}

/// The values of constants and parameters.
fn bind<R: Real>(
    kernel: &Kernel,
    args: &[Arg<R>],
    arrays: &[Array<R>],
    options: Options,
) -> Result<Vec<Slot<R>>> {
    let mut slots = vec![Slot::Empty; kernel.value_count()];
    for (i, value) in kernel.values.iter().enumerate() {
        if let Def::Const(constant) = value.def {
            slots[i] = match constant.as_float() {
                Some(x) => Slot::Float(R::from_f64(x)),
                None => Slot::Int(constant.as_int().unwrap_or(0)),
            };
        }
    }
    for (&param, arg) in kernel.params.iter().zip(args) {
        let ty = kernel.ty(param);
        slots[param.index()] = match (ty.scalar(), ty.array(), arg) {
            (Some(dtype), _, Arg::Float(x)) if dtype.is_float() => {
                Slot::Float(if options.rounded { x.round(dtype) } else { *x })
            }
            (Some(dtype), _, Arg::Int(x)) if !dtype.is_float() => Slot::Int(eval::wrap(dtype, *x)),
            (_, Some(array), Arg::Array(index)) => {
                let given = arrays.get(*index).ok_or_else(|| Fault(format!("there is no array {index}")))?;
                if given.dtype != array.dtype || given.shape.len() != usize::from(array.ndim) {
                    let name = kernel.name_of(param).unwrap_or("");
                    return fault(format!(
                        "`{name}` is {array}, not an array of {} with {} dimensions",
                        given.dtype.name(),
                        given.shape.len()
                    ));
                }
                Slot::Array(*index)
            }
            _ => return fault(format!("an argument is no {ty}")),
        };
    }
    Ok(slots)
}

impl<R: Real> Thread<'_, R> {
    fn int(&self, value: Value) -> Result<i64> {
        match self.slots[value.index()] {
            Slot::Int(x) => Ok(x),
            other => fault(format!("value {} is {other:?}, no integer", value.0)),
        }
    }

    fn float(&self, value: Value) -> Result<R> {
        match self.slots[value.index()] {
            Slot::Float(x) => Ok(x),
            other => fault(format!("value {} is {other:?}, no float", value.0)),
        }
    }

    fn array(&self, value: Value) -> Result<usize> {
        match self.slots[value.index()] {
            Slot::Array(x) => Ok(x),
            other => fault(format!("value {} is {other:?}, no array", value.0)),
        }
    }

    fn rounded(&self, dtype: DType, value: R) -> Slot<R> {
        Slot::Float(if self.options.rounded { value.round(dtype) } else { value })
    }

    fn block(&mut self, block: Block) -> Result<()> {
        let kernel = self.kernel;
        for &inst in &kernel.block(block).insts {
            self.fuel = self.fuel.checked_sub(1).ok_or_else(|| Fault("the kernel runs too long".into()))?;
            self.inst(inst)?;
        }
        Ok(())
    }

    fn set(&mut self, inst: Inst, value: Slot<R>) {
        let result = self.kernel.inst(inst).results[0];
        self.slots[result.index()] = value;
    }

    fn inst(&mut self, inst: Inst) -> Result<()> {
        let kernel = self.kernel;
        let data = kernel.inst(inst);
        let args = &data.args;
        match data.op {
            Op::Tid(axis) => self.set(inst, Slot::Int(self.place[usize::from(axis)])),
            Op::Dim(axis) => {
                let array = self.array(args[0])?;
                self.set(inst, Slot::Int(self.arrays[array].shape[usize::from(axis)] as i64));
            }
            Op::Unary(op) => {
                let value = self.unary(op, args[0])?;
                self.set(inst, value);
            }
            Op::Binary(op) => {
                let value = self.binary(op, args[0], args[1])?;
                self.set(inst, value);
            }
            Op::Compare(op) => {
                let value = self.compare(op, args[0], args[1])?;
                self.set(inst, Slot::Int(value.into()));
            }
            Op::Select => {
                let chosen = if self.int(args[0])? != 0 { args[1] } else { args[2] };
                self.set(inst, self.slots[chosen.index()]);
            }
            Op::Cast => {
                let value = self.cast(args[0], kernel.dtype(data.results[0]))?;
                self.set(inst, value);
            }
            Op::Bitcast => {
                let value = self.bitcast(args[0], kernel.dtype(data.results[0]))?;
                self.set(inst, value);
            }
            Op::Load => self.load(inst)?,
            Op::Store => self.store(inst)?,
            Op::Atomic(op) => self.atomic(inst, op)?,
            Op::CompareExchange => self.exchange(inst)?,
            Op::Alloc(count) => self.alloc(inst, count)?,
            Op::If => {
                let taken = data.blocks[usize::from(self.int(args[0])? == 0)];
                self.block(taken)?;
                self.give(&kernel.block(taken).yields, &data.results);
            }
            Op::Custom(_) => {
                self.block(data.blocks[0])?;
                self.give(&kernel.block(data.blocks[0]).yields, &data.results);
            }
            Op::For => self.counted(inst)?,
            Op::While => self.conditional(inst)?,
            Op::Push(_) => {
                self.tape.push(self.slots[args[0].index()]);
                let [words, most, limit] = &mut self.words;
                *words += width(kernel, args[0]);
                *most = (*most).max(*words);
                if words > limit {
                    return fault("the way back puts more on the tape than it said");
                }
            }
            Op::Pop(_) => match self.tape.pop() {
                Some(value) => {
                    self.words[0] -= width(kernel, data.results[0]);
                    self.set(inst, value);
                }
                None => return fault("the tape is empty"),
            },
            Op::Turn => {
                let room = args.first().map_or(Ok(0), |&room| self.int(room))?;
                self.words[2] = self.words[0] + room.max(0) as u64;
            }
            Op::Barrier => return fault("a barrier needs threads side by side, which are not interpreted"),
            Op::Shuffle(_) => {
                return fault("a shuffle needs threads side by side, which are not interpreted");
            }
            Op::Print(text) => self.print(kernel.text(text), args)?,
            Op::Assert(text) => {
                if self.int(args[0])? == 0 {
                    return fault(kernel.text(text));
                }
            }
            Op::Within(text) => {
                let index = self.int(args[0])?;
                if !(self.int(args[1])?..self.int(args[2])?).contains(&index) {
                    return fault(format!("index {index} is outside of {}", kernel.text(text)));
                }
            }
        }
        Ok(())
    }

    /// Copies values at once, as any may be among the targets.
    fn give(&mut self, from: &[Value], to: &[Value]) {
        let values: smallvec::SmallVec<[Slot<R>; 8]> =
            from.iter().map(|value| self.slots[value.index()]).collect();
        for (to, value) in to.iter().zip(values) {
            self.slots[to.index()] = value;
        }
    }

    fn counted(&mut self, inst: Inst) -> Result<()> {
        let kernel = self.kernel;
        let data = kernel.inst(inst);
        let (low, high, step) = (self.int(data.args[0])?, self.int(data.args[1])?, self.int(data.args[2])?);
        let block = kernel.block(data.blocks[0]);
        self.give(&data.args[3..], &block.args[1..]);
        let mut index = low;
        for _ in 0..eval::trips(low, high, step) {
            self.slots[block.args[0].index()] = Slot::Int(index);
            self.block(data.blocks[0])?;
            self.give(&block.yields, &block.args[1..]);
            index = index.wrapping_add(step);
            // An empty body takes time, too.
            self.fuel = self.fuel.saturating_sub(1);
            if self.fuel == 0 {
                return fault("the kernel runs too long");
            }
        }
        self.give(&block.args[1..], &data.results);
        Ok(())
    }

    fn conditional(&mut self, inst: Inst) -> Result<()> {
        let kernel = self.kernel;
        let data = kernel.inst(inst);
        let block = kernel.block(data.blocks[0]);
        let mut go = self.int(data.args[0])? != 0;
        self.give(&data.args[1..], &block.args);
        while go {
            self.block(data.blocks[0])?;
            go = self.int(block.yields[0])? != 0;
            self.give(&block.yields[1..], &block.args);
            self.fuel = self.fuel.saturating_sub(1);
            if self.fuel == 0 {
                return fault("the kernel runs too long");
            }
        }
        self.give(&block.args, &data.results);
        Ok(())
    }

    fn unary(&self, op: Unary, x: Value) -> Result<Slot<R>> {
        let dtype = self.kernel.dtype(x);
        if !dtype.is_float() {
            let value = eval::unary_int(op, dtype, self.int(x)?);
            return value.map(Slot::Int).ok_or_else(|| Fault(format!("integers have no {}", op.name())));
        }
        let x = self.float(x)?;
        if let Some(test) = eval::test_float(op, x.value()) {
            return Ok(Slot::Int(test.into()));
        }
        match x.unary(op) {
            Some(y) => Ok(self.rounded(dtype, y)),
            None => fault(format!("floats have no {}", op.name())),
        }
    }

    fn binary(&self, op: Binary, a: Value, b: Value) -> Result<Slot<R>> {
        let dtype = self.kernel.dtype(a);
        if dtype.is_float() {
            let value = self.float(a)?.binary(op, self.float(b)?);
            return match value {
                Some(value) => Ok(self.rounded(dtype, value)),
                None => fault(format!("floats have no {}", op.name())),
            };
        }
        let (a, b) = (self.int(a)?, self.int(b)?);
        match eval::binary_int(op, dtype, a, b) {
            Some(value) => Ok(Slot::Int(value)),
            None => fault(format!("{} {a}, {b} of {} is undefined", op.name(), dtype.name())),
        }
    }

    fn compare(&self, op: Compare, a: Value, b: Value) -> Result<bool> {
        let dtype = self.kernel.dtype(a);
        match dtype.is_float() {
            true => Ok(eval::compare(op, self.float(a)?.value(), self.float(b)?.value())),
            false => Ok(eval::compare_int(op, dtype, self.int(a)?, self.int(b)?)),
        }
    }

    fn cast(&self, x: Value, to: DType) -> Result<Slot<R>> {
        let from = self.kernel.dtype(x);
        Ok(match (from.is_float(), to.is_float()) {
            (true, true) => self.rounded(to, self.float(x)?),
            (true, false) => Slot::Int(eval::to_int(to, self.float(x)?.value())),
            (false, true) => self.rounded(to, R::from_f64(eval::to_float(from, self.int(x)?))),
            (false, false) => Slot::Int(eval::wrap(to, self.int(x)?)),
        })
    }

    fn bitcast(&self, x: Value, to: DType) -> Result<Slot<R>> {
        let from = self.kernel.dtype(x);
        let bits = if from.is_float() { eval::to_bits(from, self.float(x)?.value()) } else { self.int(x)? };
        Ok(match to.is_float() {
            true => Slot::Float(R::from_f64(eval::from_bits(to, bits))),
            false => Slot::Int(eval::wrap(to, bits)),
        })
    }

    /// The array of a memory op, and the place of an element's first scalar.
    fn element(&self, inst: Inst) -> Result<(usize, usize, usize)> {
        let args = &self.kernel.inst(inst).args;
        let array = self.array(args[0])?;
        let Some(ty) = self.kernel.ty(args[0]).array() else { return fault("no array") };
        let (ndim, lanes) = (usize::from(ty.ndim), usize::from(ty.lanes));
        let mut at = 0;
        for (axis, &index) in args[1..=ndim].iter().enumerate() {
            let (index, length) = (self.int(index)?, self.arrays[array].shape[axis]);
            if index < 0 || index as usize >= length {
                let name = self.kernel.name_of(args[0]).unwrap_or("array");
                return fault(format!(
                    "index {index} of `{name}` is outside 0 to {length} in dimension {axis}"
                ));
            }
            at = at * length + index as usize;
        }
        Ok((array, at * lanes, 1 + ndim))
    }

    fn get(&self, array: usize, at: usize) -> Slot<R> {
        match &self.arrays[array].cells {
            Cells::Float(cells) => Slot::Float(cells[at]),
            Cells::Int(cells) => Slot::Int(cells[at]),
        }
    }

    fn put(&mut self, array: usize, at: usize, value: Slot<R>) {
        match (&mut self.arrays[array].cells, value) {
            (Cells::Float(cells), Slot::Float(x)) => cells[at] = x,
            (Cells::Int(cells), Slot::Int(x)) => cells[at] = x,
            _ => {}
        }
    }

    fn load(&mut self, inst: Inst) -> Result<()> {
        let (array, at, _) = self.element(inst)?;
        for (lane, &result) in self.kernel.inst(inst).results.iter().enumerate() {
            self.slots[result.index()] = self.get(array, at + lane);
        }
        Ok(())
    }

    fn store(&mut self, inst: Inst) -> Result<()> {
        let (array, at, first) = self.element(inst)?;
        for (lane, &value) in self.kernel.inst(inst).args[first..].iter().enumerate() {
            self.put(array, at + lane, self.slots[value.index()]);
        }
        Ok(())
    }

    fn atomic(&mut self, inst: Inst, op: Atomic) -> Result<()> {
        let (array, at, first) = self.element(inst)?;
        let kernel = self.kernel;
        let data = kernel.inst(inst);
        for (lane, &value) in data.args[first..].iter().enumerate() {
            let old = self.get(array, at + lane);
            let dtype = kernel.dtype(value);
            let binary = match op {
                Atomic::Add => Some(Binary::Add),
                Atomic::Min => Some(Binary::Min),
                Atomic::Max => Some(Binary::Max),
                Atomic::And => Some(Binary::And),
                Atomic::Or => Some(Binary::Or),
                Atomic::Xor => Some(Binary::Xor),
                Atomic::Exchange => None,
            };
            let new = match (binary, old, self.slots[value.index()]) {
                (Some(op), Slot::Float(old), Slot::Float(new)) => {
                    old.binary(op, new).map(|value| self.rounded(dtype, value))
                }
                (Some(op), Slot::Int(old), Slot::Int(new)) => {
                    eval::binary_int(op, dtype, old, new).map(Slot::Int)
                }
                (_, _, new) => Some(new),
            };
            match new {
                Some(new) => self.put(array, at + lane, new),
                None => return fault(format!("{} has no {}", dtype.name(), op.name())),
            }
            self.slots[data.results[lane].index()] = old;
        }
        Ok(())
    }

    fn exchange(&mut self, inst: Inst) -> Result<()> {
        let (array, at, first) = self.element(inst)?;
        let args = &self.kernel.inst(inst).args;
        let old = self.get(array, at);
        let equal = match (old, self.slots[args[first].index()]) {
            (Slot::Int(a), Slot::Int(b)) => a == b,
            (Slot::Float(a), Slot::Float(b)) => a.value().to_bits() == b.value().to_bits(),
            _ => false,
        };
        if equal {
            self.put(array, at, self.slots[args[first + 1].index()]);
        }
        self.set(inst, old);
        Ok(())
    }

    fn alloc(&mut self, inst: Inst, count: u32) -> Result<()> {
        let Some(ty) = self.kernel.ty(self.kernel.inst(inst).results[0]).array() else {
            return fault("no array");
        };
        if ty.space != Space::Local {
            return fault("shared arrays need threads side by side, which are not interpreted");
        }
        let index = self.arrays.len();
        self.arrays.push(Array::zeros(ty.dtype, &[count as usize], ty.lanes.into()));
        self.set(inst, Slot::Array(index));
        Ok(())
    }

    /// Each `%..` takes the next operand; widths and precisions are not looked at.
    fn print(&mut self, format: &str, args: &[Value]) -> Result<()> {
        let mut rest = format;
        let mut next = args.iter();
        while let Some(at) = rest.find('%') {
            self.printed.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('%') {
                self.printed.push('%');
                rest = after;
                continue;
            }
            let end = rest.find(|c: char| "diufgeExXcs".contains(c)).map_or(rest.len(), |end| end + 1);
            rest = &rest[end..];
            match next.next().map(|&value| (self.slots[value.index()], self.kernel.dtype(value))) {
                Some((Slot::Float(x), _)) => *self.printed += &x.value().to_string(),
                Some((Slot::Int(x), DType::U64)) => *self.printed += &(x as u64).to_string(),
                Some((Slot::Int(x), _)) => *self.printed += &x.to_string(),
                _ => return fault("the format has more places than values"),
            }
        }
        self.printed.push_str(rest);
        Ok(())
    }
}
