//! Bullet's figures on one GPU, one JSON object a line: `{"section", "case", "peer", "value", "unit"}`.
//!
//! usage: `bullet-bench-gpu [SECTION]...`, with sections start, launch, copy, rows, attention, gemm, train and gen; all of them
//! without. Ops are timed with device events around one call, after warm-up, the median of many; training and generation
//! by the clock, around many steps and one wait. Data is random and larger than the second-level cache, or rotates.

use std::time::Instant;

use bullet_bench::{Result, generation_speed, train_step};
use bullet_kernels::cuda::gemm::{self, Library, Precision};
use bullet_nn::Transformer;
use bullet_nn::data::Batch;
use bullet_nn::train::TrainStep;
use bullet_tensor::runtime::jit::Program;
use bullet_tensor::runtime::{KernelArgs, Launch, LaunchConfig, StreamId};
use bullet_tensor::{DType, Device, Tensor};
use serde_json::json;

type Section = fn(&Bench) -> Result<()>;

fn main() -> Result<()> {
    let start = Instant::now();
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let device = Device::parse("cuda")?;
    let one = Tensor::ones(&[1], DType::F32, &device)?.add_scalar(1.0)?.item()?;
    assert_eq!(one, 2.0);
    if wanted.is_empty() || wanted.iter().any(|w| w == "start") {
        say("start", "main to first result", start.elapsed().as_secs_f64(), "s");
    }
    let bench = Bench { device };
    if wanted.iter().any(|w| w == "profile") {
        return bench.profile();
    }
    let sections: [(&str, Section); 7] = [
        ("launch", Bench::launch),
        ("copy", Bench::copy),
        ("rows", Bench::rows),
        ("attention", Bench::attention),
        ("gemm", Bench::gemm),
        ("train", Bench::train),
        ("gen", Bench::generation),
    ];
    for (name, run) in sections {
        if wanted.is_empty() || wanted.iter().any(|w| w == name) {
            // One section that fails must not hide the others.
            if let Err(e) = run(&bench) {
                say_error(name, &e.to_string());
            }
        }
    }
    Ok(())
}

fn say(section: &str, case: &str, value: f64, unit: &str) {
    say_of("bullet", section, case, value, unit);
}

fn say_of(peer: &str, section: &str, case: &str, value: f64, unit: &str) {
    println!("{}", json!({ "section": section, "case": case, "peer": peer, "value": value, "unit": unit }));
}

fn say_error(case: &str, why: &str) {
    println!("{}", json!({ "section": "error", "case": case, "peer": "bullet", "value": why }));
}

struct Bench {
    device: Device,
}

impl Bench {
    fn randn(&self, shape: &[usize], dtype: DType) -> Result<Tensor> {
        // Drawn once and repeated: drawing gigabytes on the host would take longer than all the rest.
        let n: usize = shape.iter().product();
        let part = n.min(1 << 20);
        let seed = Tensor::randn(&[part], dtype, &self.device, 7)?;
        let times = n.div_ceil(part);
        let all = Tensor::zeros(&[times, part], dtype, &self.device)?;
        all.copy_(&seed)?;
        let shape: Vec<isize> = shape.iter().map(|&d| d as isize).collect();
        Ok(all.reshape(&[-1])?.narrow(0, 0, n)?.reshape(&shape)?)
    }

    /// Median milliseconds of `f`, whose result is dropped, by device events.
    fn time(&self, n: usize, mut f: impl FnMut() -> bullet_tensor::Result<Tensor>) -> Result<f64> {
        let mut run = || f().map(drop);
        for _ in 0..3 {
            run()?;
        }
        let mut times = Vec::new();
        for _ in 0..n {
            times.push(self.device.time(&mut run)?);
        }
        times.sort_by(f64::total_cmp);
        Ok(times[n / 2])
    }

    /// As [`Bench::time`], one of several in a graph: what the device takes, without what launching one takes the host.
    fn time_replayed(&self, mut f: impl FnMut() -> bullet_tensor::Result<Tensor>) -> Result<f64> {
        const MANY: usize = 20;
        f()?;
        let capture = self.device.capture()?;
        (0..MANY).try_for_each(|_| f().map(drop))?;
        let graph = capture.end()?;
        let mut times = Vec::new();
        for _ in 0..MANY {
            // SAFETY: the operands, which `f` holds, outlive the graph; its results are not read.
            times.push(self.device.time(|| unsafe { graph.launch() })?);
        }
        times.sort_by(f64::total_cmp);
        Ok(times[MANY / 2] / MANY as f64)
    }

    /// What the host takes for a launch: the driver's call alone, and ops of tensors.
    fn launch(&self) -> Result<()> {
        let empty = "extern \"C\" __global__ void empty(float* x, float* y, unsigned n) {}";
        let module = self.device.load(&Program { name: "empty", source: empty, minimal: true })?;
        let function = self.device.driver().function(module, "empty")?;
        let (x, y) = (self.randn(&[1024], DType::F32)?, self.randn(&[1024], DType::F32)?);
        let mut args = KernelArgs::new();
        args.push(x.address()).push(y.address()).push(1024u32);
        let raw = |overlaps: bool| {
            let config = LaunchConfig { block: [128, 1, 1], overlaps, ..LaunchConfig::default() };
            let launch = Launch::Kernel { function, config, args: &args };
            // SAFETY: the kernel does nothing.
            Ok(unsafe { self.device.driver().launch(StreamId::DEFAULT, launch) }?)
        };
        let cases: [(&str, &dyn Fn() -> Result<()>); 4] = [
            ("driver's call", &|| raw(false)),
            ("driver's call, overlapping", &|| raw(true)),
            ("x += y", &|| Ok(x.add_(&y)?)),
            ("x + y", &|| Ok(x.add(&y).map(drop)?)),
        ];
        for (case, run) in cases {
            let mut times = Vec::new();
            for _ in 0..9 {
                self.device.synchronize()?;
                let start = Instant::now();
                (0..500).try_for_each(|_| run())?;
                times.push(start.elapsed().as_secs_f64() / 500.0);
            }
            times.sort_by(f64::total_cmp);
            say("launch", &format!("host time of {case}"), times[4] * 1e6, "us");
        }
        Ok(())
    }

    fn copy(&self) -> Result<()> {
        let x = self.randn(&[1 << 29], DType::F32)?;
        let ms = self.time(20, || x.copy())?;
        say("copy", "d2d 2GiB", 2.0 * x.numel() as f64 * 4.0 / ms / 1e6, "GB/s");
        Ok(())
    }

    fn rows(&self) -> Result<()> {
        for (rows, cols) in [(16384, 1024), (16384, 8192), (131_072, 128)] {
            for dtype in [DType::F32, DType::F16] {
                let x = self.randn(&[rows, cols], dtype)?;
                let (w, b) = (self.randn(&[cols], dtype)?, self.randn(&[cols], dtype)?);
                let bytes = (2 * x.numel() * dtype.size()) as f64;
                let say = |name: &str, ms: f64| {
                    say("norm", &format!("{name} {rows}x{cols} {dtype}"), bytes / ms / 1e6, "GB/s");
                };
                say("softmax", self.time(20, || x.softmax(-1))?);
                say("layernorm", self.time(20, || x.layer_norm(Some(&w), Some(&b), 1e-5))?);
                say("rmsnorm", self.time(20, || x.rms_norm(Some(&w), 1e-5))?);
                say("gelu", self.time(20, || x.gelu_tanh())?);
            }
        }
        Ok(())
    }

    fn attention(&self) -> Result<()> {
        for (b, h, s, d) in [(256, 4, 64, 32), (16, 16, 1024, 64), (4, 16, 4096, 128)] {
            let [q, k, v] = [0, 1, 2].map(|_| self.randn(&[b, h, s, d], DType::F16));
            let (q, k, v) = (q?, k?, v?);
            let flops = 4.0 * (b * h * s * s * d) as f64 * 0.5;
            let case = |way: &str| format!("{way} fp16 B{b} H{h} S{s} D{d} causal=True");
            let ms = self.time(20, || q.attention(&k, &v, None, true, None))?;
            say("attn", &case("fwd"), flops / ms / 1e9, "TFLOP/s");
            let ms = self.time_replayed(|| q.attention(&k, &v, None, true, None))?;
            say("attn", &case("fwd replayed"), flops / ms / 1e9, "TFLOP/s");
            let [q, k, v] = [q.requires_grad()?, k.requires_grad()?, v.requires_grad()?];
            let g = self.randn(&[b, s, h, d], DType::F16)?.transpose(1, 2)?;
            // Backward frees what it uses, so that forward runs each time, outside of the timed part.
            let mut times = Vec::new();
            for i in 0..23 {
                let o = q.attention(&k, &v, None, true, None)?;
                let ms = self.device.time(|| o.backward_with(&g))?;
                [&q, &k, &v].iter().for_each(|t| t.set_grad(None));
                if i >= 3 {
                    times.push(ms);
                }
            }
            times.sort_by(f64::total_cmp);
            say("attn", &case("bwd"), 2.5 * flops / times[10] / 1e9, "TFLOP/s");
        }
        Ok(())
    }

    /// Products by our own kernels, then where cuBLASLt may be used: squares, and the largest of the reference model.
    fn gemm(&self) -> Result<()> {
        let wanted = gemm::precision();
        let kinds = [
            ("fp32", DType::F32, Precision::Full),
            ("tf32", DType::F32, Precision::Tf32),
            ("fp16", DType::F16, Precision::Full),
            ("bf16", DType::BF16, Precision::Full),
        ];
        let square = |n: usize| ([n, n, n], n.to_string());
        let mut shapes = [512, 1024, 2048, 4096, 8192].map(square).to_vec();
        shapes.push(([16384, 3000, 128], "16384x3000x128".into()));
        for (peer, library) in [("bullet", Library::Off), ("bullet with cublaslt", Library::Faster)] {
            gemm::set_library(library);
            for ([m, n, k], shape) in &shapes {
                for (name, dtype, precision) in kinds {
                    gemm::set_precision(precision);
                    let (a, b) = (self.randn(&[*m, *k], dtype)?, self.randn(&[*k, *n], dtype)?);
                    let ms = self.time(if *n > 4000 { 10 } else { 30 }, || a.matmul(&b))?;
                    let rate = 2.0 * (m * n * k) as f64 / ms / 1e9;
                    say_of(peer, "gemm", &format!("{name} {shape}"), rate, "TFLOP/s");
                }
            }
        }
        gemm::set_precision(wanted);
        Ok(())
    }

    /// A few steps and nothing else, for a profiler: the third is captured and replayed.
    fn profile(&self) -> Result<()> {
        for (batch, compute, scale) in [(16, None, None), (256, Some(DType::F16), Some((65536.0, 2000)))] {
            let mut train = self.trainer(batch, compute, scale)?;
            let data = tokens(batch * 64);
            (0..4).try_for_each(|_| train.step(std::slice::from_ref(&data)))?;
            say("profile", &format!("micro B{batch}"), train.read()?.loss, "nats");
        }
        Ok(())
    }

    fn trainer(
        &self,
        batch: usize,
        compute: Option<DType>,
        loss_scale: Option<(f64, u64)>,
    ) -> Result<TrainStep<Transformer>> {
        train_step(bullet_bench::model(&self.device)?, batch, compute, loss_scale, &self.device)
    }

    fn train(&self) -> Result<()> {
        let wanted = gemm::precision();
        let kinds = [
            ("fp32", Precision::Full, None, None),
            ("tf32", Precision::Tf32, None, None),
            ("fp16", Precision::Full, Some(DType::F16), Some((65536.0, 2000))),
        ];
        for batch in [16, 256] {
            for (name, precision, compute, scale) in kinds {
                gemm::set_precision(precision);
                let mut train = self.trainer(batch, compute, scale)?;
                let data = tokens(batch * 64);
                for _ in 0..10 {
                    train.step(std::slice::from_ref(&data))?;
                }
                let first = train.read()?.loss;
                if let Some(why) = train.not_captured() {
                    say_error("capture", why);
                }
                let mut times = Vec::new();
                for _ in 0..7 {
                    let start = Instant::now();
                    for _ in 0..50 {
                        train.step(std::slice::from_ref(&data))?;
                    }
                    train.read()?;
                    times.push(start.elapsed().as_secs_f64() * 1e3 / 50.0);
                }
                times.sort_by(f64::total_cmp);
                let loss = train.read()?.loss;
                assert!(loss < first, "{loss} after {first}: training on one batch must lower its loss");
                say("train", &format!("micro B{batch} {name}"), times[3], "ms/step");
            }
        }
        gemm::set_precision(wanted);
        Ok(())
    }

    fn generation(&self) -> Result<()> {
        let speed = generation_speed(&bullet_bench::model(&self.device)?, 1, 8)?;
        say("gen", "micro batch 1", speed, "tokens/s");
        Ok(())
    }
}

fn tokens(n: usize) -> Batch {
    let next = |i: usize| (i.wrapping_mul(2_654_435_761) >> 7) as i64 % 3000;
    Batch { x: (0..n).map(next).collect(), y: (1..=n).map(next).collect(), targets: n }
}
