"""Decompositions of small matrices, and their derivatives.

Jacobi's rotations, until what is left is lost in rounding, whatever the dtype; singular values by those of one side (Hestenes,
Inversion of matrices by biorthogonalization, 1958), which keeps small ones exact. The derivatives are those of J. Townsend,
Differentiating the singular value decomposition (2016), with the terms of close values put together, so that what does not depend
on the choice of vectors among equal values, as the rotation of a polar decomposition, has its gradient there, too. Where it
does depend on it, there is none, and that part is 0.
"""

from typing import Any

import bullet_core.lang as wp


@wp.func
def _apart(a: Any, b: Any, size: Any):
    """1 / (a - b), or 0 where the two are the same but for rounding of numbers of this size."""
    big = 16.0 * size
    if big + (a - b) == big:
        return a - a
    return 1.0 / (a - b)


@wp.func
def _columns(a: Any, b: Any, c: Any):
    """The matrix of three columns."""
    return wp.matrix_from_cols(a, b, c)


@wp.func
def _column(m: Any, j: int):
    return wp.types.vector(length=3, dtype=m.dtype)(m[0, j], m[1, j], m[2, j])


@wp.func
def _turned(p: Any, q: Any, c: Any, s: Any):
    """Two vectors turned towards each other by an angle with this cosine and sine."""
    return p * c - q * s, p * s + q * c


@wp.func
def _angle(zeta: Any):
    """Cosine and sine of the smaller angle whose double has this cotangent."""
    t = 1.0 / (wp.abs(zeta) + wp.sqrt(zeta * zeta + 1.0))
    if zeta < 0.0:
        t = -t
    c = 1.0 / wp.sqrt(t * t + 1.0)
    return c, c * t


@wp.func
def _orthogonal(p: Any, q: Any, v: Any, w: Any):
    """Turns p and q until they are orthogonal, and v and w with them; whether there was anything to do."""
    pp = wp.dot(p, p)
    qq = wp.dot(q, q)
    pq = wp.dot(p, q)
    limit = wp.sqrt(pp) * wp.sqrt(qq)
    if limit + wp.abs(pq) == limit:
        return p, q, v, w, False
    c, s = _angle((qq - pp) / (2.0 * pq))
    p, q = _turned(p, q, c, s)
    v, w = _turned(v, w, c, s)
    return p, q, v, w, True


@wp.func
def _longer_first(p: Any, q: Any, v: Any, w: Any):
    """Turns by a right angle where q is longer than p."""
    if wp.dot(q, q) > wp.dot(p, p):
        return q, -p, w, -v
    return p, q, v, w


@wp.func
def _perpendicular(u: Any):
    """Some unit vector at a right angle to a unit vector."""
    axis = wp.types.vector(length=3, dtype=u.dtype)(1.0, 0.0, 0.0)
    if wp.abs(u[0]) > 0.5:
        axis = wp.types.vector(length=3, dtype=u.dtype)(0.0, 1.0, 0.0)
    return wp.normalize(wp.cross(u, axis))


@wp.func
def _unit(v: Any, otherwise: Any):
    """The direction of a vector, or another where it has none."""
    size = wp.max(wp.abs(v))
    if size == 0.0:
        return otherwise
    # A length of numbers near 1, which neither overflows nor vanishes.
    return wp.normalize(v / size)


@wp.func
def _size(A: Any):
    """What to divide a matrix by, so that squares neither overflow nor vanish."""
    size = A.dtype(0.0)
    for i in range(len(A)):
        size = wp.max(size, wp.max(wp.abs(A[i])))
    if size == 0.0:
        return A.dtype(1.0)
    return size


@wp.func
def svd3(A: wp.types.matrix(shape=(3, 3), dtype=wp.Float)):
    """U, sigma, V with A = U diag(sigma) V^T: rotations, and values by their size, of which the last has the sign of A's determinant."""
    size = _size(A)
    a = _column(A, 0) / size
    b = _column(A, 1) / size
    c = _column(A, 2) / size
    u = wp.types.vector(length=3, dtype=A.dtype)(1.0, 0.0, 0.0)
    v = wp.types.vector(length=3, dtype=A.dtype)(0.0, 1.0, 0.0)
    w = wp.types.vector(length=3, dtype=A.dtype)(0.0, 0.0, 1.0)
    turning = True
    sweep = int(0)
    # Six sweeps are enough for float64; the bound is for what is no number.
    while turning and sweep < 16:
        a, b, u, v, ab = _orthogonal(a, b, u, v)
        a, c, u, w, ac = _orthogonal(a, c, u, w)
        b, c, v, w, bc = _orthogonal(b, c, v, w)
        turning = ab or ac or bc
        sweep += 1
    a, b, u, v = _longer_first(a, b, u, v)
    a, c, u, w = _longer_first(a, c, u, w)
    b, c, v, w = _longer_first(b, c, v, w)
    p = _unit(a, wp.types.vector(length=3, dtype=A.dtype)(1.0, 0.0, 0.0))
    q = _unit(b - p * wp.dot(p, b), _perpendicular(p))
    r = wp.cross(p, q)
    sigma = wp.types.vector(length=3, dtype=A.dtype)(wp.dot(p, a), wp.dot(q, b), wp.dot(r, c)) * size
    return _columns(p, q, r), sigma, _columns(u, v, w)


@wp.func_grad(svd3)
def _adj_svd3(A: Any, adj_U: Any, adj_sigma: Any, adj_V: Any):
    U, sigma, V = svd3(A)
    m = wp.transpose(U) * adj_U
    n = wp.transpose(V) * adj_V
    inner = wp.types.matrix(shape=(3, 3), dtype=A.dtype)()
    for i in range(3):
        inner[i, i] = adj_sigma[i]
        for j in range(3):
            if i != j:
                x = m[i, j] - m[j, i]
                y = n[i, j] - n[j, i]
                apart = (x + y) * _apart(sigma[j], sigma[i], sigma[0])
                together = (x - y) * _apart(sigma[j], -sigma[i], sigma[0])
                inner[i, j] = 0.5 * (apart + together)
    wp.adjoint[A] += U * inner * wp.transpose(V)


@wp.func
def svd2(A: wp.types.matrix(shape=(2, 2), dtype=wp.Float)):
    """U, sigma, V with A = U diag(sigma) V^T: orthogonal matrices, and values from the larger, not negative."""
    # A sum of a rotation that scales and a reflection that scales (J. Blinn, Consider the lowly 2x2 matrix, 1996).
    size = _size(A)
    B = (A / size) * 0.5
    e = B[0, 0] + B[1, 1]
    f = B[0, 0] - B[1, 1]
    g = B[1, 0] + B[0, 1]
    h = B[1, 0] - B[0, 1]
    turned = wp.length(wp.types.vector(length=2, dtype=A.dtype)(e, h))
    mirrored = wp.length(wp.types.vector(length=2, dtype=A.dtype)(f, g))
    first = wp.atan2(g, f)
    second = wp.atan2(h, e)
    phi = 0.5 * (second + first)
    theta = 0.5 * (second - first)
    smaller = turned - mirrored
    sign = A.dtype(1.0)
    if smaller < 0.0:
        sign = A.dtype(-1.0)
    U = wp.types.matrix(shape=(2, 2), dtype=A.dtype)(wp.cos(phi), -wp.sin(phi), wp.sin(phi), wp.cos(phi))
    V = wp.types.matrix(shape=(2, 2), dtype=A.dtype)(
        wp.cos(theta), wp.sin(theta) * sign, -wp.sin(theta), wp.cos(theta) * sign
    )
    return U, wp.types.vector(length=2, dtype=A.dtype)(turned + mirrored, sign * smaller) * size, V


@wp.func_grad(svd2)
def _adj_svd2(A: Any, adj_U: Any, adj_sigma: Any, adj_V: Any):
    U, sigma, V = svd2(A)
    m = wp.transpose(U) * adj_U
    n = wp.transpose(V) * adj_V
    x = m[0, 1] - m[1, 0]
    y = n[0, 1] - n[1, 0]
    apart = (x + y) * _apart(sigma[1], sigma[0], sigma[0])
    together = (x - y) * _apart(sigma[1], -sigma[0], sigma[0])
    inner = wp.types.matrix(shape=(2, 2), dtype=A.dtype)(
        adj_sigma[0], 0.5 * (apart + together), 0.5 * (apart - together), adj_sigma[1]
    )
    wp.adjoint[A] += U * inner * wp.transpose(V)


@wp.func
def _zeroed(p: Any, q: Any, at: int):
    """Two rows turned so that the second has a 0 there, as cosine and sine."""
    pair = wp.types.vector(length=2, dtype=p.dtype)(p[at], q[at])
    size = wp.max(wp.abs(pair))
    if size == 0.0:
        return p.dtype(1.0), p.dtype(0.0)
    pair = wp.normalize(pair / size)
    return pair[0], pair[1]


@wp.func
def qr3(A: wp.types.matrix(shape=(3, 3), dtype=wp.Float)):
    """Q, R with A = Q R: a rotation and an upper triangle, whose last number has the sign of A's determinant."""
    a = A[0]
    b = A[1]
    c = A[2]
    u = wp.types.vector(length=3, dtype=A.dtype)(1.0, 0.0, 0.0)
    v = wp.types.vector(length=3, dtype=A.dtype)(0.0, 1.0, 0.0)
    w = wp.types.vector(length=3, dtype=A.dtype)(0.0, 0.0, 1.0)
    # Rotations of two rows (Givens), and what they make of the unit matrix.
    cos, sin = _zeroed(a, b, 0)
    b, a = _turned(b, a, cos, sin)
    v, u = _turned(v, u, cos, sin)
    cos, sin = _zeroed(a, c, 0)
    c, a = _turned(c, a, cos, sin)
    w, u = _turned(w, u, cos, sin)
    cos, sin = _zeroed(b, c, 1)
    c, b = _turned(c, b, cos, sin)
    w, v = _turned(w, v, cos, sin)
    R = wp.types.matrix(shape=(3, 3), dtype=A.dtype)(a[0], a[1], a[2], 0.0, b[1], b[2], 0.0, 0.0, c[2])
    return _columns(u, v, w), R


@wp.func_grad(qr3)
def _adj_qr3(A: Any, adj_Q: Any, adj_R: Any):
    Q, R = qr3(A)
    upper = wp.types.matrix(shape=(3, 3), dtype=A.dtype)()
    for i in range(3):
        for j in range(i, 3):
            upper[i, j] = adj_R[i, j]
    m = R * wp.transpose(upper) - wp.transpose(adj_Q) * Q
    # Its lower triangle, mirrored.
    for i in range(3):
        for j in range(i + 1, 3):
            m[i, j] = m[j, i]
    wp.adjoint[A] += (adj_Q + Q * m) * wp.transpose(wp.inverse(R))


@wp.func
def _diagonal(S: Any, Q: Any, p: int, q: int):
    """Turns rows and columns p and q of a symmetric matrix until they meet in 0; whether there was anything to do."""
    limit = wp.abs(S[p, p]) + wp.abs(S[q, q])
    if limit + wp.abs(S[p, q]) == limit:
        return S, Q, False
    c, s = _angle((S[q, q] - S[p, p]) / (2.0 * S[p, q]))
    J = wp.types.matrix(shape=(3, 3), dtype=S.dtype)(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    J[p, p] = c
    J[q, q] = c
    J[p, q] = s
    J[q, p] = -s
    return wp.transpose(J) * S * J, Q * J, True


@wp.func
def eig3(A: wp.types.matrix(shape=(3, 3), dtype=wp.Float)):
    """Q, d with A = Q diag(d) Q^T of a symmetric matrix: eigenvectors as columns, and eigenvalues. Of others, of (A + A^T) / 2."""
    S = 0.5 * (A + wp.transpose(A))
    Q = wp.types.matrix(shape=(3, 3), dtype=A.dtype)(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    turning = True
    sweep = int(0)
    while turning and sweep < 16:
        S, Q, ab = _diagonal(S, Q, 0, 1)
        S, Q, ac = _diagonal(S, Q, 0, 2)
        S, Q, bc = _diagonal(S, Q, 1, 2)
        turning = ab or ac or bc
        sweep += 1
    return Q, wp.get_diag(S)


@wp.func_grad(eig3)
def _adj_eig3(A: Any, adj_Q: Any, adj_d: Any):
    Q, d = eig3(A)
    m = wp.transpose(Q) * adj_Q
    size = wp.max(wp.abs(d))
    inner = wp.types.matrix(shape=(3, 3), dtype=A.dtype)()
    for i in range(3):
        inner[i, i] = adj_d[i]
        for j in range(3):
            if i != j:
                inner[i, j] = 0.5 * (m[i, j] - m[j, i]) * _apart(d[j], d[i], size)
    wp.adjoint[A] += Q * inner * wp.transpose(Q)
