//! One-dimensional convolution (cross-correlation) and its adjoints.
//!
//! All three walk the same products: output `t` of channel `o` meets input `t * stride + tap * dilation - padding` of
//! channel `i` of its group.

use super::{Array, indices};
use crate::infer::Meta;
use crate::op::ConvSpec;

/// Where a tap of output `t` reads in an input of this length; `None` in the padding.
fn source(spec: ConvSpec, t: usize, tap: usize, length: usize) -> Option<usize> {
    (t * spec.stride + tap * spec.dilation).checked_sub(spec.padding).filter(|&l| l < length)
}

/// The input channel that tap channel `i` of output channel `o` reads.
fn channel(o: usize, i: usize, channels_out: usize, per_group: usize, groups: usize) -> usize {
    o / (channels_out / groups) * per_group + i
}

/// `y[n, o, t] = b[o] + sum over i, tap of w[o, i, tap] x[n, channel, source]`.
pub(super) fn forward(spec: ConvSpec, x: &[Array], out: Meta) -> Array {
    let (input, w, bias) = (&x[0], &x[1], x.get(2));
    let [co, per_group, taps] = w.shape[..] else { unreachable!("inference asks for three axes") };
    Array::from_fn(out, |index| {
        let [n, o, t] = index[..] else { unreachable!("the result has three axes") };
        let mut sum = bias.map_or(0.0, |b| b.at(&[o]));
        for i in 0..per_group {
            for tap in 0..taps {
                if let Some(l) = source(spec, t, tap, input.shape[2]) {
                    sum += w.at(&[o, i, tap]) * input.at(&[n, channel(o, i, co, per_group, spec.groups), l]);
                }
            }
        }
        sum
    })
}

/// `dx[n, channel, source] += w[o, i, tap] g[n, o, t]`, over every product of the forward op.
pub(super) fn grad_input(spec: ConvSpec, w: &Array, g: &Array, out: Meta) -> Array {
    let [co, per_group, taps] = w.shape[..] else { unreachable!("inference asks for three axes") };
    let mut dx = Array::zeros(out);
    for index in indices(&g.shape) {
        let [n, o, t] = index[..] else { unreachable!("the gradient has three axes") };
        for i in 0..per_group {
            for tap in 0..taps {
                if let Some(l) = source(spec, t, tap, out.shape[2]) {
                    let c = channel(o, i, co, per_group, spec.groups);
                    *dx.at_mut(&[n, c, l]) += w.at(&[o, i, tap]) * g.at(&index);
                }
            }
        }
    }
    dx
}

/// `dw[o, i, tap] += x[n, channel, source] g[n, o, t]`, over every product of the forward op.
pub(super) fn grad_weight(spec: ConvSpec, x: &Array, g: &Array, out: Meta) -> Array {
    let [co, per_group, taps] = out.shape[..] else { unreachable!("a weight has three axes") };
    let mut dw = Array::zeros(out);
    for index in indices(&g.shape) {
        let [n, o, t] = index[..] else { unreachable!("the gradient has three axes") };
        for i in 0..per_group {
            for tap in 0..taps {
                if let Some(l) = source(spec, t, tap, x.shape[2]) {
                    let c = channel(o, i, co, per_group, spec.groups);
                    *dw.at_mut(&[o, i, tap]) += x.at(&[n, c, l]) * g.at(&index);
                }
            }
        }
    }
    dw
}

#[cfg(test)]
mod tests {
    use super::super::{Array, eval};
    use crate::dtype::DType::F64;
    use crate::op::{ConvSpec, Op};

    fn array(dims: &[usize], data: &[f64]) -> Array {
        Array::new(dims, F64, data.to_vec()).unwrap()
    }

    const PLAIN: ConvSpec = ConvSpec { stride: 1, padding: 0, dilation: 1, groups: 1 };

    #[test]
    fn forward_by_hand() {
        let x = array(&[1, 1, 4], &[1.0, 2.0, 3.0, 4.0]);
        let w = array(&[1, 1, 2], &[1.0, 10.0]);
        let conv = |spec, operands: &[Array]| eval(&Op::Conv1d(spec), operands).unwrap()[0].data.clone();
        assert_eq!(conv(PLAIN, &[x.clone(), w.clone()]), [21.0, 32.0, 43.0]);
        assert_eq!(conv(PLAIN, &[x.clone(), w.clone(), array(&[1], &[0.5])]), [21.5, 32.5, 43.5]);
        let padded = ConvSpec { padding: 1, stride: 2, ..PLAIN };
        assert_eq!(conv(padded, &[x.clone(), w.clone()]), [10.0, 32.0, 4.0]);
        let dilated = ConvSpec { dilation: 3, ..PLAIN };
        assert_eq!(conv(dilated, &[x, w]), [41.0]);
    }

    #[test]
    fn groups_do_not_mix() {
        let x = array(&[1, 2, 2], &[1.0, 2.0, 3.0, 4.0]);
        let w = array(&[2, 1, 1], &[10.0, 100.0]);
        let spec = ConvSpec { groups: 2, ..PLAIN };
        assert_eq!(eval(&Op::Conv1d(spec), &[x, w]).unwrap()[0].data, [10.0, 20.0, 300.0, 400.0]);
    }

    #[test]
    fn adjoints_by_hand() {
        let x = array(&[1, 1, 3], &[1.0, 2.0, 3.0]);
        let w = array(&[1, 1, 2], &[1.0, 10.0]);
        let g = array(&[1, 1, 2], &[1.0, 2.0]);
        let dx = eval(&Op::Conv1dGradInput { spec: PLAIN, length: 3 }, &[w, g.clone()]).unwrap();
        assert_eq!(dx[0].data, [1.0, 12.0, 20.0]);
        let dw = eval(&Op::Conv1dGradWeight { spec: PLAIN, taps: 2 }, &[x, g]).unwrap();
        assert_eq!(dw[0].data, [5.0, 8.0]);
    }

    /// `<conv(x, w), g> = <x, grad_input(w, g)> = <w, grad_weight(x, g)>`, since it is linear in each.
    #[test]
    fn adjoints_are_adjoint() {
        let wave = |dims: &[usize], step: f64| {
            let n = dims.iter().product::<usize>();
            array(dims, &(0..n).map(|i| (i as f64 * step).sin()).collect::<Vec<_>>())
        };
        let dot = |a: &Array, b: &Array| a.data.iter().zip(&b.data).map(|(a, b)| a * b).sum::<f64>();
        let spec = ConvSpec { stride: 2, padding: 2, dilation: 2, groups: 2 };
        let (x, w) = (wave(&[2, 4, 9], 0.7), wave(&[6, 2, 3], 0.3));
        let y = eval(&Op::Conv1d(spec), &[x.clone(), w.clone()]).unwrap().remove(0);
        let g = wave(&y.shape, 1.1);
        let dx = eval(&Op::Conv1dGradInput { spec, length: 9 }, &[w.clone(), g.clone()]).unwrap().remove(0);
        let dw = eval(&Op::Conv1dGradWeight { spec, taps: 3 }, &[x.clone(), g.clone()]).unwrap().remove(0);
        assert!((dot(&y, &g) - dot(&x, &dx)).abs() < 1e-12);
        assert!((dot(&y, &g) - dot(&w, &dw)).abs() < 1e-12);
    }

    #[test]
    fn empty_batches() {
        let (x, w) = (array(&[0, 1, 4], &[]), array(&[1, 1, 2], &[1.0, 1.0]));
        assert!(eval(&Op::Conv1d(PLAIN), &[x.clone(), w]).unwrap()[0].data.is_empty());
        let g = array(&[0, 1, 3], &[]);
        assert_eq!(
            eval(&Op::Conv1dGradWeight { spec: PLAIN, taps: 2 }, &[x, g]).unwrap()[0].data,
            [0.0, 0.0]
        );
    }
}
