//! Indexing by whole keys, as NumPy has it: integers, slices, new axes, tensors of integers and masks, in any mixture;
//! reading ([`Tensor::index`]) and overwriting ([`Tensor::set_index`]).
//!
//! **How.** What is basic (integers, slices, new axes) makes a view. The axes that tensors of indices pick from are merged
//! into one, the indices into one vector of places along it, and `index_select` picks: its adjoint is the adjoint of the
//! whole. Overwriting finds for each place which element of the value comes last, and selects between value and old
//! element: it goes through the whole view, not only through what is overwritten, but for masks with a value that
//! broadcasts, which are one elementwise pass.

use bullet_ops::expr::Expr;
use bullet_ops::{DType, Error as OpError, Kind, Shape};
use smallvec::SmallVec;

use crate::dispatch::{run_expr, update};
use crate::error::Result;
use crate::tape::no_grad;
use crate::tensor::Tensor;
use crate::views::Slice;

/// One entry of a key.
#[derive(Clone)]
pub enum Index {
    /// One element of an axis, which vanishes; counts from the end if negative.
    At(isize),
    /// Some elements of an axis.
    Range(Slice),
    /// A new axis of length 1.
    NewAxis,
    /// All axes that the other entries don't name; at most once.
    Rest,
    /// Elements of an axis at these integers, which count from the end if negative.
    Take(Tensor),
    /// Elements of as many axes as this tensor of bools has, where it is true.
    Mask(Tensor),
}

impl Index {
    /// How many axes of the indexed tensor it names.
    fn axes(&self) -> usize {
        match self {
            Index::At(_) | Index::Range(_) | Index::Take(_) => 1,
            Index::Mask(mask) => mask.rank(),
            Index::NewAxis | Index::Rest => 0,
        }
    }
}

/// Places of one axis of a view.
struct Pick {
    axis: usize,
    /// i64, of any shape.
    at: Tensor,
}

/// A key, applied as far as views go.
struct Plan {
    view: Tensor,
    /// In ascending order of axes.
    picks: Vec<Pick>,
    /// What the places of all picks broadcast to.
    picked: Shape,
    /// Where its axes stand in the result: with the picks if they stand together in the key, else first.
    place: usize,
}

impl Tensor {
    /// The elements that a key names: a view if it holds no tensors, else a copy. Masks wait for the device.
    ///
    /// # Errors
    /// Too many indices; an integer out of range (on a GPU reported by whoever reads the result); masks whose shape is not
    /// that of their axes; tensors that don't broadcast to each other.
    pub fn index(&self, key: &[Index]) -> Result<Tensor> {
        let Plan { mut view, picks, picked, place } = self.plan(key)?;
        let Some(first) = picks.first().map(|pick| pick.axis) else { return Ok(view) };
        let together = picks.iter().enumerate().all(|(i, pick)| pick.axis == first + i);
        let at = if together { first } else { 0 };
        if !together {
            view = view.permute(&picks_first(&picks, view.rank()))?;
        }
        let lengths: Vec<usize> = view.shape()[at..at + picks.len()].to_vec();
        let (before, behind) = (view.shape()[..at].to_vec(), view.shape()[at + picks.len()..].to_vec());
        let merged = Shape::new(&[&before[..], &[lengths.iter().product()], &behind].concat())?;
        let places = places(&picks, &lengths, picked)?;
        let out = view.reshape_to(merged)?.index_select(at as isize, &places)?;
        let out = out.reshape_to(Shape::new(&[&before[..], &picked[..], &behind].concat())?)?;
        out.move_block(at, picked.rank(), place)
    }

    /// Overwrites the elements that a key names by `value`, which broadcasts to them and is converted; of several elements
    /// for one place the last stays. Masks may wait for the device.
    ///
    /// # Errors
    /// As [`Tensor::index`] and [`Tensor::copy_`].
    pub fn set_index(&self, key: &[Index], value: &Tensor) -> Result<()> {
        let value = value.to_device(self.device())?;
        if let [Index::Mask(mask)] = key
            && mask.rank() > 0
            && self.masked_assign(mask, &value)?
        {
            return Ok(());
        }
        let Plan { view, picks, picked, place } = self.plan(key)?;
        if picks.is_empty() {
            return view.copy_(&value.without_leading_ones(view.rank())?);
        }
        let order = picks_first(&picks, view.rank());
        let turned = view.permute(&order)?;
        let (lengths, rest) = turned.shape().split_at(picks.len());
        let (count, width) = (lengths.iter().product::<usize>(), rest.iter().product::<usize>());
        let target = Shape::new(&[&rest[..place], &picked[..], &rest[place..]].concat())?;
        let value = value.without_leading_ones(target.rank())?;
        if value.layout().broadcast_to(target).is_err() {
            return Err(OpError::shape(format!(
                "shape mismatch: value array of shape {} could not be broadcast to indexing result of shape {target}",
                value.shape()
            ))
            .into());
        }
        let places = places(&picks, lengths, picked)?;
        let rows = value.cast(self.dtype())?.broadcast_to(&target)?.move_block(place, picked.rank(), 0)?;
        let rows = rows.reshape_to(Shape::new(&[picked.numel(), width])?)?;
        if rows.numel() == 0 {
            return crate::dispatch::check_in_place(&view);
        }
        let old = turned.reshape_to(Shape::new(&[count, width])?)?;
        let new = no_grad(|| overwritten(&old, &places, &rows))?.reshape_to(*turned.shape())?;
        turned.copy_(&new)
    }

    fn plan(&self, key: &[Index]) -> Result<Plan> {
        let key = complete(key, self.rank())?;
        let advanced = key.iter().any(|entry| matches!(entry, Index::Take(_) | Index::Mask(_)));
        let (mut view, mut axis, mut picks) = (self.clone(), 0, Vec::new());
        // Where the first index stands that is not basic, whether something basic follows, and then another index.
        let (mut place, mut gap, mut apart) = (None, false, false);
        for entry in &key {
            match entry {
                // It parts tensors, also where it names no axes.
                Index::Rest => {
                    gap = place.is_some();
                    continue;
                }
                // Beside tensors an integer is one of them.
                Index::At(_) if !advanced => {}
                Index::At(_) | Index::Take(_) | Index::Mask(_) => {
                    place = place.or(Some(axis));
                    apart |= gap;
                }
                Index::Range(_) | Index::NewAxis => gap = place.is_some(),
            }
            let at = axis as isize;
            axis += 1;
            match entry {
                Index::At(index) => {
                    view = view.select(at, *index)?;
                    axis -= 1;
                }
                Index::Range(slice) => view = view.slice(at, *slice)?,
                Index::NewAxis => view = view.unsqueeze(at)?,
                Index::Take(indices) => picks.push(Pick { axis: axis - 1, at: integers(indices)? }),
                Index::Mask(mask) => {
                    view = mask_picks(view, axis - 1, mask, &mut picks)?;
                    axis = picks.last().map_or(axis, |pick| pick.axis + 1);
                }
                Index::Rest => unreachable!("it names no axis"),
            }
        }
        let shapes: Vec<Shape> = picks.iter().map(|pick| *pick.at.shape()).collect();
        let picked = if shapes.is_empty() {
            Shape::SCALAR
        } else {
            Shape::broadcast_all(&shapes).map_err(|_| {
                let shapes: Vec<String> = shapes.iter().map(Shape::to_string).collect();
                OpError::index(format!(
                    "shape mismatch: indexing arrays could not be broadcast together with shapes {}",
                    shapes.join(" ")
                ))
            })?
        };
        let place = if apart { 0 } else { place.unwrap_or(0) };
        Ok(Plan { view, picks, picked, place })
    }

    /// Overwrites by a mask of the first axes in one pass, where the value is the same for all of them; tells whether it is.
    fn masked_assign(&self, mask: &Tensor, value: &Tensor) -> Result<bool> {
        check_mask(mask, self, 0)?;
        if mask.numel() == 0 {
            return Ok(false);
        }
        let behind = self.rank() - mask.rank();
        let same_for_all = value.rank() <= behind || (value.rank() == behind + 1 && value.dim(0) == 1);
        if !same_for_all {
            return Ok(false);
        }
        let value = value.without_leading_ones(behind)?;
        let shape = [&mask.shape()[..], &vec![1; behind]].concat();
        let mask = mask.reshape_to(Shape::new(&shape)?)?;
        // Beside floats an integer would be computed in floats.
        let value = value.cast(self.dtype())?;
        let select = Expr::build(3, |x| x[0].select(x[1], x[2]));
        update(self, &select, &[&mask, &value, self])?;
        Ok(true)
    }

    /// `count` axes from `from` on, moved so that they begin at `to`.
    fn move_block(&self, from: usize, count: usize, to: usize) -> Result<Tensor> {
        if from == to {
            return Ok(self.clone());
        }
        let (block, mut axes): (Vec<isize>, Vec<isize>) =
            (0..self.rank() as isize).partition(|&a| (from..from + count).contains(&(a as usize)));
        axes.splice(to..to, block);
        self.permute(&axes)
    }

    /// Without leading axes of length 1, as long as there are more than `rank`.
    fn without_leading_ones(&self, rank: usize) -> Result<Tensor> {
        let surplus = self.rank().saturating_sub(rank);
        let ones = self.shape().iter().take(surplus).take_while(|&&d| d == 1).count();
        if ones == 0 { Ok(self.clone()) } else { self.reshape_to(Shape::new(&self.shape()[ones..])?) }
    }

    /// Elements picked along `axis` by `indices` of as many axes, which count from the end if negative; the other axes
    /// broadcast.
    ///
    /// # Errors
    /// No such axis; indices that are no integers, out of range, or don't broadcast.
    pub fn take_along_axis(&self, indices: &Tensor, axis: isize) -> Result<Tensor> {
        let axis = self.shape().axis(axis)?;
        if indices.rank() != self.rank() {
            return Err(OpError::shape(format!(
                "`indices` and `arr` must have the same number of dimensions, got {} and {}",
                indices.rank(),
                self.rank()
            ))
            .into());
        }
        let lead = Shape::new(&self.shape().with(axis, 1))?.broadcast(&indices.shape().with(axis, 1))?;
        let indices = from_start(&integers(indices)?, axis, self.dim(axis))?;
        let indices = indices.broadcast_to(&lead.with(axis, indices.dim(axis)))?;
        self.broadcast_to(&lead.with(axis, self.dim(axis)))?.gather(axis as isize, &indices)
    }

    /// Slices along `axis` at `indices`, whose axes stand in its place; they count from the end if negative.
    ///
    /// # Errors
    /// No such axis; indices that are no integers, or out of range.
    pub fn take(&self, indices: &Tensor, axis: isize) -> Result<Tensor> {
        let axis = self.shape().axis(axis)?;
        let whole = Index::Range(Slice { start: None, end: None, step: 1 });
        let mut key = vec![whole; axis];
        key.push(Index::Take(indices.clone()));
        self.index(&key)
    }
}

/// The key with what is missing at the end, or behind `...`, written out.
fn complete(key: &[Index], rank: usize) -> Result<SmallVec<[Index; 8]>> {
    let named: usize = key.iter().map(Index::axes).sum();
    if named > rank {
        return Err(OpError::index(format!(
            "too many indices for array: array is {rank}-dimensional, but {named} were indexed"
        ))
        .into());
    }
    if key.iter().filter(|entry| matches!(entry, Index::Rest)).count() > 1 {
        return Err(OpError::index("an index can only have a single ellipsis ('...')").into());
    }
    let whole = || std::iter::repeat_n(Index::Range(Slice { start: None, end: None, step: 1 }), rank - named);
    let mut all = SmallVec::new();
    for entry in key {
        match entry {
            Index::Rest => {
                all.push(Index::Rest);
                all.extend(whole());
            }
            _ => all.push(entry.clone()),
        }
    }
    if !key.iter().any(|entry| matches!(entry, Index::Rest)) {
        all.extend(whole());
    }
    Ok(all)
}

/// Indices as i64.
fn integers(indices: &Tensor) -> Result<Tensor> {
    if indices.dtype().kind() != Kind::Int {
        return Err(OpError::index(format!(
            "arrays used as indices must be of integer (or boolean) type, not {}",
            indices.dtype()
        ))
        .into());
    }
    no_grad(|| indices.cast(DType::I64))
}

fn check_mask(mask: &Tensor, of: &Tensor, axis: usize) -> Result<()> {
    // A mask without elements picks none, of axes of any length: so the array API has it.
    let fits = |i: usize| of.shape().get(axis + i).is_some_and(|&d| d == mask.dim(i) || mask.dim(i) == 0);
    let wrong = (0..mask.rank()).find(|&i| !fits(i));
    let Some(i) = wrong else { return Ok(()) };
    Err(match of.shape().get(axis + i) {
        Some(size) => OpError::index(format!(
            "boolean index did not match indexed array along axis {}; size of axis is {size} but size of corresponding \
             boolean axis is {}",
            axis + i,
            mask.dim(i)
        )),
        None => OpError::index(format!(
            "too many indices for array: array is {}-dimensional, but {} were indexed",
            of.rank(),
            axis + mask.rank()
        )),
    }
    .into())
}

/// Adds the picks of a mask over the axes from `axis` on; returns the view that they are of.
fn mask_picks(view: Tensor, axis: usize, mask: &Tensor, picks: &mut Vec<Pick>) -> Result<Tensor> {
    if mask.rank() == 0 {
        let at = no_grad(|| mask.reshape(&[1])?.flat_nonzero())?;
        picks.push(Pick { axis, at });
        return view.unsqueeze(axis as isize);
    }
    check_mask(mask, &view, axis)?;
    let vectors = no_grad(|| mask.nonzero())?;
    picks.extend(vectors.into_iter().enumerate().map(|(i, at)| Pick { axis: axis + i, at }));
    Ok(view)
}

/// All axes, those of the picks first.
fn picks_first(picks: &[Pick], rank: usize) -> Vec<isize> {
    let picked = picks.iter().map(|pick| pick.axis);
    let rest = (0..rank).filter(|axis| picks.iter().all(|pick| pick.axis != *axis));
    picked.chain(rest).map(|axis| axis as isize).collect()
}

/// Indices of an axis of length `len`, those that count from the end turned; those out of range stay so.
///
/// # Errors
/// An index out of range, if the tensor is on the CPU: elsewhere that would wait.
fn from_start(indices: &Tensor, axis: usize, len: usize) -> Result<Tensor> {
    if indices.device().gpu().is_none() && indices.numel() > 0 && !indices.device().is_capturing() {
        let n = len as f64;
        let (low, high) = (indices.min(&[], false)?.item()?, indices.max(&[], false)?.item()?);
        if low < -n || high >= n {
            let wrong = if high >= n { high } else { low };
            return Err(OpError::index(format!(
                "index {wrong} is out of bounds for axis {axis} with size {len}"
            ))
            .into());
        }
        if low >= 0.0 {
            return Ok(indices.clone());
        }
    }
    let turn = Expr::build(2, |x| x[0].lt(0.0).and((-x[1]).le(x[0])).select(x[0] + x[1], x[0]));
    let n = Tensor::constant(len as f64, DType::I64, indices.device())?;
    run_expr(&turn, DType::I64, &[Some(indices), Some(&n)], indices.meta(), indices.device())
}

/// The places that picks name together along their axes merged into one: a vector. An index out of range stays so.
fn places(picks: &[Pick], lengths: &[usize], picked: Shape) -> Result<Tensor> {
    no_grad(|| {
        if picked.numel() == 0 {
            // Indices that are broadcast away name nothing, right or wrong.
            return Tensor::zeros(&[0], DType::I64, picks[0].at.device());
        }
        let mut all: Option<Tensor> = None;
        for (pick, &len) in picks.iter().zip(lengths) {
            let at = from_start(&pick.at, pick.axis, len)?.broadcast_to(&picked)?;
            all = Some(match all {
                None => at,
                Some(outer) => {
                    let join = Expr::build(3, |x| {
                        let wrong = x[0].lt(0.0).or(x[1].lt(0.0)).or(x[2].le(x[1]));
                        wrong.select(-1.0, x[0] * x[2] + x[1])
                    });
                    let n = Tensor::constant(len as f64, DType::I64, at.device())?;
                    let operands = [Some(&outer), Some(&at), Some(&n)];
                    run_expr(&join, DType::I64, &operands, at.meta(), at.device())?
                }
            });
        }
        let all = all.expect("called with picks");
        all.reshape(&[all.numel() as isize])
    })
}

/// Rows `old` with those at `places` replaced by `rows`, the last of several for one place.
fn overwritten(old: &Tensor, places: &Tensor, rows: &Tensor) -> Result<Tensor> {
    let (count, m, device) = (old.dim(0), places.dim(0), old.device());
    // Sorting keeps the order of equals: the last of a run is the last in `rows`.
    let (sorted, order) = places.sort_with_indices(0, false)?;
    let ends = sorted.narrow(0, 1, m - 1)?.ne(&sorted.narrow(0, 0, m - 1)?)?;
    let ends = Tensor::concat(&[&ends, &Tensor::ones(&[1], DType::Bool, device)?], 0)?;
    // For each place the number of its row plus one, or 0.
    let numbers = ends.cast(DType::I64)?.mul(&order.add_scalar(1.0)?)?;
    let from = Tensor::zeros(&[count], DType::I64, device)?.index_add(0, &sorted, &numbers)?;
    let new =
        rows.index_select(0, &from.add_scalar(-1.0)?.maximum(&Tensor::constant(0.0, DType::I64, device)?)?)?;
    from.cast(DType::Bool)?.unsqueeze(1)?.where_(&new, old)
}
