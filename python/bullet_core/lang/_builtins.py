"""The names of what kernels can call. The compiler knows what they do; on the host a call is interpreted."""

from __future__ import annotations

from ._evaluate import evaluate

#: docs/kernel-language.md says what they take.
NAMES = frozenset(
    """
    abs sign step nonzero min max clamp floordiv mod pow copysign add sub mul div neg
    sqrt cbrt exp log log2 log10 sin cos tan asin acos atan atan2 sinh cosh tanh erf erfc erfinv
    floor ceil round rint trunc frac lerp smoothstep radians degrees isnan isinf isfinite
    vector matrix identity spatial_vector spatial_dot spatial_cross spatial_cross_dual spatial_top spatial_bottom
    dot cross length length_sq normalize outer cw_mul cw_div diag skew
    transpose determinant inverse trace get_diag ddot matrix_from_rows matrix_from_cols
    quat_identity quat_inverse quat_rotate quat_rotate_inv quat_from_axis_angle quat_to_matrix
    quat_to_axis_angle quat_rpy quat_from_matrix quat_slerp
    transform_identity transform_point transform_vector transform_multiply transform_inverse
    transform_get_translation transform_get_rotation
    len load store atomic_add atomic_sub atomic_min atomic_max atomic_and atomic_or atomic_xor atomic_exch atomic_cas
    sample_triangle sample_unit_ring sample_unit_disk sample_unit_square sample_unit_cube sample_unit_hypercube
    sample_unit_sphere sample_unit_sphere_surface sample_unit_hemisphere sample_unit_hemisphere_surface
    rand_init randf randi randu randn tid where cast static printf print grad adjoint
    svd2 svd3 qr3 eig3 norm_l1 norm_l2 norm_huber norm_pseudo_huber smooth_normalize
    quat_from_euler quat_to_euler quat_to_rpy quat_twist quat_twist_angle quat_twist_angle_signed
    transform_from_matrix transform_to_matrix transform_compose transform_decompose
    velocity_at_point transform_twist transform_wrench spatial_adjoint
    """.split()
)

#: What needs a grid, memory or the compiler.
_IN_KERNELS = frozenset(name for name in NAMES if name.startswith("atomic_")) | {
    *("len", "load", "store", "tid", "cast", "static", "printf", "print", "grad", "adjoint"),
}


class Builtin:
    """A function that kernels have."""

    def __init__(self, name: str):
        self.name = self.__name__ = name

    def __call__(self, *args, **keywords):
        if self.name in _IN_KERNELS:
            raise TypeError(f"wp.{self.name} is called in kernels and @wp.func functions; on the host use Python's or NumPy's own")
        return evaluate(self.name, args, keywords)

    def __repr__(self):
        return f"<function {self.name} of kernels>"

    def __reduce__(self):
        return Builtin, (self.name,)
