//! Kernels on a GPU: CUDA C++ through NVRTC, arguments as [`cuda`](bullet_lang::emit::cuda) says.

use bullet_lang::adjoint::Tape;
use bullet_lang::emit::cuda::{CudaOptions, Layout, alignment, source, symbol, takes_tape};
use bullet_lang::ir::{self, Type};
use bullet_tensor::runtime::jit::Program;
use bullet_tensor::runtime::{Buffer, FunctionId, KernelArgs, Launch, LaunchConfig, ModuleId, StreamId};
use bullet_tensor::{Device, Tensor};

use crate::error::{Error, Result, argument};
use crate::kernel::{Arg, types};

/// A loaded kernel.
#[derive(Debug)]
pub(crate) struct Function {
    device: Device,
    strided: bool,
    module: ModuleId,
    function: FunctionId,
}

/// What a launch says of the tape it wants.
struct Need(Buffer);

impl Need {
    /// The words of the hungriest thread; waits for the launch.
    fn words(&self) -> Result<u64> {
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
    pub(crate) fn new(device: &Device, kernel: &ir::Kernel, strided: bool) -> Result<Function> {
        let layout = if strided { Layout::Strided } else { Layout::Contiguous };
        let text = source(&[kernel], CudaOptions { layout });
        let module = device.load(&Program { name: &kernel.name, source: &text, minimal: true })?;
        let function = device.driver().function(module, &symbol(&kernel.name))?;
        Ok(Function { device: device.clone(), strided, module, function })
    }

    pub(crate) fn is_for(&self, device: &Device, strided: bool) -> bool {
        self.device == *device && self.strided == strided
    }

    /// Enqueues it in blocks of so many threads; a tape that has to be measured is waited for.
    pub(crate) fn launch(
        &self,
        kernel: &ir::Kernel,
        tape: Tape,
        grid: &[i32],
        args: &[Arg],
        block: u32,
    ) -> Result<()> {
        let threads = grid.iter().fold(1u64, |all, &length| all.saturating_mul(length as u64));
        let blocks = threads.div_ceil(block.into());
        if blocks > i32::MAX as u64 {
            return argument(format!(
                "`{}` is launched over {threads} threads, more than {} on a GPU",
                kernel.name,
                i32::MAX as u64 * u64::from(block)
            ));
        }
        let mut packed = KernelArgs::new();
        grid.iter().for_each(|&length| {
            packed.push(length);
        });
        types(kernel).zip(args).for_each(|(ty, arg)| self.push(ty, arg, &mut packed));
        let config =
            LaunchConfig { grid: [blocks as u32, 1, 1], block: [block, 1, 1], ..LaunchConfig::default() };
        if !takes_tape(kernel) {
            return self.run(config, &packed);
        }
        let words = match tape {
            Tape::Words(words) => words,
            Tape::Measured => self.with_tape(config, &packed, None, threads)?.words()?,
        };
        let need = self.with_tape(config, &packed, Some(words), threads)?;
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

    /// Enqueues it with so many words a thread, or to measure; where the words that the hungriest thread wants will be.
    fn with_tape(
        &self,
        config: LaunchConfig,
        args: &KernelArgs,
        words: Option<u64>,
        threads: u64,
    ) -> Result<Need> {
        let device = &self.device;
        let each = words.unwrap_or(0);
        let size = u32::try_from(each).map_err(|_| too_long(each))?;
        let bytes = each.checked_mul(threads).and_then(|n| n.checked_mul(4)).ok_or_else(|| too_long(each))?;
        let memory = device.alloc(usize::try_from(bytes).map_err(|_| too_long(each))?)?;
        let need = device.alloc(size_of::<u32>())?;
        need.send(0, &0u32.to_ne_bytes())?;
        let mut args = args.clone();
        // Without a tape it is measured; one of no words has an address, too.
        args.push(words.map_or(0, |_| memory.ptr().0)).push(size).push(need.ptr());
        self.run(config, &args)?;
        Ok(Need(need))
    }

    fn run(&self, config: LaunchConfig, args: &KernelArgs) -> Result<()> {
        let launch = Launch::Kernel { function: self.function, config, args };
        // SAFETY: the arguments were checked against the kernel's parameters, and their memory is pool memory, which is
        // reused in stream order. That indices are in range is the kernel's own affair, as the user's guide says.
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
        if self.strided {
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
