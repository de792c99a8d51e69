//! What each instruction does.

use super::parse::{Arg, Line, size};
use super::{Frame, Machine};

fn single(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

/// The number that these bits are in a type of floats, and back, rounded.
fn float(ty: &str, bits: u64) -> f64 {
    if ty == "f64" { f64::from_bits(bits) } else { single(bits).into() }
}

fn bits(ty: &str, x: f64) -> u64 {
    if ty == "f64" { x.to_bits() } else { (x as f32).to_bits().into() }
}

/// The integer that the low bits are in a type.
fn int(ty: &str, x: u64) -> i128 {
    match ty {
        "s8" => (x as i8).into(),
        "s16" => (x as i16).into(),
        "s32" => (x as i32).into(),
        "s64" => (x as i64).into(),
        "u8" => (x as u8).into(),
        "u16" | "b16" => (x as u16).into(),
        "u32" | "b32" => (x as u32).into(),
        "pred" => (x & 1).into(),
        _ => x.into(),
    }
}

/// Cut to a width.
fn cut(ty: &str, x: i128) -> u64 {
    match ty {
        "pred" => (x & 1) as u64,
        _ if size(ty) == 8 => x as u64,
        _ => int(&format!("u{}", 8 * size(ty)), x as u64) as u64,
    }
}

impl<'a> Machine<'a> {
    fn value(&self, frame: &Frame<'_>, arg: &Arg) -> u64 {
        match arg {
            Arg::Register(number) => frame.registers[*number],
            Arg::Bits(bits) => *bits,
            Arg::Name(name) => match name.as_str() {
                "%ctaid.x" => frame.thread / 32,
                "%ntid.x" => 32,
                "%tid.x" => frame.thread % 32,
                name => *frame.locals.get(name).or_else(|| self.constants.get(name)).expect(name),
            },
            other => panic!("{other:?} is no value"),
        }
    }

    fn address(&self, frame: &Frame<'_>, arg: &Arg) -> u64 {
        let Arg::Place(base, offset) = arg else { panic!("{arg:?} is no place") };
        self.value(frame, base).wrapping_add_signed(*offset)
    }

    pub(super) fn step(&mut self, frame: &mut Frame<'a>, line: &Line) {
        let parts: Vec<&str> = line.op.split('.').collect();
        let (name, ty) = (parts[0], parts[parts.len() - 1]);
        match name {
            // One lane after the other is here.
            "activemask" | "vote" => {
                let Arg::Register(to) = line.args[0] else { panic!("{}", line.text) };
                frame.registers[to] = 1;
                return;
            }
            "ld" => return self.ld(frame, line, &parts),
            "st" => return self.st(frame, line, &parts),
            "atom" | "red" => return self.atom(frame, line, &parts),
            "mov" if matches!(line.args[0], Arg::List(_)) => {
                let Arg::List(list) = &line.args[0] else { return };
                let x = self.value(frame, &line.args[1]);
                for (arg, half) in list.iter().zip([x & 0xffff_ffff, x >> 32]) {
                    let Arg::Register(to) = arg else { panic!("{}", line.text) };
                    frame.registers[*to] = half;
                }
                return;
            }
            _ => {}
        }
        let args: Vec<u64> = match &line.args[1] {
            Arg::List(list) => {
                let [low, high] = [0, 1].map(|i| self.value(frame, &list[i]) & 0xffff_ffff);
                vec![low | high << 32]
            }
            _ => line.args[1..].iter().map(|arg| self.value(frame, arg)).collect(),
        };
        let result = match name {
            "setp" => compare(&parts, &args),
            "cvt" => convert(&parts, args[0]),
            "cvta" => args[0],
            "testp" => {
                let x = float(ty, args[0]);
                u64::from(if parts[1] == "finite" { x.is_finite() } else { x.is_infinite() })
            }
            "selp" => {
                let chosen = if args[2] & 1 == 1 { args[0] } else { args[1] };
                cut(&ty.replace('f', "b"), chosen.into())
            }
            "mov" => cut(&ty.replace('f', "b"), args[0].into()),
            _ if ty.starts_with('f') => floating(name, ty, &args).unwrap_or_else(|| panic!("{}", line.text)),
            _ => integral(&parts, ty, &args).unwrap_or_else(|| panic!("{}", line.text)),
        };
        let Arg::Register(to) = line.args[0] else { panic!("{}", line.text) };
        frame.registers[to] = result;
    }

    fn ld(&mut self, frame: &mut Frame<'a>, line: &Line, parts: &[&str]) {
        let ty = parts[parts.len() - 1];
        let bytes = size(ty) as usize;
        if parts[1] == "param" {
            let Arg::Place(base, offset) = &line.args[1] else { panic!("{}", line.text) };
            let Arg::Name(name) = &**base else { panic!("{}", line.text) };
            let at = (self.offsets[name] as i64 + offset) as usize;
            let mut read = [0; 8];
            read[..bytes].copy_from_slice(&self.params[at..at + bytes]);
            let Arg::Register(to) = line.args[0] else { panic!("{}", line.text) };
            frame.registers[to] = extended(ty, u64::from_le_bytes(read));
            return;
        }
        let address = self.address(frame, &line.args[1]);
        let list = match &line.args[0] {
            Arg::List(list) => list.clone(),
            one => vec![one.clone()],
        };
        assert!(address.is_multiple_of((bytes * list.len()) as u64), "{address:#x}: {}", line.text);
        for (i, arg) in list.iter().enumerate() {
            let Arg::Register(to) = *arg else { panic!("{}", line.text) };
            let raw = self.load(frame, address + (i * bytes) as u64, bytes);
            frame.registers[to] = extended(ty, raw);
        }
    }

    fn st(&mut self, frame: &mut Frame<'a>, line: &Line, parts: &[&str]) {
        let bytes = size(parts[parts.len() - 1]) as usize;
        let address = self.address(frame, &line.args[0]);
        let list = match &line.args[1] {
            Arg::List(list) => list.clone(),
            one => vec![one.clone()],
        };
        assert!(address.is_multiple_of((bytes * list.len()) as u64), "{address:#x}: {}", line.text);
        for (i, arg) in list.iter().enumerate() {
            let value = self.value(frame, arg);
            self.store(frame, address + (i * bytes) as u64, bytes, value);
        }
    }

    fn atom(&mut self, frame: &mut Frame<'a>, line: &Line, parts: &[&str]) {
        let ty = parts[parts.len() - 1];
        let what = parts[parts.len() - 2];
        let first = usize::from(parts[0] == "atom");
        let address = self.address(frame, &line.args[first]);
        let bytes = size(ty) as usize;
        let old = self.load(frame, address, bytes);
        let given: Vec<u64> = line.args[first + 1..].iter().map(|arg| self.value(frame, arg)).collect();
        let new = match what {
            "exch" => given[0],
            "cas" if cut(ty, old.into()) == cut(ty, given[0].into()) => given[1],
            "cas" => old,
            _ if ty.starts_with('f') => floating(what, ty, &[old, given[0]]).expect("an update"),
            _ => integral(&[what, ty], ty, &[old, given[0]]).expect("an update"),
        };
        self.store(frame, address, bytes, new);
        if let (1, Arg::Register(to)) = (first, &line.args[0]) {
            frame.registers[*to] = old;
        }
    }
}

/// What a register of at least 32 bits holds of a type in memory.
fn extended(ty: &str, raw: u64) -> u64 {
    if ty.starts_with('s') && size(ty) < 4 { int(ty, raw) as u32 as u64 } else { raw }
}

fn compare(parts: &[&str], args: &[u64]) -> u64 {
    let ty = parts[parts.len() - 1];
    let truth = if ty.starts_with('f') {
        let (a, b) = (float(ty, args[0]), float(ty, args[1]));
        match parts[1] {
            "eq" => a == b,
            "neu" => a != b,
            "lt" => a < b,
            "le" => a <= b,
            "gt" => a > b,
            "ge" => a >= b,
            "nan" => a.is_nan() || b.is_nan(),
            "num" => !a.is_nan() && !b.is_nan(),
            other => panic!("{other}"),
        }
    } else {
        let (a, b) = (int(ty, args[0]), int(ty, args[1]));
        match parts[1] {
            "eq" => a == b,
            "ne" => a != b,
            "lt" => a < b,
            "le" => a <= b,
            "gt" => a > b,
            "ge" => a >= b,
            other => panic!("{other}"),
        }
    };
    let truth = match parts[2] {
        "and" => truth && args[2] & 1 == 1,
        "or" => truth || args[2] & 1 == 1,
        _ => truth,
    };
    truth.into()
}

fn convert(parts: &[&str], x: u64) -> u64 {
    let (to, from) = (parts[parts.len() - 2], parts[parts.len() - 1]);
    let mode = if parts.len() == 4 { parts[1] } else { "" };
    if to == "f16" {
        return half::f16::from_f32(single(x)).to_bits().into();
    }
    if to == "bf16" {
        return half::bf16::from_f32(single(x)).to_bits().into();
    }
    if from == "f16" {
        return half::f16::from_bits(x as u16).to_f32().to_bits().into();
    }
    let round = |x: f64| match mode {
        "rmi" => x.floor(),
        "rpi" => x.ceil(),
        "rzi" => x.trunc(),
        "rni" => x.round_ties_even(),
        _ => x,
    };
    match (to.starts_with('f'), from.starts_with('f')) {
        (true, true) => bits(to, round(float(from, x))),
        (true, false) if to == "f32" => (int(from, x) as f32).to_bits().into(),
        (true, false) => (int(from, x) as f64).to_bits(),
        (false, true) => {
            let x = round(float(from, x));
            // NaN is not 0 of these.
            if x.is_nan() && (from == "f64" || size(to) == 8) {
                return 1 << (8 * size(to) - 1);
            }
            match to {
                "s32" => x as i32 as u32 as u64,
                "u32" => u64::from(x as u32),
                "s64" => x as i64 as u64,
                _ => x as u64,
            }
        }
        (false, false) => cut(to, int(from, x)),
    }
}

fn floating(name: &str, ty: &str, args: &[u64]) -> Option<u64> {
    let x = |i: usize| float(ty, args[i]);
    if name == "fma" {
        let [a, b, c] = [0, 1, 2].map(x);
        return Some(match ty {
            "f64" => a.mul_add(b, c).to_bits(),
            _ => (a as f32).mul_add(b as f32, c as f32).to_bits().into(),
        });
    }
    // f64 has more than twice the digits of f32: rounding twice is rounding once.
    Some(bits(
        ty,
        match name {
            "add" => x(0) + x(1),
            "sub" => x(0) - x(1),
            "mul" => x(0) * x(1),
            "div" => x(0) / x(1),
            "sqrt" => x(0).sqrt(),
            "neg" => -x(0),
            "abs" => x(0).abs(),
            "min" => x(0).min(x(1)),
            "max" => x(0).max(x(1)),
            "copysign" => x(1).copysign(x(0)),
            "ex2" => x(0).exp2(),
            _ => return None,
        },
    ))
}

fn integral(parts: &[&str], ty: &str, args: &[u64]) -> Option<u64> {
    let x = |i: usize| int(ty, args[i]);
    let width = if ty == "pred" { 1 } else { 8 * size(ty) as u32 };
    let double = if width == 32 { "u64" } else { ty };
    let value = match parts[0] {
        "add" => x(0) + x(1),
        "sub" => x(0) - x(1),
        "mul" | "mad" if parts[1] == "wide" => {
            let sum = x(0) * x(1) + if parts[0] == "mad" { int("s64", args[2]) } else { 0 };
            return Some(cut(double, sum));
        }
        "mul" if parts[1] == "hi" => ((x(0) as u128 * x(1) as u128) >> width) as i128,
        "mul" => x(0).wrapping_mul(x(1)),
        "mad" if parts[1] == "hi" => ((x(0) as u128 * x(1) as u128) >> width) as i128 + x(2),
        "mad" => x(0).wrapping_mul(x(1)).wrapping_add(x(2)),
        "div" => x(0).checked_div(x(1)).unwrap_or(-1),
        "rem" => x(0).checked_rem(x(1)).unwrap_or(-1),
        "min" => x(0).min(x(1)),
        "max" => x(0).max(x(1)),
        "neg" => -x(0),
        "abs" => x(0).abs(),
        "not" => !x(0),
        "and" => x(0) & x(1),
        "or" => x(0) | x(1),
        "xor" => x(0) ^ x(1),
        "shl" => {
            let by = args[1] as u32;
            if by >= width { 0 } else { x(0) << by }
        }
        "shr" => x(0) >> (args[1] as u32).min(width),
        "clz" => i128::from((args[0]).leading_zeros()),
        "bfe" => (args[0] >> args[1] & ((1 << args[2]) - 1)).into(),
        _ => return None,
    };
    Some(cut(ty, value))
}
