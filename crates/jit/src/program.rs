//! A compiled kernel, and its launches.

use std::cell::RefCell;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bullet_kernels::cpu::{par, stop};
use bullet_lang::diag::Span;
use bullet_lang::fault::{self, FaultKind, Place, Site};
use bullet_lang::ir::Kernel;

use crate::abi::{Arg, Context, STOPPED};
use crate::compile::{self, Code};
use crate::host::{self, Call, Print, RECORDS_SITE, RawFault, TAPE_SITE};

/// Whether threads run side by side in vectors. What a thread computes is the same; the order of atomics is not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Lanes {
    /// Never: one after the other.
    Off,
    /// Where that is expected to be at least twice as fast.
    #[default]
    Auto,
    /// Wherever a kernel can.
    Always,
}

/// How a kernel is compiled and run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Whether indices are checked. Without, one that is out of range reads or writes memory that is not the array's.
    pub check: bool,
    /// Whether threads run side by side in vectors.
    pub lanes: Lanes,
    /// The most bytes of tape that a worker may have, for the threads that it runs side by side.
    pub tape_limit: usize,
    /// Whether updates whose order matters are recorded, for [`Program::launch_in_order`]: of kernels whose
    /// [order](bullet_lang::order::order) is `Records`. Only that launches such a program.
    pub records: bool,
    /// Whether sums of several threads to one element may be made before they are added to it, in whatever order. That must not be
    /// seen: what the kernel writes shares no memory with its other arrays.
    pub sums: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { check: true, lanes: Lanes::Auto, tape_limit: 1 << 30, records: false, sums: false }
    }
}

/// Why a kernel has no code here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error(String);

impl Error {
    pub(crate) fn new(message: impl Into<String>) -> Error {
        Error(message.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// Why a launch stopped. What was stored before stays.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Whose mistake it was.
    pub kind: FaultKind,
    /// What happened, to which thread of which kernel.
    pub message: String,
    /// Where in the source, if it was an instruction.
    pub span: Option<Span>,
    /// The thread's place, one number a dimension of the grid; empty if it was not one thread.
    pub thread: Vec<i64>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

/// What a program is beside its code.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Meta {
    pub(crate) name: String,
    /// Dimensions of the grid.
    pub(crate) grid: u8,
    /// Dimensions of each parameter; 0 of scalars.
    pub(crate) ndims: Vec<u8>,
    pub(crate) sites: Vec<Site>,
    pub(crate) prints: Vec<Print>,
    /// Bytes of local arrays beside the stack, and of a tape of known size.
    pub(crate) scratch: usize,
    pub(crate) tape: usize,
}

/// A kernel as machine code, which any number of threads may launch at once.
#[derive(Debug)]
pub struct Program {
    pub(crate) meta: Meta,
    pub(crate) code: Code,
    pub(crate) options: Options,
}

/// What a thread that runs kernels keeps for the next.
#[derive(Default)]
struct Worker {
    tape: Vec<u64>,
    scratch: Vec<u64>,
}

thread_local! {
    static WORKER: RefCell<Worker> = const { RefCell::new(Worker { tape: Vec::new(), scratch: Vec::new() }) };
}

/// Grids up to this many threads, and the first threads of larger ones, are run by the caller at once.
pub(crate) const PROBE: i64 = 64;
/// Less work than this is not shared out: it takes some 10 us to wake a thread.
pub(crate) const ALONE: Duration = Duration::from_micros(30);
/// About how long a part of a shared grid takes, between which a launch can be stopped.
const PART: Duration = Duration::from_micros(250);

impl Program {
    /// Compiles a kernel.
    ///
    /// # Errors
    /// The kernel needs what the CPU has not (barriers, shuffles, shared memory), or the machine is not supported.
    pub fn new(kernel: &Kernel, options: Options) -> Result<Program, Error> {
        let (meta, code) = compile::compile(kernel, options)?;
        Ok(Program { meta, code: Code::new(&code)?, options })
    }

    /// The kernel's name.
    pub fn name(&self) -> &str {
        &self.meta.name
    }

    /// Bytes of machine code.
    pub fn code_bytes(&self) -> usize {
        self.code.bytes().len()
    }

    /// Runs the kernel for every thread of a grid, on all cores if it is worth it. Threads are in no order; what one stores and
    /// another reads is unspecified but for atomics. Asks whether to [stop](bullet_kernels::cpu::stop::check) between parts of
    /// long launches, and in loops.
    ///
    /// # Errors
    /// The first fault that was met, of the lowest thread; other threads may or may not have run. Arguments or a grid that do not
    /// fit the kernel are faults, too.
    ///
    /// # Panics
    /// Unwinds if it is told to stop.
    ///
    /// # Safety
    /// Each argument is what the kernel's parameter of that number says: scalars of its type, arrays of its dtype, lanes and
    /// dimensions, whose elements may be read, and written if the kernel writes to them, for the time of the launch; no other
    /// thread writes to them or reads what is written. Without checks, indices are in range.
    pub unsafe fn launch(&self, grid: &[u32], args: &[Arg]) -> Result<(), Fault> {
        let (lengths, total) = self.fit(grid, args.len())?;
        let launch = Launch { program: self, args, grid: lengths };
        // SAFETY: the caller's promise.
        unsafe { launch.run(total) }.map_err(|raw| self.explain(raw, lengths, args))
    }

    /// The same as if threads ran one after the other, the last dimension fastest: a program of [`Options::records`] runs on
    /// all cores and applies its updates in that order, any other runs on the calling thread.
    ///
    /// # Errors
    /// As of [`launch`](Program::launch); always the same one.
    ///
    /// # Panics
    /// Unwinds if it is told to stop.
    ///
    /// # Safety
    /// As of [`launch`](Program::launch); of a program with records, no two arguments that it updates or writes share memory
    /// with each other or with another.
    pub unsafe fn launch_in_order(&self, grid: &[u32], args: &[Arg]) -> Result<(), Fault> {
        let (lengths, total) = self.fit(grid, args.len())?;
        let launch = Launch { program: self, args, grid: lengths };
        // SAFETY: the caller's promise.
        unsafe { launch.in_order(total) }.map_err(|raw| self.explain(raw, lengths, args))
    }

    /// The grid's lengths and number of threads, if they and the number of arguments fit the kernel.
    fn fit(&self, grid: &[u32], args: usize) -> Result<([i32; 4], i64), Fault> {
        let meta = &self.meta;
        let fault = |message| Err(Fault { kind: FaultKind::Other, message, span: None, thread: vec![] });
        if args != meta.ndims.len() || grid.len() != usize::from(meta.grid) {
            return fault(format!(
                "kernel `{}` takes {} arguments and a grid of {} dimensions, not {args} and {}",
                meta.name,
                meta.ndims.len(),
                meta.grid,
                grid.len()
            ));
        }
        let (mut lengths, mut total) = ([1; 4], 1i64);
        for (length, &wanted) in lengths.iter_mut().zip(grid) {
            let next = i32::try_from(wanted).ok().zip(total.checked_mul(wanted.into()));
            let Some((fits, threads)) = next else {
                return fault(format!(
                    "kernel `{}` cannot have a grid of {grid:?}: a dimension has at most 2^31 - 1 threads, all at most 2^63 - 1",
                    meta.name
                ));
            };
            (*length, total) = (fits, threads);
        }
        Ok((lengths, total))
    }

    /// A fault in words.
    fn explain(&self, raw: RawFault, grid: [i32; 4], args: &[Arg]) -> Fault {
        let thread = fault::place(raw.thread, &grid[..self.meta.grid.into()]);
        let head = fault::head(&self.meta.name, &thread);
        let site = self.meta.sites.get(raw.site as usize);
        let what = match site {
            Some(site) => {
                let number = match *site {
                    Site::Index { place: Place::Param(number), .. } => Some(number as usize),
                    _ => None,
                };
                let shape = number.and_then(|number| args.get(number)).map_or([0; 4], Arg::shape);
                let ndim = number.and_then(|number| self.meta.ndims.get(number)).copied().unwrap_or(0);
                site.message(raw.value.into(), &shape[..usize::from(ndim).min(4)])
            }
            None if raw.site == TAPE_SITE => format!(
                "its tape does not fit {} bytes: the loops of this thread keep more for the way back; run fewer steps a launch, \
                 or raise the limit",
                self.options.tape_limit
            ),
            None if raw.site == RECORDS_SITE => {
                "there is no memory for the records of its atomic updates".into()
            }
            None => "an unknown fault".into(),
        };
        let kind = site.map_or(FaultKind::Other, Site::kind);
        Fault { kind, message: format!("{head}: {what}"), span: site.map(Site::span), thread }
    }
}

/// One launch.
pub(crate) struct Launch<'a> {
    pub(crate) program: &'a Program,
    args: &'a [Arg],
    grid: [i32; 4],
}

// SAFETY: arguments are pointers to what the launch may use, on any thread.
unsafe impl Sync for Launch<'_> {}

impl Launch<'_> {
    /// # Safety
    /// As of [`Program::launch`].
    unsafe fn run(&self, total: i64) -> Result<(), RawFault> {
        // SAFETY: the caller's promise, here and below.
        let part = |start, end| unsafe { self.part(start, end) };
        if total <= PROBE {
            return if total > 0 { part(0, total) } else { Ok(()) };
        }
        let start = Instant::now();
        part(0, PROBE)?;
        let taken = start.elapsed().max(Duration::from_nanos(1));
        let rest = total - PROBE;
        let expected = taken.as_nanos() as f64 / PROBE as f64 * rest as f64;
        if expected < ALONE.as_nanos() as f64 {
            return part(PROBE, total);
        }
        let threads = par::threads() as f64;
        let wanted = (expected / PART.as_nanos() as f64).max(threads * 4.0).min(65536.0);
        let length = (((rest as f64 / wanted) as i64 / PROBE + 1) * PROBE).min(1 << 16);
        let parts = (rest as u64).div_ceil(length as u64) as usize;
        let (failed, first) = (AtomicBool::new(false), Mutex::new(None::<RawFault>));
        par::for_tasks(parts, |i| {
            if failed.load(Ordering::Relaxed) {
                return;
            }
            let start = PROBE + i as i64 * length;
            if let Err(raw) = part(start, (start + length).min(total)) {
                failed.store(true, Ordering::Relaxed);
                let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
                if first.is_none_or(|known| raw.thread < known.thread) {
                    *first = Some(raw);
                }
            }
        });
        first.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// Runs the threads `start..end`, at least one.
    ///
    /// # Safety
    /// As of [`Program::launch`].
    pub(crate) unsafe fn part(&self, start: i64, end: i64) -> Result<(), RawFault> {
        // SAFETY: the caller's promise.
        unsafe { self.part_into(start, end, &mut Vec::new()) }.map(drop)
    }

    /// The same, and how many words of `records` it filled.
    ///
    /// # Safety
    /// As of [`Program::launch`].
    pub(crate) unsafe fn part_into(
        &self,
        start: i64,
        end: i64,
        records: &mut Vec<u64>,
    ) -> Result<usize, RawFault> {
        let program = self.program;
        WORKER.with_borrow_mut(|worker| {
            let Worker { tape, scratch } = worker;
            if !ensure(tape, program.meta.tape) || !ensure(scratch, program.meta.scratch) {
                return Err(RawFault { site: TAPE_SITE, value: 0, thread: start });
            }
            let first = tape.as_mut_ptr().cast::<u8>();
            let record = records.as_mut_ptr().cast::<u8>();
            let mut context = Context {
                table: host::table(),
                args: self.args.as_ptr(),
                tape: first,
                tape_end: first.wrapping_add(tape.len() * 8),
                scratch: scratch.as_mut_ptr().cast(),
                records: record,
                records_end: record.wrapping_add(records.len() * 8),
                grid: self.grid,
                stopped: 0,
                call: Call {
                    fault: None,
                    memory: tape,
                    tape_limit: program.options.tape_limit,
                    prints: &program.meta.prints[..],
                    records,
                },
            };
            // SAFETY: the code was compiled for this layout; the rest is the caller's promise.
            let status = unsafe { (program.code.entry())(&mut context, start, end) };
            match context.call.fault {
                _ if status == STOPPED => stop::end(),
                Some(raw) if status != 0 => Err(raw),
                // They may have moved.
                _ => Ok((context.records as usize - records.as_ptr() as usize) / 8),
            }
        })
    }
}

/// Whether memory has so many bytes now.
fn ensure(memory: &mut Vec<u64>, bytes: usize) -> bool {
    let words = bytes.div_ceil(8);
    if memory.len() >= words {
        return true;
    }
    if memory.try_reserve_exact(words - memory.len()).is_err() {
        return false;
    }
    memory.resize(words, 0);
    true
}
