//! Which ops can be done in parts: where rows of the results, along their first axis, come from rows of the operands.

use crate::infer::Meta;
use crate::op::Op;

/// How an op is cut along the first axis of all its results.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Split {
    /// Length of that axis, at least 2.
    pub rows: usize,
    /// For each operand whether the same rows of it make a part; otherwise each part takes all of it.
    pub operands: Vec<bool>,
}

impl Op {
    /// How this op on operands that fit it is done in parts; `None` if there is nothing to cut, or a row of some result
    /// depends on all of the operands' rows (or, as dropout, on where it stands).
    pub fn split(&self, x: &[Meta]) -> Option<Split> {
        let out = self.infer(x).ok()?.first()?.shape;
        let rows = *out.first()?;
        // Leading axes that broadcast: an operand that has the axis is cut along it.
        let broadcast =
            |m: &Meta| m.shape.rank() == out.rank() && m.shape.first().is_some_and(|&len| len == rows);
        let all = |cut: bool| cut.then(|| vec![true; x.len()]);
        let these = |cut: bool, first: &[bool]| {
            cut.then(|| (0..x.len()).map(|i| first.get(i).copied().unwrap_or(false)).collect())
        };
        let operands: Option<Vec<bool>> = match self {
            Op::Map(_) => Some(x.iter().map(broadcast).collect()),
            Op::Cast(_) | Op::Copy | Op::Rope(_) => all(true),
            Op::Reduce { axes, .. } => all(!axes.contains(0)),
            Op::ArgReduce { axis, .. } | Op::Concat { axis } => all(*axis != 0),
            Op::Scan { axis, .. } | Op::CumProdGrad { axis } => all(*axis != 0),
            Op::Sort { .. } => all(out.rank() >= 2),
            Op::SearchSorted { .. } => these(true, &[false, true]),
            Op::MatMul if out.rank() == 2 => these(true, &[true, false]),
            Op::MatMul => Some(x.iter().map(broadcast).collect()),
            Op::Linear { .. } | Op::LayerNorm { .. } | Op::RmsNorm { .. } => these(out.rank() >= 2, &[true]),
            Op::Softmax | Op::SoftmaxGrad | Op::LogSoftmax | Op::LogSoftmaxGrad => all(out.rank() >= 2),
            // Gradients of weights are sums over all rows.
            Op::LayerNormGrad => all(x.len() == 4 && out.rank() >= 2),
            Op::RmsNormGrad => all(x.len() == 3 && out.rank() >= 2),
            Op::Embedding => these(x[1].shape.rank() > 0, &[false, true]),
            Op::Gather { axis } => these(true, &[*axis != 0, true]),
            Op::ScatterAdd { axis } => all(*axis != 0 && x[1].shape[0] == rows),
            Op::IndexSelect { axis } => these(true, &[*axis != 0, *axis == 0]),
            Op::IndexAdd { axis } => these(*axis != 0, &[true, false, true]),
            Op::Pad { widths, .. } => all(widths[0] == (0, 0)),
            Op::CrossEntropyGrad { .. } => these(true, &[true, true, true]),
            // Which weights are dropped depends on where they stand.
            Op::Attention(spec)
            | Op::AttentionGrad(spec)
            | Op::AttentionPacked { spec, .. }
            | Op::AttentionPackedGrad { spec, .. }
                if spec.dropout.is_some() =>
            {
                None
            }
            Op::Attention(_) => these(true, &[true, true, true, x.get(3).is_some_and(broadcast)]),
            Op::AttentionGrad(_) => {
                let mask = x.get(6).is_some_and(broadcast);
                these(true, &[true, true, true, true, true, true, mask])
            }
            Op::AttentionPacked { .. } | Op::AttentionPackedGrad { .. } => all(true),
            Op::Conv1d(_) => these(true, &[true]),
            Op::Conv1dGradInput { .. } => these(true, &[false, true]),
            Op::AddNorm { .. } => these(out.rank() >= 2, &[true, true]),
            Op::NonZero
            | Op::EmbeddingGrad { .. }
            | Op::AddNormGrad { .. }
            | Op::LinearBiasGrad
            | Op::LinearWeightGrad
            | Op::Dropout(_)
            | Op::CrossEntropy { .. }
            | Op::Conv1dGradWeight { .. } => None,
        };
        operands.filter(|_| rows >= 2).map(|operands| Split { rows, operands })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::reference::{self, Array, cases};
    use crate::table::TABLE;

    /// These rows of an array.
    fn part(x: &Array, rows: std::ops::Range<usize>) -> Array {
        let mut dims = x.shape.to_vec();
        let each = x.data.len() / dims[0].max(1);
        dims[0] = rows.len();
        Array::new(&dims, x.dtype, x.data[rows.start * each..rows.end * each].to_vec()).unwrap()
    }

    #[test]
    fn the_parts_of_every_op_are_the_whole() {
        let mut state = 7u64;
        let mut rng = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        let mut cut = std::collections::BTreeSet::new();
        for row in TABLE {
            for dtype in [DType::F64, DType::I64] {
                for case in cases::cases(row, dtype, &mut rng) {
                    let metas: Vec<Meta> = case.inputs.iter().map(Array::meta).collect();
                    let Some(split) = case.op.split(&metas) else { continue };
                    let Ok(whole) = reference::eval(&case.op, &case.inputs) else { continue };
                    assert_eq!(split.operands.len(), metas.len());
                    cut.insert(row.name);
                    for step in [1, 2] {
                        check(&case.op, &case.inputs, &whole, &split, step);
                    }
                }
            }
        }
        for name in
            ["add", "where", "linear", "matmul", "attention_grad", "cross_entropy_grad", "gather", "copy"]
        {
            assert!(cut.contains(name), "no case of {name} was cut");
        }
        for name in ["dropout", "cross_entropy", "embedding_grad", "conv1d_grad_weight"] {
            assert!(!cut.contains(name), "{name} was cut");
        }
    }

    fn check(op: &Op, inputs: &[Array], whole: &[Array], split: &Split, step: usize) {
        for start in (0..split.rows).step_by(step) {
            let rows = start..split.rows.min(start + step);
            let operands: Vec<Array> = inputs
                .iter()
                .zip(&split.operands)
                .map(|(x, &cut)| if cut { part(x, rows.clone()) } else { x.clone() })
                .collect();
            let got = reference::eval(op, &operands).unwrap();
            for (got, whole) in got.iter().zip(whole) {
                let want = part(whole, rows.clone());
                assert_eq!(got.shape, want.shape, "{}", op.name());
                let same = |(a, b): (&f64, &f64)| a == b || a.is_nan() && b.is_nan();
                assert!(
                    got.data.iter().zip(&want.data).all(same),
                    "{op:?}: rows {rows:?} of {:?}",
                    split.rows
                );
            }
        }
    }
}
