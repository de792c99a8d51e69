//! Keys of whole indexing (`Tensor::index`, `Tensor::set_index`) against places counted by hand, and products over chosen axes.

use bullet_ops::{DType, Map};
use bullet_tensor::{Device, Index, Result, Slice, Tensor};

use crate::harness::devices;

const ALL: Index = Index::Range(Slice { start: None, end: None, step: 1 });

fn ints(data: &[i64], dims: &[usize], device: &Device) -> Tensor {
    Tensor::from_slice(data, dims, device).unwrap()
}

fn numbers(t: &Tensor) -> Vec<i64> {
    t.cast(DType::I64).unwrap().to_vec::<i64>().unwrap()
}

/// 0, 1, .. in (3, 4, 5).
fn counted(device: &Device) -> Result<Tensor> {
    Tensor::arange(0, 60, device)?.reshape(&[3, 4, 5])
}

#[test]
fn tensors_of_indices_pick_together_and_their_axes_stand_where_they_are() -> Result<()> {
    for device in devices() {
        let t = counted(device)?;
        let (pair, column) = (ints(&[0, -1], &[2], device), ints(&[1, 3], &[2, 1], device));
        let take = |t: &Tensor| Index::Take(t.clone());
        let together = t.index(&[ALL, take(&column), take(&pair)])?;
        assert_eq!(&together.shape()[..], [3, 2, 2]);
        assert_eq!(numbers(&together)[..4], [5, 9, 15, 19]);
        let apart = t.index(&[take(&pair), ALL, take(&pair)])?;
        assert_eq!(
            (&apart.shape()[..], &numbers(&apart)[..]),
            (&[2, 4][..], &[0, 5, 10, 15, 44, 49, 54, 59][..])
        );
        let number = t.index(&[Index::At(1), ALL, take(&pair)])?;
        assert_eq!(numbers(&number), [20, 25, 30, 35, 24, 29, 34, 39]);
        let rest = t.index(&[Index::NewAxis, Index::Rest, take(&ints(&[2], &[1], device))])?;
        assert_eq!(&rest.shape()[..], [1, 3, 4, 1]);
        let view =
            t.index(&[Index::At(-1), Index::Rest, Index::Range(Slice { start: None, end: None, step: -2 })])?;
        assert!(view.shares_memory(&t) && numbers(&view)[..3] == [44, 42, 40]);
    }
    Ok(())
}

#[test]
fn masks_pick_and_assignments_write_through_views() -> Result<()> {
    for device in devices() {
        let t = counted(device)?;
        let limit = Tensor::scalar(57i64, device)?;
        let mask = t.ge(&limit)?;
        assert_eq!(numbers(&t.index(&[Index::Mask(mask.clone())])?), [57, 58, 59]);
        let rows = ints(&[0, 1, 0], &[3], device).cast(DType::Bool)?;
        assert_eq!(&t.index(&[Index::Mask(rows.clone()), Index::At(0)])?.shape()[..], [1, 5]);
        t.set_index(&[Index::Mask(mask)], &Tensor::scalar(-1i64, device)?)?;
        t.set_index(&[Index::Mask(rows)], &Tensor::scalar(0.5f32, device)?)?;
        let n = numbers(&t);
        assert_eq!((&n[18..21], &n[56..]), (&[18, 19, 0][..], &[56, -1, -1, -1][..]));
        // Through a view backwards; of two values for one place the last stays.
        let back = t.transpose(0, 2)?;
        let places = ints(&[1, 1, 4], &[3], device);
        let values = ints(&[7, 8, 9], &[3, 1, 1], device);
        back.set_index(&[Index::Take(places)], &values)?;
        let n = numbers(&t);
        assert_eq!((n[1], n[4], n[0], n[56]), (8, 9, 0, 8));
    }
    Ok(())
}

#[test]
fn gradients_return_to_where_elements_are_from() -> Result<()> {
    for device in devices() {
        let x = Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0], &[2, 2], device)?.requires_grad()?;
        let pick = |i: &[i64]| Index::Take(ints(i, &[i.len()], device));
        let y = x.index(&[pick(&[0, 0, -1]), pick(&[1, 1, 0])])?;
        y.mul(&Tensor::from_slice(&[1.0f32, 10.0, 100.0], &[3], device)?)?.sum(&[], false)?.backward()?;
        assert_eq!(x.grad().unwrap().to_vec::<f32>()?, [0.0, 11.0, 100.0, 0.0]);
    }
    Ok(())
}

#[test]
fn indices_out_of_range_are_errors() -> Result<()> {
    for device in devices() {
        let t = counted(device)?;
        let (far, near) = (ints(&[0, 4], &[2], device), ints(&[0, 1], &[2], device));
        for key in [vec![Index::Take(far.clone())], vec![Index::Take(near), Index::Take(far)]] {
            // On a GPU whoever reads gets it.
            let error = t.index(&key).and_then(|found| found.to_vec::<i64>()).unwrap_err();
            assert!(error.to_string().contains("out of"), "{device}: {error}");
        }
    }
    Ok(())
}

#[test]
fn products_over_axes_and_ops_in_place() -> Result<()> {
    for device in devices() {
        let t = counted(device)?.cast(DType::F64)?;
        let whole = t.tensordot(&t, (&[0, 1, 2], &[0, 1, 2]))?;
        let same = t.reshape(&[60])?.vecdot(&t.reshape(&[60])?, -1)?;
        assert_eq!((whole.item()?, same.item()?), (70210.0, 70210.0));
        let turned = t.tensordot(&t, (&[2, 0], &[2, 0]))?;
        assert_eq!(&turned.shape()[..], [4, 4]);
        assert_eq!(&t.moveaxis(&[0, 1], &[2, 0])?.shape()[..], [4, 5, 3]);
        let small = ints(&[7, -7], &[2], device);
        small.assign_op(Map::FloorDivide, &Tensor::scalar(2i64, device)?)?;
        assert_eq!(numbers(&small), [3, -4]);
        assert!(small.assign_op(Map::Add, &Tensor::scalar(0.5f32, device)?).is_err());
    }
    Ok(())
}
