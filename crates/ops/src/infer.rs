//! Result shapes and dtypes.
pub struct Meta;
