"""Arrays of structs, nested and of mixed types; a struct of arrays."""

import bullet_core.lang as wp


@wp.struct
class Spin:
    axis: wp.vec3
    rate: wp.float64


@wp.struct
class Body:
    mass: float
    kind: wp.int16
    spin: Spin
    place: wp.vec2


@wp.struct
class World:
    bodies: wp.array(dtype=Body)
    energy: wp.array(dtype=wp.float64)
    scale: wp.float64


@wp.kernel
def structs(world: World, out: wp.array(dtype=Body)):
    i = wp.tid()
    body = world.bodies[i]
    spin = body.spin
    world.energy[i] = spin.rate * spin.rate * wp.float64(body.mass) * world.scale
    body.spin.axis = spin.axis * body.mass
    body.place.x += float(world.bodies[i].kind)
    out[i] = body
    out[i].spin.rate = wp.sin(spin.rate)
    out[i].mass *= 2.0
