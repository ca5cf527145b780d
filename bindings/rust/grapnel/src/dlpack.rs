//! Memory shared by DLPack 1.x: vectors of Rust's, and what other libraries have.

use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::{fmt, mem};

use grapnel_sys as sys;

use crate::element::{Dtype, Element};
use crate::error::{Code, Error, Result};
use crate::status;
use crate::tensor::{rank, Tensor};

/// A struct of DLPack's, and the owner of the memory that it describes.
struct Shared<O> {
    managed: sys::DLManagedTensorVersioned,
    shape: Box<[i64]>,
    strides: Box<[i64]>,
    _owner: O,
}

unsafe extern "C" fn drop_shared<O>(managed: *mut sys::DLManagedTensorVersioned) {
    // SAFETY: `manager_ctx` is the box that it was made of, and a deleter runs once.
    let shared = unsafe { Box::from_raw((*managed).manager_ctx.cast::<Shared<O>>()) };
    // An owner may be anybody's; what it panics with ends here.
    if let Err(payload) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(shared))) {
        mem::forget(payload);
    }
}

/// A tensor of memory that `owner` keeps. Empty `strides` are row-major.
///
/// # Safety
///
/// `data` points to elements of that shape, strides and type, in host memory, which stay where they
/// are until `owner` is dropped, on any thread. Nobody else reads or writes them, or whoever takes
/// the tensor sees to it.
pub(crate) unsafe fn share<O: Send + 'static>(
    owner: O,
    data: *mut c_void,
    dtype: Dtype,
    shape: &[i64],
    strides: &[i64],
) -> Result<Tensor> {
    let mut shared = Box::new(Shared {
        managed: sys::DLManagedTensorVersioned {
            version: sys::DLPackVersion { major: sys::DLPACK_MAJOR_VERSION, minor: 0 },
            manager_ctx: ptr::null_mut(),
            deleter: Some(drop_shared::<O>),
            flags: 0,
            dl_tensor: sys::DLTensor {
                data,
                device: sys::DLDevice { device_type: sys::kDLCPU, device_id: 0 },
                ndim: shape.len() as i32,
                dtype: dtype.to_dlpack(),
                shape: ptr::null_mut(),
                strides: ptr::null_mut(),
                byte_offset: 0,
            },
        },
        shape: shape.into(),
        strides: strides.into(),
        _owner: owner,
    });
    shared.managed.dl_tensor.shape = shared.shape.as_mut_ptr();
    if !shared.strides.is_empty() {
        shared.managed.dl_tensor.strides = shared.strides.as_mut_ptr();
    }
    let shared = Box::into_raw(shared);
    let mut out = ptr::null_mut();
    // SAFETY: the struct is whole, and lives until its deleter has run.
    unsafe {
        (*shared).managed.manager_ctx = shared.cast();
        let managed = ptr::addr_of_mut!((*shared).managed);
        if let Err(error) = status::take(sys::grapnel_tensor_from_dlpack(managed, &mut out)) {
            // It wasn't taken.
            drop(Box::from_raw(shared));
            return Err(error);
        }
        Ok(Tensor::from_raw(out))
    }
}

/// The owner of a vector's memory.
struct OwnedVec<T>(#[allow(dead_code, reason = "it is kept to be dropped")] Vec<T>);

pub(crate) fn share_vec<T: Element>(mut elements: Vec<T>, shape: &[usize]) -> Result<Tensor> {
    rank(shape)?;
    let len = shape.iter().try_fold(1usize, |len, &size| len.checked_mul(size));
    if len != Some(elements.len()) {
        return Err(Error::new(
            Code::InvalidArgument,
            format!("shape {shape:?}: must have {} elements", elements.len()),
        ));
    }
    let sizes: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
    let data = elements.as_mut_ptr().cast();
    // SAFETY: the vector, which isn't touched any more, has that many elements; moving it leaves
    // them where they are.
    unsafe { share(OwnedVec(elements), data, T::DTYPE, &sizes, &[]) }
}

/// A struct of DLPack 1.x on its way to another library of arrays.
///
/// Dropping it calls its deleter; [`into_raw`](DlTensor::into_raw) leaves that to the other
/// library.
pub struct DlTensor(NonNull<sys::DLManagedTensorVersioned>);

// SAFETY: a deleter may be called on any thread, and the memory is as a tensor's.
unsafe impl Send for DlTensor {}

impl DlTensor {
    /// The struct, whose deleter the caller calls once.
    pub fn into_raw(self) -> *mut sys::DLManagedTensorVersioned {
        mem::ManuallyDrop::new(self).0.as_ptr()
    }

    /// The struct, to be looked at.
    pub fn as_raw(&self) -> &sys::DLManagedTensorVersioned {
        // SAFETY: it lives until it is deleted, which `self` does.
        unsafe { self.0.as_ref() }
    }

    /// Takes a struct of another library's. Its memory is not copied.
    ///
    /// # Safety
    ///
    /// The struct is as DLPack 1.x says, its deleter may be called on any thread, and nobody reads
    /// or writes its memory until then: a tensor's memory is its own. Elements of `bool` are 0 or
    /// 1.
    pub unsafe fn from_raw(managed: NonNull<sys::DLManagedTensorVersioned>) -> DlTensor {
        DlTensor(managed)
    }

    /// The tensor of the same memory. An error deletes the struct.
    pub fn into_tensor(self) -> Result<Tensor> {
        if self.as_raw().flags & sys::DLPACK_FLAG_BITMASK_READ_ONLY != 0 {
            return Err(Error::new(
                Code::InvalidArgument,
                "dlpack: its memory must not be read-only, as a tensor's may be written",
            ));
        }
        let mut out = ptr::null_mut();
        // SAFETY: the struct is a good one, as who made `self` promised; it is taken on success.
        unsafe {
            status::take(sys::grapnel_tensor_from_dlpack(self.0.as_ptr(), &mut out))?;
            mem::forget(self);
            Ok(Tensor::from_raw(out))
        }
    }
}

impl fmt::Debug for DlTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DlTensor").field(self.as_raw()).finish()
    }
}

impl Drop for DlTensor {
    fn drop(&mut self) {
        let managed = self.0.as_ptr();
        // SAFETY: it is ours to delete, once.
        unsafe {
            if let Some(deleter) = (*managed).deleter {
                deleter(managed);
            }
        }
    }
}

impl Tensor {
    /// Shares the memory with another library of arrays, by DLPack 1.x.
    pub fn into_dlpack(self) -> Result<DlTensor> {
        let mut out = ptr::null_mut();
        // SAFETY: it is a tensor; what comes out keeps its memory.
        unsafe {
            status::take(sys::grapnel_tensor_to_dlpack(self.as_ptr(), &mut out))?;
            Ok(DlTensor(NonNull::new_unchecked(out)))
        }
    }
}
