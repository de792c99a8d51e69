//! Products, truths, scans, order: methods of [`Tensor`] that are ops or are composed of them.

use bullet_ops::Op;

use crate::dispatch::run_one;
use crate::error::Result;
use crate::tensor::Tensor;

/// Scans.
impl Tensor {
    /// Running sums along `axis`; integers and bools add up in i64.
    ///
    /// # Errors
    /// No such axis.
    pub fn cumsum(&self, axis: isize) -> Result<Tensor> {
        self.scan(false, axis)
    }

    /// Running products along `axis`; integers and bools multiply in i64.
    ///
    /// # Errors
    /// No such axis.
    pub fn cumprod(&self, axis: isize) -> Result<Tensor> {
        self.scan(true, axis)
    }

    fn scan(&self, product: bool, axis: isize) -> Result<Tensor> {
        let axis = self.shape().axis(axis)?;
        run_one(Op::Scan { product, axis, reverse: false, exclusive: false }, &[self])
    }
}
