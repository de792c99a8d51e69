//! `bullet devices`.

use bullet_kernels::cpu::simd::{Isa, isa};
use bullet_runtime::hardware;
use bullet_tensor::par;
use serde_json::json;

use crate::args::DevicesArgs;
use crate::failure::Failure;
use crate::output;

/// What computes, in a few words: for the first line of a run.
pub(crate) fn summary() -> String {
    let (cpu, threads) = (hardware::cpu(), par::threads());
    let s = if threads == 1 { "" } else { "s" };
    format!("{}: {threads} thread{s} on {} usable cores, {}", cpu.model, cpu.usable_cores, isa().name())
}

pub(crate) fn run(args: &DevicesArgs) -> Result<(), Failure> {
    let cpu = hardware::cpu();
    let (free, total) = (hardware::memory_available() as u64, cpu.memory_total as u64);
    let isas: Vec<&str> = Isa::available().into_iter().map(Isa::name).collect();
    if args.json {
        output::json(&json!({
            "version": env!("CARGO_PKG_VERSION"),
            "devices": [{
                "device": "cpu", "name": cpu.model, "cores": cpu.total_cores, "usable_cores": cpu.usable_cores,
                "threads": par::threads(), "isa": isa().name(), "isas": isas,
                "memory_bytes": total, "memory_available_bytes": free,
            }],
        }))?;
        return Ok(());
    }
    output::line(format_args!("cpu     {}", cpu.model))?;
    let cores = format!("{} ({} usable by this process)", cpu.total_cores, cpu.usable_cores);
    output::line(format_args!("  cores         {cores}"))?;
    output::line(format_args!(
        "  threads       {} (--threads or BULLET_THREADS changes it)",
        par::threads()
    ))?;
    let lower = isas.join(", ");
    output::line(format_args!("  instructions  {} (of {lower}; BULLET_ISA forces one)", isa().name()))?;
    output::line(format_args!(
        "  memory        {}, {} available",
        output::bytes(total),
        output::bytes(free)
    ))?;
    output::line("cuda    not part of this build yet: everything runs on the CPU")?;
    Ok(())
}
