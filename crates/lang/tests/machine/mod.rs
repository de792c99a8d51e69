//! A machine that runs PTX, as far as Bullet emits it: one thread after the other, slowly, and loud about what it does not know.

mod parse;
mod step;

use std::collections::HashMap;

pub(crate) use parse::Module;
use parse::{Arg, Function};

/// Where the memory that all threads see begins, and that of a thread's own.
const GLOBAL: u64 = 0x10_0000;
const LOCAL: u64 = 0x7000_0000_0000;
const CONSTANT: u64 = 0x6000_0000_0000;
/// The most instructions of a thread.
const FUEL: u64 = 200_000_000;

/// Memory, and what runs in it.
pub(crate) struct Machine<'a> {
    module: &'a Module,
    global: Vec<u8>,
    constant: Vec<u8>,
    constants: HashMap<String, u64>,
    /// The parameters of a launch, and where each begins.
    params: Vec<u8>,
    offsets: HashMap<String, u64>,
}

/// A thread in a function.
struct Frame<'a> {
    function: &'a Function,
    registers: Vec<u64>,
    local: Vec<u8>,
    locals: HashMap<String, u64>,
    thread: u64,
}

impl<'a> Machine<'a> {
    pub(crate) fn new(module: &'a Module) -> Machine<'a> {
        let (mut constant, mut constants) = (vec![], HashMap::new());
        for (name, words) in &module.constants {
            constants.insert(name.clone(), CONSTANT + constant.len() as u64);
            words.iter().for_each(|word| constant.extend(word.to_le_bytes()));
        }
        let (global, params, offsets) = (vec![], vec![], HashMap::new());
        Machine { module, global, constant, constants, params, offsets }
    }

    /// Room in global memory for these bytes: its address.
    pub(crate) fn alloc(&mut self, bytes: &[u8]) -> u64 {
        self.global.resize(self.global.len().next_multiple_of(64), 0xee);
        let address = GLOBAL + self.global.len() as u64;
        self.global.extend(bytes);
        address
    }

    /// What lies in global memory.
    pub(crate) fn read(&self, address: u64, length: usize) -> &[u8] {
        let at = (address - GLOBAL) as usize;
        &self.global[at..at + length]
    }

    /// Changes global memory.
    pub(crate) fn write(&mut self, address: u64, bytes: &[u8]) {
        let at = (address - GLOBAL) as usize;
        self.global[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Runs the threads of blocks of 32 on parameters that are packed as a launch packs them.
    pub(crate) fn launch(&mut self, name: &str, threads: u64, params: &[u8]) {
        let function = &self.module.functions[name];
        let mut at = 0u64;
        for (param, size, alignment) in &function.params {
            at = at.next_multiple_of(*alignment);
            self.offsets.insert(param.clone(), at);
            at += size;
        }
        assert!(at <= params.len() as u64, "{name} takes {at} bytes, not {}", params.len());
        self.params = params.to_vec();
        for thread in 0..threads.next_multiple_of(32) {
            let mut frame = Frame::new(function, thread);
            self.run(&mut frame);
        }
    }

    /// The memory of an address, for so many bytes.
    fn memory<'m>(&'m mut self, frame: &'m mut Frame<'_>, address: u64, size: usize) -> &'m mut [u8] {
        let (base, memory) = match address {
            LOCAL.. => (LOCAL, &mut frame.local),
            CONSTANT.. => (CONSTANT, &mut self.constant),
            _ => (GLOBAL, &mut self.global),
        };
        assert!(address.is_multiple_of(size as u64), "{address:#x} is no place for {size} bytes");
        let at =
            address.checked_sub(base).unwrap_or_else(|| panic!("there is nothing at {address:#x}")) as usize;
        assert!(at + size <= memory.len(), "{address:#x} is behind the end of memory");
        &mut memory[at..at + size]
    }

    fn load(&mut self, frame: &mut Frame<'_>, address: u64, size: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes[..size].copy_from_slice(self.memory(frame, address, size));
        u64::from_le_bytes(bytes)
    }

    fn store(&mut self, frame: &mut Frame<'_>, address: u64, size: usize, value: u64) {
        self.memory(frame, address, size).copy_from_slice(&value.to_le_bytes()[..size]);
    }

    /// Runs a function to its end.
    fn run(&mut self, frame: &mut Frame<'a>) {
        let (mut at, mut fuel) = (0, FUEL);
        while let Some(line) = frame.function.lines.get(at) {
            fuel = fuel.checked_sub(1).expect("a thread that ends");
            at += 1;
            if let Some((register, when)) = line.guard
                && (frame.registers[register] & 1 == 1) != when
            {
                continue;
            }
            match line.op.as_str() {
                "ret" => return,
                "trap" => panic!("a trap: {}", line.text),
                "bra" => match line.args[0] {
                    Arg::Label(to) => at = to,
                    _ => panic!("{}", line.text),
                },
                "call.uni" => self.call(frame, &line.args),
                _ => self.step(frame, line),
            }
        }
    }

    fn call(&mut self, frame: &mut Frame<'a>, args: &[Arg]) {
        let [Arg::List(results), Arg::Name(name), Arg::List(given)] = args else { panic!("{args:?}") };
        let function = &self.module.functions[name];
        let mut inner = Frame::new(function, frame.thread);
        for (i, arg) in given.iter().enumerate() {
            let Arg::Register(from) = arg else { panic!("{args:?}") };
            inner.registers[function.names[&format!("x{i}")]] = frame.registers[*from];
        }
        self.run(&mut inner);
        let Arg::Register(to) = results[0] else { panic!("{args:?}") };
        frame.registers[to] = inner.registers[function.names["y"]];
    }
}

impl<'a> Frame<'a> {
    fn new(function: &'a Function, thread: u64) -> Frame<'a> {
        let mut local = vec![];
        let mut locals = HashMap::new();
        for (name, bytes) in &function.locals {
            locals.insert(name.clone(), LOCAL + local.len() as u64);
            local.resize((local.len() + *bytes as usize).next_multiple_of(16), 0xee);
        }
        // What nobody wrote is noticed.
        let registers = vec![0xdead_beef_dead_beef; function.names.len()];
        Frame { function, registers, local, locals, thread }
    }
}
