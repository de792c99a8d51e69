//! Launches that leave what threads one after the other would, on all cores: updates whose order matters are put down as records
//! by each part of the grid, and applied part by part, in order, while later parts still run.
//!
//! A record is two words: the address with the [kind] of update in its highest bits, and the value. The bits of the results do
//! not depend on how the grid is cut, so that may follow from what threads take and from how many cores there are.

use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bullet_kernels::cpu::{par, stop};
use bullet_lang::ir::Atomic;
use bullet_ops::DType;
use half::{bf16, f16};

use crate::host::RawFault;
use crate::program::{ALONE, Launch, PROBE};

/// Bits of an address: more than any user of x86-64 has.
const ADDRESS: u64 = (1 << KIND) - 1;
const KIND: u32 = 60;

/// About how many records a part has: what fits a core's own cache.
const RECORDS: usize = 1 << 14;
/// The most threads of a part.
const THREADS: i64 = 1 << 14;
/// Parts for each core that may wait to be applied.
const WAITING: usize = 4;

/// Updates that are recorded, as numbers of the highest bits.
const UPDATES: [Atomic; 3] = [Atomic::Add, Atomic::Min, Atomic::Max];
const DTYPES: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::BF16];

/// The highest bits of a record's first word. Only sums and extremes of floats are recorded.
pub(crate) fn kind(op: Atomic, dtype: DType) -> u64 {
    let op = UPDATES.iter().position(|&known| known == op).unwrap_or(0);
    let dtype = DTYPES.iter().position(|&known| known == dtype).unwrap_or(0);
    ((4 * op + dtype) as u64) << KIND
}

/// Makes the updates, in order.
///
/// # Safety
/// The addresses are of elements that nobody else uses meanwhile.
unsafe fn apply(records: &[u64]) {
    for record in records.chunks_exact(2) {
        let cell = ptr::with_exposed_provenance_mut::<u8>((record[0] & ADDRESS) as usize);
        let kind = (record[0] >> KIND) as usize;
        let (op, single) = (UPDATES[(kind / 4).min(2)], f32::from_bits(record[1] as u32));
        // SAFETY: the caller's promise; elements lie at multiples of their size.
        unsafe {
            match DTYPES[kind % 4] {
                DType::F64 => {
                    let cell = cell.cast::<f64>();
                    *cell = updated64(op, *cell, f64::from_bits(record[1]));
                }
                DType::F16 => {
                    let cell = cell.cast::<f16>();
                    *cell = f16::from_f32(updated32(op, (*cell).to_f32(), single));
                }
                DType::BF16 => {
                    let cell = cell.cast::<bf16>();
                    *cell = bf16::from_f32(updated32(op, (*cell).to_f32(), single));
                }
                _ => {
                    let cell = cell.cast::<f32>();
                    *cell = updated32(op, *cell, single);
                }
            }
        }
    }
}

macro_rules! updated {
    ($name:ident, $ty:ty) => {
        /// What a cell holds behind an update; of extremes that are equal the older stays.
        fn $name(op: Atomic, cell: $ty, x: $ty) -> $ty {
            match op {
                Atomic::Min if x < cell || cell.is_nan() => x,
                Atomic::Max if x > cell || cell.is_nan() => x,
                Atomic::Min | Atomic::Max => cell,
                _ => cell + x,
            }
        }
    };
}

updated!(updated32, f32);
updated!(updated64, f64);

/// What waits to be applied, of the parts of one wave.
struct Queue {
    parts: Vec<Option<(Vec<u64>, usize)>>,
    /// The first that was not applied.
    next: usize,
    /// Whether a thread applies some now.
    busy: bool,
    /// Memory to use again.
    spare: Vec<Vec<u64>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Launch<'_> {
    /// Runs threads as if one after the other.
    ///
    /// # Safety
    /// As of [`Program::launch_in_order`](crate::Program::launch_in_order).
    pub(crate) unsafe fn in_order(&self, total: i64) -> Result<(), RawFault> {
        if total <= 0 {
            return Ok(());
        }
        let mut records = vec![];
        let start = Instant::now();
        let probe = total.min(PROBE);
        // SAFETY: the caller's promise, here and below.
        let used = unsafe { self.part_into(0, probe, &mut records) }?;
        // SAFETY: addresses of elements that were checked, and no thread runs.
        unsafe { apply(&records[..used]) };
        let each = start.elapsed().max(Duration::from_nanos(1)) / probe as u32;
        if !self.program.options.records {
            // SAFETY: as above.
            return unsafe { self.alone(probe, total, each) };
        }
        let rest = total - probe;
        let length = (RECORDS as i64 * probe / (used as i64 / 2).max(1)).clamp(1, THREADS);
        if each.as_nanos() * (rest as u128) < ALONE.as_nanos() || length >= rest || par::threads() == 1 {
            // SAFETY: as above.
            return unsafe { self.one_by_one(probe, total, length, &mut records) };
        }
        // SAFETY: as above.
        unsafe { self.together(probe, total, length, records) }
    }

    /// The rest of a kernel without records.
    unsafe fn alone(&self, first: i64, total: i64, each: Duration) -> Result<(), RawFault> {
        let length = (10_000_000 / each.as_nanos().max(1)).clamp(1, 1 << 20) as i64;
        (first..total).step_by(length as usize).try_for_each(|start| {
            stop::check();
            // SAFETY: the caller's promise.
            unsafe { self.part(start, (start + length).min(total)) }
        })
    }

    /// The rest, in parts of so many threads, on this thread.
    unsafe fn one_by_one(
        &self,
        first: i64,
        total: i64,
        length: i64,
        records: &mut Vec<u64>,
    ) -> Result<(), RawFault> {
        (first..total).step_by(length as usize).try_for_each(|start| {
            stop::check();
            // SAFETY: the caller's promise; no thread runs while records are applied.
            unsafe {
                let used = self.part_into(start, (start + length).min(total), records)?;
                apply(&records[..used]);
            }
            Ok(())
        })
    }

    /// The rest on all cores: waves of parts, so that what waits has an end.
    unsafe fn together(&self, first: i64, total: i64, length: i64, spare: Vec<u64>) -> Result<(), RawFault> {
        let wave = WAITING * par::threads();
        let mut spare = vec![spare];
        for begin in (first..total).step_by(length as usize * wave) {
            let parts = ((total - begin) as u64).div_ceil(length as u64).min(wave as u64) as usize;
            let queue = Queue { parts: vec![None; parts], next: 0, busy: false, spare };
            let (queue, failed) = (Mutex::new(queue), AtomicUsize::new(usize::MAX));
            let fault = Mutex::new(None::<RawFault>);
            par::for_tasks(parts, |i| {
                // Parts before the first fault do run, so that it is always the same one.
                if failed.load(Ordering::Relaxed) < i {
                    return;
                }
                let mut records = lock(&queue).spare.pop().unwrap_or_default();
                let start = begin + i as i64 * length;
                // SAFETY: the caller's promise.
                match unsafe { self.part_into(start, (start + length).min(total), &mut records) } {
                    Ok(used) => finish(&queue, i, (records, used)),
                    Err(raw) => {
                        failed.fetch_min(i, Ordering::Relaxed);
                        let mut first = lock(&fault);
                        if first.is_none_or(|known| raw.thread < known.thread) {
                            *first = Some(raw);
                        }
                    }
                }
            });
            if let Some(raw) = *lock(&fault) {
                return Err(raw);
            }
            spare = queue.into_inner().unwrap_or_else(PoisonError::into_inner).spare;
        }
        Ok(())
    }
}

/// Puts the records of a part in the queue, and applies all whose turn it is, unless another thread does.
fn finish(queue: &Mutex<Queue>, part: usize, records: (Vec<u64>, usize)) {
    let mut guard = lock(queue);
    guard.parts[part] = Some(records);
    if std::mem::replace(&mut guard.busy, true) {
        return;
    }
    loop {
        let next = guard.next;
        let Some((records, used)) = guard.parts.get_mut(next).and_then(Option::take) else {
            guard.busy = false;
            return;
        };
        drop(guard);
        // SAFETY: the kernel does not touch what it updates, and this thread alone applies records now.
        unsafe { apply(&records[..used]) };
        guard = lock(queue);
        guard.next += 1;
        guard.spare.push(records);
    }
}
