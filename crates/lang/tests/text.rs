//! The text form: every op is read, verified and printed as it stood; what breaks an invariant is refused.

use bullet_lang::emit::cuda::{CudaOptions, source};
use bullet_lang::ir::{Atomic, Binary, Compare, Kernel, Shuffle, Unary};

/// With the ops that nothing lowers to yet, too.
const EVERYTHING: &str = r#"kernel @everything(%x.0: array<f32, 1>, %v.1: array<f32x3, 2>, %c.2: array<i32, 1>, %n.3: i32, %s.4: f64) grid 2 {
  %i.5: i32 = tid 0
  %j.6: i32 = tid 1
  %7: i32 = dim 1 %v.1
  %tile.8: shared<f32, 1> = alloc 64
  %own.9: local<f32x2, 1> = alloc 4
  %10: f32 = load %x.0, %i.5
  %11: f32, %12: f32, %13: f32 = load %v.1, %i.5, %j.6
  store %tile.8, %i.5, %10
  store %own.9, 3i32, %10, 1.5f32
  barrier
  %14: f32 = shuffle_xor %10, 16i32
  %15: f32 = shuffle_down %14, 1i32
  %16: i32 = atomic_cas %c.2, 0i32, %n.3, -7i32
  %17: i32 = atomic_max %c.2, 1i32, %16
  %18: f32, %19: f32, %20: f32 = atomic_add %v.1, %i.5, %7, %11, inff32, NaNf32
  %21: bool = lt %i.5, %n.3
  %22: f32 = if %21 {
    %23: f64 = cast %15
    %24: f64 = mulm %23, %s.4
    %25: f32 = cast %24
    yield %25
  } else {
    yield -0.0f32
  }
  %26: f32 = for %k.27: i32 in 0i32, %n.3, 2i32 carry (%28: f32 = %22) {
    push 0 %28
    %29: f32 = sin %28
    yield %29
  }
  turn
  %30: bool, %31: i32 = while %21 carry (%32: bool = true, %33: i32 = %17) {
    %34: f32 = pop 0
    %35: u32 = bitcast %34
    %36: bool = ne %35, 4294967295u32
    %37: i32 = add %33, 1i32
    yield %36, %36, %37
  }
  %38: f32 = select %30, %26, 2.0f32
  print "%f of \"%d\"\n" %26, %31
  assert "not \\ there" %30
  if %30 {
  }
  store %x.0, %i.5, %38
}
"#;

#[test]
fn text_is_read_as_it_is_printed() {
    let kernel = Kernel::parse(EVERYTHING).unwrap_or_else(|e| panic!("{e}"));
    kernel.verify().unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(kernel.to_string(), EVERYTHING);
    let text = source(&[&kernel], CudaOptions::default());
    for part in
        ["__syncthreads();", "__shared__ float tile[64];", "float own[8];", "__shfl_xor_sync", "tape.push("]
    {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn every_scalar_op_has_a_text() {
    let mut lines = vec![];
    let mut next = 5;
    let mut line = |result: &str, op: &str, args: &str| {
        lines.push(format!("  %{next}: {result} = {op} {args}\n"));
        next += 1;
    };
    for op in Unary::ALL {
        for (dtype, value) in [("f32", "%f.0"), ("i64", "%i.1"), ("u8", "%u.2"), ("bool", "%b.3")] {
            let dtype = bullet_ops::DType::parse(dtype).expect("a dtype");
            if op.takes(dtype) {
                line(op.result(dtype).name(), op.name(), value);
            }
        }
    }
    for op in Binary::ALL {
        for (dtype, value) in [("f32", "%f.0"), ("i64", "%i.1"), ("u8", "%u.2"), ("bool", "%b.3")] {
            if op.takes(bullet_ops::DType::parse(dtype).expect("a dtype")) {
                line(dtype, op.name(), &format!("{value}, {value}"));
            }
        }
    }
    for op in Compare::ALL {
        line("bool", op.name(), "%f.0, 1.0f32");
    }
    for op in Shuffle::ALL {
        line("f32", op.name(), "%f.0, 3i32");
    }
    for op in Atomic::ALL {
        line("i32", op.name(), "%a.4, 0i32, 1i32");
    }
    let head = "kernel @ops(%f.0: f32, %i.1: i64, %u.2: u8, %b.3: bool, %a.4: array<i32, 1>) grid 1 {\n";
    let text = format!("{head}{}}}\n", lines.concat());
    let kernel = Kernel::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    kernel.verify().unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(kernel.to_string(), text);
}

#[test]
fn broken_texts_are_refused() {
    let refused = |from: &str, to: &str| {
        let text = EVERYTHING.replacen(from, to, 1);
        assert_ne!(text, EVERYTHING, "{from}");
        match Kernel::parse(&text) {
            Ok(kernel) => kernel.verify().expect_err(to).to_string(),
            Err(error) => error.to_string(),
        }
    };
    assert!(refused("grid 2", "grid 5").contains("5 dimensions"));
    assert!(refused("tid 1", "tid 2").contains("wrong operands"));
    assert!(refused("yield %25", "yield %24").contains("yields"));
    assert!(refused("yield %25", "yield %25, %25").contains("yields"));
    assert!(refused("mulm %23, %s.4", "mulm %23, %15").contains("wrong operands"));
    assert!(refused("load %x.0, %i.5", "load %x.0, %10").contains("known here"));
    assert!(refused("load %x.0, %i.5", "load %x.0, %i.5, %j.6").contains("wrong lanes"));
    assert!(refused("select %30, %26, 2.0f32", "select %30, %29, 2.0f32").contains("not visible"));
    assert!(refused("store %x.0, %i.5, %38", "store %x.0, %i.5, %31").contains("wrong lanes"));
    assert!(refused("push 0 %28", "push 0").contains("wrong operands"));
    assert!(refused("pop 0", "pop").contains("a number"));
    assert!(refused("%38: f32 = select", "%38: f32 = choose").contains("an operation"));
    for end in 0..EVERYTHING.len() - 2 {
        assert!(Kernel::parse(&EVERYTHING[..end]).is_err(), "{end}");
    }
}
