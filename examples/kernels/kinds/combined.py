"""The kinds of kernels: structs, functions, constants, random numbers and loops together."""

import bullet_core.lang as wp

GRAVITY = wp.constant(9.81)
SUBSTEPS = 4


@wp.struct
class Particle:
    position: wp.vec3
    velocity: wp.vec3
    mass: float


@wp.func
def step(p: Particle, dt: float, drag: float):
    force = wp.vec3(0.0, -GRAVITY * p.mass, 0.0) - drag * wp.length(p.velocity) * p.velocity
    p.velocity = p.velocity + force * (dt / p.mass)
    p.position = p.position + p.velocity * dt
    return p


@wp.kernel
def combined(x: wp.array(dtype=wp.vec3), v: wp.array(dtype=wp.vec3), drag: wp.array(dtype=float), seed: int, dt: float):
    i = wp.tid()
    state = wp.rand_init(seed, i)
    p = Particle()
    p.position = x[i]
    p.velocity = v[i] + wp.vec3(wp.randf(state), wp.randf(state), wp.randn(state)) * 0.01
    p.mass = 1.5
    for k in range(SUBSTEPS):
        p = step(p, dt, drag[0])
    x[i] = p.position
    v[i] = p.velocity
