//! Ops that move elements: by index tensors, by joining, by padding.

use super::{Array, indices};
use crate::error::{Error, Result};
use crate::infer::Meta;

/// The index that an index tensor holds, checked against the axis that it indexes.
fn checked(index: f64, axis: usize, len: usize) -> Result<usize> {
    if index >= 0.0 && index < len as f64 {
        return Ok(index as usize);
    }
    Err(Error::index(format!("index {index} is out of bounds for axis {axis} with size {len}")))
}

/// `index` with its entry for `axis` replaced.
fn with(index: &[usize], axis: usize, i: usize) -> Vec<usize> {
    let mut index = index.to_vec();
    index[axis] = i;
    index
}

/// As [`Array::from_fn`], of a function that may fail.
fn try_from_fn(meta: Meta, mut value: impl FnMut(&[usize]) -> Result<f64>) -> Result<Array> {
    let data = indices(&meta.shape).map(|i| value(&i)).collect::<Result<_>>()?;
    Ok(Array { shape: meta.shape, dtype: meta.dtype, data })
}

/// `y[.., j] = table[i[..], j]`.
pub(super) fn embedding(table: &Array, i: &Array, out: Meta) -> Result<Array> {
    try_from_fn(out, |index| {
        let (&j, lead) = index.split_last().expect("a row has an axis");
        Ok(table.at(&[checked(i.at(lead), 0, table.shape[0])?, j]))
    })
}

/// `dtable[v, j] = sum of g[.., j] where i[..] = v`.
pub(super) fn embedding_grad(i: &Array, g: &Array, out: Meta) -> Result<Array> {
    let mut dtable = Array::zeros(out);
    for index in indices(&g.shape) {
        let (&j, lead) = index.split_last().expect("a row has an axis");
        let v = checked(i.at(lead), 0, out.shape[0])?;
        *dtable.at_mut(&[v, j]) += g.at(&index);
    }
    Ok(dtable)
}

/// `y[.., j, ..] = x[.., i[.., j, ..], ..]` along `axis`.
pub(super) fn gather(axis: usize, x: &Array, i: &Array, out: Meta) -> Result<Array> {
    try_from_fn(out, |index| {
        let from = checked(i.at(index), axis, x.shape[axis])?;
        Ok(x.at(&with(index, axis, from)))
    })
}

/// `y = x`, then `y[.., i[.., j, ..], ..] += s[.., j, ..]` along `axis`.
pub(super) fn scatter_add(axis: usize, x: &Array, i: &Array, s: &Array) -> Result<Array> {
    let mut y = x.clone();
    for index in indices(&s.shape) {
        let to = checked(i.at(&index), axis, x.shape[axis])?;
        *y.at_mut(&with(&index, axis, to)) += s.at(&index);
    }
    Ok(y)
}

/// `y[.., j, ..] = x[.., i[j], ..]` along `axis`.
pub(super) fn index_select(axis: usize, x: &Array, i: &Array, out: Meta) -> Result<Array> {
    try_from_fn(out, |index| {
        let from = checked(i.at(&[index[axis]]), axis, x.shape[axis])?;
        Ok(x.at(&with(index, axis, from)))
    })
}

/// `y = x`, then `y[.., i[j], ..] += s[.., j, ..]` along `axis`.
pub(super) fn index_add(axis: usize, x: &Array, i: &Array, s: &Array) -> Result<Array> {
    let mut y = x.clone();
    for index in indices(&s.shape) {
        let to = checked(i.at(&[index[axis]]), axis, x.shape[axis])?;
        *y.at_mut(&with(&index, axis, to)) += s.at(&index);
    }
    Ok(y)
}

/// One after the other along `axis`.
pub(super) fn concat(axis: usize, x: &[Array], out: Meta) -> Array {
    Array::from_fn(out, |index| {
        let mut at = index[axis];
        for part in x {
            if at < part.shape[axis] {
                return part.at(&with(index, axis, at));
            }
            at -= part.shape[axis];
        }
        unreachable!("the result is as long as its parts")
    })
}

/// `x` in the middle, `value` around it.
pub(super) fn pad(widths: &[(usize, usize)], value: f64, x: &Array, out: Meta) -> Array {
    Array::from_fn(out, |index| {
        let inner: Option<Vec<usize>> = (0..index.len())
            .map(|axis| index[axis].checked_sub(widths[axis].0).filter(|&i| i < x.shape[axis]))
            .collect();
        inner.map_or(value, |index| x.at(&index))
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Array, eval};
    use crate::dtype::DType::{F32, I64};
    use crate::error::ErrorKind;
    use crate::op::Op;

    fn array(dims: &[usize], data: &[f64]) -> Array {
        Array::new(dims, F32, data.to_vec()).unwrap()
    }

    fn index(dims: &[usize], data: &[f64]) -> Array {
        Array::new(dims, I64, data.to_vec()).unwrap()
    }

    #[test]
    fn embedding_by_hand() {
        let table = array(&[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let i = index(&[3], &[2.0, 0.0, 2.0]);
        let y = eval(&Op::Embedding, &[table.clone(), i.clone()]).unwrap();
        assert_eq!(y[0].data, [5.0, 6.0, 1.0, 2.0, 5.0, 6.0]);
        let g = array(&[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let grad = eval(&Op::EmbeddingGrad { rows: 3 }, &[i, g]).unwrap();
        assert_eq!(grad[0].data, [3.0, 4.0, 0.0, 0.0, 6.0, 8.0]);
        assert!(eval(&Op::Embedding, &[table.clone(), index(&[0], &[])]).unwrap()[0].data.is_empty());
        for bad in [3.0, -1.0] {
            let err = eval(&Op::Embedding, &[table.clone(), index(&[1], &[bad])]).unwrap_err();
            assert_eq!(err.kind, ErrorKind::Index);
        }
    }

    #[test]
    fn gather_and_scatter_by_hand() {
        let x = array(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let i = index(&[2, 2], &[2.0, 0.0, 1.0, 1.0]);
        let y = eval(&Op::Gather { axis: 1 }, &[x.clone(), i.clone()]).unwrap();
        assert_eq!(y[0].data, [3.0, 1.0, 5.0, 5.0]);
        let s = array(&[2, 2], &[10.0, 20.0, 30.0, 40.0]);
        let y = eval(&Op::ScatterAdd { axis: 1 }, &[x.clone(), i, s]).unwrap();
        assert_eq!(y[0].data, [21.0, 2.0, 13.0, 4.0, 75.0, 6.0]);
        let y = eval(&Op::Gather { axis: 0 }, &[x, index(&[1, 2], &[1.0, 0.0])]).unwrap();
        assert_eq!(y[0].data, [4.0, 2.0]);
    }

    #[test]
    fn index_select_and_add_by_hand() {
        let x = array(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let i = index(&[2], &[2.0, 2.0]);
        let y = eval(&Op::IndexSelect { axis: 1 }, &[x.clone(), i.clone()]).unwrap();
        assert_eq!(y[0].data, [3.0, 3.0, 6.0, 6.0]);
        let s = array(&[2, 2], &[10.0, 20.0, 30.0, 40.0]);
        let y = eval(&Op::IndexAdd { axis: 1 }, &[x.clone(), i, s]).unwrap();
        assert_eq!(y[0].data, [1.0, 2.0, 33.0, 4.0, 5.0, 76.0]);
        let none = eval(&Op::IndexSelect { axis: 0 }, &[x, index(&[0], &[])]).unwrap();
        assert_eq!(&none[0].shape[..], [0, 3]);
    }

    #[test]
    fn concat_and_pad_by_hand() {
        let (a, b) = (array(&[2, 1], &[1.0, 2.0]), array(&[2, 2], &[3.0, 4.0, 5.0, 6.0]));
        let none = array(&[2, 0], &[]);
        let y = eval(&Op::Concat { axis: 1 }, &[a.clone(), none, b]).unwrap();
        assert_eq!(y[0].data, [1.0, 3.0, 4.0, 2.0, 5.0, 6.0]);
        let pad = Op::Pad { widths: vec![(1, 0), (0, 2)], value: 9.0 };
        let y = eval(&pad, &[a]).unwrap();
        assert_eq!(y[0].data, [9.0, 9.0, 9.0, 1.0, 9.0, 9.0, 2.0, 9.0, 9.0]);
        let pad = Op::Pad { widths: vec![(1, 1)], value: 2.0 };
        assert_eq!(eval(&pad, &[array(&[0], &[])]).unwrap()[0].data, [2.0, 2.0]);
    }
}
