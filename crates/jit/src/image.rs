//! Compiled kernels as bytes, and the cache of them on disk.
//!
//! An image says what it was made for: the sources of this crate and of the language (`build.rs`), Cranelift's version, the CPU's
//! features, the options. One made for anything else is not loaded. Its code is run as it is, so an image must come from a place that
//! only the user can write to, as the cache's folder is; the cache checks that a file is whole.

use bullet_lang::diag::Span;
use bullet_lang::fault::{Place, Site};
use bullet_lang::ir::Kernel;
use bullet_ops::DType;
use bullet_runtime::jit::cache::{Cache, Key};

use crate::compile::{Code, target_name};
use crate::host::Print;
use crate::program::{Error, Lanes, Meta, Options, Program};

/// Changes with the layout of images.
const MAGIC: &[u8; 8] = b"BLTCPU01";

impl Program {
    /// The kernel, from the cache on disk if it was compiled before on this machine.
    ///
    /// # Errors
    /// As of [`Program::new`]; a cache that cannot be used is none.
    pub fn cached(kernel: &Kernel, options: Options) -> Result<Program, Error> {
        let Ok(Some(cache)) = Cache::shared() else { return Program::new(kernel, options) };
        let key = key(kernel, options)?;
        let mut made = None;
        let bytes = cache.get_or(&key, || {
            let program =
                Program::new(kernel, options).map_err(|e| bullet_runtime::Error::invalid(e.to_string()))?;
            let bytes = program.to_bytes().map_err(|e| bullet_runtime::Error::invalid(e.to_string()))?;
            made = Some(program);
            Ok(bytes)
        });
        match (made, bytes) {
            (Some(program), _) => Ok(program),
            (None, Ok(bytes)) => Program::from_bytes(&bytes).or_else(|_| Program::new(kernel, options)),
            (None, Err(_)) => Program::new(kernel, options),
        }
    }

    /// The program as bytes, for [`Program::from_bytes`].
    ///
    /// # Errors
    /// This machine is not supported.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let mut out = Writer(MAGIC.to_vec());
        out.text(&made_for(self.options)?);
        out.options(self.options);
        out.meta(&self.meta);
        out.bytes(self.code.bytes());
        Ok(out.0)
    }

    /// A program from its bytes, whose code is trusted.
    ///
    /// # Errors
    /// The bytes are no whole image, or one for another machine or version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Program, Error> {
        let broken = || Error::new("this is no whole image of a compiled kernel");
        let mut reader = Reader(bytes.strip_prefix(MAGIC).ok_or_else(broken)?);
        let made = reader.text().ok_or_else(broken)?;
        let options = reader.options().ok_or_else(broken)?;
        let wanted = made_for(options)?;
        if made != wanted {
            return Err(Error::new(format!("this kernel was compiled for {made}, not for {wanted}")));
        }
        let meta = reader.meta().ok_or_else(broken)?;
        let code = reader.bytes().ok_or_else(broken)?;
        Ok(Program { meta, code: Code::new(code)?, options })
    }
}

/// All that code depends on beside the kernel.
fn made_for(options: Options) -> Result<String, Error> {
    Ok(format!("compiler {}, {}, {options:?}", env!("BULLET_JIT_SOURCES"), target_name()?))
}

/// The name of a kernel's image: of its text, and of the places in the source, which faults tell.
fn key(kernel: &Kernel, options: Options) -> Result<Key, Error> {
    let mut spans = Writer(vec![]);
    for inst in kernel.instructions() {
        spans.span(kernel.inst(inst).span);
    }
    let made = made_for(options)?;
    Ok(Key::new(&[MAGIC, made.as_bytes(), kernel.to_string().as_bytes(), &spans.0]))
}

/// Little-endian, lengths before what they are of.
struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, x: u64) {
        self.0.extend(x.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn span(&mut self, span: Span) {
        self.number(u64::from(span.start) << 32 | u64::from(span.end));
    }

    fn options(&mut self, options: Options) {
        self.number(options.check.into());
        self.number(match options.lanes {
            Lanes::Off => 0,
            Lanes::Auto => 1,
            Lanes::Always => 2,
        });
        self.number(options.tape_limit as u64);
        self.number(options.records.into());
        self.number(options.sums.into());
    }

    fn meta(&mut self, meta: &Meta) {
        self.text(&meta.name);
        self.number(meta.grid.into());
        self.bytes(&meta.ndims);
        self.number(meta.scratch as u64);
        self.number(meta.tape as u64);
        self.number(meta.sites.len() as u64);
        for site in &meta.sites {
            match site {
                Site::Assert { text, span } => {
                    self.number(0);
                    self.text(text);
                    self.span(*span);
                }
                Site::Within { text, span } => {
                    self.number(3);
                    self.text(text);
                    self.span(*span);
                }
                Site::Index { name, place, axis, span } => {
                    let (kind, value) = match *place {
                        Place::Param(number) => (1, number),
                        Place::Local(count) => (2, count),
                    };
                    self.number(kind);
                    self.number(value.into());
                    self.text(name);
                    self.number((*axis).into());
                    self.span(*span);
                }
            }
        }
        self.number(meta.prints.len() as u64);
        for print in &meta.prints {
            self.text(&print.format);
            let names: Vec<&str> = print.dtypes.iter().map(|dtype| dtype.name()).collect();
            self.text(&names.join(" "));
        }
    }
}

/// What a [`Writer`] wrote; `None` where it is not.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*number))
    }

    fn small<T: TryFrom<u64>>(&mut self) -> Option<T> {
        T::try_from(self.number()?).ok()
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.small()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    fn span(&mut self) -> Option<Span> {
        let both = self.number()?;
        Some(Span { start: (both >> 32) as u32, end: both as u32 })
    }

    fn options(&mut self) -> Option<Options> {
        let check = self.number()? != 0;
        let lanes = match self.number()? {
            0 => Lanes::Off,
            1 => Lanes::Auto,
            2 => Lanes::Always,
            _ => return None,
        };
        let tape_limit = self.small()?;
        Some(Options { check, lanes, tape_limit, records: self.number()? != 0, sums: self.number()? != 0 })
    }

    fn site(&mut self) -> Option<Site> {
        let place = match self.number()? {
            0 => return Some(Site::Assert { text: self.text()?, span: self.span()? }),
            1 => Place::Param(self.small()?),
            2 => Place::Local(self.small()?),
            3 => return Some(Site::Within { text: self.text()?, span: self.span()? }),
            _ => return None,
        };
        Some(Site::Index { place, name: self.text()?, axis: self.small()?, span: self.span()? })
    }

    fn print(&mut self) -> Option<Print> {
        let format = self.text()?;
        let names = self.text()?;
        let dtypes: Result<_, _> = names.split_whitespace().map(DType::parse).collect();
        Some(Print { format, dtypes: dtypes.ok()? })
    }

    fn meta(&mut self) -> Option<Meta> {
        let name = self.text()?;
        let grid = self.small()?;
        let ndims = self.bytes()?.to_vec();
        let (scratch, tape) = (self.small()?, self.small()?);
        let sites = (0..self.number()?).map(|_| self.site()).collect::<Option<_>>()?;
        let prints = (0..self.number()?).map(|_| self.print()).collect::<Option<_>>()?;
        Some(Meta { name, grid, ndims, sites, prints, scratch, tape })
    }
}
