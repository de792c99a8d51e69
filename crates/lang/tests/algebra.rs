//! Vectors, matrices, quaternions, transforms and structs: values that are known otherwise.

use bullet_lang::interp::{Arg, Array, Options as Run, run};
use bullet_lang::{Options, compile};
use bullet_ops::DType;

const MODULE: &str = "
import warp as wp
from typing import Any

vec5 = wp.types.vector(length=5, dtype=float)
mat23 = wp.types.matrix(shape=(2, 3), dtype=float)
SCALE = wp.constant(2.0)


@wp.struct
class Inner:
    v: wp.vec2
    n: int


@wp.struct
class Outer:
    a: Inner
    b: Inner
    s: float


@wp.func
def norm1(v: wp.vec3):
    return wp.abs(v.x) + wp.abs(v.y) + wp.abs(v.z)


@wp.func
def over(x: float):
    return 1.0


@wp.func
def over(x: int):
    return 2.0


@wp.func
def over(x: wp.vec3):
    return 3.0


@wp.func
def twice(x: Any):
    return x + x


@wp.func
def both(x: float, y: float = 10.0):
    return y, x


@wp.kernel
def k(out: wp.array(dtype=float)):
    i = wp.tid()
";

/// What a body stores in the first elements of `out`.
fn stored(body: &str, count: usize) -> Vec<f64> {
    let lines: Vec<String> = body.lines().map(|line| format!("    {line}\n")).collect();
    let text = format!("{MODULE}{}", lines.concat());
    let kernels = compile("test.py", &text, Options::default()).unwrap_or_else(|e| panic!("{e}"));
    let mut arrays: Vec<Array<f64>> = vec![Array::zeros(DType::F32, &[16], 1)];
    run(&kernels[0], &[1], &[Arg::Array(0)], &mut arrays, Run::default()).unwrap_or_else(|e| panic!("{e}"));
    arrays[0].as_floats()[..count].to_vec()
}

/// The scalars of an expression with so many components.
fn vector(value: &str, count: usize) -> Vec<f64> {
    let stores: Vec<String> = (0..count).map(|at| format!("out[{at}] = v[{at}]\n")).collect();
    stored(&format!("v = {value}\n{}", stores.concat()), count)
}

/// The scalars of a matrix.
fn matrix(value: &str, rows: usize, columns: usize) -> Vec<f64> {
    let at = |at: usize| format!("out[{at}] = m[{}, {}]\n", at / columns, at % columns);
    let stores: Vec<String> = (0..rows * columns).map(at).collect();
    stored(&format!("m = {value}\n{}", stores.concat()), rows * columns)
}

fn close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    let near = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5);
    assert!(near, "{found:?}, expected {expected:?}");
}

#[test]
fn vectors() {
    assert_eq!(vector("wp.vec3(1.0, 2.0, 3.0) * 2.0 - wp.vec3(1.0)", 3), [1.0, 3.0, 5.0]);
    assert_eq!(vector("wp.cross(wp.vec3(1.0, 0.0, 0.0), wp.vec3(0.0, 1.0, 0.0))", 3), [0.0, 0.0, 1.0]);
    assert_eq!(vector("wp.cw_mul(wp.vec2(2.0, 3.0), wp.vec2(4.0, 5.0)) / 2.0", 2), [4.0, 7.5]);
    assert_eq!(vector("-wp.max(wp.vec2(2.0, 3.0), wp.vec2(4.0, 1.0))", 2), [-4.0, -3.0]);
    assert_eq!(vector("vec5(1.0, 2.0, 3.0, 4.0, 5.0) + vec5()", 5), [1.0, 2.0, 3.0, 4.0, 5.0]);
    close(&vector("wp.normalize(wp.vec2(3.0, 4.0))", 2), &[0.6, 0.8]);
    assert_eq!(stored("out[0] = wp.dot(wp.vec3(1.0, 2.0, 3.0), wp.vec3(4.0, 5.0, 6.0))", 1), [32.0]);
    assert_eq!(stored("out[0] = wp.length(wp.vec2(3.0, 4.0)) + wp.length_sq(wp.vec2(1.0, 1.0))", 1), [7.0]);
    let body = "v = wp.vec3(1.0, 2.0, 3.0)\nv.x = 5.0\nv[1] += 4.0\nv[-1] = v.x\nout[0] = norm1(v)";
    assert_eq!(stored(body, 1), [16.0]);
    // A component whose number is known at run time only.
    let body = "v = wp.vec3(1.0, 2.0, 3.0)\nv[i + 1] = 7.0\nfor k in range(3):\n    out[k] = v[(k + i) % 3]\nx, y, z = v\nout[3] = y";
    assert_eq!(stored(body, 4), [1.0, 7.0, 3.0, 7.0]);
}

#[test]
fn matrices() {
    let m = "wp.mat33(2.0, 0.0, 1.0, 1.0, 3.0, 0.0, 0.0, 1.0, 4.0)";
    assert_eq!(stored(&format!("out[0] = wp.determinant({m})\nout[1] = wp.trace({m})"), 2), [25.0, 9.0]);
    let identity = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
    close(&matrix(&format!("wp.inverse({m}) @ {m}"), 3, 3), &identity);
    close(&matrix(&format!("{m} * wp.inverse({m})"), 3, 3), &identity);
    let m4 = "wp.mat44(2.0, 0.0, 1.0, 0.5, 1.0, 3.0, 0.0, 0.0, 0.0, 1.0, 4.0, 1.0, 0.0, 2.0, 0.0, 1.0)";
    let found = matrix(&format!("wp.inverse({m4}) @ {m4}"), 4, 4);
    let expected: Vec<f64> = (0..16).map(|at| if at % 5 == 0 { 1.0 } else { 0.0 }).collect();
    close(&found, &expected);
    close(&matrix("wp.inverse(wp.mat22(1.0, 2.0, 2.0, 4.0))", 2, 2), &[0.0; 4]);
    let rows = "wp.matrix_from_rows(wp.vec3(1.0, 2.0, 3.0), wp.vec3(4.0, 5.0, 6.0))";
    assert_eq!(matrix(rows, 2, 3), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(matrix(&format!("wp.transpose({rows})"), 3, 2), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    assert_eq!(
        matrix("wp.matrix_from_cols(wp.vec2(1.0, 2.0), wp.vec2(3.0, 4.0))", 2, 2),
        [1.0, 3.0, 2.0, 4.0]
    );
    assert_eq!(vector(&format!("{rows} @ wp.vec3(1.0, 0.0, 2.0)"), 2), [7.0, 16.0]);
    assert_eq!(vector(&format!("wp.vec2(1.0, 2.0) @ {rows}"), 3), [9.0, 12.0, 15.0]);
    assert_eq!(matrix("wp.outer(wp.vec2(1.0, 2.0), wp.vec2(3.0, 4.0))", 2, 2), [3.0, 4.0, 6.0, 8.0]);
    assert_eq!(matrix("wp.diag(wp.vec2(1.0, 2.0)) * SCALE", 2, 2), [2.0, 0.0, 0.0, 4.0]);
    let skew = vector("wp.skew(wp.vec3(1.0, 2.0, 3.0)) @ wp.vec3(4.0, 5.0, 7.0)", 3);
    assert_eq!(skew, vector("wp.cross(wp.vec3(1.0, 2.0, 3.0), wp.vec3(4.0, 5.0, 7.0))", 3));
    let body = "m = mat23()\nm[1, 2] = 3.0\nm[0] = wp.vec3(7.0, 8.0, 9.0)\nr = m[i]\nout[0] = r.y\nout[1] = m[i + 1, 2]\nout[2] = \
                wp.ddot(m, m)";
    assert_eq!(stored(body, 3), [8.0, 3.0, 203.0]);
}

#[test]
fn rotations() {
    let turn = "wp.quat_from_axis_angle(wp.vec3(0.0, 0.0, 1.0), wp.pi / 2.0)";
    close(&vector(&format!("wp.quat_rotate({turn}, wp.vec3(1.0, 0.0, 5.0))"), 3), &[0.0, 1.0, 5.0]);
    close(&vector(&format!("wp.quat_rotate_inv({turn}, wp.vec3(0.0, 1.0, 5.0))"), 3), &[1.0, 0.0, 5.0]);
    close(
        &matrix(&format!("wp.quat_to_matrix({turn})"), 3, 3),
        &[0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0],
    );
    close(&vector(&format!("{turn} * wp.quat_inverse({turn})"), 4), &[0.0, 0.0, 0.0, 1.0]);
    // i j = k.
    assert_eq!(vector("wp.quat(1.0, 0.0, 0.0, 0.0) * wp.quat(0.0, 1.0, 0.0, 0.0)", 4), [0.0, 0.0, 1.0, 0.0]);
    let move_ = format!("wp.transform(wp.vec3(1.0, 2.0, 3.0), {turn})");
    close(&vector(&format!("wp.transform_point({move_}, wp.vec3(1.0, 0.0, 0.0))"), 3), &[1.0, 3.0, 3.0]);
    close(&vector(&format!("wp.transform_vector({move_}, wp.vec3(1.0, 0.0, 0.0))"), 3), &[0.0, 1.0, 0.0]);
    let back = format!("wp.transform_inverse({move_}) * {move_}");
    close(&vector(&back, 7), &[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
    close(&vector(&format!("({move_}).p + wp.transform_get_translation({move_})"), 3), &[2.0, 4.0, 6.0]);
}

#[test]
fn structs_and_functions() {
    let body = "o = Outer()\no.a.v = wp.vec2(1.0, 2.0)\no.a.v.y = 5.0\no.b = o.a\no.b.n = 3\no.a.v[0] = 9.0\nfor k in range(o.b.n):\n    \
                o.s += o.b.v.x\nout[0] = o.a.v.x\nout[1] = o.b.v.x\nout[2] = o.b.v.y\nout[3] = o.s + float(o.a.n)";
    assert_eq!(stored(body, 4), [9.0, 1.0, 5.0, 3.0]);
    let body = "out[0] = over(1.5)\nout[1] = over(i)\nout[2] = over(wp.vec3())\nout[3] = twice(4.0) + float(twice(i + 1))\nv = \
                twice(wp.vec2(1.0, 2.0))\nout[4] = v.y";
    assert_eq!(stored(body, 5), [1.0, 2.0, 3.0, 10.0, 4.0]);
    let body = "a, b = both(1.0)\nc, d = both(y=2.0, x=3.0)\nout[0] = a\nout[1] = b\nout[2] = c\nout[3] = d";
    assert_eq!(stored(body, 4), [10.0, 1.0, 2.0, 3.0]);
    let body = "v = wp.vec2d(wp.float64(0.1), wp.float64(0.2))\nw = wp.vec2(v)\nout[0] = w.x\nout[1] = float(v.x == wp.float64(0.1))";
    assert_eq!(stored(body, 2), [f64::from(0.1f32), 1.0]);
}

#[test]
fn conversions_of_rotations() {
    let rpy = "wp.quat_rpy(0.3, -0.4, 2.0)";
    close(&vector(&format!("wp.quat_from_matrix(wp.quat_to_matrix({rpy})) - {rpy}"), 4), &[0.0; 4]);
    // Where the trace is negative, and each of the squares is the largest.
    for (axis, at) in [("1.0, 0.2, 0.1", 0), ("0.1, 1.0, 0.2", 1), ("0.2, 0.1, 1.0", 2)] {
        let turn = format!("wp.quat_from_axis_angle(wp.normalize(wp.vec3({axis})), 3.0)");
        let found = vector(&format!("wp.quat_from_matrix(wp.quat_to_matrix({turn}))"), 4);
        close(&found, &vector(&turn, 4));
        assert!(found[at].abs() > 0.9);
    }
    let turn = |angle: &str| format!("wp.quat_from_axis_angle(wp.vec3(0.0, 0.0, 1.0), {angle})");
    close(
        &vector(&format!("wp.quat_slerp({}, {}, 0.25)", turn("0.2"), turn("1.0")), 4),
        &vector(&turn("0.4"), 4),
    );
    let body = format!(
        "axis, angle = wp.quat_to_axis_angle(-1.0 * {})\nout[0] = axis.z\nout[1] = angle",
        turn("0.7")
    );
    close(&stored(&body, 2), &[1.0, 0.7]);
    close(&vector("wp.quat_rpy(0.0, 0.0, 1.0)", 4), &vector(&turn("1.0"), 4));
}

#[test]
fn spatial_vectors() {
    let (a, b) = (
        "wp.spatial_vector(1.0, 2.0, 3.0, 4.0, 5.0, 6.0)",
        "wp.spatial_vector(wp.vec3(0.0, 1.0, 0.0), wp.vec3(2.0, 0.0, 1.0))",
    );
    assert_eq!(stored(&format!("out[0] = wp.spatial_dot({a}, {b})"), 1), [2.0 + 8.0 + 6.0]);
    assert_eq!(vector(&format!("wp.spatial_top({a}) + wp.spatial_bottom({b})"), 3), [3.0, 2.0, 4.0]);
    // (w x w', v x w' + w x v') and (w x w' + v x v', w x v').
    assert_eq!(vector(&format!("wp.spatial_cross({a}, {b})"), 6), [-3.0, 0.0, 1.0, -4.0, 5.0, 0.0]);
    assert_eq!(vector(&format!("wp.spatial_cross_dual({a}, {b})"), 6), [2.0, 8.0, -9.0, 2.0, 5.0, -4.0]);
}

#[test]
fn vectors_and_matrices_made_by_name() {
    assert_eq!(matrix("wp.identity(n=2, dtype=float) * 3.0", 2, 2), [3.0, 0.0, 0.0, 3.0]);
    assert_eq!(vector("wp.vector(1.0, 2.0, 3.0) + wp.vector(4.0, length=3)", 3), [5.0, 6.0, 7.0]);
    assert_eq!(vector("wp.vec2(wp.vector(wp.vec2d(1.0, 2.0), dtype=float))", 2), [1.0, 2.0]);
    assert_eq!(
        matrix("wp.matrix(1.0, 2.0, 3.0, 4.0, 5.0, 6.0, shape=(2, 3))", 2, 3),
        [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    );
    assert_eq!(matrix("wp.matrix(0.0, shape=(2, 2), dtype=float)", 2, 2), [0.0; 4]);
}

#[test]
fn points_of_random_shapes() {
    let sampled = |name: &str, count: usize| {
        let body = format!(
            "s = wp.rand_init(7, i)\nfor k in range(3):\n    v = wp.{name}(s)\nout[0] = wp.length(v)\nout[1] = wp.min(v)\nout[2] = \
             wp.max(v)\nout[3] = v[{}]",
            count - 1
        );
        stored(&body, 4)
    };
    for (name, count) in
        [("sample_unit_ring", 2), ("sample_unit_sphere_surface", 3), ("sample_unit_hemisphere_surface", 3)]
    {
        close(&sampled(name, count)[..1], &[1.0]);
    }
    for (name, count) in [("sample_unit_disk", 2), ("sample_unit_sphere", 3), ("sample_unit_hemisphere", 3)] {
        assert!(sampled(name, count)[0] <= 1.0);
    }
    for (name, count) in [("sample_unit_square", 2), ("sample_unit_cube", 3), ("sample_unit_hypercube", 4)] {
        let found = sampled(name, count);
        assert!(found[1] >= -0.5 && found[2] < 0.5);
    }
    assert!(sampled("sample_unit_hemisphere", 3)[3] >= 0.0);
    // Each point takes new numbers.
    let body = "s = wp.rand_init(7, i)\na = wp.sample_triangle(s)\nb = wp.sample_triangle(s)\nt = wp.rand_init(7, i)\nu = \
                wp.randf(t)\nv = wp.randf(t)\nout[0] = a.x\nout[1] = a.y\nout[2] = 1.0 - wp.sqrt(u)\nout[3] = v * \
                wp.sqrt(u)\nout[4] = wp.abs(a.x - b.x)";
    let found = stored(body, 5);
    assert_eq!(found[..2], found[2..4]);
    assert!(found[4] > 0.0);
}
