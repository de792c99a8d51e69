//! What an op costs beside its arithmetic: nanoseconds a call on operands of a few elements.
//!
//! `cargo run --release -p bullet-tensor --example small_ops`

use std::hint::black_box;
use std::time::Instant;

use bullet_tensor::{Activation, Device, Error, Tensor, no_grad};

type Call<'a> = &'a dyn Fn() -> Result<Tensor, Error>;

fn main() -> Result<(), Error> {
    let device = Device::cpu();
    let make = |shape: &[usize]| Tensor::from_slice(&vec![0.5f32; shape.iter().product()], shape, &device);
    let (x, y) = (make(&[8])?, make(&[8])?);
    let tracked = x.requires_grad()?;
    let (row, weight, bias) = (make(&[1, 1, 8])?, make(&[8, 8])?, make(&[8])?);
    let heads = make(&[1, 1, 4, 8])?;
    let rows: [(&str, Call<'_>); 8] = [
        ("add", &|| x.add(&y)),
        ("add, recorded", &|| tracked.add(&y)),
        ("add_", &|| x.add_(&y).map(|()| x.clone())),
        ("gelu_tanh", &|| x.gelu_tanh()),
        ("layer_norm", &|| row.layer_norm(Some(&bias), Some(&bias), 1e-5)),
        ("linear", &|| row.linear(&weight, Some(&bias), Activation::Identity)),
        ("narrow", &|| x.narrow(0, 2, 4)),
        ("transpose", &|| heads.transpose(1, 2)),
    ];
    for (name, op) in rows {
        println!("{name:>14} {:8.0} ns", nanoseconds(op)?);
    }
    println!("{:>14} {:8.0} ns", "add, no_grad", no_grad(|| nanoseconds(&|| tracked.add(&y)))?);
    Ok(())
}

/// The median of 50 timings of 2,000 calls.
fn nanoseconds(op: Call<'_>) -> Result<f64, Error> {
    const CALLS: usize = 2000;
    let mut times = Vec::new();
    for _ in 0..50 {
        let start = Instant::now();
        for _ in 0..CALLS {
            black_box(op()?);
        }
        times.push(start.elapsed().as_secs_f64() * 1e9 / CALLS as f64);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}
