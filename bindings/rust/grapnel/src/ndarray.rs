//! Tensors as arrays of the crate `ndarray`, and the other way round.

use ndarray::{Array, ArrayD, ArrayView, ArrayViewD, ArrayViewMutD, Dimension, IxDyn};

use crate::element::Element;
use crate::error::{Code, Error, Result};
use crate::tensor::{room, Tensor, TensorRef};
use crate::tensors::TensorsRef;

fn mismatch(error: ndarray::ShapeError) -> Error {
    Error::new(Code::Internal, format!("ndarray: {error}"))
}

impl TensorRef {
    /// The elements as an array, not copied. An error where [`data`](TensorRef::data) gives one.
    pub fn view<T: Element>(&self) -> Result<ArrayViewD<'_, T>> {
        ArrayView::from_shape(IxDyn(self.shape()), self.data::<T>()?).map_err(mismatch)
    }

    /// The elements as an array to be written, not copied.
    pub fn view_mut<T: Element>(&mut self) -> Result<ArrayViewMutD<'_, T>> {
        let shape = IxDyn(self.shape());
        ArrayViewMutD::from_shape(shape, self.data_mut::<T>()?).map_err(mismatch)
    }

    /// A copy of the elements as an array, from wherever they are.
    pub fn to_array<T: Element>(&self) -> Result<ArrayD<T>> {
        Array::from_shape_vec(IxDyn(self.shape()), self.to_vec::<T>()?).map_err(mismatch)
    }
}

impl Tensor {
    /// Takes the array's memory, which is copied only if its elements don't lie row-major.
    pub fn from_array<T: Element, D: Dimension>(array: Array<T, D>) -> Result<Tensor> {
        let shape = array.shape().to_vec();
        if array.is_standard_layout() {
            let (elements, offset) = array.into_raw_vec_and_offset();
            // A slice of an array keeps what was in front and behind.
            let len: usize = shape.iter().product();
            let offset = offset.unwrap_or(0);
            if offset == 0 && elements.len() == len {
                return Tensor::from_vec(elements, &shape);
            }
            return Tensor::from_slice(&elements[offset..offset + len], &shape);
        }
        let mut elements = room(array.len())?;
        elements.extend(array.iter().copied());
        Tensor::from_vec(elements, &shape)
    }
}

impl TensorsRef {
    /// Adds a copy of an array.
    pub fn insert_view<T: Element, D: Dimension>(
        &mut self,
        name: &str,
        array: ArrayView<'_, T, D>,
    ) -> Result<()> {
        match array.to_slice() {
            Some(elements) => self.insert_slice(name, elements, array.shape()),
            None => self.insert_from_iter(name, array.shape(), array.iter().copied()),
        }
    }
}
