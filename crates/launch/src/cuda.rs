//! Kernels on a GPU: compiled by [`compiler`](crate::compiler), arguments as [`cuda`](bullet_lang::emit::cuda) says.

use std::sync::Arc;

use bullet_lang::adjoint::Tape;
use bullet_lang::emit::cuda::{CudaOptions, Layout, alignment, symbol, takes_tape};
use bullet_lang::ir::{self, Type};
use bullet_lang::link::Linked;
use bullet_tensor::runtime::jit::Program;
use bullet_tensor::runtime::{
    Buffer, DevicePtr, FunctionId, KernelArgs, Launch, LaunchConfig, ModuleId, StreamId,
};
use bullet_tensor::{Device, Tensor};

use crate::compiler;
use crate::error::{Error, Result, argument};
use crate::faults::Faults;
use crate::kernel::{Arg, types};
use crate::tape::copy;

/// A loaded kernel.
#[derive(Debug)]
pub(crate) struct Function {
    device: Device,
    options: CudaOptions,
    module: ModuleId,
    function: FunctionId,
    /// Where it reports what goes wrong, if anything can.
    faults: Option<Faults>,
}

/// What is launched.
#[derive(Clone, Copy)]
pub(crate) struct Work<'a> {
    pub(crate) kernel: &'a ir::Kernel,
    pub(crate) tape: Tape,
    /// Arguments that are copies for the kernel to overwrite while it computes anew what an adjoint needs.
    pub(crate) scratch: &'a [usize],
    pub(crate) grid: &'a [i32],
    pub(crate) args: &'a [Arg],
}

impl Work<'_> {
    pub(crate) fn threads(&self) -> u64 {
        threads(self.grid)
    }

    /// Arguments for a launch that measures: it overwrites copies, too, and so is given some of its own.
    pub(crate) fn to_measure(self) -> Result<Vec<Arg>> {
        let own = |(i, arg): (usize, &Arg)| match arg {
            Arg::Array(tensor) if self.scratch.contains(&i) => Ok(Arg::Array(copy(tensor)?)),
            _ => Ok(arg.clone()),
        };
        self.args.iter().enumerate().map(own).collect()
    }
}

/// How many threads a grid has.
pub(crate) fn threads(grid: &[i32]) -> u64 {
    grid.iter().fold(1, |all, &length| all.saturating_mul(length as u64))
}

/// Threads of a launch, from the first of a grid on, in blocks of so many.
#[derive(Clone, Copy)]
pub(crate) struct Blocks {
    pub(crate) first: u64,
    pub(crate) threads: u64,
    pub(crate) block: u32,
}

/// What a launch says of the room it wants.
pub(crate) struct Need(Buffer);

impl Need {
    /// Of a launch that is about to be.
    pub(crate) fn new(device: &Device) -> Result<Need> {
        let need = device.alloc(size_of::<u32>())?;
        need.send(0, &0u32.to_ne_bytes())?;
        Ok(Need(need))
    }

    pub(crate) fn ptr(&self) -> DevicePtr {
        self.0.ptr()
    }

    /// The words of the hungriest thread; waits for the launch.
    pub(crate) fn words(&self) -> Result<u64> {
        let mut found = [0; size_of::<u32>()];
        self.0.read(0, &mut found)?;
        Ok(u32::from_ne_bytes(found).into())
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        // Launches of it may still be under way. After a device has failed there is nothing left to unload.
        if self.device.synchronize().is_ok() {
            // SAFETY: this is the only handle of the module, and what it had to do is done.
            let _ = unsafe { self.device.driver().unload_module(self.module) };
        }
    }
}

impl Function {
    /// Of a kernel whose faults are told of the kernel `name` in a source.
    pub(crate) fn new(
        device: &Device,
        kernel: &ir::Kernel,
        options: CudaOptions,
        name: &str,
        linked: &Arc<Linked>,
    ) -> Result<Function> {
        let module = compiler::load(device, kernel, options)?;
        let mut function = Function::of(device, module, &symbol(&kernel.name), options)?;
        function.faults = Faults::of(device, kernel, options, name, linked)?;
        Ok(function)
    }

    /// The one of this name in a source of CUDA C++.
    pub(crate) fn load(device: &Device, name: &str, text: &str, options: CudaOptions) -> Result<Function> {
        let module = device.load(&Program { name, source: text, minimal: true })?;
        Function::of(device, module, name, options)
    }

    fn of(device: &Device, module: ModuleId, name: &str, options: CudaOptions) -> Result<Function> {
        let function = device.driver().function(module, name)?;
        Ok(Function { device: device.clone(), options, module, function, faults: None })
    }

    pub(crate) fn is_for(&self, device: &Device, options: CudaOptions) -> bool {
        self.device == *device && self.options == options
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// Enqueues it in blocks of so many threads; a tape that has to be measured is waited for.
    pub(crate) fn launch(&self, work: Work<'_>, block: u32) -> Result<()> {
        self.launch_part(work, Blocks { first: 0, threads: work.threads(), block }, &|_| {})
    }

    /// The same for so many threads of the grid, with more arguments behind those of the tape.
    pub(crate) fn launch_part(
        &self,
        work: Work<'_>,
        part: Blocks,
        more: &dyn Fn(&mut KernelArgs),
    ) -> Result<()> {
        let (kernel, tape) = (work.kernel, work.tape);
        let packed = self.pack(work, work.args, part.first);
        if !takes_tape(kernel) {
            let mut packed = packed;
            more(&mut packed);
            return self.run_of(kernel, part, &packed);
        }
        let run = |packed: &KernelArgs, words: Option<u64>| {
            self.with_tape(packed, words, work.threads(), &|packed| {
                more(packed);
                self.run_of(kernel, part, packed)
            })
        };
        let words = match tape {
            Tape::Words(words) => words,
            Tape::Measured => {
                let args = work.to_measure()?;
                run(&self.pack(work, &args, part.first), None)?.words()?
            }
        };
        let need = run(&packed, Some(words))?;
        // What is known without measuring is enough.
        if tape == Tape::Measured && need.words()? > words {
            return Err(Error::Gradient(format!(
                "the adjoint `{}` needs more than the {words} words of tape a thread that it took when it was measured: an \
                 array that it reads is being changed",
                kernel.name
            )));
        }
        Ok(())
    }

    /// The arguments of a launch from this thread of the grid on.
    fn pack(&self, work: Work<'_>, args: &[Arg], first: u64) -> KernelArgs {
        let mut packed = KernelArgs::new();
        work.grid.iter().for_each(|&length| _ = packed.push(length));
        types(work.kernel).zip(args).for_each(|(ty, arg)| self.push(ty, arg, &mut packed));
        if let Some(faults) = &self.faults {
            packed.push_bytes(&faults.argument(work.grid, first), align_of::<u64>());
        }
        packed
    }

    /// Has it run with so many words a thread, or to measure; where the words that the hungriest thread wants will be.
    fn with_tape(
        &self,
        args: &KernelArgs,
        words: Option<u64>,
        threads: u64,
        run: &dyn Fn(&mut KernelArgs) -> Result<()>,
    ) -> Result<Need> {
        let device = &self.device;
        let each = words.unwrap_or(0);
        let size = u32::try_from(each).map_err(|_| too_long(each))?;
        let bytes = each.checked_mul(threads).and_then(|n| n.checked_mul(4)).ok_or_else(|| too_long(each))?;
        let memory = device.alloc(usize::try_from(bytes).map_err(|_| too_long(each))?)?;
        let need = Need::new(device)?;
        let mut args = args.clone();
        // Without a tape it is measured; one of no words has an address, too.
        args.push(words.map_or(0, |_| memory.ptr().0)).push(size).push(need.ptr());
        run(&mut args)?;
        Ok(need)
    }

    fn run_of(&self, kernel: &ir::Kernel, part: Blocks, args: &KernelArgs) -> Result<()> {
        let Blocks { threads, block, .. } = part;
        if threads.div_ceil(block.into()) > i32::MAX as u64 {
            return argument(format!(
                "`{}` is launched over {threads} threads, more than {} on a GPU",
                kernel.name,
                i32::MAX as u64 * u64::from(block)
            ));
        }
        self.run(part, args)
    }

    /// Enqueues so many threads, of arguments that are packed.
    pub(crate) fn run(&self, part: Blocks, args: &KernelArgs) -> Result<()> {
        let grid = [part.threads.div_ceil(part.block.into()) as u32, 1, 1];
        let config = LaunchConfig { grid, block: [part.block, 1, 1], ..LaunchConfig::default() };
        let launch = Launch::Kernel { function: self.function, config, args };
        // SAFETY: the arguments were checked against the kernel's parameters, and their memory is pool memory, which is
        // reused in stream order. That indices are in range is the kernel's own affair unless it checks them, as the user's
        // guide says.
        Ok(unsafe { self.device.driver().launch(StreamId::DEFAULT, launch) }?)
    }

    fn push(&self, ty: Type, arg: &Arg, args: &mut KernelArgs) {
        match (ty, arg) {
            (Type::Scalar(dtype), Arg::Scalar(bits)) => {
                args.push_bytes(&bits.to_le_bytes()[..dtype.size()], dtype.size());
            }
            (Type::Array(array), Arg::Array(tensor)) => {
                args.push_bytes(&self.array(tensor, array.ndim.into()), align_of::<u64>());
            }
            // Checked by the launch.
            _ => {}
        }
    }

    /// `ArrayN`: a pointer, the lengths and, of arrays with gaps, the strides.
    fn array(&self, tensor: &Tensor, ndim: usize) -> Vec<u8> {
        let mut bytes = tensor.address().to_ne_bytes().to_vec();
        bytes.extend(tensor.shape()[..ndim].iter().flat_map(|&length| (length as i32).to_ne_bytes()));
        if self.options.layout == Layout::Strided {
            bytes.resize(bytes.len().next_multiple_of(8), 0);
            bytes.extend(tensor.layout().strides()[..ndim].iter().flat_map(|&s| (s as i64).to_ne_bytes()));
        }
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }
}

/// Whether an argument is as [`Layout::Contiguous`] says.
pub(crate) fn is_plain(ty: Type, arg: &Arg) -> bool {
    match (ty.array(), arg) {
        // The fields of an array of structs are as far apart as the tensors that hold them say.
        (Some(array), Arg::Array(tensor)) => {
            array.pitch == array.lanes
                && tensor.is_contiguous()
                && tensor.numel() <= i32::MAX as usize
                && tensor.address().is_multiple_of(alignment(array) as u64)
        }
        _ => true,
    }
}

fn too_long(words: u64) -> Error {
    Error::Gradient(format!("an adjoint needs {words} words of tape a thread, more than there can be"))
}
