//! `bullet devices`.

use bullet_kernels::cpu::simd::{Isa, isa};
use bullet_kernels::cuda::gemm::{self, Choice};
use bullet_nn::train::HYBRID;
use bullet_runtime::cuda::cublaslt::Cublaslt;
use bullet_runtime::jit::cache::{Cache, CacheReport, Stats};
use bullet_runtime::{CudaReport, Error, ErrorKind, GpuReport, JitReport, gpus, hardware};
use bullet_tensor::{Device, par};
use serde_json::{Value, json};

use crate::args::DevicesArgs;
use crate::failure::Failure;
use crate::output::{self, note, warn};

/// What computes, in a few words: for the first line of a run.
fn summary(device: &Device) -> String {
    if let Some(gpu) = device.gpu() {
        return format!("{device}: {}, {} kernels", device.name(), gpu.tier);
    }
    let (cpu, threads) = (hardware::cpu(), par::threads());
    let s = if threads == 1 { "" } else { "s" };
    format!("{}: {threads} thread{s} on {} usable cores, {}", cpu.model, cpu.usable_cores, isa().name())
}

/// Says what computes, unless `quiet`, and in any case why `auto` or `hybrid` passes over a GPU that only lacks something.
pub(crate) fn announce(name: &str, device: &Device, quiet: bool) {
    if let Some(why) = why_not_a_gpu(name) {
        warn(format_args!("the GPU is not used: {}", why.message));
    }
    if quiet {
        return;
    }
    note(summary(device));
    if name == HYBRID && device.gpu().is_some() {
        note(summary(&Device::cpu()));
    }
}

/// Says where the parts of a model are.
pub(crate) fn announce_plan(plan: &str) {
    note(format_args!("{HYBRID}: {plan}"));
}

/// Why `auto` or `hybrid` chose the CPU, where there is a GPU.
fn why_not_a_gpu(name: &str) -> Option<Error> {
    let why = if name == "auto" || name == HYBRID { Device::auto().ok()?.1? } else { return None };
    (!matches!(why.kind, ErrorKind::DriverMissing | ErrorKind::NoDevice)).then_some(why)
}

pub(crate) fn run(args: &DevicesArgs) -> Result<(), Failure> {
    if args.cache {
        return cache(args.json);
    }
    let cuda = gpus();
    if args.json {
        let mut devices = vec![cpu_json()];
        devices.extend(cuda.iter().flat_map(|report| &report.gpus).map(gpu_json));
        return Ok(output::json(&json!({
            "version": env!("CARGO_PKG_VERSION"),
            "devices": devices,
            "cuda_driver": cuda.as_ref().ok().map(|report| version(report.driver)),
            "cuda_missing": cuda.as_ref().err().map(|e| &e.message),
            "cublaslt": Cublaslt::locate().ok().and_then(|found| found.into_iter().next()),
        }))?);
    }
    cpu_lines()?;
    match &cuda {
        Ok(report) => {
            report.gpus.iter().try_for_each(|gpu| gpu_lines(gpu, report))?;
            Ok(output::line(format_args!("products  {}", products()))?)
        }
        Err(e) => Ok(output::line(format_args!("cuda    {}", e.message))?),
    }
}

fn version((major, minor): (u32, u32)) -> String {
    format!("{major}.{minor}")
}

fn cpu_json() -> Value {
    let cpu = hardware::cpu();
    json!({
        "device": "cpu", "name": cpu.model, "cores": cpu.total_cores, "usable_cores": cpu.usable_cores,
        "threads": par::threads(), "isa": isa().name(),
        "isas": Isa::available().into_iter().map(Isa::name).collect::<Vec<_>>(),
        "memory_bytes": cpu.memory_total, "memory_available_bytes": hardware::memory_available(),
    })
}

fn cpu_lines() -> Result<(), Failure> {
    let cpu = hardware::cpu();
    output::line(format_args!("cpu     {}", cpu.model))?;
    let cores = format!("{} ({} usable by this process)", cpu.total_cores, cpu.usable_cores);
    output::line(format_args!("  cores         {cores}"))?;
    output::line(format_args!(
        "  threads       {} (--threads or BULLET_THREADS changes it)",
        par::threads()
    ))?;
    let lower = Isa::available().into_iter().map(Isa::name).collect::<Vec<_>>().join(", ");
    output::line(format_args!("  instructions  {} (of {lower}; BULLET_ISA forces one)", isa().name()))?;
    output::line(format_args!(
        "  memory        {}, {} available",
        output::bytes(cpu.memory_total as u64),
        output::bytes(hardware::memory_available() as u64)
    ))?;
    Ok(())
}

fn gpu_json(gpu: &GpuReport) -> Value {
    json!({
        "device": format!("cuda:{}", gpu.ordinal), "name": gpu.name, "capability": version(gpu.capability),
        "multiprocessors": gpu.multiprocessors, "memory_bytes": gpu.memory,
        "tier": gpu.tier.as_ref().ok().map(|tier| tier.to_string()),
        "nvrtc": gpu.jit.as_ref().ok().map(|jit| json!({
            "version": version(jit.version), "path": jit.path, "target": jit.target,
        })),
        "usable": gpu.unusable().is_none(),
        "why_not": gpu.unusable().map(|e| &e.message),
    })
}

fn gpu_lines(gpu: &GpuReport, report: &CudaReport) -> Result<(), Failure> {
    let ok_or = |found: Result<String, &Error>| found.unwrap_or_else(|_| "none".into());
    output::line(format_args!("cuda:{}  {}", gpu.ordinal, gpu.name))?;
    output::line(format_args!(
        "  processors    {}, compute capability {}",
        gpu.multiprocessors,
        version(gpu.capability)
    ))?;
    output::line(format_args!("  memory        {}", output::bytes(gpu.memory as u64)))?;
    output::line(format_args!("  driver        for CUDA {}", version(report.driver)))?;
    let nvrtc = |jit: &JitReport| format!("{} at {}", version(jit.version), jit.path.display());
    output::line(format_args!("  nvrtc         {}", ok_or(gpu.jit.as_ref().map(nvrtc))))?;
    let tier = match (&gpu.tier, &gpu.jit) {
        (Ok(tier), Ok(jit)) => {
            format!("{tier}, compiled for {} (BULLET_TIER forces a lower one)", jit.target)
        }
        (Ok(tier), Err(_)) => tier.to_string(),
        (Err(_), _) => "none".into(),
    };
    output::line(format_args!("  tier          {tier}"))?;
    match gpu.unusable() {
        Some(e) => Ok(output::line(format_args!("  not usable    {}", e.message))?),
        None => Ok(()),
    }
}

/// What computes large products: a library that would be loaded, or nothing but our own kernels.
fn products() -> String {
    match Cublaslt::locate().map(|found| found.into_iter().next()) {
        Ok(Some(path)) => format!(
            "our own kernels, or cuBLASLt at {} where it is faster (BULLET_CUBLASLT=0 does without)",
            path.display()
        ),
        Ok(None) => {
            "our own kernels; no cuBLASLt for this driver is installed, or BULLET_CUBLASLT is 0".into()
        }
        Err(e) => format!("our own kernels: {}", e.message),
    }
}

/// What the cache of compiled kernels holds.
fn cache(as_json: bool) -> Result<(), Failure> {
    let cache = Cache::shared().map_err(|e| Failure::usage(e.message))?;
    let report = cache.as_ref().map(|cache| cache.report());
    let choices = cache.map(|cache| gemm::choices(&cache)).unwrap_or_default();
    if as_json {
        let choices: Vec<Value> = choices.iter().map(choice_json).collect();
        return Ok(output::json(&json!({ "cache": report.as_ref().map(cache_json), "products": choices }))?);
    }
    let Some(CacheReport { folder, entries, bytes, limit, ever, .. }) = report else {
        output::line("no cache of compiled kernels: BULLET_CACHE=0, or no folder is known")?;
        return Ok(());
    };
    output::line(format_args!("folder    {}", folder.display()))?;
    output::line(format_args!("entries   {entries}, {} of {}", output::bytes(bytes), output::bytes(limit)))?;
    let Stats { hits, misses, compile_us } = ever;
    output::line(format_args!("hits      {hits}"))?;
    output::line(format_args!("misses    {misses}, {:.1} s of compiling", compile_us as f64 / 1e6))?;
    let faster = choices.iter().filter(|choice| choice.library).count();
    output::line(format_args!("products  {} measured, {faster} by cuBLASLt", choices.len()))?;
    choices.iter().try_for_each(|choice| Ok(output::line(choice_line(choice))?))
}

/// A product, how it is computed, and both times.
fn choice_line(choice: &Choice) -> String {
    let Choice { about, library, own_us, library_us } = choice;
    let way = if *library { "cuBLASLt" } else { "own kernel" };
    let library = library_us.map_or("it cannot do it".into(), |us| format!("{us:.1} us by cuBLASLt"));
    format!("  {way}: {own_us:.1} us by our own, {library}: {about}")
}

fn choice_json(choice: &Choice) -> Value {
    json!({
        "product": choice.about, "cublaslt": choice.library, "own_us": choice.own_us,
        "cublaslt_us": choice.library_us,
    })
}

fn cache_json(report: &CacheReport) -> Value {
    json!({
        "folder": report.folder, "entries": report.entries, "bytes": report.bytes, "limit_bytes": report.limit,
        "hits": report.ever.hits, "misses": report.ever.misses,
        "compile_ms": report.ever.compile_us as f64 / 1e3,
    })
}
