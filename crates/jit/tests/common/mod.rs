//! Arrays in memory as launches take them, made from and compared with those of the interpreter.

use bullet_jit::{Arg, Fault, Lanes, Options, Program};
use bullet_lang::interp::{Arg as Given, Array, Cells};
use bullet_lang::ir::{Kernel, Type};
use bullet_lang::order::{Order, order};
use bullet_ops::DType;
use half::{bf16, f16};

/// How arrays lie in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Layout {
    /// In C order.
    Contiguous,
    /// Dimensions reversed, with room between elements, and the first one running backwards.
    Strided,
}

/// Between elements, which nothing may write.
const POISON: u8 = 0xa5;

struct Memory {
    bytes: Vec<u64>,
    start: usize,
    strides: Vec<i64>,
    shape: Vec<usize>,
    lanes: usize,
    dtype: DType,
}

impl Memory {
    fn new(array: &Array<f64>, lanes: usize, layout: Layout) -> Memory {
        let size = array.dtype.size();
        let ndim = array.shape.len();
        let mut strides = vec![0; ndim];
        let mut step = (lanes * size) as i64;
        match layout {
            Layout::Contiguous => {
                for axis in (0..ndim).rev() {
                    strides[axis] = step;
                    step *= array.shape[axis] as i64;
                }
            }
            Layout::Strided => {
                step += 3 * size as i64;
                for (axis, stride) in strides.iter_mut().enumerate() {
                    *stride = step;
                    step *= array.shape[axis] as i64 + 1;
                }
                strides[0] = -strides[0];
            }
        }
        let mut start = 64;
        if layout == Layout::Strided {
            start += (strides[0].unsigned_abs() as usize) * array.shape[0];
        }
        let bytes = vec![u64::from_ne_bytes([POISON; 8]); (start + step as usize).div_ceil(8) + 16];
        let mut memory =
            Memory { bytes, start, strides, shape: array.shape.clone(), lanes, dtype: array.dtype };
        for scalar in 0..memory.count() {
            let bits = match &array.cells {
                Cells::Float(cells) => float_bits(array.dtype, cells[scalar]),
                Cells::Int(cells) => cells[scalar] as u64,
            };
            let at = memory.place(scalar);
            memory.raw()[at..at + size].copy_from_slice(&bits.to_le_bytes()[..size]);
        }
        memory
    }

    fn count(&self) -> usize {
        self.shape.iter().product::<usize>() * self.lanes
    }

    fn raw(&mut self) -> &mut [u8] {
        let length = self.bytes.len() * 8;
        // SAFETY: bytes of the vector.
        unsafe { std::slice::from_raw_parts_mut(self.bytes.as_mut_ptr().cast(), length) }
    }

    /// Of a scalar in C order.
    fn place(&self, scalar: usize) -> usize {
        let (mut rest, lane) = (scalar / self.lanes, scalar % self.lanes);
        let mut at = (self.start + lane * self.dtype.size()) as i64;
        for axis in (0..self.shape.len()).rev() {
            at += (rest % self.shape[axis]) as i64 * self.strides[axis];
            rest /= self.shape[axis];
        }
        at as usize
    }

    fn arg(&mut self) -> Arg {
        let (mut shape, mut strides) = ([0; 4], [0; 4]);
        for axis in 0..self.shape.len() {
            shape[axis] = self.shape[axis] as i32;
            strides[axis] = self.strides[axis];
        }
        Arg::array(self.bytes.as_mut_ptr().cast::<u8>().wrapping_add(self.start), shape, strides)
    }

    /// Back to the interpreter's form; panics if something between the elements was written.
    fn read(mut self) -> Array<f64> {
        let size = self.dtype.size();
        let mut cells: Vec<u64> = vec![];
        for scalar in 0..self.count() {
            let at = self.place(scalar);
            let mut bits = [0; 8];
            bits[..size].copy_from_slice(&self.raw()[at..at + size]);
            cells.push(u64::from_le_bytes(bits));
            self.raw()[at..at + size].fill(POISON);
        }
        assert!(self.raw().iter().all(|&byte| byte == POISON), "something beside the elements was written");
        let dtype = self.dtype;
        let cells = match dtype.is_float() {
            true => Cells::Float(cells.into_iter().map(|bits| float_of(dtype, bits)).collect()),
            false => Cells::Int(cells.into_iter().map(|bits| int_of(dtype, bits)).collect()),
        };
        Array { dtype, shape: self.shape.clone(), cells }
    }
}

/// The bits of a float of a type.
pub(crate) fn float_bits(dtype: DType, x: f64) -> u64 {
    match dtype {
        DType::F16 => f16::from_f64(x).to_bits().into(),
        DType::BF16 => bf16::from_f64(x).to_bits().into(),
        DType::F32 => (x as f32).to_bits().into(),
        _ => x.to_bits(),
    }
}

fn float_of(dtype: DType, bits: u64) -> f64 {
    match dtype {
        DType::F16 => f16::from_bits(bits as u16).to_f64(),
        DType::BF16 => bf16::from_bits(bits as u16).to_f64(),
        DType::F32 => f32::from_bits(bits as u32).into(),
        _ => f64::from_bits(bits),
    }
}

fn int_of(dtype: DType, bits: u64) -> i64 {
    match dtype {
        DType::I8 => (bits as i8).into(),
        DType::I16 => (bits as i16).into(),
        DType::I32 => (bits as i32).into(),
        _ => bits as i64,
    }
}

/// Launches a kernel on copies of arrays; what it leaves in them.
pub(crate) fn launch(
    program: &Program,
    kernel: &Kernel,
    grid: &[u32],
    args: &[Given<f64>],
    arrays: &[Array<f64>],
    layout: Layout,
) -> Result<Vec<Array<f64>>, Fault> {
    launch_as(false, program, kernel, grid, args, arrays, layout)
}

/// The same, `in_order` or not.
pub(crate) fn launch_as(
    in_order: bool,
    program: &Program,
    kernel: &Kernel,
    grid: &[u32],
    args: &[Given<f64>],
    arrays: &[Array<f64>],
    layout: Layout,
) -> Result<Vec<Array<f64>>, Fault> {
    let mut lanes = vec![1; arrays.len()];
    for (arg, &param) in args.iter().zip(&kernel.params) {
        if let (Given::Array(i), Type::Array(ty)) = (arg, kernel.ty(param)) {
            lanes[*i] = ty.lanes.into();
        }
    }
    let mut memory: Vec<Memory> =
        arrays.iter().zip(lanes).map(|(array, lanes)| Memory::new(array, lanes, layout)).collect();
    let args: Vec<Arg> = args
        .iter()
        .zip(&kernel.params)
        .map(|(arg, &param)| match *arg {
            Given::Float(x) => Arg::scalar(float_bits(kernel.dtype(param), x)),
            Given::Int(x) => Arg::scalar(x as u64),
            Given::Array(i) => memory[i].arg(),
        })
        .collect();
    // SAFETY: arguments of the kernel's types, which live as long as the launch.
    unsafe { if in_order { program.launch_in_order(grid, &args) } else { program.launch(grid, &args) } }?;
    Ok(memory.into_iter().map(Memory::read).collect())
}

/// A kernel compiled for launches in order.
#[allow(dead_code)]
pub(crate) fn program_in_order(kernel: &Kernel, lanes: Lanes) -> Program {
    let records = order(kernel, true) == Order::Records;
    // Without records lanes are in no order.
    let lanes = if records { lanes } else { Lanes::Off };
    let options = Options { lanes, records, ..Options::default() };
    Program::new(kernel, options).unwrap_or_else(|e| panic!("{e}\n{kernel}"))
}

/// A kernel compiled, for arrays that share no memory.
pub(crate) fn program(kernel: &Kernel, lanes: Lanes) -> Program {
    let options = Options { lanes, sums: true, ..Options::default() };
    Program::new(kernel, options).unwrap_or_else(|e| panic!("{e}\n{kernel}"))
}
