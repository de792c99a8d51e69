//! Prints the IR or CUDA of every kernel of a file, with adjoints: `cargo run -p bullet-lang --example emit [ir|cuda] FILE.py`.

use bullet_lang::adjoint::{AdjointOptions, adjoint};
use bullet_lang::emit::cuda;
use bullet_lang::{Options, compile};

fn main() {
    let mut args = std::env::args().skip(1);
    let kind = args.next().unwrap_or_default();
    for file in args {
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(e) => return eprintln!("{file}: {e}"),
        };
        let kernels = match compile(&file, &text, Options::default()) {
            Ok(kernels) => kernels,
            Err(diagnostics) => return eprintln!("{diagnostics}"),
        };
        let mut all = vec![];
        for kernel in kernels {
            let made = adjoint(&kernel, AdjointOptions::default());
            all.push(kernel);
            match made {
                Ok(made) => all.push(made.kernel),
                Err(found) => eprintln!("{}", bullet_lang::Diagnostics::new(&file, &text, found)),
            }
        }
        match kind.as_str() {
            "cuda" => {
                print!("{}", cuda::source(&all.iter().collect::<Vec<_>>(), cuda::CudaOptions::default()))
            }
            _ => all.iter().for_each(|kernel| println!("{kernel}")),
        }
    }
}
