//! Tensors as arrays of the crate `ndarray`.
#![cfg(feature = "ndarray")]

use grapnel::{Tensor, Tensors};
use ndarray::{arr2, s, Array, Array2};

#[test]
fn a_tensor_is_seen_as_an_array() {
    let mut tensor = Tensor::from_vec(vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3]).unwrap();
    assert_eq!(tensor.view::<f32>().unwrap(), arr2(&[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]).into_dyn());
    tensor.view_mut::<f32>().unwrap()[[1, 2]] = 7.0;
    assert_eq!(tensor.data::<f32>().unwrap()[5], 7.0);
    assert_eq!(tensor.to_array::<f32>().unwrap()[[1, 2]], 7.0);
    assert!(tensor.view::<f64>().is_err());
    assert!(tensor.view_mut::<f64>().is_err());
    assert!(tensor.to_array::<i8>().is_err());
}

#[test]
fn an_array_is_taken() {
    let array: Array2<i64> = Array::from_shape_fn((3, 4), |(i, j)| (10 * i + j) as i64);
    let memory = array.as_ptr();
    let tensor = Tensor::from_array(array.clone()).unwrap();
    assert_eq!(tensor.view::<i64>().unwrap(), array.view().into_dyn());
    let part = array.slice(s![1.., ..]).to_owned();
    assert_eq!(
        Tensor::from_array(part.clone()).unwrap().to_array::<i64>().unwrap(),
        part.into_dyn()
    );
    let rest = array.clone().slice_move(s![1.., ..]);
    assert_eq!(
        Tensor::from_array(rest.clone()).unwrap().to_array::<i64>().unwrap(),
        rest.into_dyn()
    );
    let turned = array.clone().reversed_axes();
    let tensor = Tensor::from_array(turned.clone()).unwrap();
    assert_eq!(tensor.shape(), [4, 3]);
    assert_eq!(tensor.view::<i64>().unwrap(), turned.into_dyn());
    let tensor = Tensor::from_array(array).unwrap();
    assert_eq!(tensor.data::<i64>().unwrap().as_ptr(), memory);
}

#[test]
fn a_view_is_copied_into_a_batch() {
    let array: Array2<f32> = Array::from_shape_fn((2, 3), |(i, j)| (3 * i + j) as f32);
    let mut batch = Tensors::new().unwrap();
    batch.insert_view("a", array.view()).unwrap();
    batch.insert_view("b", array.t()).unwrap();
    assert_eq!(batch.require("a").unwrap().data::<f32>().unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(batch.require("b").unwrap().data::<f32>().unwrap(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    assert_eq!(batch.require("b").unwrap().shape(), [3, 2]);
}
