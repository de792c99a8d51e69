//! Deterministic launches on a GPU: threads put down records of their sums, which are sorted and added up behind them.
//!
//! The grid is run in slices whose records are [`SLICE`] at most, whatever memory there is, as the order of sums follows from
//! them. A record's key is its element's place among all bytes that the launch adds to, arrays in the order of parameters, those that share
//! memory together: where arrays lie changes from run to run, and so would an order by addresses.

use std::sync::Arc;

use bullet_lang::adjoint::Tape;
use bullet_lang::diag::Diagnostic;
use bullet_lang::emit::cuda::{CHUNK, Checks, CudaOptions, FOLD, Sharing, fold_source};
use bullet_lang::link::Linked;
use bullet_lang::{ir, order};
use bullet_tensor::runtime::{Buffer, KernelArgs};
use bullet_tensor::{DType, Device, Tensor};

use crate::cuda::{Blocks, Function, Need, Work};
use crate::error::{Error, Result};
use crate::kernel::Arg;
use crate::reach::Reach;

/// The most records of a slice, unless those of one block of threads are more.
const SLICE: u64 = 1 << 21;
/// The threads of a slice are a multiple of it, where there are as many.
const BLOCK: u64 = 256;

/// A kernel whose sums are recorded, on one device.
#[derive(Debug)]
pub(crate) struct Recorder {
    function: Function,
    fold: Function,
    /// The parameters that records are of.
    summed: Vec<usize>,
    room: Room,
    sharing: Sharing,
}

/// How many records a thread may put down.
#[derive(Debug)]
enum Room {
    /// So many at most.
    Known(u64),
    /// What this kernel counts.
    Counted(Box<Counting>),
}

/// A kernel that counts records.
#[derive(Debug)]
struct Counting {
    kernel: ir::Kernel,
    tape: Tape,
    /// How many parameters it counts records of.
    arrays: usize,
    function: Function,
}

impl Recorder {
    /// Compiles it.
    ///
    /// # Errors
    /// The kernel's records cannot be counted beforehand, a diagnostic; what the device refuses.
    pub(crate) fn new(
        device: &Device,
        kernel: &ir::Kernel,
        options: CudaOptions,
        linked: &Arc<Linked>,
    ) -> Result<Result<Recorder, Diagnostic>> {
        let sharing = options.records.unwrap_or(Sharing::Any);
        let distinct = sharing == Sharing::Distinct;
        let room = match order::most_records(kernel, distinct) {
            Some(most) => Room::Known(most),
            None => match order::counting(kernel, distinct) {
                Ok(counting) => {
                    let checks = if options.checks == Checks::Off { Checks::Off } else { Checks::Unrecorded };
                    let options = CudaOptions { checks, ..options };
                    let function = Function::new(device, &counting, options, &kernel.name, linked)?;
                    let (tape, arrays) = (Tape::of(&counting), order::summed(&counting, distinct).len());
                    Room::Counted(Box::new(Counting { kernel: counting, tape, arrays, function }))
                }
                Err(diagnostic) => return Ok(Err(diagnostic)),
            },
        };
        let function = Function::new(device, kernel, options, &kernel.name, linked)?;
        let fold = Function::load(device, FOLD, &fold_source(), options)?;
        Ok(Ok(Recorder { function, fold, summed: order::summed(kernel, distinct), room, sharing }))
    }

    pub(crate) fn is_for(&self, device: &Device, options: CudaOptions) -> bool {
        options.records == Some(self.sharing) && self.function.is_for(device, options)
    }

    /// Enqueues it; where its records have to be counted, that is waited for.
    pub(crate) fn launch(&self, work: Work<'_>, block: u32) -> Result<()> {
        let threads = work.threads();
        let keys = self.keys(work.args);
        let most = match &self.room {
            Room::Known(most) => *most,
            Room::Counted(counting) => self.count(counting, work, Blocks { first: 0, threads, block })?,
        };
        let slice = (SLICE / most.max(1)).next_multiple_of(BLOCK).clamp(BLOCK, threads.max(BLOCK));
        let mut first = 0;
        while first < threads {
            let part = Part { first, threads: slice.min(threads - first), most, block };
            self.slice(work, part, &keys)?;
            first += part.threads;
        }
        Ok(())
    }

    /// The most records that a thread puts down.
    fn count(&self, counting: &Counting, work: Work<'_>, all: Blocks) -> Result<u64> {
        let Counting { kernel, tape, arrays, function } = counting;
        if *arrays == 0 {
            return Ok(0);
        }
        let device = self.function.device();
        let need = Need::new(device)?;
        let args = &work.to_measure()?;
        function.launch_part(Work { kernel, tape: *tape, args, ..work }, all, &|packed| {
            let (first, stride) = (0i64, all.threads as i64);
            packed.push(first).push(stride).push(0u32).push(need.ptr());
            packed.push(0u64).push(0u64).push(0u64);
            (0..*arrays).for_each(|_| _ = packed.push(0i64));
        })?;
        need.words()
    }

    /// Runs some threads, and adds up what they put down.
    fn slice(&self, work: Work<'_>, part: Part, keys: &[i64]) -> Result<()> {
        let device = self.function.device();
        let too_many = || {
            Error::Unsupported(format!(
                "a deterministic launch of `{}` would record {} sums a thread, more than there is room for; add up in the \
                 thread first, or launch it with deterministic=False",
                work.kernel.name, part.most
            ))
        };
        let size = u32::try_from(part.most).map_err(|_| too_many())?;
        let count = usize::try_from(part.most * part.threads).map_err(|_| too_many())?;
        // No key is below 0 but where there is no record.
        let record_keys = Tensor::full(-1.0, &[count.max(1)], DType::I64, device)?;
        let [cells, values] = [device.alloc(8 * count.max(1))?, device.alloc(8 * count.max(1))?];
        // What the text says cannot be exceeded, and is not asked for, which would wait.
        let need = match self.room {
            Room::Known(_) => None,
            Room::Counted(_) => Some(Need::new(device)?),
        };
        let need_ptr = need.as_ref().map_or(0, |need| need.ptr().0);
        let blocks = Blocks { first: part.first, threads: part.threads, block: part.block };
        self.function.launch_part(work, blocks, &|packed| {
            packed.push(part.first as i64).push(part.threads as i64).push(size).push(need_ptr);
            packed.push(record_keys.address()).push(cells.ptr()).push(values.ptr());
            keys.iter().for_each(|&key| _ = packed.push(key));
        })?;
        if let Some(need) = need {
            let found = need.words()?;
            if found > part.most {
                return Err(Error::Unsupported(format!(
                    "`{}` recorded {found} sums in a thread, but {} when they were counted: an array that it reads is being \
                     changed",
                    work.kernel.name, part.most
                )));
            }
        }
        if count > 0 { self.fold(&record_keys, cells, values) } else { Ok(()) }
    }

    /// Adds up records.
    fn fold(&self, keys: &Tensor, mut cells: Buffer, mut values: Buffer) -> Result<()> {
        let device = self.function.device();
        let (sorted, places) = keys.sort_with_indices(0, false)?;
        let (mut keys, mut places) = (sorted.address(), places.address());
        let mut count = sorted.dim(0) as u64;
        // Memory that is given up is used again behind the launches that use it now.
        let mut _kept = None;
        loop {
            let chunks = count.div_ceil(CHUNK);
            let room = || device.alloc(16 * chunks as usize);
            let next = [room()?, room()?, room()?];
            let mut args = KernelArgs::new();
            args.push(keys).push(places).push(cells.ptr()).push(values.ptr()).push(count as i64);
            next.iter().for_each(|part| _ = args.push(part.ptr()));
            self.fold.run(Blocks { first: 0, threads: chunks, block: BLOCK as u32 }, &args)?;
            if count <= CHUNK {
                return Ok(());
            }
            let [next_keys, next_cells, next_values] = next;
            (keys, places, count) = (next_keys.ptr().0, 0, 2 * chunks);
            (cells, values, _kept) = (next_cells, next_values, Some(next_keys));
        }
    }

    /// What is added to the addresses of each array's elements to be their keys.
    fn keys(&self, args: &[Arg]) -> Vec<i64> {
        let reach = |&number: &usize| match &args[number] {
            Arg::Array(tensor) => Reach::of(tensor).map(|reach| (reach.first(), reach.last())),
            Arg::Scalar(_) => None,
        };
        keys(&self.summed.iter().map(reach).collect::<Vec<_>>())
    }
}

/// Threads of a grid, and the most records of each.
#[derive(Clone, Copy)]
struct Part {
    first: u64,
    threads: u64,
    most: u64,
    block: u32,
}

/// Of the first and last bytes of arrays: what makes places of addresses, from 0 on, the same of arrays that share memory.
fn keys(reaches: &[Option<(usize, usize)>]) -> Vec<i64> {
    let mut keys = vec![None; reaches.len()];
    let mut begin = 0;
    for i in 0..reaches.len() {
        let (Some((mut first, mut last)), None) = (reaches[i], keys[i]) else { continue };
        // All that hang together, through others too.
        let mut group = vec![i];
        while let Some(j) = (0..reaches.len()).find(|j| {
            let touches = |(a, b): (usize, usize)| a <= last && first <= b;
            !group.contains(j) && reaches[*j].is_some_and(touches)
        }) {
            let Some((a, b)) = reaches[j] else { break };
            (first, last) = (first.min(a), last.max(b));
            group.push(j);
        }
        group.iter().for_each(|&j| keys[j] = Some(begin - first as i64));
        begin += (last - first) as i64 + 1;
    }
    keys.into_iter().map(Option::unwrap_or_default).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_do_not_depend_on_where_arrays_lie() {
        let arrays = [Some((1000, 1099)), None, Some((5000, 5003)), Some((1050, 1199)), Some((200, 299))];
        let found = keys(&arrays);
        assert_eq!(found, [-1000, 0, 200 - 5000, -1000, 204 - 200]);
        let moved = arrays.map(|array| array.map(|(first, last)| (first + 7777, last + 7777)));
        let firsts = |arrays: &[Option<(usize, usize)>]| {
            let keys = keys(arrays);
            arrays.iter().zip(keys).map(|(a, key)| a.map(|(first, _)| first as i64 + key)).collect::<Vec<_>>()
        };
        assert_eq!(firsts(&arrays), firsts(&moved));
        assert_eq!(firsts(&arrays), [Some(0), None, Some(200), Some(50), Some(204)]);
    }
}
