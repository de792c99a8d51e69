//! Polynomials of mathematical functions in f32, fitted for Bullet by Remez exchange: the one place that the CPU's kernels and the
//! GPU's code have them from. Each list begins with the constant.

/// `(e^r - 1 - r) / r^2` for |r| <= ln 2 / 2.
pub const EXPM1: [f32; 5] = [0.5, 0.166_665_37, 0.041_666_266, 0.008_367_234, 0.001_394_757_4];
/// `(log(1 + f) - f + f^2 / 2) / f^3` for 1 + f between the roots of 1/2 and 2.
pub const LOG1P: [f32; 8] = [
    0.333_333_16,
    -0.250_008_08,
    0.200_022_86,
    -0.166_245_97,
    0.141_812_13,
    -0.131_284_04,
    0.128_814_06,
    -0.078_602_046,
];
/// `(sin r - r) / r^3` of `r^2`, for |r| <= pi / 4.
pub const SIN: [f32; 3] = [-0.166_666_54, 0.008_332_131, -0.000_195_108_4];
/// `(cos r - 1 + r^2 / 2) / r^4` of `r^2`, for |r| <= pi / 4.
pub const COS: [f32; 3] = [0.041_666_646, -0.001_388_730_6, 2.443_120_7e-5];
/// `(atan t - t) / t^3` of `t^2`, for |t| <= tan(pi / 8).
pub const ATAN: [f32; 5] = [-0.333_333_3, 0.199_995_38, -0.142_638_97, 0.107_430_995, -0.064_498_35];
/// `(asin t - t) / t^3` of `t^2`, for |t| <= 1 / 2.
pub const ASIN: [f32; 6] =
    [0.166_666_66, 0.075_000_95, 0.044_599_194, 0.031_103_328, 0.017_135_426, 0.033_715_554];
/// `erf(x) / x` of `x^2`, for |x| < 1.
pub const ERF: [f32; 7] = [
    std::f32::consts::FRAC_2_SQRT_PI,
    -0.376_126_26,
    0.112_836,
    -0.026_854_444,
    0.005_189_535,
    -0.000_802_084_16,
    7.889_12e-5,
];
