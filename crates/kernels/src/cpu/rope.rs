//! Rotary position embedding (Su et al. 2021, "RoFormer"): pairs of a head's elements turned by an angle that grows with
//! the position, `position * base^(-2 i / dim)` for pair `i`.

use std::sync::{Arc, Mutex};

use bullet_ops::{Compute, Error, Float, Result};

use super::attention::{HeadsMut, HeadsRef};
use super::math::Real;
use super::par;
use super::simd::{SimdOp, Target, dispatch};

/// What positions the rows of a tensor have.
#[derive(Clone, Copy, Debug)]
pub enum Positions<'a> {
    /// This one and those after it, in every sequence; the offset is how much a key-value cache holds already.
    From(usize),
    /// One for each position of a sequence, or for each of each sequence: `[seq]` or `[batch, seq]`.
    Each(&'a [i64]),
}

/// The rotation.
#[derive(Clone, Copy, Debug)]
pub struct Rope<'a> {
    /// Base of the geometric series of angles, usually 10000.
    pub base: f64,
    /// Pairs are (2 i, 2 i + 1) if true, else (i, i + dim / 2), as GPT-NeoX has them.
    pub interleaved: bool,
    /// Turns the other way, which is the inverse and the adjoint.
    pub inverse: bool,
    /// Heads from this one on are copied, not turned; for packed queries, keys and values.
    pub heads: usize,
    /// Where the rows stand.
    pub positions: Positions<'a>,
}

/// Turns every head of `x`, `[batch, heads, seq, dim]`, into `y`.
///
/// # Errors
/// If `dim` is odd, or the sizes do not fit.
pub fn rope<T: Float<Compute: Real>>(x: HeadsRef<'_, T>, spec: &Rope<'_>, y: HeadsMut<'_, T>) -> Result<()> {
    let (from, to) = (x.layout(), y.layout());
    let (batch, heads, seq, dim) = (from.batch, from.heads, from.seq, from.dim);
    if (batch, heads, seq, dim) != (to.batch, to.heads, to.seq, to.dim) || !dim.is_multiple_of(2) {
        return Err(Error::shape(format!(
            "rope: input [{batch}, {heads}, {seq}, {dim}] and output [{}, {}, {}, {}]; expected the same sizes with an \
             even last one",
            to.batch, to.heads, to.seq, to.dim
        )));
    }
    if let Positions::Each(positions) = spec.positions
        && positions.len() != seq
        && positions.len() != batch * seq
    {
        return Err(Error::shape(format!(
            "rope: {} positions, expected {seq} or {batch} * {seq}",
            positions.len()
        )));
    }
    if !(spec.base > 0.0 && spec.base.is_finite()) {
        return Err(Error::argument(format!("rope: base {}, expected a positive number", spec.base)));
    }
    let position = |b: usize, s: usize| match spec.positions {
        Positions::From(first) => (first + s) as i64,
        Positions::Each(p) if p.len() == seq => p[s],
        Positions::Each(p) => p[b * seq + s],
    };
    let last = (0..batch).flat_map(|b| (0..seq).map(move |s| (b, s))).map(|(b, s)| position(b, s)).max();
    let table = Table::get(spec.base, dim / 2, last.unwrap_or(0));
    let grain = par::SERIAL_BELOW / (heads * dim * size_of::<T>()).max(1);
    par::for_ranges(batch * seq, grain.max(1), |rows| {
        let mut angles = vec![0.0; dim];
        let mut turn = vec![T::Compute::ZERO; dim];
        for row in rows {
            let (b, s) = (row / seq, row % seq);
            table.line(position(b, s), &mut angles);
            for (to, &from) in turn.iter_mut().zip(&angles) {
                *to = T::Compute::of(from);
            }
            if spec.inverse {
                turn[dim / 2..].iter_mut().for_each(|sin| *sin = -*sin);
            }
            for head in 0..heads {
                // SAFETY: rows of `dim` elements inside the views; every row of y is written by one task.
                unsafe {
                    let x = std::slice::from_raw_parts(x.row_ptr(b, head, s), dim);
                    let y = std::slice::from_raw_parts_mut(y.row_ptr(b, head, s), dim);
                    if head < spec.heads {
                        dispatch(Turn { x, y, turn: &turn, interleaved: spec.interleaved });
                    } else {
                        y.copy_from_slice(x);
                    }
                }
            }
        }
    });
    Ok(())
}

/// One head at one position; `turn` holds the cosines, then the sines.
struct Turn<'a, T: Float> {
    x: &'a [T],
    y: &'a mut [T],
    turn: &'a [T::Compute],
    interleaved: bool,
}

impl<T: Float> SimdOp for Turn<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Target>(self) {
        let half = self.x.len() / 2;
        let (cos, sin) = self.turn.split_at(half);
        if self.interleaved {
            for i in 0..half {
                let (a, b) = (self.x[2 * i].up(), self.x[2 * i + 1].up());
                self.y[2 * i] = T::down(a * cos[i] - b * sin[i]);
                self.y[2 * i + 1] = T::down(a * sin[i] + b * cos[i]);
            }
        } else {
            let (x, x_far) = self.x.split_at(half);
            let (y, y_far) = self.y.split_at_mut(half);
            for i in 0..half {
                let (a, b) = (x[i].up(), x_far[i].up());
                y[i] = T::down(a * cos[i] - b * sin[i]);
                y_far[i] = T::down(a * sin[i] + b * cos[i]);
            }
        }
    }
}

/// Cosines and sines of the first positions, for one base and head size: computing them costs more than the rotation.
struct Table {
    base: f64,
    half: usize,
    /// `half` cosines, then `half` sines, for each position.
    lines: Vec<f64>,
}

/// Tables are kept for this many elements; further positions are computed each time.
const MAX_TABLE: usize = 1 << 22;
/// And this many pairs of base and head size.
const MAX_TABLES: usize = 8;

static TABLES: Mutex<Vec<Arc<Table>>> = Mutex::new(Vec::new());

impl Table {
    /// A table that reaches position `last`, if that is not too far.
    fn get(base: f64, half: usize, last: i64) -> Arc<Table> {
        let most = MAX_TABLE / (2 * half).max(1);
        let wanted = (last.max(0) as usize + 1).min(most);
        // A panic elsewhere cannot leave a table half made: they are complete before they are put in.
        let mut tables = TABLES.lock().unwrap_or_else(|e| e.into_inner());
        let same = |t: &Arc<Table>| t.base.to_bits() == base.to_bits() && t.half == half;
        if let Some(table) = tables.iter().find(|t| same(t) && t.len() >= wanted) {
            return table.clone();
        }
        let len = wanted.next_power_of_two().min(most);
        let mut lines = vec![0.0; len * 2 * half];
        for (position, line) in lines.chunks_exact_mut((2 * half).max(1)).enumerate() {
            compute_line(base, position as i64, line);
        }
        let table = Arc::new(Table { base, half, lines });
        tables.retain(|t| !same(t));
        if tables.len() == MAX_TABLES {
            tables.remove(0);
        }
        tables.push(table.clone());
        table
    }

    fn len(&self) -> usize {
        if self.half == 0 { usize::MAX } else { self.lines.len() / (2 * self.half) }
    }

    fn line(&self, position: i64, out: &mut [f64]) {
        match usize::try_from(position) {
            Ok(p) if p < self.len() => out.copy_from_slice(&self.lines[p * out.len()..][..out.len()]),
            _ => compute_line(self.base, position, out),
        }
    }
}

/// Angles in f64: in f32 they would be wrong by a radian at position 10 million.
fn compute_line(base: f64, position: i64, out: &mut [f64]) {
    let (half, dim) = (out.len() / 2, out.len() as f64);
    for i in 0..half {
        let angle = position as f64 * base.powf(-2.0 * i as f64 / dim);
        (out[half + i], out[i]) = angle.sin_cos();
    }
}
