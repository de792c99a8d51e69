//! Cross-entropy and its adjoint.

use super::Array;
use super::rows::log_sum_exp;
use crate::error::{Error, Result};
use crate::infer::Meta;

/// The class of row `r`; `None` where it is to be ignored.
fn class(target: &Array, r: usize, classes: usize, ignore_index: i64) -> Result<Option<usize>> {
    let t = target.data[r] as i64;
    if t == ignore_index {
        return Ok(None);
    }
    usize::try_from(t).ok().filter(|&t| t < classes).map(Some).ok_or_else(|| {
        Error::index(format!(
            "cross_entropy: target {t} is out of bounds for {classes} classes (ignore_index is {ignore_index})"
        ))
    })
}

/// The mean over rows that count of `-sum over c of q_c log p_c`, where `p` is the softmax of the row's logits and
/// `q_c = smoothing / classes`, with `1 - smoothing` more at the target. NaN where no row counts. The log-sum of a row that doesn't count is 0.
pub(super) fn cross_entropy(
    ignore_index: i64,
    smoothing: f64,
    x: &[Array],
    out: &[Meta],
) -> Result<Vec<Array>> {
    let (logits, target) = (&x[0], &x[1]);
    let classes = logits.shape[1];
    let (mut total, mut count, mut lses) = (0.0, 0.0, Vec::new());
    for r in 0..logits.shape[0] {
        let row = &logits.data[r * classes..(r + 1) * classes];
        let mut counted_lse = 0.0;
        if let Some(t) = class(target, r, classes, ignore_index)? {
            let lse = log_sum_exp(row);
            counted_lse = lse;
            let uniform: f64 = row.iter().map(|v| (lse - v) / classes as f64).sum();
            total += (1.0 - smoothing) * (lse - row[t]) + smoothing * uniform;
            count += 1.0;
        }
        lses.push(counted_lse);
    }
    let scalar = |meta: Meta, v: f64| Array { shape: meta.shape, dtype: meta.dtype, data: vec![v] };
    let lse = Array { shape: out[1].shape, dtype: out[1].dtype, data: lses };
    Ok(vec![scalar(out[0], total / count), lse, scalar(out[2], count)])
}

/// `dlogits = (p - q) g / count`, 0 in rows that don't count.
pub(super) fn cross_entropy_grad(ignore_index: i64, smoothing: f64, x: &[Array]) -> Result<Array> {
    let (logits, target, lse, count, g) = (&x[0], &x[1], &x[2], &x[3], &x[4]);
    let classes = logits.shape[1];
    let mut dlogits = Array::zeros(logits.meta());
    for r in 0..logits.shape[0] {
        let Some(t) = class(target, r, classes, ignore_index)? else { continue };
        for c in 0..classes {
            let p = (logits.at(&[r, c]) - lse.data[r]).exp();
            let q = smoothing / classes as f64 + if c == t { 1.0 - smoothing } else { 0.0 };
            *dlogits.at_mut(&[r, c]) = (p - q) * g.data[0] / count.data[0];
        }
    }
    Ok(dlogits)
}

#[cfg(test)]
mod tests {
    use super::super::{Array, eval};
    use crate::dtype::DType::{F64, I64};
    use crate::op::Op;

    fn logits() -> Array {
        Array::new(&[2, 2], F64, vec![0.0, 3f64.ln(), 7.0, 7.0]).unwrap()
    }

    fn near(got: &[f64], want: &[f64]) {
        assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-12), "{got:?} != {want:?}");
    }

    #[test]
    fn cross_entropy_by_hand() {
        let target = Array::new(&[2], I64, vec![0.0, 1.0]).unwrap();
        let op = Op::CrossEntropy { ignore_index: -100, label_smoothing: 0.0 };
        let y = eval(&op, &[logits(), target.clone()]).unwrap();
        // -log(1/4) and -log(1/2).
        near(&y[0].data, &[1.5 * 2f64.ln()]);
        near(&y[1].data, &[4f64.ln(), 7.0 + 2f64.ln()]);
        assert_eq!(y[2].data, [2.0]);
        let grad = Op::CrossEntropyGrad { ignore_index: -100, label_smoothing: 0.0 };
        let g = Array::new(&[], F64, vec![2.0]).unwrap();
        let dx = eval(&grad, &[logits(), target, y[1].clone(), y[2].clone(), g]).unwrap();
        near(&dx[0].data, &[-0.75, 0.75, 0.5, -0.5]);
    }

    #[test]
    fn ignored_rows_do_not_count() {
        let target = Array::new(&[2], I64, vec![-100.0, 1.0]).unwrap();
        let op = Op::CrossEntropy { ignore_index: -100, label_smoothing: 0.5 };
        let y = eval(&op, &[logits(), target.clone()]).unwrap();
        near(&y[0].data, &[2f64.ln()]);
        near(&y[1].data, &[0.0, 7.0 + 2f64.ln()]);
        assert_eq!(y[2].data, [1.0]);
        let grad = Op::CrossEntropyGrad { ignore_index: -100, label_smoothing: 0.5 };
        let g = Array::new(&[], F64, vec![1.0]).unwrap();
        let dx = eval(&grad, &[logits(), target, y[1].clone(), y[2].clone(), g]).unwrap();
        near(&dx[0].data, &[0.0, 0.0, 0.25, -0.25]);
        let none = Array::new(&[2], I64, vec![-100.0; 2]).unwrap();
        let y = eval(&op, &[logits(), none]).unwrap();
        assert!(y[0].data[0].is_nan() && y[2].data[0] == 0.0);
    }

    #[test]
    fn targets_out_of_range_are_errors() {
        let op = Op::CrossEntropy { ignore_index: -100, label_smoothing: 0.0 };
        for bad in [2.0, -1.0] {
            let target = Array::new(&[2], I64, vec![0.0, bad]).unwrap();
            assert!(eval(&op, &[logits(), target]).unwrap_err().message.contains("out of bounds"));
        }
    }
}
