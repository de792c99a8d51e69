//! Faults of kernels on a GPU: what a launch takes to report them, and the words for one that was reported, which are those of
//! a CPU.

use std::sync::Arc;

use bullet_kernels::cuda::{Explain, Gpu, Report};
use bullet_lang::diag::{Diagnostic, Span};
use bullet_lang::emit::cuda::{CudaOptions, sites};
use bullet_lang::fault::{self, FaultKind, Place, Site};
use bullet_lang::ir;
use bullet_lang::link::Linked;
use bullet_tensor::Device;
use bullet_tensor::runtime::{self, DevicePtr, ErrorKind};

use crate::error::Result;
use crate::kernel::types;

/// Where the threads of a kernel report faults.
pub(crate) struct Faults {
    cell: DevicePtr,
    /// The code of the first site.
    first: u32,
    /// Keeps the words.
    words: Arc<dyn Explain>,
}

impl std::fmt::Debug for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Faults({}, {} known)", self.first, Arc::strong_count(&self.words))
    }
}

impl Faults {
    /// Of a kernel's function that is made with these options, if it has anything to report. What it says is said of the kernel
    /// `name`.
    pub(crate) fn of(
        device: &Device,
        kernel: &ir::Kernel,
        options: CudaOptions,
        name: &str,
        linked: &Arc<Linked>,
    ) -> Result<Option<Faults>> {
        let sites = sites(kernel, options);
        if sites.is_empty() {
            return Ok(None);
        }
        let count = sites.len() as u32;
        let words: Arc<dyn Explain> =
            Arc::new(Words::new(linked.clone(), kernel, name, device.to_string(), sites));
        let (cell, first) = Gpu::of(device)?.report_faults(count, words.clone())?;
        Ok(Some(Faults { cell, first, words }))
    }

    /// The argument of a launch over a grid, from this thread of it on.
    pub(crate) fn argument(&self, grid: &[i32], begin: u64) -> Vec<u8> {
        let mut lengths = [1; 4];
        lengths[..grid.len()].copy_from_slice(grid);
        let mut bytes = self.cell.0.to_ne_bytes().to_vec();
        bytes.extend((begin as i64).to_ne_bytes());
        bytes.extend(self.first.to_ne_bytes());
        bytes.extend(lengths.iter().flat_map(|length| length.to_ne_bytes()));
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }
}

/// What it takes to say what a kernel reported.
struct Words {
    linked: Arc<Linked>,
    name: String,
    device: String,
    /// Dimensions of the grid, and of each parameter.
    grid: usize,
    ndims: Vec<usize>,
    sites: Vec<Site>,
}

impl Words {
    fn new(linked: Arc<Linked>, kernel: &ir::Kernel, name: &str, device: String, sites: Vec<Site>) -> Words {
        let ndims = types(kernel).map(|ty| ty.array().map_or(0, |array| array.ndim.into())).collect();
        Words { linked, name: name.into(), device, grid: kernel.grid.into(), ndims, sites }
    }
}

impl Explain for Words {
    fn explain(&self, report: &Report) -> runtime::Error {
        let place = fault::place(report.thread, &report.grid[..self.grid.min(4)]);
        let head = fault::head(&self.name, &place);
        let Some(site) = self.sites.get(report.site as usize) else {
            return runtime::Error::launch(format!("{head}: an unknown fault on {}", self.device));
        };
        let ndim = match site {
            Site::Index { place: Place::Param(number), .. } => self.ndims.get(*number as usize).copied(),
            _ => None,
        };
        let shape = &report.shape[..ndim.unwrap_or(0).min(4)];
        let message = format!("{head}: {}", site.message(report.index, shape));
        let hint = format!(
            "found when the work of {} was waited for; what this launch and later ones wrote is not to be used",
            self.device
        );
        let kind = match site.kind() {
            FaultKind::Index => ErrorKind::Index,
            FaultKind::Assert => ErrorKind::Assert,
            FaultKind::Other => ErrorKind::LaunchFailed,
        };
        runtime::Error::new(kind, shown(&self.linked, site.span(), message, Some(hint)))
    }
}

/// What went wrong with the line of the source that it came from.
pub(crate) fn shown(linked: &Linked, span: Span, message: String, hint: Option<String>) -> String {
    let shown = linked.diagnostics(vec![Diagnostic { span, message, hint }]).to_string();
    shown.trim_start_matches("error: ").trim_end().to_string()
}

#[cfg(test)]
mod tests {
    use bullet_lang::Options;
    use bullet_lang::emit::cuda::Checks;
    use bullet_lang::link::{Binding, Definition, Kind, link};
    use bullet_tensor::{DType, Tensor};

    use super::*;
    use crate::{Arg, Error, Kernel, LaunchOptions};

    const TEXT: &str = "def f(x: wp.array2d(dtype=float)):\n    i, j = wp.tid()\n    assert i < 2, \"few\"\n    x[i, j + 4] = 1.0\n";

    /// What a launch on a CPU says.
    fn on_a_cpu(linked: Linked, grid: &[i32]) -> (FaultKind, String) {
        let x = Tensor::zeros(&[8, 5], DType::F32, &Device::cpu()).unwrap();
        let kernel = Kernel::all(linked).remove(0);
        let options = LaunchOptions { deterministic: true, ..LaunchOptions::default() };
        match kernel.launch(&Device::cpu(), grid, &[Arg::Array(x)], options) {
            Err(Error::Fault(kind, message)) => (kind, message),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_argument_is_laid_out_as_the_text_has_it() {
        struct Nothing;
        impl Explain for Nothing {
            fn explain(&self, _: &Report) -> runtime::Error {
                runtime::Error::launch("")
            }
        }
        let faults = Faults { cell: DevicePtr(0x1234_5678_9abc), first: 40, words: Arc::new(Nothing) };
        let bytes = faults.argument(&[7, 3], 1 << 33);
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        let long = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
        assert_eq!((bytes.len(), long(0), long(8)), (40, 0x1234_5678_9abc, 1 << 33));
        assert_eq!([16, 20, 24, 28, 32].map(word), [40, 7, 3, 1, 1]);
    }

    #[test]
    fn what_is_reported_has_the_words_of_a_cpu() {
        let definition = Definition {
            kind: Kind::Kernel,
            file: "a.py".into(),
            line: 10,
            indent: 0,
            text: TEXT.into(),
            names: vec![("wp".into(), Binding::Builtin("warp".into()))],
            types: vec![],
            statics: vec![],
        };
        let linked = link(&[definition], Options::default()).unwrap();
        let options = CudaOptions { checks: Checks::All, ..CudaOptions::default() };
        let sites = sites(&linked.kernels[0].0, options);
        assert_eq!(sites.len(), 3);
        let kernel = &linked.kernels[0].0;
        let words = Words::new(Arc::new(linked.clone()), kernel, "f", "cuda:0".into(), sites);
        let check = |report: Report, kind: ErrorKind| {
            let (_, expected) = on_a_cpu(linked.clone(), &report.grid[..2]);
            let error = words.explain(&report);
            assert_eq!(error.kind, kind);
            let (found, hint) = error.message.rsplit_once("\n").unwrap();
            assert_eq!(found, expected);
            assert!(found.contains("a.py:1") && hint.contains("cuda:0"), "{}", error.message);
        };
        let report = Report { site: 2, index: 5, thread: 1, grid: [2, 3, 1, 1], shape: [8, 5, 0, 0] };
        check(report, ErrorKind::Index);
        check(Report { site: 0, index: 0, thread: 2, grid: [3, 1, 1, 1], ..report }, ErrorKind::Assert);
    }
}
