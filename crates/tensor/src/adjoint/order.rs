//! Adjoints of products and scans. Nothing is divided by an element: they are right where the data has zeros.

use bullet_ops::{AxisSet, Map, Op, Shape};

use super::{Context, execute, first};
use crate::error::Result;
use crate::tape::no_grad;
use crate::tensor::Tensor;
use crate::views::Slice;

const BACKWARDS: Slice = Slice { start: None, end: None, step: -1 };

/// The gradient of the product over `axes`, from `g`, in which these have length 1: each element's is the product of the
/// others, of those before it times those behind.
pub(super) fn prod_adjoint(axes: AxisSet, x: &Tensor, g: &Tensor) -> Result<Tensor> {
    let order: Vec<isize> = (0..x.rank())
        .filter(|&axis| !axes.contains(axis))
        .chain(axes.iter().filter(|&axis| axis < x.rank()))
        .map(|axis| axis as isize)
        .collect();
    no_grad(|| {
        // In the compute type: products of some and of the others may leave the range of f16, where that of all does not.
        let wide = g.dtype().compute();
        let sorted = x.permute(&order)?;
        let n: usize = axes.iter().filter(|&axis| axis < x.rank()).map(|axis| x.dim(axis)).product();
        let kept = x.numel().checked_div(n).unwrap_or(0);
        let rows = sorted.cast(wide)?.reshape_to(Shape::new(&[kept, n])?)?;
        let others = |reverse| {
            first(execute(&Op::Scan { product: true, axis: 1, reverse, exclusive: true }, &[&rows]))
        };
        let others = first(execute(&Op::Map(Map::Mul), &[&others(false)?, &others(true)?]))?;
        let mut inverse = vec![0; order.len()];
        order.iter().enumerate().for_each(|(at, &axis)| inverse[axis as usize] = at as isize);
        let others = others.reshape_to(*sorted.shape())?.permute(&inverse)?;
        others.mul(&g.cast(wide)?)?.cast(g.dtype())
    })
}

/// The gradient of a scan, from `g`.
pub(super) fn scan_adjoint(
    product: bool,
    axis: usize,
    (reverse, exclusive): (bool, bool),
    cx: &Context<'_>,
    g: &Tensor,
) -> Result<Tensor> {
    if !product {
        return first(execute(&Op::Scan { product, axis, reverse: !reverse, exclusive }, &[g]));
    }
    let at = axis as isize;
    no_grad(|| {
        let turned = |t: &Tensor| if reverse { t.slice(at, BACKWARDS) } else { Ok(t.clone()) };
        let (x, mut g) = (turned(cx.x(0))?, turned(g)?);
        if exclusive && g.dim(axis) > 0 {
            // Result k + 1 is what result k would be with its own element.
            let zero = Tensor::zeros(&g.shape().with(axis, 1), g.dtype(), g.device())?;
            g = Tensor::concat(&[&g.narrow(at, 1, g.dim(axis) - 1)?, &zero], at)?;
        }
        turned(&first(execute(&Op::CumProdGrad { axis }, &[&x, &g]))?)
    })
}
