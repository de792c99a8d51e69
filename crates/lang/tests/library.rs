//! Functions of wp that are written in the language: what they give, by what defines it, and their derivatives, by differences.

use bullet_lang::adjoint::{AdjointOptions, adjoint};
use bullet_lang::interp::{Arg, Array, Options as Run, run};
use bullet_lang::ir::Kernel;
use bullet_lang::{Options, compile};
use bullet_ops::DType;

/// Numbers that a test reads, and writes.
const SIZE: usize = 32;

fn module(dtype: DType, body: &str) -> String {
    let lines: Vec<String> = body.lines().map(|line| format!("    {line}\n")).collect();
    let name = if dtype == DType::F64 { "wp.float64" } else { "float" };
    format!(
        "import bullet_core.lang as wp\n@wp.kernel\ndef k(x: wp.array(dtype={name}), out: wp.array(dtype={name})):\n    \
         T = x[0]\n{}",
        lines.concat()
    )
}

/// The kernel of a body that reads `x` and stores to `out`.
fn kernel(dtype: DType, body: &str) -> Kernel {
    let text = module(dtype, body);
    compile("test.py", &text, Options::default()).unwrap_or_else(|e| panic!("{e}\n{text}")).remove(0)
}

fn padded(dtype: DType, x: &[f64]) -> Array<f64> {
    let mut cells = x.to_vec();
    cells.resize(SIZE, 0.0);
    Array::floats(dtype, &cells)
}

fn stored(kernel: &Kernel, dtype: DType, x: &[f64]) -> Vec<f64> {
    let mut arrays = vec![padded(dtype, x), padded(dtype, &[])];
    run(kernel, &[1], &[Arg::Array(0), Arg::Array(1)], &mut arrays, Run::default())
        .unwrap_or_else(|e| panic!("{e}"));
    arrays[1].as_floats().to_vec()
}

/// What a body leaves in `out`.
fn values(dtype: DType, body: &str, x: &[f64]) -> Vec<f64> {
    stored(&kernel(dtype, body), dtype, x)
}

fn close(found: &[f64], expected: &[f64], tolerance: f64) {
    let near = found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= tolerance);
    assert!(near, "{found:?}\nexpected {expected:?}");
}

/// Compares the gradient of a weighted sum of what a body stores with central differences.
fn check_gradient(body: &str, x: &[f64]) {
    let kernel = kernel(DType::F64, body);
    let weights: Vec<f64> = (0..SIZE).map(|i| (i as f64 * 0.7).sin() + 0.3).collect();
    let made = adjoint(&kernel, AdjointOptions::default()).unwrap_or_else(|e| panic!("{e:?}"));
    let empty = padded(DType::F64, &[]);
    let mut arrays = vec![padded(DType::F64, x), empty.clone(), empty, padded(DType::F64, &weights)];
    let args: Vec<Arg<f64>> = (0..4).map(Arg::Array).collect();
    run(&made.kernel, &[1], &args, &mut arrays, Run::default()).unwrap_or_else(|e| panic!("{e}"));
    let sum = |x: &[f64]| -> f64 {
        stored(&kernel, DType::F64, x).iter().zip(&weights).map(|(value, weight)| value * weight).sum()
    };
    for i in 0..x.len() {
        let moved = |by: f64| {
            let mut x = x.to_vec();
            x[i] += by;
            sum(&x)
        };
        // Of fourth order, so that the step may be large against rounding.
        let h = 1e-3;
        let expected = (8.0 * (moved(h) - moved(-h)) - (moved(2.0 * h) - moved(-2.0 * h))) / (12.0 * h);
        let found = arrays[2].as_floats()[i];
        assert!(
            (found - expected).abs() <= 1e-6 * (1.0 + expected.abs()),
            "by x[{i}]: {found}, not {expected}\n{body}"
        );
    }
}

/// Numbers between -1 and 1.
fn random(count: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    (0..count).map(next).collect()
}

/// Reads a matrix of so many rows and columns.
fn read(dtype: DType, n: usize) -> String {
    let suffix = if dtype == DType::F64 { "d" } else { "" };
    format!(
        "A = wp.mat{n}{n}{suffix}()\nfor i in range({n}):\n    for j in range({n}):\n        A[i, j] = x[{n} * i + j]\n"
    )
}

/// Stores matrices and vectors one behind the other, by their sizes.
fn store(items: &[(&str, usize, usize)]) -> String {
    let mut at = 0;
    let mut text = String::new();
    for &(name, rows, columns) in items {
        for place in 0..rows * columns {
            let index = if columns == 1 {
                place.to_string()
            } else {
                format!("{}, {}", place / columns, place % columns)
            };
            text += &format!("out[{at}] = {name}[{index}]\n");
            at += 1;
        }
    }
    text
}

fn product(a: &[f64], b: &[f64], n: usize) -> Vec<f64> {
    (0..n * n).map(|at| (0..n).map(|k| a[at / n * n + k] * b[k * n + at % n]).sum()).collect()
}

fn transposed(a: &[f64], n: usize) -> Vec<f64> {
    (0..n * n).map(|at| a[at % n * n + at / n]).collect()
}

fn diagonal(values: &[f64]) -> Vec<f64> {
    let n = values.len();
    (0..n * n).map(|at| if at / n == at % n { values[at / n] } else { 0.0 }).collect()
}

fn determinant(a: &[f64]) -> f64 {
    if a.len() == 4 {
        return a[0] * a[3] - a[1] * a[2];
    }
    let minor = |i: usize, j: usize| a[3 + i] * a[6 + j] - a[3 + j] * a[6 + i];
    a[0] * minor(1, 2) - a[1] * minor(0, 2) + a[2] * minor(0, 1)
}

/// Matrices of n rows that are hard in some way, and some that are not.
fn matrices(n: usize) -> Vec<Vec<f64>> {
    let mut all: Vec<Vec<f64>> = (1..60).map(|seed| random(n * n, seed)).collect();
    let ones = vec![1.0; n];
    all.push(vec![0.0; n * n]);
    all.push(vec![1.0; n * n]);
    all.push(diagonal(&ones));
    all.push(diagonal(&ones).iter().map(|x| -x).collect());
    all.push(diagonal(&[3.0, 1e-9, 2.0][..n]));
    let scaled = |by: f64| random(n * n, 99).iter().map(|x| x * by).collect();
    all.push(scaled(1e-20));
    all.push(scaled(1e20));
    // Of rank 1.
    let (a, b) = (random(n, 5), random(n, 6));
    all.push((0..n * n).map(|at| a[at / n] * b[at % n]).collect());
    all
}

fn check_svd(n: usize, dtype: DType, tolerance: f64) {
    let body = read(dtype, n)
        + &format!("U, sigma, V = wp.svd{n}(A)\n")
        + &store(&[("U", n, n), ("sigma", n, 1), ("V", n, n)]);
    let kernel = kernel(dtype, &body);
    for a in matrices(n) {
        let a: Vec<f64> =
            a.iter().map(|&x| if dtype == DType::F32 { f64::from(x as f32) } else { x }).collect();
        let found = stored(&kernel, dtype, &a);
        let (u, rest) = found.split_at(n * n);
        let (sigma, v) = (&rest[..n], &rest[n..n + n * n]);
        let size = a.iter().fold(0.0, |size: f64, x| size.max(x.abs()));
        let one = diagonal(&vec![1.0; n]);
        close(&product(&transposed(u, n), u, n), &one, tolerance);
        close(&product(&transposed(v, n), v, n), &one, tolerance);
        let again = product(&product(u, &diagonal(sigma), n), &transposed(v, n), n);
        close(&again, &a, tolerance * size);
        assert!(sigma.windows(2).all(|pair| pair[0] >= pair[1].abs() * (1.0 - tolerance)), "{sigma:?}");
        assert!(sigma[..2].iter().all(|value| *value >= 0.0), "{sigma:?}");
        if n == 3 {
            close(&[determinant(u), determinant(v)], &[1.0, 1.0], 4.0 * tolerance);
        }
    }
}

#[test]
fn singular_values_put_a_matrix_together_again() {
    for (dtype, tolerance) in [(DType::F64, 1e-14), (DType::F32, 4e-6)] {
        check_svd(3, dtype, tolerance);
        check_svd(2, dtype, tolerance);
    }
}

#[test]
fn small_singular_values_keep_their_digits() {
    // A diagonal that columns are scaled by, which one side's rotations do not mix up.
    let body = read(DType::F64, 3) + "U, sigma, V = wp.svd3(A)\n" + &store(&[("sigma", 3, 1)]);
    let a = [1.0, 1e-8, 1e-16, -1.0, 1e-8, 1e-16, 0.0, 1e-8, -2e-16];
    let found = values(DType::F64, &body, &a);
    let expected = [2f64.sqrt(), 3f64.sqrt() * 1e-8, 6f64.sqrt() * 1e-16];
    for (found, expected) in found.iter().zip(expected) {
        assert!((found / expected).abs() - 1.0 < 1e-12, "{found} {expected}");
    }
}

#[test]
fn triangles_and_eigenvectors_put_a_matrix_together_again() {
    for (dtype, tolerance) in [(DType::F64, 2e-15), (DType::F32, 2e-6)] {
        let qr =
            kernel(dtype, &(read(dtype, 3) + "Q, R = wp.qr3(A)\n" + &store(&[("Q", 3, 3), ("R", 3, 3)])));
        let eig =
            kernel(dtype, &(read(dtype, 3) + "Q, d = wp.eig3(A)\n" + &store(&[("Q", 3, 3), ("d", 3, 1)])));
        let one = diagonal(&[1.0; 3]);
        for a in matrices(3) {
            let a: Vec<f64> =
                a.iter().map(|&x| if dtype == DType::F32 { f64::from(x as f32) } else { x }).collect();
            let size = a.iter().fold(0.0, |size: f64, x| size.max(x.abs()));
            let found = stored(&qr, dtype, &a);
            let (q, r) = found.split_at(9);
            close(&product(q, r, 3), &a, 2.0 * tolerance * size);
            close(&product(&transposed(q, 3), q, 3), &one, 2.0 * tolerance);
            close(&[r[3], r[6], r[7], determinant(q)], &[0.0, 0.0, 0.0, 1.0], 4.0 * tolerance);
            let symmetric: Vec<f64> = a.iter().zip(transposed(&a, 3)).map(|(x, y)| 0.5 * (x + y)).collect();
            let found = stored(&eig, dtype, &symmetric);
            let (q, d) = (&found[..9], &found[9..12]);
            close(
                &product(&product(q, &diagonal(d), 3), &transposed(q, 3), 3),
                &symmetric,
                10.0 * tolerance * size,
            );
            close(&product(&transposed(q, 3), q, 3), &one, 10.0 * tolerance);
        }
    }
}

#[test]
fn results_may_be_variables_among_the_arguments() {
    let body = read(DType::F32, 3)
        + "U = wp.mat33()\nsigma = wp.vec3()\nV = wp.mat33()\nfor k in range(2):\n    wp.svd3(A, U, sigma, V)\n"
        + "Q = wp.mat33()\nR = wp.mat33()\nif x[0] > 0.0:\n    wp.qr3(A, Q, R)\n"
        + &store(&[("sigma", 3, 1), ("R", 3, 3)]);
    let found = values(DType::F32, &body, &[1.0, 0.0, 0.0, 0.0, -3.0, 0.0, 0.0, 0.0, 2.0]);
    close(&found, &[3.0, 2.0, -1.0, 1.0, 0.0, 0.0, 0.0, 3.0, 0.0, 0.0, 0.0, -2.0], 1e-6);
}

#[test]
fn decompositions_have_derivatives() {
    let weighted =
        |call: &str, items: &[(&str, usize, usize)], n| read(DType::F64, n) + call + "\n" + &store(items);
    for seed in [3, 4, 5] {
        let a = random(9, seed);
        check_gradient(&weighted("U, s, V = wp.svd3(A)", &[("U", 3, 3), ("s", 3, 1), ("V", 3, 3)], 3), &a);
        check_gradient(&weighted("Q, R = wp.qr3(A)", &[("Q", 3, 3), ("R", 3, 3)], 3), &a);
        check_gradient(&weighted("Q, d = wp.eig3(A)", &[("Q", 3, 3), ("d", 3, 1)], 3), &a);
        let a = random(4, seed);
        check_gradient(&weighted("U, s, V = wp.svd2(A)", &[("U", 2, 2), ("s", 2, 1), ("V", 2, 2)], 2), &a);
    }
}

#[test]
fn a_polar_decomposition_has_a_derivative_where_values_are_equal() {
    let polar = |n: usize| {
        read(DType::F64, n)
            + &format!("U, s, V = wp.svd{n}(A)\nR = U * wp.transpose(V)\n")
            + &store(&[("R", n, n)])
    };
    check_gradient(&polar(3), &[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]);
    check_gradient(&polar(3), &[0.0, -2.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
    check_gradient(&polar(2), &[0.6, -0.8, 0.8, 0.6]);
}

#[test]
fn norms() {
    let v = "v = wp.vec3d(x[0], x[1], x[2])\n";
    let body = format!(
        "{v}out[0] = wp.norm_l1(v)\nout[1] = wp.norm_l2(v)\nout[2] = wp.norm_huber(v)\nout[3] = wp.norm_huber(v, 20.0)\n\
         out[4] = wp.norm_pseudo_huber(v, 2.0)\ns = wp.smooth_normalize(v, 2.0)\nout[5] = s[1]"
    );
    let found = values(DType::F64, &body, &[2.0, -3.0, 6.0]);
    let pseudo = 2.0 * (1.0f64 + 49.0 / 4.0).sqrt();
    close(&found, &[11.0, 7.0, 6.5, 24.5, pseudo, -3.0 / pseudo], 1e-14);
    check_gradient(&body, &[2.0, -3.0, 6.0]);
    // A number of the source has the digits of what it meets.
    let found = values(DType::F64, &format!("{v}out[0] = wp.norm_huber(v, 0.1)"), &[2.0, -3.0, 6.0]);
    close(&found[..1], &[0.1 * (7.0 - 0.05)], 1e-15);
}

#[test]
fn angles_lead_back_to_the_rotation() {
    for (i, j, k) in [(0, 1, 2), (2, 1, 0), (1, 2, 0), (0, 2, 1), (2, 0, 1), (1, 0, 2)] {
        let body = format!(
            "e = wp.vec3d(x[0], x[1], x[2])\nq = wp.quat_from_euler(e, {i}, {j}, {k})\nf = wp.quat_to_euler(q, {i}, {j}, {k})\n{}",
            store(&[("q", 4, 1), ("f", 3, 1)])
        );
        let found = values(DType::F64, &body, &[0.4, -0.7, 1.1]);
        close(&found[4..], &[0.4, -0.7, 1.1], 1e-14);
        check_gradient(&body, &[0.4, -0.7, 1.1]);
    }
    let body = "q = wp.quat_rpy(x[0], x[1], x[2])\ne = wp.quat_from_euler(wp.vec3(x[0], x[1], x[2]), 0, 1, 2)\nf = wp.quat_to_rpy(q)\n\
         for c in range(4):\n    out[c] = q[c] - e[c]\nout[4] = f[0]\nout[5] = f[1]\nout[6] = f[2]";
    close(&values(DType::F32, body, &[0.3, -0.5, 0.9]), &[0.0, 0.0, 0.0, 0.0, 0.3, -0.5, 0.9], 1e-6);
    // Where the middle angle makes the other two one: the rotation is right, whatever they are.
    let locked = "q = wp.quat_from_euler(wp.vec3d(x[0], x[1], x[2]), 0, 1, 2)\ne = wp.quat_to_euler(q, 0, 1, 2)\n\
                  p = wp.quat_from_euler(e, 0, 1, 2)\nout[0] = wp.abs(wp.dot(p, q))";
    let found = values(DType::F64, locked, &[0.4, std::f64::consts::FRAC_PI_2, 1.1]);
    close(&found[..1], &[1.0], 1e-12);
    // An axis twice: the angle about the one that is left is the third.
    let twice = "a = wp.quat_from_axis_angle(wp.vec3d(0.0, 0.0, 1.0), x[0])\nb = wp.quat_from_axis_angle(wp.vec3d(1.0, 0.0, 0.0), x[1])\n\
                 c = wp.quat_from_axis_angle(wp.vec3d(0.0, 0.0, 1.0), x[2])\ne = wp.quat_to_euler(c * b * a, 2, 0, 2)\n\
                 out[0] = e[2]\nout[1] = e[0]\nout[2] = e[1]";
    close(&values(DType::F64, twice, &[0.4, 0.7, 1.1])[..3], &[0.4, 0.7, 1.1], 1e-14);
}

#[test]
fn twists() {
    let body = "axis = wp.vec3d(0.0, 0.0, 1.0)\nq = wp.quat_from_axis_angle(axis, x[0])\np = wp.quat_from_axis_angle(wp.vec3d(1.0, 0.0, \
                0.0), x[1]) * q\nt = wp.quat_twist(axis, p)\nout[0] = t[2] - q[2]\nout[1] = t[3] - q[3]\n\
                out[2] = wp.quat_twist_angle(axis, p)\nout[3] = wp.quat_twist_angle_signed(axis, p)";
    close(&values(DType::F64, body, &[-0.8, 0.5]), &[0.0, 0.0, 0.8, -0.8], 1e-14);
    check_gradient(body, &[-0.8, 0.5]);
}

#[test]
fn transforms_and_matrices() {
    let body = "q = wp.quat_from_axis_angle(wp.normalize(wp.vec3d(x[0], x[1], x[2])), x[3])\np = wp.vec3d(x[4], x[5], x[6])\n\
                m = wp.transform_to_matrix(wp.transformd(p, q))\nt = wp.transform_from_matrix(m)\n\
                for c in range(3):\n    out[c] = t.p[c] - p[c]\nout[3] = wp.abs(wp.dot(t.q, q))\n\
                n = wp.transform_compose(p, q, wp.vec3d(2.0, 3.0, 4.0))\na, b, s = wp.transform_decompose(n)\n\
                out[4] = a[0] - p[0]\nout[5] = wp.abs(wp.dot(b, q))\nfor c in range(3):\n    out[6 + c] = s[c]\n\
                moved = n * wp.vec4d(1.0, 1.0, 1.0, 1.0)\nturned = wp.quat_rotate(q, wp.vec3d(2.0, 3.0, 4.0)) + p\n\
                for c in range(3):\n    out[9 + c] = moved[c] - turned[c]";
    let x = [0.3, -0.4, 0.8, 1.2, 5.0, 6.0, 7.0];
    close(
        &values(DType::F64, body, &x),
        &[0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 0.0],
        1e-13,
    );
    check_gradient(body, &x);
}

#[test]
fn frames_of_twists_and_wrenches() {
    // The power of a wrench along a twist is the same in every frame, and what the adjoint matrix says of twists.
    let body = "q = wp.quat_from_axis_angle(wp.vec3d(0.6, 0.0, 0.8), x[0])\nt = wp.transformd(wp.vec3d(1.0, 2.0, x[1]), q)\n\
                a = wp.types.vector(length=6, dtype=wp.float64)()\nb = wp.types.vector(length=6, dtype=wp.float64)()\n\
                for c in range(6):\n    a[c] = x[2 + c]\n    b[c] = x[8 + c]\n\
                u = wp.transform_twist(t, a)\nf = wp.transform_wrench(t, b)\nout[0] = wp.dot(u, f) - wp.dot(a, b)\n\
                R = wp.quat_to_matrix(q)\nM = wp.spatial_adjoint(R, wp.skew(t.p) * R)\nw = M * a\n\
                for c in range(6):\n    out[1 + c] = w[c] - u[c]\n\
                p = wp.velocity_at_point(a, wp.vec3d(x[0], x[1], 1.0))\nout[7] = p[0] - (a[3] + a[1] - a[2] * x[1])";
    let x = random(14, 8);
    close(&values(DType::F64, body, &x), &[0.0; 8], 1e-14);
    check_gradient(body, &x);
}

#[test]
fn quaternions_without_a_turn() {
    let body = "q = wp.normalize(wp.quatd(x[0], x[1], x[2], x[3]))\nout[0] = q[0]\nout[1] = q[3]\n\
                t = wp.quat_twist(wp.vec3d(0.0, 0.0, 1.0), wp.quatd(1.0, 0.0, 0.0, 0.0))\nout[2] = t[3]\n\
                a = wp.quat_from_axis_angle(wp.vec3d(0.0, 0.0, 2.0), wp.float64(1.0))\nout[3] = a[2]";
    close(&values(DType::F64, body, &[0.0; 4])[..4], &[0.0, 1.0, 1.0, 2.0 * 0.5f64.sin()], 1e-15);
    for body in [
        "v, a = wp.quat_to_axis_angle(wp.quatd(x[0], x[1], x[2], x[3]))\nout[0] = v[0] + v[1] + v[2] + a",
        "e = wp.quat_to_euler(wp.quatd(x[0], x[1], x[2], x[3]), 0, 1, 2)\nout[0] = e[1]",
    ] {
        let made = adjoint(&kernel(DType::F64, body), AdjointOptions::default()).expect("an adjoint");
        let empty = padded(DType::F64, &[]);
        let x = if body.contains("euler") {
            [0.0, 0.5f64.sqrt(), 0.0, 0.5f64.sqrt()]
        } else {
            [0.0, 0.0, 0.0, 1.0]
        };
        let mut arrays = vec![padded(DType::F64, &x), empty.clone(), empty, padded(DType::F64, &[1.0])];
        let args: Vec<Arg<f64>> = (0..4).map(Arg::Array).collect();
        run(&made.kernel, &[1], &args, &mut arrays, Run::default()).unwrap_or_else(|e| panic!("{e}"));
        assert!(arrays[2].as_floats().iter().all(|x| x.is_finite()), "{body}: {:?}", arrays[2].as_floats());
    }
}

#[test]
fn the_overload_that_fits_best_is_called() {
    let text = "from typing import Any\nimport bullet_core.lang as wp\n@wp.func\ndef f(x: Any):\n    return 1.0\n@wp.func\ndef f(x: \
                wp.Float):\n    return 2.0\n@wp.func\ndef f(x: wp.float64):\n    return 3.0\n@wp.func\ndef f(x: float):\n    return \
                4.0\n@wp.func\ndef f(x: int):\n    return 5.0\n@wp.func\ndef f(x: wp.vec2):\n    return 6.0\n@wp.kernel\ndef k(x: \
                wp.array(dtype=float), out: wp.array(dtype=float)):\n    out[0] = f(1)\n    out[1] = f(1.0)\n    out[2] = f(x[0])\n    \
                out[3] = f(wp.float64(x[0]))\n    out[4] = f(wp.vec2(1.0))\n    out[5] = f(wp.float16(x[0]))\n    out[6] = \
                f(wp.vec3(1.0))\n    out[7] = f(wp.int64(3))\n";
    let kernel = compile("test.py", text, Options::default()).unwrap_or_else(|e| panic!("{e}")).remove(0);
    assert_eq!(stored(&kernel, DType::F32, &[1.0])[..8], [5.0, 4.0, 4.0, 3.0, 6.0, 2.0, 1.0, 1.0]);
}

#[test]
fn options_of_decorators_are_not_read() {
    let text = "\u{feff}import bullet_core.lang as wp\n@wp.kernel(module_options={\"mode\": {1: [2]}}, enable_backward=False)\ndef k(x: \
                wp.array(dtype=float), out: wp.array(dtype=float)):\n    out[0] = 2.0\n";
    let kernel = compile("test.py", text, Options::default()).unwrap_or_else(|e| panic!("{e}")).remove(0);
    assert_eq!(stored(&kernel, DType::F32, &[])[0], 2.0);
    let open = text.replace("]}}", "]}");
    assert!(compile("test.py", &open, Options::default()).is_err());
}

#[test]
fn functions_may_have_other_names() {
    let text = "from bullet_core.lang import kernel, array, norm_l1 as size, vec2\n@kernel\ndef k(x: array(dtype=float), out: \
                array(dtype=float)):\n    out[0] = size(vec2(x[0], x[1]))\n";
    let kernel = compile("test.py", text, Options::default()).unwrap_or_else(|e| panic!("{e}")).remove(0);
    assert_eq!(stored(&kernel, DType::F32, &[1.0, -2.0])[0], 3.0);
    // One's own come first.
    let text = "import bullet_core.lang as wp\n@wp.func\ndef norm_l1(x: float):\n    return 7.0\n@wp.kernel\ndef k(x: \
                wp.array(dtype=float), out: wp.array(dtype=float)):\n    out[0] = norm_l1(x[0]) + wp.norm_l1(wp.vec2(x[0]))\n";
    let kernel = compile("test.py", text, Options::default()).unwrap_or_else(|e| panic!("{e}")).remove(0);
    assert_eq!(stored(&kernel, DType::F32, &[1.0])[0], 9.0);
}

#[test]
fn mistakes_are_of_the_call() {
    let error = |body: &str| {
        let text = module(DType::F32, body);
        compile("test.py", &text, Options::default()).expect_err("a mistake").to_string()
    };
    let found = error("U, s, V = wp.svd3(wp.mat22())");
    assert!(found.contains("expected a 3x3 matrix of floats, found mat22"), "{found}");
    let found = error("v = wp.norm_l1(wp.vec3i(1, 2, 3))");
    assert!(found.contains("expected a vector of floats, found"), "{found}");
    let found = error("U = wp.mat22()\nwp.qr3(wp.mat33(), U, U)");
    assert!(found.contains("this is mat22") && found.contains("test.py:6:"), "{found}");
    let found = error("s = wp.svd3(wp.mat33(), wp.mat33(), wp.vec3(), wp.mat33())");
    assert!(found.contains("puts its results into variables"), "{found}");
    let found = error("e = wp.quat_from_euler(wp.vec3(), 0, 1, 3)");
    assert!(found.contains("test.py:5:"), "{found}");
}
