//! How a device handles its memory, and the environment variables that say so.

use crate::driver::DeviceKind;
use crate::error::{Error, Result};

/// How a device handles its memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DeviceOptions {
    /// Most bytes that buffers, their padding and the cache may take together; `None` for all there is.
    pub memory_limit: Option<usize>,
    /// Fill every buffer with 0xFF (NaN as a float) before it is handed out, so that reading what was never written
    /// shows.
    pub poison: bool,
}

impl DeviceOptions {
    /// What `BULLET_MEMORY_LIMIT` (a size such as `2GiB`, `512MB` or `1000000` for each device, or sizes by kind such as
    /// `cuda=2GiB,cpu=8GiB`) and `BULLET_POISON` (1 or 0) say for a device of this kind.
    ///
    /// # Errors
    /// If a variable is set to what is neither, be it for devices of another kind.
    pub fn from_env(kind: DeviceKind) -> Result<DeviceOptions> {
        let var = |name: &str| std::env::var_os(name).map(|v| v.to_string_lossy().into_owned());
        DeviceOptions::from_vars(kind, var)
    }

    fn from_vars(kind: DeviceKind, var: impl Fn(&str) -> Option<String>) -> Result<DeviceOptions> {
        let memory_limit = match var("BULLET_MEMORY_LIMIT").as_deref().map(str::trim) {
            None | Some("") => None,
            Some(text) => limit_of(kind, text).map_err(|e| {
                Error::invalid(format!("the environment variable BULLET_MEMORY_LIMIT is wrong: {e}"))
            })?,
        };
        let poison = match var("BULLET_POISON").as_deref().map(str::trim) {
            None | Some("" | "0") => false,
            Some("1") => true,
            Some(other) => {
                return Err(Error::invalid(format!(
                    "the environment variable BULLET_POISON is wrong: '{other}'; expected 1 or 0"
                )));
            }
        };
        Ok(DeviceOptions { memory_limit, poison })
    }
}

/// The limit that `text` sets for devices of this kind: one size for all, or one a kind.
fn limit_of(kind: DeviceKind, text: &str) -> Result<Option<usize>> {
    if !text.contains('=') {
        return parse_bytes(text).map(Some);
    }
    let (mut cpu, mut cuda) = (None, None);
    for part in text.split(',') {
        let (name, size) = part.split_once('=').unwrap_or((part, ""));
        let limit = match name.trim() {
            "cpu" => &mut cpu,
            "cuda" => &mut cuda,
            _ => {
                return Err(Error::invalid(format!(
                    "'{}' sets no limit for cpu or cuda; expected such as cuda=2GiB, cpu=8GiB, or cuda=2GiB,cpu=8GiB",
                    part.trim()
                )));
            }
        };
        if limit.replace(parse_bytes(size)?).is_some() {
            return Err(Error::invalid(format!("{} has two limits; leave one out", name.trim())));
        }
    }
    Ok(match kind {
        DeviceKind::Cpu => cpu,
        DeviceKind::Cuda(_) => cuda,
    })
}

/// The number of bytes that a size such as `2GiB`, `1.5 GB`, `512M` or `4096` means.
///
/// `KB`, `MB`, `GB`, `TB` are powers of 1000; `KiB` and the bare letters `K`, `M`, `G`, `T` are powers of 1024.
///
/// # Errors
/// If it is none of these, not positive, or too large.
pub fn parse_bytes(text: &str) -> Result<usize> {
    let wrong = || {
        Error::invalid(format!(
            "'{text}' is not a size in bytes; expected a number such as 2GiB, 512MB or 1000000"
        ))
    };
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits);
    let unit = unit.trim().to_ascii_lowercase();
    let base = |kilo: &str| if kilo == "b" { 1000f64 } else { 1024f64 };
    let scale = match unit.as_str() {
        "" | "b" => 1.0,
        unit => {
            let power = 1 + "kmgt".find(unit.get(..1).unwrap_or("?")).ok_or_else(wrong)?;
            let rest = &unit[1..];
            if !matches!(rest, "" | "b" | "i" | "ib") {
                return Err(wrong());
            }
            base(rest).powi(power as i32)
        }
    };
    let bytes = match number.parse::<u64>() {
        Ok(whole) if scale == 1.0 => usize::try_from(whole).map_err(|_| wrong())?,
        _ => (number.parse::<f64>().map_err(|_| wrong())? * scale) as usize,
    };
    if bytes == 0 || bytes > 1 << 48 { Err(wrong()) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_parse() {
        for (text, bytes) in [
            ("1000000", 1_000_000),
            ("2GiB", 2 << 30),
            ("512MB", 512_000_000),
            ("512M", 512 << 20),
            (" 1.5 gib ", 3 << 29),
            ("64k", 65536),
            ("7B", 7),
            ("1TiB", 1 << 40),
        ] {
            assert_eq!(parse_bytes(text).unwrap(), bytes, "{text}");
        }
        for text in
            ["", "GiB", "2 apples", "-1", "0", "1e9", "2GiBB", "1..5MB", "99999TiB", "é", "5é", "2PiB"]
        {
            let e = parse_bytes(text).unwrap_err();
            assert!(e.message.contains(&format!("'{text}'")) && e.message.contains("2GiB"), "{text}: {e}");
        }
    }

    fn from(limit: &'static str, poison: &'static str, kind: DeviceKind) -> Result<DeviceOptions> {
        DeviceOptions::from_vars(kind, |name| match name {
            "BULLET_MEMORY_LIMIT" => Some(limit.to_string()),
            "BULLET_POISON" => Some(poison.to_string()),
            _ => None,
        })
    }

    #[test]
    fn settings_come_from_the_environment() {
        let options = from("1MiB", "1", DeviceKind::Cpu).unwrap();
        assert_eq!(options, DeviceOptions { memory_limit: Some(1 << 20), poison: true });
        assert_eq!(from("", "0", DeviceKind::Cpu).unwrap(), DeviceOptions::default());
        assert_eq!(DeviceOptions::from_vars(DeviceKind::Cpu, |_| None).unwrap(), DeviceOptions::default());
        let wrong = from("much", "", DeviceKind::Cpu).unwrap_err();
        assert!(wrong.message.contains("BULLET_MEMORY_LIMIT") && wrong.message.contains("'much'"), "{wrong}");
        assert!(from("", "yes", DeviceKind::Cpu).unwrap_err().message.contains("BULLET_POISON"));
    }

    #[test]
    fn kinds_of_devices_have_limits_of_their_own() {
        for (text, cpu, cuda) in [
            ("1MiB", Some(1 << 20), Some(1 << 20)),
            ("cuda=1MiB", None, Some(1 << 20)),
            ("cpu=2M", Some(2 << 20), None),
            (" cuda = 1 MiB , cpu=2MiB ", Some(2 << 20), Some(1 << 20)),
        ] {
            for (kind, limit) in [(DeviceKind::Cpu, cpu), (DeviceKind::Cuda(1), cuda)] {
                assert_eq!(from(text, "", kind).unwrap().memory_limit, limit, "{text} for {kind}");
            }
        }
        for (text, part) in [
            ("gpu=1MiB", "'gpu=1MiB' sets no limit for cpu or cuda"),
            ("cuda=1MiB,", "'' sets no limit"),
            ("cuda=1MiB,2MiB", "'2MiB' sets no limit"),
            ("cuda=", "'' is not a size"),
            ("cpu=lots,cuda=1MiB", "'lots' is not a size"),
            ("cuda=1MiB,cuda=2MiB", "cuda has two limits"),
        ] {
            // What is wrong for one kind is an error for all.
            for kind in [DeviceKind::Cpu, DeviceKind::Cuda(0)] {
                let e = from(text, "", kind).unwrap_err();
                assert!(e.message.contains("BULLET_MEMORY_LIMIT") && e.message.contains(part), "{text}: {e}");
            }
        }
    }
}
