//! Matrix products.

use super::{Array, sum};
use crate::infer::Meta;
use crate::op::Activation;

/// `c[.., i, j] = sum over p of a[.., i, p] * b[.., p, j]`; the leading axes broadcast.
pub(super) fn matmul(a: &Array, b: &Array, out: Meta) -> Array {
    let inner = a.shape[a.shape.rank() - 1];
    Array::from_fn(out, |index| {
        let (lead, ij) = index.split_at(index.len() - 2);
        sum((0..inner).map(|p| at(a, lead, ij[0], p) * at(b, lead, p, ij[1])))
    })
}

/// Element `(row, col)` of the matrix that the broadcast leading index `lead` names.
fn at(x: &Array, lead: &[usize], row: usize, col: usize) -> f64 {
    let own = x.shape.rank() - 2;
    let lead = &lead[lead.len() - own..];
    let mut index: Vec<usize> =
        lead.iter().zip(&x.shape[..]).map(|(&i, &d)| if d == 1 { 0 } else { i }).collect();
    index.extend([row, col]);
    x.at(&index)
}

/// `y[.., j] = activation(pre)`, `pre[.., j] = b[j] + sum over p of x[.., p] * w[j, p]`.
pub(super) fn linear(activation: Activation, x: &[Array], out: Meta) -> Vec<Array> {
    let (input, weight, bias) = (&x[0], &x[1], x.get(2));
    let pre = Array::from_fn(out, |index| {
        let (&j, lead) = index.split_last().expect("a row has an axis");
        let term = |p| input.at(&[lead, &[p]].concat()) * weight.at(&[j, p]);
        sum((0..weight.shape[1]).map(term)) + bias.map_or(0.0, |b| b.at(&[j]))
    });
    match activation.map() {
        None => vec![pre],
        Some(map) => {
            let forward = &map.exprs().forward;
            let y = Array { data: pre.data.iter().map(|&v| forward.eval(&[v])).collect(), ..pre.clone() };
            vec![y, pre]
        }
    }
}

/// `dw[j, i] = sum over rows of g[.., j] * x[.., i]`.
pub(super) fn weight_grad(g: &Array, x: &Array, out: Meta) -> Array {
    let (outputs, inputs) = (out.shape[0], out.shape[1]);
    Array::from_fn(out, |index| {
        let terms = g.data.chunks(outputs).zip(x.data.chunks(inputs));
        sum(terms.map(|(g, x)| g[index[0]] * x[index[1]]))
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Array, eval};
    use crate::dtype::DType::{F64, I32};
    use crate::op::{Activation, Op};

    fn array(dims: &[usize], data: &[f64]) -> Array {
        Array::new(dims, F64, data.to_vec()).unwrap()
    }

    #[test]
    fn matmul_by_hand() {
        let a = array(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let b = array(&[3, 2], &[1.0, 0.0, 0.0, 1.0, 2.0, 2.0]);
        assert_eq!(eval(&Op::MatMul, &[a, b]).unwrap()[0].data, [7.0, 8.0, 16.0, 17.0]);
    }

    #[test]
    fn matmul_broadcasts_leading_axes() {
        let a = array(&[2, 1, 1, 1], &[2.0, 3.0]);
        let b = array(&[3, 1, 1], &[1.0, 10.0, 100.0]);
        let c = &eval(&Op::MatMul, &[a, b]).unwrap()[0];
        assert_eq!(&c.shape[..], [2, 3, 1, 1]);
        assert_eq!(c.data, [2.0, 20.0, 200.0, 3.0, 30.0, 300.0]);
    }

    #[test]
    fn matmul_of_nothing_is_zero_and_integers_wrap() {
        let c = &eval(&Op::MatMul, &[array(&[2, 0], &[]), array(&[0, 1], &[])]).unwrap()[0];
        assert_eq!(c.data, [0.0, 0.0]);
        assert!(
            eval(&Op::MatMul, &[array(&[0, 2], &[]), array(&[2, 1], &[1.0, 1.0])]).unwrap()[0]
                .data
                .is_empty()
        );
        let big = Array::new(&[1, 1], I32, vec![65536.0]).unwrap();
        assert_eq!(eval(&Op::MatMul, &[big.clone(), big]).unwrap()[0].data, [0.0]);
    }

    #[test]
    fn linear_by_hand() {
        let x = array(&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
        let w = array(&[1, 2], &[1.0, -1.0]);
        let plain = Op::Linear { activation: Activation::Identity };
        assert_eq!(eval(&plain, &[x.clone(), w.clone()]).unwrap()[0].data, [-1.0, -1.0]);
        let relu = Op::Linear { activation: Activation::Relu };
        let y = eval(&relu, &[x, w, array(&[1], &[3.0])]).unwrap();
        assert_eq!((&y[0].data[..], &y[1].data[..]), (&[2.0, 2.0][..], &[2.0, 2.0][..]));
    }
}
