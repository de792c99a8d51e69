//! Prints the IR of every kernel of a file: `cargo run -p bullet-lang --example emit FILE.py`.

fn main() {
    for file in std::env::args().skip(1) {
        let text = std::fs::read_to_string(&file).expect("a file");
        match bullet_lang::compile(&file, &text) {
            Ok(kernels) => {
                for kernel in kernels {
                    println!("{kernel}");
                    if let Err(e) = kernel.verify() {
                        println!("VERIFY {e}");
                    }
                }
            }
            Err(e) => println!("{e}"),
        }
    }
}
