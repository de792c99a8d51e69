//! Functions of wp on the host: one call, lowered for the values it is given, and interpreted.
//!
//! What a kernel would compute is what the host gets, for whatever kernels can call without memory or a grid. A call takes
//! some ten microseconds; it is for setting things up, not for arrays.

use std::fmt;

use crate::interp::{self, Arg, Array, Cells};
use crate::ir::{Kernel, Type};
use crate::lower::{self, Program};
use crate::signature::Element;
use crate::{Diagnostics, library, syntax};

/// Numbers that belong together, and what they are.
#[derive(Clone, PartialEq, Debug)]
pub struct Value {
    /// Their type.
    pub element: Element,
    /// As many as that has; floats as [`Arg::Float`], others as [`Arg::Int`].
    pub numbers: Vec<Arg<f64>>,
}

/// What a call gives.
#[derive(Clone, PartialEq, Debug)]
pub enum Outcome {
    /// One value.
    One(Value),
    /// A tuple.
    Several(Vec<Value>),
}

/// Why there is no value.
#[derive(Clone, PartialEq, Debug)]
pub enum Error {
    /// The function does not take what it was given.
    Call(Diagnostics),
    /// It stopped: an index out of range, a division of integers by 0.
    Fault(interp::Fault),
    /// What it gives is no number, vector, matrix or tuple of such.
    NoValue(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The source is what this module wrote.
            Error::Call(mistakes) => {
                let text = |item: &crate::diag::Diagnostic| item.message.clone();
                f.write_str(&mistakes.items().iter().map(text).collect::<Vec<_>>().join("; "))
            }
            Error::Fault(fault) => fault.fmt(f),
            Error::NoValue(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Error {}

/// How many instructions a call may run.
const FUEL: u64 = 1 << 24;

/// The value of an expression like `wp.dot(a0, a1)`, where `a0` and so on are these values.
///
/// # Errors
/// What is wrong with the call; what went wrong in it.
pub fn evaluate(expression: &str, values: &[Value]) -> Result<Outcome, Error> {
    let params: Vec<String> = (0..values.len()).map(|i| format!("a{i}")).collect();
    let text = format!(
        "import bullet_core.lang as wp\n@wp.func\ndef call({}):\n    return {expression}\n",
        params.join(", ")
    );
    let (mut module, mistakes) = syntax::parse(&text, &Program::HIDDEN);
    let wrong = |mistakes| Err(Error::Call(Diagnostics::new("call", &text, mistakes)));
    if !mistakes.is_empty() {
        return wrong(mistakes);
    }
    let library = library::of_module(&mut module);
    let program = Program::new(&module, &library);
    let elements: Vec<&Element> = values.iter().map(|value| &value.element).collect();
    match lower::lower_call(&program, &module.functions[0], &elements) {
        Ok((kernel, lower::Given::Types(types, is_tuple))) => {
            let mut results = run(&kernel, values, &types)?;
            Ok(match is_tuple {
                true => Outcome::Several(results),
                false => Outcome::One(results.remove(0)),
            })
        }
        Ok((_, lower::Given::Nothing(what))) => Err(Error::NoValue(format!("this gives {what}, no value"))),
        Err(mistakes) => wrong(mistakes),
    }
}

/// Runs the kernel of a call: its results are what it stores to its arrays of one number each.
fn run(kernel: &Kernel, values: &[Value], types: &[Element]) -> Result<Vec<Value>, Error> {
    let mut args: Vec<Arg<f64>> = values.iter().flat_map(|value| value.numbers.iter().copied()).collect();
    let mut arrays: Vec<Array<f64>> = vec![];
    for &param in &kernel.params[args.len()..] {
        if let Type::Array(ty) = kernel.ty(param) {
            args.push(Arg::Array(arrays.len()));
            arrays.push(Array::zeros(ty.dtype, &[1], 1));
        }
    }
    let options = interp::Options { rounded: true, fuel: FUEL };
    interp::run(kernel, &[1], &args, &mut arrays, options).map_err(Error::Fault)?;
    let mut numbers = arrays.iter().map(|array| match &array.cells {
        Cells::Float(cells) => Arg::Float(cells[0]),
        Cells::Int(cells) => Arg::Int(cells[0]),
    });
    let value = |element: &Element| Value {
        element: element.clone(),
        numbers: numbers.by_ref().take(element.lanes()).collect(),
    };
    Ok(types.iter().map(value).collect())
}

#[cfg(test)]
mod tests {
    use bullet_ops::DType;
    use smallvec::smallvec;

    use super::*;

    fn floats(dims: &[u16], name: &str, numbers: &[f64]) -> Value {
        let element = Element { dtype: DType::F32, dims: dims.into(), name: name.into() };
        Value { element, numbers: numbers.iter().map(|&x| Arg::Float(x)).collect() }
    }

    #[test]
    fn calls_give_what_kernels_compute() {
        let v = floats(&[3], "vec3 of float32", &[3.0, 0.0, 4.0]);
        let Ok(Outcome::One(length)) = evaluate("wp.length(a0)", std::slice::from_ref(&v)) else { panic!() };
        assert_eq!(length, floats(&[], "float32", &[5.0]));
        let Ok(Outcome::One(turned)) =
            evaluate("wp.quat_rotate(wp.quat_from_axis_angle(wp.vec3(0.0, 1.0, 0.0), wp.pi), a0)", &[v])
        else {
            panic!()
        };
        assert!(turned.numbers.iter().zip([-3.0, 0.0, -4.0]).all(|(x, y)| match *x {
            Arg::Float(x) => (x - y).abs() < 1e-6,
            _ => false,
        }));
        // Of numbers alone, and of random states, which are integers.
        let Ok(Outcome::One(root)) = evaluate("wp.sqrt(2.0)", &[]) else { panic!() };
        assert_eq!(root.numbers, [Arg::Float(f64::from(2f32.sqrt()))]);
        let state = Element { dtype: DType::U32, dims: smallvec![], name: "uint32".into() };
        let state = Value { element: state, numbers: vec![Arg::Int(7)] };
        assert!(matches!(evaluate("wp.randf(a0)", &[state]), Ok(Outcome::One(_))));
        let Ok(Outcome::Several(parts)) =
            evaluate("wp.qr3(wp.mat33(2.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 2.0))", &[])
        else {
            panic!()
        };
        assert_eq!(parts[1].numbers[0], Arg::Float(2.0));
    }

    #[test]
    fn what_cannot_be_says_why() {
        let error = |text: &str| evaluate(text, &[]).expect_err("no value").to_string();
        assert_eq!(error("wp.length(1.0)"), "`length` does not take a float");
        assert!(error("wp.nothing(1.0)").contains("no function that kernels know"));
        assert!(error("wp.printf(\"x\")").contains("no value"));
        assert!(error("wp.vec3(1.0, 2.0, 3.0)[int(wp.sqrt(16.0))]").contains("outside"));
    }
}
