//! What a cubin says of its kernels: their names, static shared memory and stack frames.
//!
//! A cubin is a 64-bit little-endian ELF file. A kernel `k` is a global function in the symbol table; `.nv.shared.k`
//! has the size of its static shared memory; `.nv.info` lists attributes by symbol, among them the bytes of its stack
//! frame: spilled registers, and arrays that are indexed at run time. NVIDIA documents none of these sections; they have
//! been the same from NVRTC 11 to 13.

/// One entry point.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Kernel {
    pub(crate) name: String,
    /// Bytes of static shared memory.
    pub(crate) shared: u64,
    /// Bytes of a thread's stack frame.
    pub(crate) frame: u32,
}

const SYMBOL_TABLE: u32 = 2;
/// A section without bytes in the file.
const NO_BITS: u32 = 8;
/// `st_info` of a global function.
const GLOBAL_FUNCTION: u8 = 0x12;
/// An attribute with a length and a value behind its head; the others are 4 bytes in all.
const LONG_ATTRIBUTE: u8 = 4;
/// The attribute with a symbol and the bytes of its frame.
const FRAME_SIZE: u8 = 0x11;

struct Section<'a> {
    name: String,
    kind: u32,
    size: u64,
    link: usize,
    bytes: &'a [u8],
}

struct Symbol {
    name: String,
    info: u8,
}

/// The entry points of a cubin; `None` if it is cut short or no cubin.
pub(crate) fn kernels(cubin: &[u8]) -> Option<Vec<Kernel>> {
    let sections = sections(cubin)?;
    let symbols = symbols(&sections)?;
    let frames = frames(&sections)?;
    let kernel = |(index, symbol): (usize, &Symbol)| {
        let shared = format!(".nv.shared.{}", symbol.name);
        Kernel {
            name: symbol.name.clone(),
            shared: sections.iter().find(|s| s.name == shared).map_or(0, |s| s.size),
            frame: frames.iter().find(|(of, _)| *of as usize == index).map_or(0, |(_, bytes)| *bytes),
        }
    };
    Some(symbols.iter().enumerate().filter(|(_, s)| s.info == GLOBAL_FUNCTION).map(kernel).collect())
}

fn sections(file: &[u8]) -> Option<Vec<Section<'_>>> {
    if file.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let start = usize::try_from(u64_at(file, 0x28)?).ok()?;
    let (each, count, names) = (u16_at(file, 0x3a)?, u16_at(file, 0x3c)?, u16_at(file, 0x3e)?);
    let headers = (0..usize::from(count)).map(|i| file.get(start + i * usize::from(each)..));
    let headers: Vec<&[u8]> = headers.collect::<Option<_>>()?;
    let bytes = |header: &[u8]| {
        if u32_at(header, 4)? == NO_BITS {
            return Some(&file[..0]);
        }
        let from = usize::try_from(u64_at(header, 0x18)?).ok()?;
        file.get(from..from.checked_add(usize::try_from(u64_at(header, 0x20)?).ok()?)?)
    };
    let names = bytes(headers.get(usize::from(names))?)?;
    let section = |header: &&[u8]| {
        Some(Section {
            name: text_at(names, u32_at(header, 0)?)?,
            kind: u32_at(header, 4)?,
            size: u64_at(header, 0x20)?,
            link: u32_at(header, 0x28)? as usize,
            bytes: bytes(header)?,
        })
    };
    headers.iter().map(section).collect()
}

fn symbols(sections: &[Section<'_>]) -> Option<Vec<Symbol>> {
    let table = sections.iter().find(|section| section.kind == SYMBOL_TABLE)?;
    let names = sections.get(table.link)?.bytes;
    let symbol =
        |entry: &[u8]| Some(Symbol { name: text_at(names, u32_at(entry, 0)?)?, info: *entry.get(4)? });
    table.bytes.chunks_exact(24).map(symbol).collect()
}

/// Symbols with the bytes of their frames.
fn frames(sections: &[Section<'_>]) -> Option<Vec<(u32, u32)>> {
    let mut rest = sections.iter().find(|section| section.name == ".nv.info")?.bytes;
    let mut frames = Vec::new();
    while let [format, attribute, ..] = *rest {
        let mut len = 4;
        if format == LONG_ATTRIBUTE {
            len += usize::from(u16_at(rest, 2)?);
            if attribute == FRAME_SIZE {
                frames.push((u32_at(rest, 4)?, u32_at(rest, 8)?));
            }
        }
        rest = rest.get(len..)?;
    }
    Some(frames)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// The text that ends in a 0 byte.
fn text_at(table: &[u8], at: u32) -> Option<String> {
    let text = table.get(at as usize..)?;
    let end = text.iter().position(|&b| b == 0)?;
    Some(String::from_utf8_lossy(&text[..end]).into_owned())
}
