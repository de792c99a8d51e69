//! Where gradients flow and where they stop: as each row's adjoint says.

use bullet_ops::DType;
use bullet_ops::reference::cases::cases;
use bullet_ops::table::{Adjoint, Row, TABLE};
use bullet_tensor::{Tensor, dispatch, no_grad};

use crate::gradients::has_gradient;
use crate::harness::{devices, seed, uniform, upload};

/// The rows that take floats at all: bits are of integers only.
fn of_floats() -> impl Iterator<Item = &'static Row> {
    TABLE.iter().filter(|row| !row.name.starts_with("bitwise"))
}

/// Every op on tracked operands: what ran, and its leaves.
fn run(row: &Row) -> (Vec<Tensor>, Vec<Tensor>) {
    let device = &devices()[0];
    let mut rng = uniform(seed(row.name));
    let case = cases(row, DType::F32, &mut rng)
        .into_iter()
        .find(|c| c.inputs.iter().all(|x| x.data.len() > 1 || x.shape.rank() == 0))
        .unwrap_or_else(|| panic!("{} has no ordinary case", row.name));
    let operand = |i: usize| {
        let x = upload(&case.inputs[i], device).unwrap();
        if has_gradient(&case.op, i, &case.inputs[i]) { x.requires_grad().unwrap() } else { x }
    };
    let operands: Vec<Tensor> = (0..case.inputs.len()).map(operand).collect();
    let results = dispatch::run(case.op.clone(), &operands.iter().collect::<Vec<_>>()).unwrap();
    (results, operands.into_iter().filter(Tensor::is_tracked).collect())
}

#[test]
fn gradients_stop_where_the_table_says_and_nowhere_else() {
    for row in of_floats() {
        let (results, leaves) = run(row);
        assert!(!leaves.is_empty(), "{}: no operand takes a gradient", row.name);
        // Statistics and other by-products are cut off the tape everywhere.
        let tracked = if matches!(row.name, "add_layer_norm" | "add_rms_norm") { 2 } else { 1 };
        assert!(results[..tracked].iter().all(|y| y.is_tracked() == results[0].is_tracked()), "{}", row.name);
        assert!(results.iter().skip(tracked).all(|y| !y.is_tracked()), "{}", row.name);
        match row.adjoint {
            Adjoint::NotDifferentiable => {
                assert!(
                    !results[0].is_tracked(),
                    "{} is not differentiable, but its result is tracked",
                    row.name
                );
                let ones = Tensor::ones(results[0].shape(), results[0].dtype(), results[0].device()).unwrap();
                let error = results[0].backward_with(&ones).unwrap_err().to_string();
                assert!(error.contains("does not require gradients"), "{error}");
                assert!(leaves.iter().all(|x| x.grad().is_none()), "{}", row.name);
            }
            Adjoint::Map(_) | Adjoint::Rule => {
                let name = row.name;
                if !results[0].dtype().is_float() {
                    // The first case of cast is to bool, which is discrete.
                    assert_eq!(name, "cast");
                    continue;
                }
                assert!(results[0].is_tracked(), "{name} is differentiable, but its result is not tracked");
                let ones = Tensor::ones(results[0].shape(), results[0].dtype(), results[0].device()).unwrap();
                results[0].backward_with(&ones).unwrap_or_else(|e| panic!("{name}: {e}"));
                let arrived =
                    |x: &Tensor| x.grad().is_some_and(|g| g.shape() == x.shape() && g.dtype() == x.dtype());
                assert!(leaves.iter().all(arrived), "{name}: a leaf got no gradient");
            }
        }
    }
}

#[test]
fn nothing_is_tracked_under_no_grad() {
    for row in of_floats() {
        let (results, _) = no_grad(|| run(row));
        assert!(results.iter().all(|y| !y.is_tracked()), "{}", row.name);
    }
}

#[test]
fn operands_that_need_no_gradient_get_none() {
    let device = &devices()[0];
    let x = Tensor::ones(&[2, 2], DType::F32, device).unwrap().requires_grad().unwrap();
    let constant = Tensor::ones(&[2, 2], DType::F32, device).unwrap();
    x.matmul(&constant).unwrap().sum(&[], false).unwrap().backward().unwrap();
    assert!(x.grad().is_some() && constant.grad().is_none());
    // Detached tensors are constants.
    let y = x.detach().mul(&x.detach()).unwrap();
    assert!(!y.is_tracked());
}

#[test]
fn a_second_backward_is_an_error() {
    let x = Tensor::ones(&[3], DType::F32, &devices()[0]).unwrap().requires_grad().unwrap();
    let y = x.exp().unwrap().sum(&[], false).unwrap();
    y.backward().unwrap();
    let error = y.backward().unwrap_err().to_string();
    assert!(error.contains("second time"), "{error}");
}

#[test]
fn overwriting_what_backward_needs_is_an_error() {
    let device = &devices()[0];
    let a = Tensor::ones(&[3], DType::F32, device).unwrap();
    let x = Tensor::ones(&[3], DType::F32, device).unwrap().requires_grad().unwrap();
    let y = x.mul(&a).unwrap().sum(&[], false).unwrap();
    a.fill_(5.0).unwrap();
    let error = y.backward().unwrap_err().to_string();
    assert!(error.contains("overwritten"), "{error}");
    assert!(x.fill_(0.0).is_err());
    no_grad(|| x.fill_(0.0)).unwrap();
}
