//! Models of tch's tensors. Parameters and buffers are shared with the library, which is handed the
//! memory by DLPack; gradients, batches and outputs are copied.

use tch::{Device, Kind, TchError};

use crate::dlpack;
use crate::element::{Bfloat16, Dtype, Element, Float16};
use crate::error::{Code, Error, Result};
use crate::model::{Gradients, SharedTensors};
use crate::tensor::{Tensor, TensorRef};

fn failed(error: TchError) -> Error {
    Error::new(Code::Internal, format!("tch: {error}"))
}

fn dtype_of(tensor: &tch::Tensor) -> Result<Dtype> {
    Ok(match tensor.f_kind().map_err(failed)? {
        Kind::Bool => Dtype::Bool,
        Kind::Uint8 => Dtype::Uint8,
        Kind::Int8 => Dtype::Int8,
        Kind::Int16 => Dtype::Int16,
        Kind::Int => Dtype::Int32,
        Kind::Int64 => Dtype::Int64,
        Kind::Half => Dtype::Float16,
        Kind::BFloat16 => Dtype::Bfloat16,
        Kind::Float => Dtype::Float32,
        Kind::Double => Dtype::Float64,
        kind => {
            let message = format!("tch: there are no tensors of {kind:?} in this crate");
            return Err(Error::new(Code::Unimplemented, message));
        }
    })
}

fn kind_of(dtype: Dtype) -> Kind {
    match dtype {
        Dtype::Bool => Kind::Bool,
        Dtype::Uint8 => Kind::Uint8,
        Dtype::Int8 => Kind::Int8,
        Dtype::Int16 => Kind::Int16,
        Dtype::Int32 => Kind::Int,
        Dtype::Int64 => Kind::Int64,
        Dtype::Float16 => Kind::Half,
        Dtype::Bfloat16 => Kind::BFloat16,
        Dtype::Float32 => Kind::Float,
        Dtype::Float64 => Kind::Double,
    }
}

/// What it comes to with `$T` as the type of elements.
macro_rules! of_dtype {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            Dtype::Bool => {
                type $T = bool;
                $body
            }
            Dtype::Uint8 => {
                type $T = u8;
                $body
            }
            Dtype::Int8 => {
                type $T = i8;
                $body
            }
            Dtype::Int16 => {
                type $T = i16;
                $body
            }
            Dtype::Int32 => {
                type $T = i32;
                $body
            }
            Dtype::Int64 => {
                type $T = i64;
                $body
            }
            Dtype::Float16 => {
                type $T = Float16;
                $body
            }
            Dtype::Bfloat16 => {
                type $T = Bfloat16;
                $body
            }
            Dtype::Float32 => {
                type $T = f32;
                $body
            }
            Dtype::Float64 => {
                type $T = f64;
                $body
            }
        }
    };
}

/// A tensor of the same memory.
///
/// # Safety
///
/// As for `SharedTensors::insert_tch`, and slices of it are not handed out.
unsafe fn share(tensor: &tch::Tensor) -> Result<Tensor> {
    if !tensor.defined() {
        return Err(Error::new(Code::InvalidArgument, "tch: the tensor is undefined"));
    }
    if tensor.device() != Device::Cpu || tensor.is_sparse() || tensor.is_mkldnn() {
        let message = format!(
            "tch: the tensor {:?} must lie in host memory, and be neither sparse nor MKL-DNN's",
            tensor.size()
        );
        return Err(Error::new(Code::InvalidArgument, message));
    }
    let dtype = dtype_of(tensor)?;
    // A reference of its own, which keeps the storage.
    let owner = tensor.f_detach().map_err(failed)?;
    let (shape, strides, data) = (owner.size(), owner.stride(), owner.data_ptr());
    // SAFETY: the owner has that memory of that shape, which stays where it is by our own
    // condition; a tensor of tch's may be dropped on any thread.
    unsafe { dlpack::share(owner, data, dtype, &shape, &strides) }
}

/// Models of tch's tensors; with the feature `tch`.
impl SharedTensors {
    /// Adds a tensor of tch's, whose memory is shared: training it trains the other. As tch can
    /// write it, callbacks get no slices of such a model's tensors.
    ///
    /// # Safety
    ///
    /// It goes for `tensor` and all that share its storage, such as its clones by `shallow_clone`
    /// and its views, until these tensors and the [`Runner`](crate::Runner) that they are given to
    /// are gone:
    ///
    /// * The storage stays where it is: nobody calls `resize_` or what else gives it other memory.
    /// * tch reads and writes it on the thread that calls the runner, between two calls or in a
    ///   callback. What a callback writes is a buffer of the model's, in the model's own calls.
    ///
    /// ```compile_fail,E0133
    /// # fn f(w: &tch::Tensor) -> grapnel::Result<()> {
    /// grapnel::SharedTensors::none()?.insert_tch("w", w)
    /// # }
    /// ```
    ///
    /// ```
    /// # fn f(w: &tch::Tensor) -> grapnel::Result<()> {
    /// // SAFETY: training has it for itself.
    /// unsafe { grapnel::SharedTensors::none()?.insert_tch("w", w) }
    /// # }
    /// ```
    pub unsafe fn insert_tch(&mut self, name: &str, tensor: &tch::Tensor) -> Result<()> {
        self.foreign = true;
        // SAFETY: by our own condition; `foreign` keeps slices from being handed out.
        self.tensors.insert(name, unsafe { share(tensor)? })
    }

    /// The variables of a store, sorted by their names: those that require a gradient as
    /// parameters, and the others as buffers.
    ///
    /// # Safety
    ///
    /// As for [`insert_tch`](Self::insert_tch), for all of them.
    pub unsafe fn from_var_store(
        store: &tch::nn::VarStore,
    ) -> Result<(SharedTensors, SharedTensors)> {
        let mut variables: Vec<_> = store.variables().into_iter().collect();
        variables.sort_by(|(a, _), (b, _)| a.cmp(b));
        let (mut parameters, mut buffers) = (SharedTensors::none()?, SharedTensors::none()?);
        for (name, variable) in &variables {
            let to = if variable.requires_grad() { &mut parameters } else { &mut buffers };
            // SAFETY: by our own condition.
            unsafe { to.insert_tch(name, variable)? };
        }
        Ok((parameters, buffers))
    }
}

/// Models of tch's tensors; with the feature `tch`.
impl Gradients<'_> {
    /// The gradient of a parameter, copied into memory of the library's.
    pub fn insert_tch(&mut self, parameter: &str, gradient: &tch::Tensor) -> Result<()> {
        let plain = plain(gradient)?;
        let shape = shape_of(&plain);
        of_dtype!(dtype_of(&plain)?, T => {
            copy_into(&plain, self.0.insert_zeros::<T>(parameter, &shape)?)
        })
    }
}

/// The elements as bytes.
fn bytes_of<T: Element>(elements: &[T]) -> &[u8] {
    // SAFETY: elements have no padding, and the bytes are as many.
    unsafe { std::slice::from_raw_parts(elements.as_ptr().cast(), size_of_val(elements)) }
}

/// A copy; with the feature `tch`.
impl TryFrom<&TensorRef> for tch::Tensor {
    type Error = Error;

    fn try_from(tensor: &TensorRef) -> Result<tch::Tensor> {
        let Some(dtype) = tensor.dtype() else {
            return Err(Error::new(
                Code::Unimplemented,
                "tensor: is of a type that can't be copied",
            ));
        };
        let shape: Vec<i64> = tensor.shape().iter().map(|&size| size as i64).collect();
        let copy = |bytes: &[u8]| tch::Tensor::f_from_data_size(bytes, &shape, kind_of(dtype));
        of_dtype!(dtype, T => match tensor.data::<T>() {
            Ok(elements) => copy(bytes_of(elements)),
            // It lies elsewhere, or with gaps.
            Err(_) => {
                let elements = tensor.to_vec::<T>()?;
                copy(bytes_of(&elements))
            }
        })
        .map_err(failed)
    }
}

/// A copy in host memory; with the feature `tch`.
impl TryFrom<&tch::Tensor> for Tensor {
    type Error = Error;

    fn try_from(tensor: &tch::Tensor) -> Result<Tensor> {
        let plain = plain(tensor)?;
        of_dtype!(dtype_of(&plain)?, T => {
            let mut copy = Tensor::zeros::<T>(&shape_of(&plain))?;
            copy_into(&plain, copy.data_mut::<T>()?)?;
            Ok(copy)
        })
    }
}

/// The tensor in host memory, row-major and without gaps; a copy only if it isn't.
fn plain(tensor: &tch::Tensor) -> Result<tch::Tensor> {
    let plain = tensor.f_detach().and_then(|tensor| tensor.f_to_device(Device::Cpu));
    plain.and_then(|tensor| tensor.f_contiguous()).map_err(failed)
}

fn shape_of(tensor: &tch::Tensor) -> Vec<usize> {
    tensor.size().iter().map(|&size| size as usize).collect()
}

/// Copies all elements of a plain tensor of that type.
fn copy_into<T: Element>(plain: &tch::Tensor, elements: &mut [T]) -> Result<()> {
    let (len, size) = (elements.len(), size_of_val(elements));
    // SAFETY: these are the elements' bytes; what LibTorch writes are values of the type.
    let bytes = unsafe { std::slice::from_raw_parts_mut(elements.as_mut_ptr().cast(), size) };
    plain.f_copy_data_u8(bytes, len).map_err(failed)
}
