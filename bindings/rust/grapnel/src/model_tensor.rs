//! A model's parameters and buffers, which the library trains in place.

use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;

use grapnel_sys as sys;

use crate::element::{Dtype, Element};
use crate::error::{Code, Error, Result};
use crate::lent::Lent;
use crate::tensor::{Tensor, TensorRef};

/// A parameter or buffer of a model, to be read.
///
/// Slices of it are only to be had where the memory is this process's own and nobody else's: not of
/// tensors that are shared with another library, such as tch, which could write them meanwhile.
/// Those can be copied.
#[derive(Clone, Copy)]
pub struct ModelTensor<'a> {
    tensor: &'a TensorRef,
    foreign: bool,
}

impl<'a> ModelTensor<'a> {
    pub(crate) fn new(tensor: &'a TensorRef, foreign: bool) -> Self {
        ModelTensor { tensor, foreign }
    }

    /// `None` for a type of elements that this crate doesn't know.
    pub fn dtype(&self) -> Option<Dtype> {
        self.tensor.dtype()
    }

    /// The size of each dimension.
    pub fn shape(&self) -> &'a [usize] {
        self.tensor.shape()
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.tensor.len()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.tensor.is_empty()
    }

    /// The elements, row-major; see [`TensorRef::data`].
    pub fn data<T: Element>(&self) -> Result<&'a [T]> {
        check_own(self.foreign)?;
        self.tensor.data()
    }

    /// Copies the elements, row-major.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        self.tensor.to_vec()
    }

    /// The same into a slice of as many elements.
    pub fn copy_to<T: Element>(&self, elements: &mut [T]) -> Result<()> {
        self.tensor.copy_to(elements)
    }

    /// A copy in host memory, to be kept.
    pub fn to_tensor(&self) -> Result<Tensor> {
        self.tensor.to_tensor()
    }
}

fn check_own(foreign: bool) -> Result<()> {
    if !foreign {
        return Ok(());
    }
    Err(Error::new(
        Code::FailedPrecondition,
        "tensor: its memory is shared with another library; copy it",
    ))
}

impl fmt::Debug for ModelTensor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tensor.fmt(f)
    }
}

/// A parameter or buffer of a model, to be read and written.
pub struct ModelTensorMut<'a> {
    tensor: NonNull<sys::grapnel_tensor>,
    foreign: bool,
    /// Who counts it, if the reference is ours to destroy.
    counted: Option<&'a Lent>,
    _lent: PhantomData<&'a mut TensorRef>,
}

impl<'a> ModelTensorMut<'a> {
    /// # Safety
    ///
    /// `tensor` isn't null, and is the caller's to give away; nobody else uses its memory for `'a`.
    pub(crate) unsafe fn counted(
        tensor: *mut sys::grapnel_tensor,
        foreign: bool,
        lent: &'a Lent,
    ) -> Self {
        lent.add();
        // SAFETY: by our own condition.
        let tensor = unsafe { NonNull::new_unchecked(tensor) };
        ModelTensorMut { tensor, foreign, counted: Some(lent), _lent: PhantomData }
    }

    pub(crate) fn lent(tensor: &'a mut TensorRef, foreign: bool) -> Self {
        let tensor = NonNull::from(tensor).cast();
        ModelTensorMut { tensor, foreign, counted: None, _lent: PhantomData }
    }

    /// To read it.
    pub fn as_ref(&self) -> ModelTensor<'_> {
        // SAFETY: it lives as long as `self`, and is written by `&mut self` only.
        ModelTensor::new(unsafe { TensorRef::from_ptr(self.tensor.as_ptr()) }, self.foreign)
    }

    fn tensor_mut(&mut self) -> &mut TensorRef {
        // SAFETY: as in `as_ref`.
        unsafe { TensorRef::from_mut_ptr(self.tensor.as_ptr()) }
    }

    /// `None` for a type of elements that this crate doesn't know.
    pub fn dtype(&self) -> Option<Dtype> {
        self.as_ref().dtype()
    }

    /// The size of each dimension.
    pub fn shape(&self) -> &[usize] {
        self.as_ref().shape()
    }

    /// The elements, row-major; see [`ModelTensor::data`].
    pub fn data<T: Element>(&self) -> Result<&[T]> {
        self.as_ref().data()
    }

    /// The elements, to be written.
    pub fn data_mut<T: Element>(&mut self) -> Result<&mut [T]> {
        check_own(self.foreign)?;
        self.tensor_mut().data_mut()
    }

    /// Copies the elements, row-major.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        self.as_ref().to_vec()
    }

    /// Copies elements in, as many as there are.
    pub fn copy_from<T: Element>(&mut self, elements: &[T]) -> Result<()> {
        self.tensor_mut().copy_from(elements)
    }
}

impl fmt::Debug for ModelTensorMut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ref().fmt(f)
    }
}

impl Drop for ModelTensorMut<'_> {
    fn drop(&mut self) {
        if let Some(lent) = self.counted {
            lent.remove();
            // SAFETY: the reference is ours, and nothing is borrowed from it any more.
            unsafe { sys::grapnel_tensor_destroy(self.tensor.as_ptr()) }
        }
    }
}
