//! Scaled-dot-product attention with its adjoint, on separate and on packed operands, and rotary embedding.

use super::rows::log_sum_exp;
use super::{Array, indices};
use crate::dtype::DType;
use crate::infer::Meta;
use crate::op::{AttentionSpec, RopeSpec};
use crate::random::WeightDropout;
use crate::shape::Shape;

/// The scores of one query: `scale q . k_j`, plus or under the mask; -infinity where key `j` is not seen.
///
/// `mask` is the optional fourth operand; head `h` of the queries uses head `h / (heads / kv heads)` of the keys.
fn scores(spec: AttentionSpec, q: &Array, k: &Array, mask: Option<&Array>, at: [usize; 3]) -> Vec<f64> {
    let [b, h, i] = at;
    let (queries, keys, width) = (q.shape[2], k.shape[2], q.shape[3]);
    let kv = h / (q.shape[1] / k.shape[1]);
    let score = |j: usize| {
        // Query i of Sq sees keys up to i + Sk - Sq.
        if spec.causal && j + queries > i + keys {
            return f64::NEG_INFINITY;
        }
        let dot: f64 = (0..width).map(|d| q.at(&[b, h, i, d]) * k.at(&[b, kv, j, d])).sum();
        match mask {
            None => spec.scale * dot,
            Some(m) if m.dtype != DType::Bool => spec.scale * dot + m.at_broadcast(&[b, h, i, j]),
            Some(m) if m.at_broadcast(&[b, h, i, j]) != 0.0 => spec.scale * dot,
            Some(_) => f64::NEG_INFINITY,
        }
    };
    (0..keys).map(score).collect()
}

/// `p_j = e^(score_j - lse)`: the weights of the keys; 0 for all of them where the query sees none.
fn weights(scores: &[f64], lse: f64) -> Vec<f64> {
    scores.iter().map(|s| if *s == f64::NEG_INFINITY { 0.0 } else { (s - lse).exp() }).collect()
}

fn dropout(spec: AttentionSpec, state: Option<&Array>, q: &Array, k: &Array) -> Option<WeightDropout> {
    let state = &state?.data;
    let sizes = [q.shape[1], q.shape[2], k.shape[2]];
    Some(WeightDropout::new(spec.dropout?, [state[0] as i64, state[1] as i64], sizes))
}

/// `o[b, i, h] = sum over j of p_j v[b, kv, j]`, and the log of the sum of the exponentials of the scores.
pub(super) fn forward(spec: AttentionSpec, x: &[Array], out: &[Meta]) -> Vec<Array> {
    let (q, k, v, (mask, state)) = (&x[0], &x[1], &x[2], spec.optional(&x[3..]));
    let dropout = dropout(spec, state, q, k);
    let (mut o, mut lse) = (Array::zeros(out[0]), Array::zeros(out[1]));
    for at in indices(&out[1].shape) {
        let [b, h, i] = at[..] else { unreachable!("lse has three axes") };
        let kv = h / (q.shape[1] / k.shape[1]);
        let scores = scores(spec, q, k, mask, [b, h, i]);
        let log_sum = log_sum_exp(&scores);
        *lse.at_mut(&at) = log_sum;
        for (j, p) in weights(&scores, log_sum).into_iter().enumerate() {
            let p = dropout.map_or(p, |dropout| dropout.apply(p, [b, h, i, j]));
            for d in 0..v.shape[3] {
                *o.at_mut(&[b, i, h, d]) += p * v.at(&[b, kv, j, d]);
            }
        }
    }
    vec![o, lse]
}

/// With `dp_j = g . v_j` and `ds_j = p_j (dp_j - g . o)`, as softmax has it: `dv_j += p_j g`, `dq += scale ds_j k_j`,
/// `dk_j += scale ds_j q`, over all queries of all heads that share the keys. With dropout, `dv_j` has the weight that was
/// left, and `dp_j` what dropout leaves of `g . v_j`; `g . o` is then their weighted mean as before.
pub(super) fn backward(spec: AttentionSpec, x: &[Array]) -> Vec<Array> {
    let (q, k, v, o, lse, g) = (&x[0], &x[1], &x[2], &x[3], &x[4], &x[5]);
    let (mask, state) = spec.optional(&x[6..]);
    let dropout = dropout(spec, state, q, k);
    let mut dq = Array::zeros(q.meta());
    let (mut dk, mut dv) = (Array::zeros(k.meta()), Array::zeros(v.meta()));
    let width = q.shape[3];
    for at in indices(&lse.shape) {
        let [b, h, i] = at[..] else { unreachable!("lse has three axes") };
        let kv = h / (q.shape[1] / k.shape[1]);
        let p = weights(&scores(spec, q, k, mask, [b, h, i]), lse.at(&at));
        let g_dot_o: f64 = (0..width).map(|d| g.at(&[b, i, h, d]) * o.at(&[b, i, h, d])).sum();
        for (j, p) in p.into_iter().enumerate() {
            let dp: f64 = (0..width).map(|d| g.at(&[b, i, h, d]) * v.at(&[b, kv, j, d])).sum();
            let left = |x: f64| dropout.map_or(x, |dropout| dropout.apply(x, [b, h, i, j]));
            let (ds, p) = (p * (left(dp) - g_dot_o), left(p));
            for d in 0..width {
                *dv.at_mut(&[b, kv, j, d]) += p * g.at(&[b, i, h, d]);
                *dq.at_mut(&[b, h, i, d]) += spec.scale * ds * k.at(&[b, kv, j, d]);
                *dk.at_mut(&[b, kv, j, d]) += spec.scale * ds * q.at(&[b, h, i, d]);
            }
        }
    }
    vec![dq, dk, dv]
}

/// Where head `h` of queries, keys or values (0, 1, 2) stands in a packed row: queries, then keys, then values.
fn slot(which: usize, h: usize, heads: usize, kv_heads: usize) -> usize {
    h + [0, heads, heads + kv_heads][which]
}

/// `qkv[b, s, (h + 2 hk) d]` as q, k and v, each `[b, heads, s, d]`.
pub(super) fn unpack(qkv: &Array, heads: usize, kv_heads: usize) -> Vec<Array> {
    let (batch, seq) = (qkv.shape[0], qkv.shape[1]);
    let width = qkv.shape[2] / (heads + 2 * kv_heads);
    let part = |(which, own): (usize, usize)| {
        let shape = Shape::new(&[batch, own, seq, width]).expect("no larger than qkv");
        Array::from_fn(Meta::new(shape, qkv.dtype), |i| {
            qkv.at(&[i[0], i[2], slot(which, i[1], heads, kv_heads) * width + i[3]])
        })
    };
    [heads, kv_heads, kv_heads].into_iter().enumerate().map(part).collect()
}

/// The adjoints of the unpacked operands, packed as the operands were.
pub(super) fn packed_backward(spec: AttentionSpec, heads: usize, kv_heads: usize, x: &[Array]) -> Array {
    let qkv = &x[0];
    let mut operands = unpack(qkv, heads, kv_heads);
    operands.extend_from_slice(&x[1..]);
    let mut dqkv = Array::zeros(qkv.meta());
    for (which, grad) in backward(spec, &operands).iter().enumerate() {
        for (i, &value) in indices(&grad.shape).zip(&grad.data) {
            let at = slot(which, i[1], heads, kv_heads) * grad.shape[3] + i[3];
            *dqkv.at_mut(&[i[0], i[2], at]) = value;
        }
    }
    dqkv
}

/// Pair `i` of the head at position `s` is rotated by `(offset + s) base^(-2i / d)`.
pub(super) fn rope(spec: RopeSpec, x: &Array) -> Array {
    let width = x.shape[3];
    let mut y = x.clone();
    for index in indices(&x.shape) {
        let [b, s, h, pair] = index[..] else { unreachable!("inference asks for four axes") };
        if h >= spec.heads || pair >= width / 2 {
            continue;
        }
        let position = (spec.offset + s) as f64;
        let angle = position * spec.base.powf(-2.0 * pair as f64 / width as f64);
        let angle = if spec.inverse { -angle } else { angle };
        let (first, second) =
            if spec.interleaved { (2 * pair, 2 * pair + 1) } else { (pair, pair + width / 2) };
        let (u, v) = (x.at(&[b, s, h, first]), x.at(&[b, s, h, second]));
        *y.at_mut(&[b, s, h, first]) = u * angle.cos() - v * angle.sin();
        *y.at_mut(&[b, s, h, second]) = u * angle.sin() + v * angle.cos();
    }
    y
}

#[cfg(test)]
mod tests {
    use super::super::{Array, eval};
    use crate::dtype::DType::{Bool, F64, I64};
    use crate::op::{AttentionSpec, DropoutSpec, Op, RopeSpec};

    fn array(dims: &[usize], data: &[f64]) -> Array {
        Array::new(dims, F64, data.to_vec()).unwrap()
    }

    fn near(got: &[f64], want: &[f64]) {
        assert_eq!(got.len(), want.len());
        assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-12), "{got:?} != {want:?}");
    }

    const PLAIN: AttentionSpec = AttentionSpec { causal: false, scale: 1.0, dropout: None };
    const CAUSAL: AttentionSpec = AttentionSpec { causal: true, scale: 1.0, dropout: None };

    /// One head, two queries of width 1, keys 0 and ln 3, values 4 and 8.
    fn qkv() -> Vec<Array> {
        vec![
            array(&[1, 1, 2, 1], &[1.0, 0.0]),
            array(&[1, 1, 2, 1], &[0.0, 3f64.ln()]),
            array(&[1, 1, 2, 1], &[4.0, 8.0]),
        ]
    }

    #[test]
    fn attention_by_hand() {
        let y = eval(&Op::Attention(PLAIN), &qkv()).unwrap();
        near(&y[0].data, &[7.0, 6.0]);
        near(&y[1].data, &[4f64.ln(), 2f64.ln()]);
        let y = eval(&Op::Attention(CAUSAL), &qkv()).unwrap();
        near(&y[0].data, &[4.0, 6.0]);
        let half = AttentionSpec { causal: false, scale: 0.5, dropout: None };
        near(&eval(&Op::Attention(half), &qkv()).unwrap()[1].data, &[(1.0 + 3f64.sqrt()).ln(), 2f64.ln()]);
    }

    #[test]
    fn masks_keep_or_add() {
        let mut x = qkv();
        x.push(Array::new(&[2, 2], Bool, vec![1.0, 0.0, 0.0, 0.0]).unwrap());
        let y = eval(&Op::Attention(PLAIN), &x).unwrap();
        near(&y[0].data, &[4.0, 0.0]);
        assert_eq!(y[1].data[1], f64::NEG_INFINITY);
        x[3] = array(&[2], &[3f64.ln(), f64::NEG_INFINITY]);
        near(&eval(&Op::Attention(PLAIN), &x).unwrap()[0].data, &[4.0, 4.0]);
        x[3] = array(&[1, 1, 1, 2], &[3f64.ln(), 0.0]);
        near(&eval(&Op::Attention(PLAIN), &x).unwrap()[0].data, &[6.0, 5.0]);
    }

    #[test]
    fn causal_aligns_the_last_query_with_the_last_key() {
        // Three queries, one key: the first two see nothing.
        let q = array(&[1, 1, 3, 1], &[1.0; 3]);
        let (k, v) = (array(&[1, 1, 1, 1], &[1.0]), array(&[1, 1, 1, 1], &[5.0]));
        near(&eval(&Op::Attention(CAUSAL), &[q, k, v]).unwrap()[0].data, &[0.0, 0.0, 5.0]);
    }

    #[test]
    fn grouped_heads_share_keys() {
        let q = array(&[1, 4, 1, 1], &[1.0; 4]);
        let k = array(&[1, 2, 1, 1], &[0.0, 0.0]);
        let v = array(&[1, 2, 1, 1], &[3.0, 9.0]);
        near(&eval(&Op::Attention(PLAIN), &[q, k, v]).unwrap()[0].data, &[3.0, 3.0, 9.0, 9.0]);
    }

    /// The adjoint against central differences of the forward op.
    fn check_gradient(forward: &Op, backward: &Op, x: &[Array], differentiable: usize) {
        let y = eval(forward, x).unwrap();
        let g = Array { data: (0..y[0].data.len()).map(|i| (i as f64).sin()).collect(), ..y[0].clone() };
        let mut operands = x[..differentiable].to_vec();
        operands.extend([y[0].clone(), y[1].clone(), g.clone()]);
        operands.extend_from_slice(&x[differentiable..]);
        let grads = eval(backward, &operands).unwrap();
        for n in 0..differentiable {
            for e in 0..x[n].data.len() {
                let at = |d: f64| {
                    let mut x = x.to_vec();
                    x[n].data[e] += d;
                    let y = eval(forward, &x).unwrap();
                    y[0].data.iter().zip(&g.data).map(|(y, g)| y * g).sum::<f64>()
                };
                let want = (at(1e-6) - at(-1e-6)) / 2e-6;
                assert!((grads[n].data[e] - want).abs() < 1e-8, "operand {n}, element {e}");
            }
        }
    }

    fn wave(dims: &[usize], phase: f64) -> Array {
        let n = dims.iter().product::<usize>();
        array(dims, &(0..n).map(|i| (i as f64 * 0.7 + phase).sin()).collect::<Vec<_>>())
    }

    #[test]
    fn attention_grad_matches_differences() {
        let spec = AttentionSpec { causal: true, scale: 0.6, dropout: None };
        let mut x = vec![wave(&[1, 4, 3, 2], 0.0), wave(&[1, 2, 5, 2], 1.0), wave(&[1, 2, 5, 2], 2.0)];
        check_gradient(&Op::Attention(spec), &Op::AttentionGrad(spec), &x, 3);
        let keep = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        x.push(Array::new(&[3, 5], Bool, keep.to_vec()).unwrap());
        check_gradient(&Op::Attention(PLAIN), &Op::AttentionGrad(PLAIN), &x, 3);
    }

    #[test]
    fn attention_grad_with_dropout_matches_differences() {
        let dropout = Some(DropoutSpec { p: 0.4, stream: 7 });
        let spec = AttentionSpec { causal: true, scale: 0.6, dropout };
        let mut x = vec![wave(&[1, 4, 3, 2], 0.0), wave(&[1, 2, 5, 2], 1.0), wave(&[1, 2, 5, 2], 2.0)];
        x.push(Array::new(&[2], I64, vec![5.0, 3.0]).unwrap());
        let without = AttentionSpec { dropout: None, ..spec };
        assert_ne!(eval(&Op::Attention(spec), &x).unwrap(), eval(&Op::Attention(without), &x[..3]).unwrap());
        check_gradient(&Op::Attention(spec), &Op::AttentionGrad(spec), &x, 3);
        x.insert(3, wave(&[3, 5], 3.0));
        check_gradient(&Op::Attention(spec), &Op::AttentionGrad(spec), &x, 3);
    }

    #[test]
    fn packed_is_attention_on_slices() {
        let qkv = array(&[1, 2, 3], &[1.0, 0.0, 4.0, 0.0, 3f64.ln(), 8.0]);
        let forward = Op::AttentionPacked { spec: PLAIN, heads: 1, kv_heads: 1 };
        near(&eval(&forward, &[qkv]).unwrap()[0].data, &[7.0, 6.0]);
        let forward = Op::AttentionPacked { spec: CAUSAL, heads: 4, kv_heads: 2 };
        let backward = Op::AttentionPackedGrad { spec: CAUSAL, heads: 4, kv_heads: 2 };
        check_gradient(&forward, &backward, &[wave(&[2, 3, 16], 0.3)], 1);
    }

    #[test]
    fn attention_without_keys_or_queries() {
        let none = array(&[1, 1, 0, 2], &[]);
        let some = array(&[1, 1, 2, 2], &[1.0; 4]);
        let y = eval(&Op::Attention(PLAIN), &[some.clone(), none.clone(), none.clone()]).unwrap();
        assert_eq!((&y[0].data[..], &y[1].data[..]), (&[0.0; 4][..], &[f64::NEG_INFINITY; 2][..]));
        assert!(eval(&Op::Attention(PLAIN), &[none, some.clone(), some]).unwrap()[0].data.is_empty());
    }

    #[test]
    fn rope_by_hand() {
        // Width 4, base 4: pair 0 turns by the position, pair 1 by half of it.
        let x = array(&[1, 2, 1, 4], &[1.0, 2.0, 3.0, 4.0, 1.0, 0.0, 0.0, 1.0]);
        let spec = RopeSpec { base: 4.0, offset: 0, interleaved: true, heads: 1, inverse: false };
        let (c, s, ch, sh) = (1f64.cos(), 1f64.sin(), 0.5f64.cos(), 0.5f64.sin());
        let y = eval(&Op::Rope(spec), std::slice::from_ref(&x)).unwrap();
        near(&y[0].data, &[1.0, 2.0, 3.0, 4.0, c, s, -sh, ch]);
        let halves = RopeSpec { interleaved: false, ..spec };
        let y = eval(&Op::Rope(halves), std::slice::from_ref(&x)).unwrap();
        near(&y[0].data, &[1.0, 2.0, 3.0, 4.0, c, -sh, s, ch]);
        let back = RopeSpec { inverse: true, ..halves };
        near(&eval(&Op::Rope(back), &y).unwrap()[0].data, &x.data);
        let none = RopeSpec { heads: 0, offset: 3, ..spec };
        near(&eval(&Op::Rope(none), std::slice::from_ref(&x)).unwrap()[0].data, &x.data);
    }
}
