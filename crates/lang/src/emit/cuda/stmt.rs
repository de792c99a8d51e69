//! Statements: memory, branches, loops, the tape.

use bullet_ops::DType;

use super::expr::{Text, is_narrow};
use super::half::stored;
use super::{Emitter, Layout, TapePlace, at_once, folds, records};
use crate::ir::{Atomic, Block, Const, Def, Inst, Op, Shuffle, Space, Value};

/// The longest expression that is not given a name.
const MAX_EXPRESSION: usize = 70;

impl Emitter<'_> {
    /// The statements of a block.
    pub(super) fn block(&mut self, block: Block) {
        for &inst in &self.kernel.block(block).insts {
            self.inst(block, inst);
        }
    }

    /// A new variable of a value, not yet declared.
    fn variable(&mut self, value: Value) -> String {
        let name = self.names.unique(self.kernel.name_of(value).unwrap_or("v"));
        self.texts[value.index()] = Some(Text::variable(name.clone()));
        name
    }

    fn inst(&mut self, block: Block, inst: Inst) {
        let kernel = self.kernel;
        let data = kernel.inst(inst);
        match data.op {
            op if op.is_pure() => {
                let result = data.results[0];
                let text = self.expression(inst);
                let single = self.uses[result.index()] == 1 && self.user[result.index()] == Some(block);
                if folds(op) && single && text.text.len() <= MAX_EXPRESSION {
                    self.texts[result.index()] = Some(text);
                } else {
                    let (ty, name) = (self.ty(result), self.variable(result));
                    self.line_of(&["const ", ty, " ", &name, " = ", &text.text, ";"]);
                }
            }
            Op::Load => self.load(inst),
            Op::Store => self.store(inst),
            Op::Atomic(op) => self.atomic(inst, op),
            Op::CompareExchange => self.exchange(inst),
            Op::Alloc(count) => {
                let Some(array) = kernel.ty(data.results[0]).array() else { return };
                let (ty, name) = (self.storage(array.dtype), self.variable(data.results[0]));
                let space = if array.space == Space::Shared { "__shared__ " } else { "" };
                let length = u64::from(count) * u64::from(array.lanes);
                self.line(&format!("{space}{ty} {name}[{length}];"));
            }
            Op::If => self.branch(inst),
            Op::For => self.counted(inst),
            Op::While => self.conditional(inst),
            Op::Push(_) => {
                let text = self.text(data.args[0]);
                // Narrow integers are kept as ints.
                let is_narrow = is_narrow(kernel.dtype(data.args[0]));
                let text = if is_narrow { format!("(int)({})", text.text) } else { text.text };
                self.line(&format!("tape.push({text});"));
            }
            Op::Pop(_) => {
                let result = data.results[0];
                let dtype = kernel.dtype(result);
                let (ty, name) = (self.ty(result), self.variable(result));
                if is_narrow(dtype) {
                    self.line(&format!("const {ty} {name} = ({ty})tape.pop();"));
                } else {
                    self.line(&format!("{ty} {name};"));
                    self.line(&format!("tape.pop({name});"));
                }
            }
            Op::Turn if self.tape == TapePlace::Argument => {
                let room = data.args.first().map(|&words| self.text(words).operand());
                let need = match room {
                    Some(room) => {
                        self.line(&format!(
                            "const unsigned tape_words_needed = tape.top + (unsigned)({room});"
                        ));
                        "tape_words_needed"
                    }
                    None => "tape.top",
                };
                self.line(&format!("if ({need} > tape_size || !tape_words) {{"));
                self.line(&format!("    atomicMax(tape_need, {need});"));
                self.line("    return;");
                self.line("}");
            }
            Op::Barrier => self.line("__syncthreads();"),
            Op::Shuffle(op) => {
                let name = match op {
                    Shuffle::Index => "__shfl_sync",
                    Shuffle::Up => "__shfl_up_sync",
                    Shuffle::Down => "__shfl_down_sync",
                    Shuffle::Xor => "__shfl_xor_sync",
                };
                let (x, lane) = (self.text(data.args[0]), self.text(data.args[1]));
                let (ty, result) = (self.ty(data.results[0]), self.variable(data.results[0]));
                self.line(&format!("const {ty} {result} = {name}(0xffffffffu, {}, {});", x.text, lane.text));
            }
            Op::Print(text) => {
                let mut args = format!("{:?}", kernel.text(text));
                for &arg in &data.args {
                    args = format!("{args}, {}", self.text(arg).text);
                }
                self.line(&format!("printf({args});"));
            }
            Op::Assert(_) => self.assertion(inst),
            Op::Within(_) => self.within(inst),
            _ => {}
        }
    }

    /// An element, or the first scalar's address of one with several lanes.
    fn element(&mut self, inst: Inst) -> (String, usize, usize) {
        let data = self.kernel.inst(inst);
        let array = data.args[0];
        let Some(ty) = self.kernel.ty(array).array() else { return (String::new(), 1, 1) };
        let ndim = usize::from(ty.ndim);
        let indices = self.checked_indices(inst, ndim);
        let name = self.text(array).text;
        let text = match (ty.space, ty.lanes) {
            (Space::Global, 1) if ty.pitch == 1 => format!("{name}({})", indices.join(", ")),
            (Space::Global, 1) => format!("*{name}.at({}, {})", indices.join(", "), ty.pitch),
            (Space::Global, _) => format!("{name}.at({}, {})", indices.join(", "), ty.pitch),
            (_, 1) => format!("{name}[{}]", indices[0]),
            (_, lanes) => format!("({name} + ({}) * {lanes})", indices[0]),
        };
        (text, usize::from(ty.lanes), 1 + ndim)
    }

    fn load(&mut self, inst: Inst) {
        let (element, lanes, _) = self.element(inst);
        let results = self.kernel.inst(inst).results.clone();
        let ty = self.ty(results[0]);
        if lanes == 1 {
            let element = match self.is_constant(inst) {
                true => format!("__ldg({})", address(&element)),
                false => element,
            };
            let name = self.variable(results[0]);
            return self.line(&format!("const {ty} {name} = {element};"));
        }
        let pointer = self.names.unique("from");
        let storage = self.storage(self.kernel.dtype(results[0]));
        self.line(&format!("const {storage}* {pointer} = {element};"));
        let (width, constant) = (self.at_once(inst), self.is_constant(inst));
        let mut names = vec![];
        for (chunk, results) in results.chunks(width).enumerate() {
            let used: Vec<usize> = (0..width).filter(|&i| self.uses[results[i].index()] > 0).collect();
            let together = used.len() > 1;
            let from =
                if together { self.read(width, storage, &pointer, chunk * width) } else { pointer.clone() };
            for lane in used {
                let name = self.variable(results[lane]);
                names.push(match together {
                    true => format!("{name} = {from}.{}", ["x", "y", "z", "w"][lane]),
                    false if constant => format!("{name} = __ldg({from} + {})", chunk * width + lane),
                    false => format!("{name} = {from}[{}]", chunk * width + lane),
                });
            }
        }
        self.line(&format!("const {ty} {};", names.join(", ")));
    }

    /// Whether `__ldg` may read what an instruction loads: then its compiler may do it before stores in front of it.
    fn is_constant(&self, inst: Inst) -> bool {
        let array = self.kernel.inst(inst).args[0];
        let has_load = !matches!(self.kernel.dtype(array), DType::Bool | DType::F16 | DType::BF16);
        has_load && self.constant.contains(&array)
    }

    /// How many scalars of an element may be read or written at once.
    fn at_once(&self, inst: Inst) -> usize {
        match self.kernel.ty(self.kernel.inst(inst).args[0]).array() {
            Some(array) if array.space == Space::Global && self.layout == Layout::Contiguous => {
                at_once(array)
            }
            _ => 1,
        }
    }

    /// A variable that holds so many scalars from a place on.
    fn read(&mut self, width: usize, storage: &str, pointer: &str, place: usize) -> String {
        self.needs.at_once.insert(width);
        let name = self.names.unique("part");
        let address = if place == 0 { pointer.to_string() } else { format!("{pointer} + {place}") };
        self.line(&format!("const Scalars{width}<{storage}> {name} = read{width}({address});"));
        name
    }

    fn store(&mut self, inst: Inst) {
        let (element, lanes, first) = self.element(inst);
        let values = self.kernel.inst(inst).args[first..].to_vec();
        let dtype = self.kernel.dtype(values[0]);
        if lanes == 1 {
            let text = stored(dtype, &self.text(values[0]).text);
            return self.line(&format!("{element} = {text};"));
        }
        let ty = self.storage(dtype);
        let pointer = self.names.unique("to");
        self.line(&format!("{ty}* {pointer} = {element};"));
        let width = self.at_once(inst);
        for (chunk, values) in values.chunks(width).enumerate() {
            let texts: Vec<String> =
                values.iter().map(|&value| stored(dtype, &self.text(value).text)).collect();
            let place = chunk * width;
            if width == 1 {
                self.line(&format!("{pointer}[{place}] = {};", texts[0]));
                continue;
            }
            self.needs.at_once.insert(width);
            let address = if place == 0 { pointer.clone() } else { format!("{pointer} + {place}") };
            let open = format!("write{width}<{ty}>({address}, ");
            self.line(&format!("{open}{});", texts.join(", ")));
        }
    }

    /// The call of an atomic update of a cell.
    fn update(&mut self, op: Atomic, dtype: DType, cell: &str, value: &str) -> String {
        let name = match op {
            Atomic::Add => "Add",
            Atomic::Min => "Min",
            Atomic::Max => "Max",
            Atomic::And => "And",
            Atomic::Or => "Or",
            Atomic::Xor => "Xor",
            Atomic::Exchange => "Exch",
        };
        match (op, dtype) {
            (_, DType::F16 | DType::BF16) => {
                self.needs.narrow_atomics = true;
                format!("atomic_narrow({cell}, Narrow{name}{{{value}}})")
            }
            (Atomic::Add, DType::F64) => {
                self.needs.add_double = true;
                format!("atomic_add({cell}, {value})")
            }
            (Atomic::Min | Atomic::Max, DType::F32 | DType::F64) => {
                self.needs.float_extremes = true;
                format!("atomic_{}({cell}, {value})", if op == Atomic::Min { "min" } else { "max" })
            }
            (Atomic::Exchange, DType::F64) => format!(
                "__longlong_as_double((long long)atomicExch((unsigned long long*){cell}, \
                 (unsigned long long)__double_as_longlong({value})))"
            ),
            (Atomic::Add | Atomic::Exchange, DType::I64) => {
                format!("(long long)atomic{name}((unsigned long long*){cell}, (unsigned long long)({value}))")
            }
            _ => format!("atomic{name}({cell}, {value})"),
        }
    }

    fn atomic(&mut self, inst: Inst, op: Atomic) {
        let (element, lanes, first) = self.element(inst);
        let data = self.kernel.inst(inst).clone();
        let dtype = self.kernel.dtype(data.args[0]);
        let mut base = address(&element);
        if lanes > 1 {
            let pointer = self.names.unique("to");
            let ty = self.storage(dtype);
            self.line(&format!("{ty}* {pointer} = {element};"));
            base = pointer;
        }
        for lane in 0..lanes {
            let value = self.text(data.args[first + lane]);
            let cell = if lanes > 1 { format!("{base} + {lane}") } else { base.clone() };
            if self.recorded.get(inst.index()) == Some(&true) {
                let (key, number) = (self.record_key(data.args[0]), records::number(dtype));
                self.line(&format!("record_log.put({cell}, {key}, {number}, {});", value.text));
                continue;
            }
            let result = data.results[lane];
            if self.uses[result.index()] > 0 {
                let call = self.update(op, dtype, &cell, &value.text);
                let (ty, name) = (self.ty(result), self.variable(result));
                self.line(&format!("const {ty} {name} = {call};"));
            } else if self.warp_sums[inst.index()] {
                self.needs.warp_sums = true;
                let (ty, sum) = (self.ty(result), self.names.unique("sum"));
                let call = self.update(op, dtype, &cell, &sum);
                self.line(&format!("{ty} {sum} = {};", value.text));
                self.line(&format!("if (leads_sum({cell}, {sum})) {call};"));
            } else {
                let call = self.update(op, dtype, &cell, &value.text);
                self.line(&format!("{call};"));
            }
        }
    }

    /// What is added to the addresses of an array's elements to be the keys of records.
    fn record_key(&self, array: Value) -> String {
        let Def::Param(number) = self.kernel.value(array).def else { return "0".into() };
        self.record_keys[number as usize].clone().unwrap_or_else(|| "0".into())
    }

    fn exchange(&mut self, inst: Inst) {
        let (element, _, first) = self.element(inst);
        let cell = address(&element);
        let data = self.kernel.inst(inst).clone();
        let (expected, new) = (self.text(data.args[first]).text, self.text(data.args[first + 1]).text);
        let result = data.results[0];
        let call = match self.kernel.dtype(result) {
            DType::F32 => format!(
                "__uint_as_float(atomicCAS((unsigned*)({cell}), __float_as_uint({expected}), __float_as_uint({new})))"
            ),
            DType::F64 => format!(
                "__longlong_as_double((long long)atomicCAS((unsigned long long*)({cell}), \
                 (unsigned long long)__double_as_longlong({expected}), (unsigned long long)__double_as_longlong({new})))"
            ),
            DType::I64 => format!(
                "(long long)atomicCAS((unsigned long long*)({cell}), (unsigned long long)({expected}), \
                 (unsigned long long)({new}))"
            ),
            _ => format!("atomicCAS({cell}, {expected}, {new})"),
        };
        let (ty, name) = (self.ty(result), self.variable(result));
        self.line(&format!("const {ty} {name} = {call};"));
    }

    /// Declares what a region gives.
    fn declare(&mut self, values: &[Value]) {
        for &value in values {
            let (ty, name) = (self.ty(value), self.variable(value));
            self.line(&format!("{ty} {name};"));
        }
    }

    fn branch(&mut self, inst: Inst) {
        let data = self.kernel.inst(inst).clone();
        let test = self.text(data.args[0]);
        // A choice between values that are there needs no statement.
        self.declare(&data.results);
        let [then, orelse] = [data.blocks[0], data.blocks[1]];
        let is_empty = |block: Block| self.kernel.block(block).insts.is_empty() && data.results.is_empty();
        let (empty_then, empty_else) = (is_empty(then), is_empty(orelse));
        if empty_then && empty_else {
            return;
        }
        let (test, first, second) = if empty_then {
            (test.negated(), orelse, None)
        } else {
            (test.text, then, (!empty_else).then_some(orelse))
        };
        self.line(&format!("if ({test}) {{"));
        self.side(first, &data.results);
        if let Some(second) = second {
            self.line("} else {");
            self.side(second, &data.results);
        }
        self.line("}");
    }

    fn side(&mut self, block: Block, results: &[Value]) {
        self.depth += 1;
        self.block(block);
        for (&result, &value) in results.iter().zip(&self.kernel.block(block).yields) {
            let (target, text) = (self.text(result), self.text(value));
            self.line(&format!("{} = {};", target.text, text.text));
        }
        self.depth -= 1;
    }

    /// Declares what a loop carries, under the names of its arguments, which become its results.
    fn carry(&mut self, args: &[Value], initial: &[Value]) {
        for (&arg, &value) in args.iter().zip(initial) {
            let text = self.text(value);
            let (ty, name) = (self.ty(arg), self.variable(arg));
            self.line(&format!("{ty} {name} = {};", text.text));
        }
    }

    /// The results of a loop are its variables.
    fn finish(&mut self, args: &[Value], results: &[Value]) {
        for (arg, result) in args.iter().zip(results) {
            self.texts[result.index()] = self.texts[arg.index()].clone();
        }
    }

    /// Assigns to the variables of a loop what its body yields, all at once.
    fn advance(&mut self, args: &[Value], yields: &[Value]) {
        let pairs: Vec<(String, Value)> = args
            .iter()
            .zip(yields)
            .filter(|(arg, value)| arg != value)
            .map(|(&arg, &value)| (self.text(arg).text, value))
            .collect();
        let texts: Vec<String> = pairs.iter().map(|(_, value)| self.text(*value).text).collect();
        let mut late = vec![];
        for (i, (target, value)) in pairs.iter().enumerate() {
            // An assignment must not change what a later one reads: then it waits for that.
            if texts[i + 1..].iter().any(|text| mentions(text, target)) {
                let name = self.names.unique(&format!("next_{target}"));
                self.line(&format!("const {} {name} = {};", self.ty(*value), texts[i]));
                late.push(format!("{target} = {name};"));
            } else {
                self.line(&format!("{target} = {};", texts[i]));
            }
        }
        for line in late {
            self.line(&line);
        }
    }

    fn counted(&mut self, inst: Inst) {
        let kernel = self.kernel;
        let data = kernel.inst(inst).clone();
        let body = kernel.block(data.blocks[0]);
        let carried = &body.args[1..];
        self.carry(carried, &data.args[3..]);
        let [low, high, step] = [0, 1, 2].map(|i| self.text(data.args[i]).operand());
        let ty = self.ty(body.args[0]);
        let index = self.variable(body.args[0]);
        let known = kernel.as_const(data.args[2]).and_then(Const::as_int);
        let head = match known {
            Some(1) => format!("for ({ty} {index} = {low}; {index} < {high}; ++{index}) {{"),
            Some(-1) => format!("for ({ty} {index} = {low}; {index} > {high}; --{index}) {{"),
            Some(1..) => format!("for ({ty} {index} = {low}; {index} < {high}; {index} += {step}) {{"),
            Some(_) => format!("for ({ty} {index} = {low}; {index} > {high}; {index} += {step}) {{"),
            None => format!(
                "for ({ty} {index} = {low}; {step} > 0 ? {index} < {high} : {step} < 0 && {index} > {high}; \
                 {index} += {step}) {{"
            ),
        };
        self.line(&head);
        self.depth += 1;
        self.block(data.blocks[0]);
        self.advance(carried, &body.yields);
        self.depth -= 1;
        self.line("}");
        self.finish(carried, &data.results);
    }

    fn conditional(&mut self, inst: Inst) {
        let kernel = self.kernel;
        let data = kernel.inst(inst).clone();
        let body = kernel.block(data.blocks[0]);
        let first = self.text(data.args[0]);
        self.carry(&body.args, &data.args[1..]);
        let go = self.names.unique("go");
        self.line(&format!("bool {go} = {};", first.text));
        self.line(&format!("while ({go}) {{"));
        self.depth += 1;
        self.block(data.blocks[0]);
        // The test may read what the variables were.
        let test = self.text(body.yields[0]);
        self.line(&format!("{go} = {};", test.text));
        self.advance(&body.args, &body.yields[1..]);
        self.depth -= 1;
        self.line("}");
        self.finish(&body.args, &data.results);
    }
}

/// Whether an identifier is part of an expression.
fn mentions(text: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + name.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

/// Of an element; `&*p` is `p`.
fn address(element: &str) -> String {
    element.strip_prefix('*').map_or_else(|| format!("&{element}"), String::from)
}
