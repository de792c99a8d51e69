//! What this machine has: the processor's name, the cores and the memory this process may use.
//!
//! Read from `/proc` and the cgroup files on Linux; elsewhere what the standard library knows, and no guesses.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

/// The host's processor and memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cpu {
    /// The model's name, as the processor says it.
    pub model: String,
    /// Hardware threads of the machine.
    pub total_cores: usize,
    /// Hardware threads this process may use, by its affinity mask and cgroup quota.
    pub usable_cores: usize,
    /// Bytes of memory this process may use: the machine's, or its cgroup's limit if that is lower; 0 if unknown.
    pub memory_total: usize,
}

/// The host's processor and memory, read once.
pub fn cpu() -> &'static Cpu {
    static CPU: OnceLock<Cpu> = OnceLock::new();
    CPU.get_or_init(|| {
        let usable = std::thread::available_parallelism().map_or(1, |n| n.get());
        let cpuinfo = read("/proc/cpuinfo");
        let total = meminfo(&read("/proc/meminfo"), "MemTotal").unwrap_or(0);
        Cpu {
            model: model(&cpuinfo).unwrap_or_else(|| format!("{} processor", std::env::consts::ARCH)),
            total_cores: processors(&cpuinfo).max(usable),
            usable_cores: usable,
            memory_total: cgroup_limit()
                .map_or(total, |limit| if total == 0 { limit } else { total.min(limit) }),
        }
    })
}

/// Bytes of memory this process could take now without swapping; 0 if unknown.
pub fn memory_available() -> usize {
    let machine = meminfo(&read("/proc/meminfo"), "MemAvailable").unwrap_or(0);
    match (cgroup_limit(), cgroup_usage()) {
        (Some(limit), Some(usage)) => machine.min(limit.saturating_sub(usage)),
        _ => machine,
    }
}

/// Whether so many bytes could be in memory and swap at once. A system that overcommits gives out more than that, and ends
/// the process when it is used.
pub fn memory_holds(bytes: usize) -> bool {
    static MOST: OnceLock<usize> = OnceLock::new();
    let most = MOST.get_or_init(|| match cpu().memory_total {
        0 => usize::MAX,
        total => total.saturating_add(meminfo(&read("/proc/meminfo"), "SwapTotal").unwrap_or(0)),
    });
    bytes <= *most
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The value of the first line `key : value` whose key is one that some architecture uses for its name.
fn model(cpuinfo: &str) -> Option<String> {
    ["model name", "Model", "cpu model", "Hardware", "cpu"].iter().find_map(|key| {
        let lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        let value = lines.filter(|(k, _)| k.trim() == *key).map(|(_, v)| v.trim()).find(|v| !v.is_empty())?;
        Some(value.split_whitespace().collect::<Vec<_>>().join(" "))
    })
}

fn processors(cpuinfo: &str) -> usize {
    cpuinfo.lines().filter(|line| line.split(':').next().is_some_and(|key| key.trim() == "processor")).count()
}

/// A field of `/proc/meminfo`, in bytes.
fn meminfo(text: &str, key: &str) -> Option<usize> {
    let value = text.lines().filter_map(|l| l.split_once(':')).find(|(k, _)| *k == key)?.1;
    value.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
}

/// The lowest memory limit of this process's cgroup and those above it.
fn cgroup_limit() -> Option<usize> {
    let files = |dir: &str| [format!("{dir}/memory.max"), format!("{dir}/memory.limit_in_bytes")];
    let limits = cgroup_dirs(&read("/proc/self/cgroup")).into_iter().flat_map(|dir| files(&dir));
    // Version 1 writes a number near 2^63 for no limit, version 2 the word max.
    limits.filter_map(|file| read(file).trim().parse::<usize>().ok()).filter(|&n| n > 0 && n < 1 << 60).min()
}

/// What this process's own cgroup uses, without the page cache that can be dropped.
fn cgroup_usage() -> Option<usize> {
    let dir = cgroup_dirs(&read("/proc/self/cgroup")).into_iter().next()?;
    let number = |name: &str| read(format!("{dir}/{name}")).trim().parse::<usize>().ok();
    let used = number("memory.current").or_else(|| number("memory.usage_in_bytes"))?;
    let stat = read(format!("{dir}/memory.stat"));
    let cache =
        stat.lines().find_map(|l| l.strip_prefix("inactive_file ")?.parse::<usize>().ok()).unwrap_or(0);
    Some(used.saturating_sub(cache))
}

/// The directories whose limits bind this process, its own first, from the text of `/proc/self/cgroup`.
fn cgroup_dirs(cgroup: &str) -> Vec<String> {
    let mut dirs = Vec::new();
    for line in cgroup.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let root = match controllers {
            "" => "/sys/fs/cgroup",
            c if c.split(',').any(|c| c == "memory") => "/sys/fs/cgroup/memory",
            _ => continue,
        };
        let mut path = path.trim_end_matches('/');
        while !path.is_empty() {
            dirs.push(format!("{root}{path}"));
            path = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        }
        dirs.push(root.to_string());
    }
    dirs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_understood() {
        let x86 =
            "processor\t: 0\nmodel\t\t: 143\nmodel name\t: Intel(R) Xeon(R)   8481C\n\nprocessor\t: 1\n";
        assert_eq!(model(x86).unwrap(), "Intel(R) Xeon(R) 8481C");
        assert_eq!(processors(x86), 2);
        assert_eq!(model("Hardware\t: BCM2835\n").unwrap(), "BCM2835");
        assert_eq!(model(""), None);
        let mem = "MemTotal:       8000 kB\nMemAvailable:   12 kB\n";
        assert_eq!(meminfo(mem, "MemTotal"), Some(8_192_000));
        assert_eq!(meminfo(mem, "SwapFree"), None);
    }

    #[test]
    fn cgroups_nest() {
        assert_eq!(cgroup_dirs("0::/a/b\n"), ["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup"]);
        assert_eq!(cgroup_dirs("0::/\n"), ["/sys/fs/cgroup"]);
        assert_eq!(
            cgroup_dirs("5:cpu,cpuacct:/x\n3:memory:/y\n"),
            ["/sys/fs/cgroup/memory/y", "/sys/fs/cgroup/memory"]
        );
    }

    #[test]
    fn this_machine_makes_sense() {
        let cpu = cpu();
        assert!(!cpu.model.is_empty());
        assert!(cpu.usable_cores >= 1 && cpu.total_cores >= cpu.usable_cores);
        if cfg!(target_os = "linux") {
            assert!(cpu.memory_total > 1 << 20);
            assert!(memory_available() <= cpu.memory_total);
        }
    }
}
