//! Functions of whole rows (the last axis): softmax and the normalisations, with their adjoints.

use super::{Array, sum};
use crate::infer::Meta;

/// The rows of an array: its last axis, of length `row_len`.
fn rows(x: &Array) -> impl Iterator<Item = &[f64]> {
    // Rows of no elements are not visited; there is nothing of them to compute in the ops that use this.
    x.data.chunks_exact(row_len(x).max(1))
}

fn row_len(x: &Array) -> usize {
    *x.shape.last().expect("inference asks for an axis")
}

/// How many rows there are, those without elements included.
fn row_count(x: &Array) -> usize {
    x.shape[..x.shape.rank() - 1].iter().product()
}

/// Row `r`.
fn row(x: &Array, r: usize) -> &[f64] {
    let n = row_len(x);
    &x.data[r * n..(r + 1) * n]
}

fn like(x: &Array, data: Vec<f64>) -> Array {
    Array { data, ..x.clone() }
}

fn of(meta: Meta, data: Vec<f64>) -> Array {
    Array { shape: meta.shape, dtype: meta.dtype, data }
}

/// The largest element; -infinity of nothing.
fn largest(x: &[f64]) -> f64 {
    x.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

/// `log(sum(e^x))`, with the largest element taken out so that nothing overflows; -infinity of nothing.
pub(super) fn log_sum_exp(x: &[f64]) -> f64 {
    let top = largest(x);
    if top == f64::NEG_INFINITY {
        return top;
    }
    top + sum(x.iter().map(|v| (v - top).exp())).ln()
}

/// `y_i = e^(x_i) / sum over j of e^(x_j)`, both with the largest element taken out.
pub(super) fn softmax(x: &Array) -> Array {
    let row = |x: &[f64]| {
        let top = largest(x);
        let total = sum(x.iter().map(|v| (v - top).exp()));
        x.iter().map(|v| (v - top).exp() / total).collect::<Vec<_>>()
    };
    like(x, rows(x).flat_map(row).collect())
}

/// `dx_i = y_i (g_i - sum over j of g_j y_j)`.
pub(super) fn softmax_grad(y: &Array, g: &Array) -> Array {
    let row = |(y, g): (&[f64], &[f64])| {
        let dot = sum(y.iter().zip(g).map(|(y, g)| y * g));
        y.iter().zip(g).map(|(y, g)| y * (g - dot)).collect::<Vec<_>>()
    };
    like(y, rows(y).zip(rows(g)).flat_map(row).collect())
}

/// `y_i = x_i - log(sum over j of e^(x_j))`, with the largest element taken out of both.
pub(super) fn log_softmax(x: &Array) -> Array {
    let row = |x: &[f64]| {
        let top = largest(x);
        let log_total = sum(x.iter().map(|v| (v - top).exp())).ln();
        x.iter().map(|v| (v - top) - log_total).collect::<Vec<_>>()
    };
    like(x, rows(x).flat_map(row).collect())
}

/// `dx_i = g_i - e^(y_i) sum over j of g_j`.
pub(super) fn log_softmax_grad(y: &Array, g: &Array) -> Array {
    let row = |(y, g): (&[f64], &[f64])| {
        let total = sum(g.iter().copied());
        y.iter().zip(g).map(|(y, g)| g - y.exp() * total).collect::<Vec<_>>()
    };
    like(y, rows(y).zip(rows(g)).flat_map(row).collect())
}

/// `y = (x - mean) rstd w + b`, `rstd = 1 / sqrt(variance + eps)`, with the population's variance.
pub(super) fn layer_norm(eps: f64, x: &[Array], out: &[Meta]) -> Vec<Array> {
    let (input, weight, bias) = (&x[0], x.get(1), x.get(2));
    let (mut y, mut means, mut rstds) = (Vec::new(), Vec::new(), Vec::new());
    for r in 0..row_count(input) {
        let x = row(input, r);
        let n = x.len() as f64;
        let mean = sum(x.iter().copied()) / n;
        let variance = sum(x.iter().map(|v| (v - mean) * (v - mean))) / n;
        let rstd = 1.0 / (variance + eps).sqrt();
        for (i, v) in x.iter().enumerate() {
            y.push((v - mean) * rstd * weight.map_or(1.0, |w| w.data[i]) + bias.map_or(0.0, |b| b.data[i]));
        }
        means.push(mean);
        rstds.push(rstd);
    }
    vec![of(out[0], y), of(out[1], means), of(out[2], rstds)]
}

/// What errors of layer normalisation are measured against: `(|x| + |mean|) rstd |w| + |b|`, `|mean|` and `rstd`.
pub(super) fn layer_norm_magnitudes(
    operands: &[Array],
    mean: &Array,
    rstd: &Array,
    results: &[Array],
) -> Vec<Array> {
    let n = row_len(&operands[0]);
    let parameter = |which: usize, i: usize| operands.get(which).map(|p| p.data[i % n].abs());
    let scale = |(i, x): (usize, &f64)| {
        let magnified = (x.abs() + mean.data[i / n].abs()) * rstd.data[i / n];
        magnified * parameter(1, i).unwrap_or(1.0) + parameter(2, i).unwrap_or(0.0)
    };
    let y = operands[0].data.iter().enumerate().map(scale).collect();
    vec![like(&results[0], y), like(mean, mean.data.iter().map(|m| m.abs()).collect()), rstd.clone()]
}

/// With `h = (x - mean) rstd` and `d = g w`: `dx = rstd (d - mean(d) - h mean(d h))`, and over the rows
/// `dw = sum(g h)`, `db = sum(g)`.
pub(super) fn layer_norm_grad(x: &[Array], out: &[Meta]) -> Vec<Array> {
    let (input, mean, rstd, g, weight) = (&x[0], &x[1], &x[2], &x[3], x.get(4));
    let n = row_len(input);
    let (mut dx, mut dw, mut db) = (Vec::new(), vec![0.0; n], vec![0.0; n]);
    for r in 0..row_count(input) {
        let (x, g) = (row(input, r), row(g, r));
        let h: Vec<f64> = x.iter().map(|v| (v - mean.data[r]) * rstd.data[r]).collect();
        let d: Vec<f64> = (0..n).map(|i| g[i] * weight.map_or(1.0, |w| w.data[i])).collect();
        let mean_d = sum(d.iter().copied()) / n as f64;
        let mean_dh = sum((0..n).map(|i| d[i] * h[i])) / n as f64;
        for i in 0..n {
            dx.push(rstd.data[r] * (d[i] - mean_d - h[i] * mean_dh));
            dw[i] += g[i] * h[i];
            db[i] += g[i];
        }
    }
    let mut results = vec![of(out[0], dx)];
    if weight.is_some() {
        results.extend([of(out[1], dw), of(out[2], db)]);
    }
    results
}

/// `y = x rstd w`, `rstd = 1 / sqrt(mean(x^2) + eps)`.
pub(super) fn rms_norm(eps: f64, x: &[Array], out: &[Meta]) -> Vec<Array> {
    let (input, weight) = (&x[0], x.get(1));
    let (mut y, mut rstds) = (Vec::new(), Vec::new());
    for r in 0..row_count(input) {
        let x = row(input, r);
        let mean_square = sum(x.iter().map(|v| v * v)) / x.len() as f64;
        let rstd = 1.0 / (mean_square + eps).sqrt();
        for (i, v) in x.iter().enumerate() {
            y.push(v * rstd * weight.map_or(1.0, |w| w.data[i]));
        }
        rstds.push(rstd);
    }
    vec![of(out[0], y), of(out[1], rstds)]
}

/// With `h = x rstd` and `d = g w`: `dx = rstd (d - h mean(d h))`, and over the rows `dw = sum(g h)`.
pub(super) fn rms_norm_grad(x: &[Array], out: &[Meta]) -> Vec<Array> {
    let (input, rstd, g, weight) = (&x[0], &x[1], &x[2], x.get(3));
    let n = row_len(input);
    let (mut dx, mut dw) = (Vec::new(), vec![0.0; n]);
    for r in 0..row_count(input) {
        let (x, g) = (row(input, r), row(g, r));
        let h: Vec<f64> = x.iter().map(|v| v * rstd.data[r]).collect();
        let d: Vec<f64> = (0..n).map(|i| g[i] * weight.map_or(1.0, |w| w.data[i])).collect();
        let mean_dh = sum((0..n).map(|i| d[i] * h[i])) / n as f64;
        for i in 0..n {
            dx.push(rstd.data[r] * (d[i] - h[i] * mean_dh));
            dw[i] += g[i] * h[i];
        }
    }
    let mut results = vec![of(out[0], dx)];
    if weight.is_some() {
        results.push(of(out[1], dw));
    }
    results
}

/// `s = x + r`, and the norm of it, rounded to its dtype: where a row is nearly constant its norm magnifies what is
/// rounded off, and the adjoint, which reads `s`, must see the same.
pub(super) fn add_norm(rms: bool, eps: f64, x: &[Array], out: &[Meta]) -> Vec<Array> {
    let sum = of(out[1], x[0].data.iter().zip(&x[1].data).map(|(x, r)| x + r).collect()).rounded();
    let operands = [&[sum.clone()][..], &x[2..]].concat();
    let metas = [&out[..1], &out[2..]].concat();
    let norm = if rms { rms_norm } else { layer_norm };
    let mut results = norm(eps, &operands, &metas);
    results.insert(1, sum);
    results
}

/// The adjoint of the norm at `s`, with `gs` added to `ds`.
pub(super) fn add_norm_grad(rms: bool, x: &[Array], out: &[Meta]) -> Vec<Array> {
    let at = if rms { 3 } else { 4 };
    let operands = [&x[..at], &x[at + 1..]].concat();
    let mut results = if rms { rms_norm_grad(&operands, out) } else { layer_norm_grad(&operands, out) };
    results[0].data.iter_mut().zip(&x[at].data).for_each(|(d, g)| *d += g);
    results
}

/// `db_i` is the sum over all rows `r` of `g_ri`.
pub(super) fn column_sums(g: &Array, out: Meta) -> Array {
    let n = row_len(g);
    of(out, (0..n).map(|i| sum((0..row_count(g)).map(|r| row(g, r)[i]))).collect())
}

#[cfg(test)]
mod tests {
    use super::super::{Array, eval};
    use crate::dtype::DType::F64;
    use crate::op::Op;

    fn array(dims: &[usize], data: &[f64]) -> Array {
        Array::new(dims, F64, data.to_vec()).unwrap()
    }

    fn near(got: &[f64], want: &[f64]) {
        assert_eq!(got.len(), want.len());
        assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-12), "{got:?} != {want:?}");
    }

    #[test]
    fn softmax_by_hand() {
        let x = array(&[2, 2], &[0.0, 3f64.ln(), 1000.0, 1000.0]);
        let y = eval(&Op::Softmax, std::slice::from_ref(&x)).unwrap().remove(0);
        near(&y.data, &[0.25, 0.75, 0.5, 0.5]);
        let log = eval(&Op::LogSoftmax, &[x]).unwrap().remove(0);
        near(&log.data, &[0.25f64.ln(), 0.75f64.ln(), 0.5f64.ln(), 0.5f64.ln()]);
        // sum(g y) = 0.25 and 3; sum(g) = 1 and 6.
        let g = array(&[2, 2], &[1.0, 0.0, 2.0, 4.0]);
        near(&eval(&Op::SoftmaxGrad, &[y, g.clone()]).unwrap()[0].data, &[0.1875, -0.1875, -0.5, 0.5]);
        near(&eval(&Op::LogSoftmaxGrad, &[log, g]).unwrap()[0].data, &[0.75, -0.75, -1.0, 1.0]);
        for dims in [&[0, 3][..], &[3, 0]] {
            assert!(eval(&Op::Softmax, &[array(dims, &[])]).unwrap()[0].data.is_empty());
        }
    }

    #[test]
    fn layer_norm_by_hand() {
        // Mean 2, variance 1.
        let x = array(&[1, 2], &[1.0, 3.0]);
        let (w, b) = (array(&[2], &[2.0, 4.0]), array(&[2], &[0.5, 0.0]));
        let y = eval(&Op::LayerNorm { eps: 0.0 }, &[x.clone(), w.clone(), b]).unwrap();
        near(&y[0].data, &[-1.5, 4.0]);
        near(&[y[1].data[0], y[2].data[0]], &[2.0, 1.0]);
        // h = (-1, 1), d = (2, 0): mean(d) = 1, mean(d h) = -1, so dx = d - 1 + h = (0, 0).
        let g = array(&[1, 2], &[1.0, 0.0]);
        let grads = eval(&Op::LayerNormGrad, &[x, y[1].clone(), y[2].clone(), g, w]).unwrap();
        near(&grads[0].data, &[0.0, 0.0]);
        near(&grads[1].data, &[-1.0, 0.0]);
        near(&grads[2].data, &[1.0, 0.0]);
    }

    #[test]
    fn rms_norm_by_hand() {
        // Mean square 12.5; with as much eps, rstd is 1/5.
        let x = array(&[1, 2], &[3.0, 4.0]);
        let y = eval(&Op::RmsNorm { eps: 12.5 }, &[x.clone(), array(&[2], &[1.0, 10.0])]).unwrap();
        near(&y[0].data, &[0.6, 8.0]);
        near(&y[1].data, &[0.2]);
        // h = (0.6, 0.8), d = (1, 0): mean(d h) = 0.3, dx = 0.2 ((1, 0) - 0.3 h).
        let g = array(&[1, 2], &[1.0, 0.0]);
        let grads = eval(&Op::RmsNormGrad, &[x, y[1].clone(), g, array(&[2], &[1.0, 7.0])]).unwrap();
        near(&grads[0].data, &[0.2 * (1.0 - 0.18), -0.2 * 0.24]);
        near(&grads[1].data, &[0.6, 0.0]);
    }

    #[test]
    fn norms_of_nothing() {
        let none = array(&[0, 3], &[]);
        let w = array(&[3], &[1.0; 3]);
        let y = eval(&Op::LayerNorm { eps: 1e-5 }, &[none.clone(), w.clone(), w.clone()]).unwrap();
        assert!(y.iter().all(|a| a.data.is_empty()));
        let grads =
            eval(&Op::LayerNormGrad, &[none.clone(), y[1].clone(), y[2].clone(), none.clone(), w.clone()])
                .unwrap();
        assert_eq!(grads[1].data, [0.0; 3]);
        let y = eval(&Op::RmsNorm { eps: 1e-5 }, &[none.clone(), w.clone()]).unwrap();
        let grads = eval(&Op::RmsNormGrad, &[none.clone(), y[1].clone(), none, w]).unwrap();
        assert_eq!(grads[1].data, [0.0; 3]);
    }
}
