//! Prints every kernel of a file with its adjoint, as IR, CUDA or programs:
//! `cargo run -p bullet-lang --example emit ir|cuda|cu FILE.py...`

use bullet_lang::emit::{Target, emit};

fn main() -> Result<(), String> {
    let mut args = std::env::args().skip(1);
    let target = match args.next().as_deref() {
        Some("ir") => Target::Ir,
        Some("cuda") => Target::Cuda,
        Some("cu") => Target::Standalone,
        _ => return Err("usage: emit ir|cuda|cu FILE.py...".into()),
    };
    for file in args {
        let text = std::fs::read_to_string(&file).map_err(|e| format!("{file}: {e}"))?;
        let kernels = emit(&file, &text, target, true).map_err(|diagnostics| diagnostics.to_string())?;
        kernels.iter().for_each(|kernel| println!("{}", kernel.text));
    }
    Ok(())
}
