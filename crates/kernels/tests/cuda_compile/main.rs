//! Every device source compiles for every architecture, and its entry points are there. Needs no GPU, but NVRTC 11, 12
//! and 13: `cargo xtask test --stage cuda` installs them and sets the variables; a plain `cargo test` skips this.
//!
//! All units are compiled for the lowest and the highest tier, and for the tier below that those which the lowest does
//! not know. Of the rest, which differs little from one of these, it is one unit of each source and every [`STRIDE`]th of
//! the others, shifted from one architecture to the next. What was compiled before is taken from the cache in
//! `BULLET_CUDA_COMPILE`.

mod cubin;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use bullet_kernels::cuda;
use bullet_runtime::jit::cache::Cache;
use bullet_runtime::jit::nvrtc::{Nvrtc, Target};
use bullet_runtime::jit::{Compiler, Program, Tier};

use cubin::Kernel;

/// One architecture under one NVRTC.
struct Case {
    arch: &'static str,
    tier: Tier,
    /// The major version.
    nvrtc: u32,
    /// The units of which all are compiled; of the others it is a sample.
    all: Whole,
}

/// Units that a case compiles to the last one.
#[derive(Clone, Copy)]
enum Whole {
    All,
    /// Those that the lowest tier does not know.
    Newer,
    None,
}

impl Whole {
    fn has(self, since: Tier) -> bool {
        match self {
            Whole::All => true,
            Whole::Newer => since > Tier::Sm35,
            Whole::None => false,
        }
    }
}

const fn case(arch: &'static str, tier: Tier, nvrtc: u32, all: Whole) -> Case {
    Case { arch, tier, nvrtc, all }
}

/// Every architecture that the README names, under the oldest NVRTC that knows it or the newest, or both.
const CASES: &[Case] = &[
    case("sm_35", Tier::Sm35, 11, Whole::All),
    case("sm_90a", Tier::Sm90a, 13, Whole::All),
    case("sm_80", Tier::Sm80, 13, Whole::Newer),
    case("sm_50", Tier::Sm35, 11, Whole::None),
    case("sm_61", Tier::Sm35, 11, Whole::None),
    case("sm_70", Tier::Sm70, 11, Whole::None),
    case("sm_80", Tier::Sm80, 11, Whole::None),
    case("sm_61", Tier::Sm35, 12, Whole::None),
    case("sm_90a", Tier::Sm90a, 12, Whole::None),
    case("sm_75", Tier::Sm75, 13, Whole::None),
    case("sm_86", Tier::Sm80, 13, Whole::None),
    case("sm_89", Tier::Sm80, 13, Whole::None),
    case("sm_100", Tier::Sm80, 13, Whole::None),
    case("sm_120", Tier::Sm80, 13, Whole::None),
];

/// Of the units of a sample, those that are in it for no other reason than their number.
const STRIDE: usize = 32;

/// What a block can have without asking for more.
const MOST_SHARED: u64 = 48 << 10;

/// Sources with exact sines and cosines: reducing a large angle takes a small array that is indexed at run time.
const EXACT_ANGLES: &[&str] = &["rope", "map_sin", "map_cos", "map_tan"];
/// The array, and the registers that are saved around it.
const ANGLE_FRAME: u32 = 48;

/// Room for the results of several branches.
const CACHE_BYTES: u64 = 2 << 30;

/// A translation unit for one case.
struct Job {
    case: usize,
    source: String,
    defines: String,
    text: String,
    entries: Vec<String>,
    since: Tier,
}

impl Job {
    /// The source, or the name of the sample.
    fn label(&self) -> &str {
        if self.source == "map" { &self.defines } else { &self.source }
    }
}

/// What is wrong with a kernel, or worth saying.
enum Finding {
    Wrong(String),
    Note(String),
}

#[test]
fn every_unit_compiles_for_every_architecture() {
    let Some(folder) = std::env::var_os("BULLET_CUDA_COMPILE") else {
        println!("skipped: BULLET_CUDA_COMPILE is not set; run `cargo xtask test --stage cuda`");
        return;
    };
    let compilers = compilers(Path::new(&folder));
    let jobs: Vec<Job> = (0..CASES.len()).flat_map(jobs).collect();
    let findings = compile_all(&compilers, &jobs);
    for (i, case) in CASES.iter().enumerate() {
        let (own, of) = (jobs.iter().filter(|job| job.case == i).count(), compilers[i].nvrtc().version());
        println!("{} by NVRTC {}.{}: {own} units", case.arch, of.0, of.1);
    }
    let mut wrong = Vec::new();
    for finding in findings {
        match finding {
            Finding::Note(text) => println!("{text}"),
            Finding::Wrong(text) => wrong.push(text),
        }
    }
    assert!(wrong.is_empty(), "{} findings:\n{}", wrong.len(), wrong.join("\n"));
}

/// One a case.
fn compilers(folder: &Path) -> Vec<Compiler> {
    let cache = Arc::new(Cache::new(folder, CACHE_BYTES));
    let compiler = |case: &Case| {
        let installed = Nvrtc::installed().expect("BULLET_NVRTC names folders of NVRTC");
        let nvrtc = installed.into_iter().find(|nvrtc| nvrtc.version().0 == case.nvrtc);
        let nvrtc = nvrtc.unwrap_or_else(|| panic!("no NVRTC {} in BULLET_NVRTC", case.nvrtc));
        // No driver will load the results.
        Compiler::new(nvrtc, Target::Cubin(case.arch.into()), (0, 0), Some(cache.clone()))
    };
    CASES.iter().map(compiler).collect()
}

/// What is compiled for a case.
fn jobs(index: usize) -> Vec<Job> {
    let case = &CASES[index];
    let units =
        cuda::units().into_iter().filter(|(unit, _)| unit.since <= case.tier).map(|(unit, entries)| Job {
            case: index,
            source: unit.name.into(),
            defines: format!("{:?}", unit.defines),
            text: unit.text(case.tier),
            entries: entries.into_iter().map(String::from).collect(),
            since: unit.since,
        });
    let samples = cuda::sample_sources(case.tier).into_iter().map(|(name, text)| Job {
        case: index,
        entries: entries_of(&name, &text),
        source: "map".into(),
        defines: name,
        text,
        since: Tier::Sm35,
    });
    let wanted = std::env::var("BULLET_CUDA_UNITS").unwrap_or_default();
    let mut seen = Vec::new();
    let mut chosen = Vec::new();
    for (number, job) in units.chain(samples).enumerate() {
        let first = !seen.contains(&job.source);
        if first {
            seen.push(job.source.clone());
        }
        let counts = case.all.has(job.since) || first || number % STRIDE == index;
        if counts && job.label().starts_with(&wanted) {
            chosen.push(job);
        }
    }
    chosen
}

/// The kernels of a generated source, whose names begin with the source's.
fn entries_of(name: &str, text: &str) -> Vec<String> {
    let word = |rest: &str| {
        let start = rest.find(name)?;
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        Some(rest[start..].chars().take_while(|&c| is_part(c)).collect())
    };
    let entries: Vec<String> = text.lines().filter_map(|line| word(line.strip_prefix("KERNEL ")?)).collect();
    assert!(!entries.is_empty(), "no kernel in the sample {name}");
    entries
}

/// Compiles on all cores; the findings are in the order of the jobs. An NVRTC compiles one unit at a time, so threads begin
/// with the jobs of different ones.
fn compile_all(compilers: &[Compiler], jobs: &[Job]) -> Vec<Finding> {
    let of_oldest = |i: &usize| CASES[jobs[*i].case].nvrtc == 11;
    let (oldest, others): (Vec<usize>, Vec<usize>) = (0..jobs.len()).partition(of_oldest);
    let queues = [Queue::new(oldest), Queue::new(others)];
    let findings = Mutex::new(Vec::new());
    let threads = thread::available_parallelism().map_or(2, |n| n.get().min(8));
    thread::scope(|scope| {
        for thread in 0..threads {
            let (queues, findings) = (&queues, &findings);
            scope.spawn(move || {
                let (own, other) = (&queues[thread % 2], &queues[(thread + 1) % 2]);
                while let Some(i) = own.take().or_else(|| other.take()) {
                    let job = &jobs[i];
                    let found = examine(&compilers[job.case], job);
                    let mut all = findings.lock().unwrap_or_else(PoisonError::into_inner);
                    all.extend(found.into_iter().map(|finding| (i, finding)));
                }
            });
        }
    });
    let mut findings = findings.into_inner().unwrap_or_else(PoisonError::into_inner);
    findings.sort_by_key(|(i, _)| *i);
    findings.into_iter().map(|(_, finding)| finding).collect()
}

/// Jobs by number, taken one after the other.
struct Queue {
    jobs: Vec<usize>,
    next: AtomicUsize,
}

impl Queue {
    fn new(jobs: Vec<usize>) -> Queue {
        Queue { jobs, next: AtomicUsize::new(0) }
    }

    fn take(&self) -> Option<usize> {
        self.jobs.get(self.next.fetch_add(1, Ordering::Relaxed)).copied()
    }
}

/// Compiles one job and looks at its kernels.
fn examine(compiler: &Compiler, job: &Job) -> Vec<Finding> {
    let Job { source, defines, .. } = job;
    let place = |entry: &str| format!("{}: {entry} of {source} {defines}", CASES[job.case].arch);
    let image = match compiler.compile(&Program { name: source, source: &job.text, minimal: false }) {
        Ok(image) => image,
        Err(e) => return vec![Finding::Wrong(format!("{}\n{e}", place("a kernel")))],
    };
    let Some(kernels) = cubin::kernels(&image) else {
        return vec![Finding::Wrong(format!("{}: the cubin cannot be read", place("a kernel")))];
    };
    let mut findings = Vec::new();
    for entry in &job.entries {
        if !kernels.iter().any(|kernel| kernel.name == *entry) {
            findings.push(Finding::Wrong(format!("{}: not in the cubin", place(entry))));
        }
    }
    for Kernel { name, shared, frame } in &kernels {
        if *shared > MOST_SHARED {
            findings.push(Finding::Wrong(format!("{}: {shared} bytes of static shared memory", place(name))));
        }
        let is_of_angles = EXACT_ANGLES.contains(&job.label()) && *frame <= ANGLE_FRAME;
        if *frame > 0 && !is_of_angles {
            let text = format!("{}: {frame} bytes of stack frame", place(name));
            let allowed = CASES[job.case].tier > Tier::Sm35;
            findings.push(if allowed { Finding::Note(text) } else { Finding::Wrong(text) });
        }
    }
    findings
}

#[test]
fn a_file_that_is_cut_short_is_no_cubin() {
    assert_eq!(cubin::kernels(b""), None);
    let mut file = vec![0; 64];
    file[..6].copy_from_slice(b"\x7fELF\x02\x01");
    assert_eq!(cubin::kernels(&file), None, "no section of names");
    // One section of 64 bytes, behind the end.
    (file[0x28], file[0x3a], file[0x3c]) = (200, 64, 1);
    assert_eq!(cubin::kernels(&file), None);
}
