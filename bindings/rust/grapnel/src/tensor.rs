//! Tensors, owned and borrowed.

use std::alloc::{self, Layout};
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::{fmt, mem, slice};

use grapnel_sys as sys;

use crate::dlpack;
use crate::element::{Dtype, Element};
use crate::error::{Code, Error, Result};
use crate::status;

const _: () = assert!(mem::size_of::<usize>() == 8, "sizes are int64_t in the library");

/// A tensor that somebody else owns; always behind a reference, as `str` is. What it refers to is
/// the library's: exchanging two of them by [`mem::swap`] changes nothing.
///
/// What is lent out by `&TensorRef` is not written meanwhile, by anybody.
#[repr(transparent)]
pub struct TensorRef(sys::grapnel_tensor);

impl TensorRef {
    /// # Safety
    ///
    /// `tensor` points to a tensor that lives for `'a`, and whose memory nobody writes for as long.
    pub(crate) unsafe fn from_ptr<'a>(tensor: *const sys::grapnel_tensor) -> &'a TensorRef {
        // SAFETY: the layout is that of the pointed to, and nothing of it is read here.
        unsafe { &*tensor.cast() }
    }

    /// # Safety
    ///
    /// As for `from_ptr`, and nobody reads the memory either.
    pub(crate) unsafe fn from_mut_ptr<'a>(tensor: *mut sys::grapnel_tensor) -> &'a mut TensorRef {
        // SAFETY: as in `from_ptr`.
        unsafe { &mut *tensor.cast() }
    }

    pub(crate) fn as_ptr(&self) -> *const sys::grapnel_tensor {
        ptr::from_ref(self).cast()
    }

    /// `None` for a type of elements that this crate doesn't know, such as complex numbers.
    pub fn dtype(&self) -> Option<Dtype> {
        // SAFETY: it is a tensor.
        Dtype::from_c(unsafe { sys::grapnel_tensor_dtype(self.as_ptr()) })
    }

    /// The size of each dimension.
    pub fn shape(&self) -> &[usize] {
        // SAFETY: it is a tensor.
        let (sizes, rank) = unsafe {
            (sys::grapnel_tensor_shape(self.as_ptr()), sys::grapnel_tensor_rank(self.as_ptr()))
        };
        if rank <= 0 || sizes.is_null() {
            return &[];
        }
        // SAFETY: these are `rank` sizes, which live as long as the tensor; they are 0 or more, so
        // that an i64 and a usize are the same bits.
        unsafe { slice::from_raw_parts(sizes.cast(), rank as usize) }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        // SAFETY: it is a tensor. A number of elements is 0 or more.
        unsafe { sys::grapnel_tensor_numel(self.as_ptr()) as usize }
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements, row-major. An error if they are of another type, on a device, or don't lie one
    /// behind the other; [`to_vec`](Self::to_vec) copies them then.
    pub fn data<T: Element>(&self) -> Result<&[T]> {
        let data = self.elements::<T>()?;
        // SAFETY: `elements` gives that many of them, which nobody writes while `self` is borrowed.
        Ok(unsafe { slice::from_raw_parts(data.as_ptr(), self.len()) })
    }

    /// The elements, to be written.
    pub fn data_mut<T: Element>(&mut self) -> Result<&mut [T]> {
        let data = self.elements::<T>()?;
        // SAFETY: as in `data`, and nobody reads them: `&mut TensorRef` is only made for memory
        // that is one owner's.
        Ok(unsafe { slice::from_raw_parts_mut(data.as_ptr(), self.len()) })
    }

    /// Where the elements are.
    fn elements<T: Element>(&self) -> Result<NonNull<T>> {
        self.check_dtype(T::DTYPE)?;
        // SAFETY: it is a tensor.
        let data: *mut T = unsafe { sys::grapnel_tensor_data(self.as_ptr()) }.cast();
        if self.is_empty() {
            return Ok(NonNull::dangling());
        }
        match NonNull::new(data) {
            Some(data) if data.is_aligned() => {
                if T::DTYPE == Dtype::Bool {
                    // SAFETY: these are that many bytes, which nobody writes meanwhile.
                    check_bools(unsafe {
                        slice::from_raw_parts(data.as_ptr().cast(), self.len())
                    })?;
                }
                Ok(data)
            }
            _ => Err(Error::new(
                Code::FailedPrecondition,
                format!("tensor {:?}: doesn't lie in host memory without gaps", self.shape()),
            )),
        }
    }

    fn check_dtype(&self, wanted: Dtype) -> Result<()> {
        let dtype = self.dtype();
        if dtype == Some(wanted) {
            return Ok(());
        }
        let is = dtype.map_or("another type".to_owned(), |dtype| format!("{dtype:?}"));
        Err(Error::new(
            Code::InvalidArgument,
            format!("tensor {:?}: is of {is}, not of {wanted:?}", self.shape()),
        ))
    }

    /// Copies the elements, row-major, from wherever they are; waits for a device.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        self.check_dtype(T::DTYPE)?;
        let len = self.len();
        let mut elements = room::<T>(len)?;
        // SAFETY: there is room for that many, and they are all written if it goes well; each bit
        // pattern that the library has is a value of T.
        unsafe {
            self.read(elements.as_mut_ptr().cast(), len * mem::size_of::<T>())?;
            elements.set_len(len);
        }
        Ok(elements)
    }

    /// The same into a slice of as many elements.
    pub fn copy_to<T: Element>(&self, elements: &mut [T]) -> Result<()> {
        self.check_dtype(T::DTYPE)?;
        // SAFETY: the slice is as long as it says; another length is an error.
        unsafe { self.read(elements.as_mut_ptr().cast(), mem::size_of_val(elements)) }
    }

    /// The value of the only element.
    pub fn item<T: Element>(&self) -> Result<T> {
        if self.len() != 1 {
            return Err(Error::new(
                Code::InvalidArgument,
                format!("tensor {:?}: must have one element, has {}", self.shape(), self.len()),
            ));
        }
        Ok(self.to_vec::<T>()?[0])
    }

    /// # Safety
    ///
    /// `data` points to `size` bytes to write to. All of them are values of the tensor's type then.
    unsafe fn read(&self, data: *mut u8, size: usize) -> Result<()> {
        // SAFETY: it is a tensor, and by our own condition.
        unsafe { status::take(sys::grapnel_tensor_read(self.as_ptr(), data.cast(), size))? };
        if self.dtype() == Some(Dtype::Bool) {
            // SAFETY: these bytes were just written.
            for byte in unsafe { slice::from_raw_parts_mut(data, size) } {
                *byte = u8::from(*byte != 0);
            }
        }
        Ok(())
    }

    /// Copies elements into the tensor, wherever it is; as many as there are.
    pub fn copy_from<T: Element>(&mut self, elements: &[T]) -> Result<()> {
        self.check_dtype(T::DTYPE)?;
        let tensor = ptr::from_mut(self).cast();
        // SAFETY: it is a tensor that nobody else has, and the slice is as long as it says.
        unsafe {
            status::take(sys::grapnel_tensor_write(
                tensor,
                elements.as_ptr().cast(),
                mem::size_of_val(elements),
            ))
        }
    }

    /// A copy in host memory, to be kept.
    pub fn to_tensor(&self) -> Result<Tensor> {
        let shape = self.shape();
        macro_rules! copy {
            ($($dtype:ident => $type:ty),*) => {
                match self.dtype() {
                    $(Some(Dtype::$dtype) => Tensor::from_vec(self.to_vec::<$type>()?, shape),)*
                    None => Err(Error::new(
                        Code::Unimplemented,
                        format!("tensor {shape:?}: is of a type that can't be copied"),
                    )),
                }
            };
        }
        use crate::element::{Bfloat16, Float16};
        copy!(
            Bool => bool, Uint8 => u8, Int8 => i8, Int16 => i16, Int32 => i32, Int64 => i64,
            Float16 => Float16, Bfloat16 => Bfloat16, Float32 => f32, Float64 => f64
        )
    }
}

/// Room for that many elements, or an error.
pub(crate) fn room<T: Element>(len: usize) -> Result<Vec<T>> {
    let mut elements = Vec::new();
    elements.try_reserve_exact(len).map_err(|_| no_memory::<T>(len))?;
    Ok(elements)
}

/// That many zeros, or an error. Pages that nobody writes take no memory.
fn zeros<T: Element>(len: usize) -> Result<Vec<T>> {
    let layout = Layout::array::<T>(len).map_err(|_| no_memory::<T>(len))?;
    if layout.size() == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the size isn't 0.
    let data = unsafe { alloc::alloc_zeroed(layout) };
    if data.is_null() {
        return Err(no_memory::<T>(len));
    }
    // SAFETY: a vector's memory has such a layout, and zeros are a value of every type of elements.
    Ok(unsafe { Vec::from_raw_parts(data.cast(), len, len) })
}

fn no_memory<T: Element>(len: usize) -> Error {
    let message = format!("tensor: there is no memory for {len} elements of {:?}", T::DTYPE);
    Error::new(Code::ResourceExhausted, message)
}

impl AsRef<TensorRef> for TensorRef {
    fn as_ref(&self) -> &TensorRef {
        self
    }
}

impl fmt::Debug for TensorRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tensor")
            .field("dtype", &self.dtype())
            .field("shape", &self.shape())
            .finish_non_exhaustive()
    }
}

/// Whoever made them may have called other bytes `bool`.
fn check_bools(bytes: &[u8]) -> Result<()> {
    match bytes.iter().position(|&byte| byte > 1) {
        None => Ok(()),
        Some(index) => Err(Error::new(
            Code::InvalidArgument,
            format!("tensor: element {index} of Bool must be 0 or 1, is {}", bytes[index]),
        )),
    }
}

/// A tensor whose memory nobody else has. `Send`, but not `Sync`.
///
/// ```
/// use grapnel::Tensor;
///
/// let mut tensor = Tensor::from_vec(vec![1.0f32, 2.0, 3.0, 4.0], &[2, 2])?;
/// tensor.data_mut::<f32>()?[3] = 5.0;
/// assert_eq!(tensor.data::<f32>()?, [1.0, 2.0, 3.0, 5.0]);
/// assert_eq!(tensor.shape(), [2, 2]);
/// # Ok::<(), grapnel::Error>(())
/// ```
pub struct Tensor(NonNull<sys::grapnel_tensor>);

// SAFETY: nothing of a tensor belongs to a thread.
unsafe impl Send for Tensor {}

impl Tensor {
    /// Copies row-major elements; as many as the shape has.
    pub fn from_slice<T: Element>(elements: &[T], shape: &[usize]) -> Result<Tensor> {
        let mut out = ptr::null_mut();
        // SAFETY: shape and elements are as long as they say; the library refuses sizes that are
        // negative as an i64, and a number of elements that isn't the shape's.
        unsafe {
            status::take(sys::grapnel_tensor_create(
                T::DTYPE.to_c(),
                shape.as_ptr().cast(),
                rank(shape)?,
                elements.as_ptr().cast(),
                mem::size_of_val(elements),
                &mut out,
            ))?;
            Ok(Tensor::from_raw(out))
        }
    }

    /// Takes the vector's memory, which is not copied.
    pub fn from_vec<T: Element>(elements: Vec<T>, shape: &[usize]) -> Result<Tensor> {
        dlpack::share_vec(elements, shape)
    }

    /// One element, of no dimension.
    pub fn from_scalar<T: Element>(value: T) -> Result<Tensor> {
        Tensor::from_slice(&[value], &[])
    }

    /// Zeros, or `false`.
    pub fn zeros<T: Element>(shape: &[usize]) -> Result<Tensor> {
        let len = shape.iter().try_fold(1usize, |len, &size| len.checked_mul(size));
        let Some(len) = len.filter(|&len| len <= isize::MAX as usize / mem::size_of::<T>()) else {
            return Err(Error::new(
                Code::InvalidArgument,
                format!("shape {shape:?}: has more elements than any memory"),
            ));
        };
        Tensor::from_vec(zeros::<T>(len)?, shape)
    }

    /// A copy of its own memory.
    pub fn try_clone(&self) -> Result<Tensor> {
        self.to_tensor()
    }

    /// For what this crate has no function for. The tensor is the caller's to destroy.
    pub fn into_raw(self) -> *mut sys::grapnel_tensor {
        mem::ManuallyDrop::new(self).0.as_ptr()
    }

    /// # Safety
    ///
    /// `tensor` isn't null, and nobody else has it or its memory.
    pub unsafe fn from_raw(tensor: *mut sys::grapnel_tensor) -> Tensor {
        debug_assert!(!tensor.is_null());
        // SAFETY: by our own condition.
        Tensor(unsafe { NonNull::new_unchecked(tensor) })
    }
}

/// The number of dimensions, as C has it.
pub(crate) fn rank(shape: &[usize]) -> Result<i32> {
    i32::try_from(shape.len()).map_err(|_| {
        Error::new(Code::InvalidArgument, format!("shape: has {} dimensions", shape.len()))
    })
}

impl Deref for Tensor {
    type Target = TensorRef;

    fn deref(&self) -> &TensorRef {
        // SAFETY: it lives as long as `self`, whose memory only `&mut self` writes.
        unsafe { TensorRef::from_ptr(self.0.as_ptr()) }
    }
}

impl DerefMut for Tensor {
    fn deref_mut(&mut self) -> &mut TensorRef {
        // SAFETY: as in `deref`, and `self` is borrowed by nobody else.
        unsafe { TensorRef::from_mut_ptr(self.0.as_ptr()) }
    }
}

impl AsRef<TensorRef> for Tensor {
    fn as_ref(&self) -> &TensorRef {
        self
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl Drop for Tensor {
    fn drop(&mut self) {
        // SAFETY: it is ours, and nothing is borrowed from it any more.
        unsafe { sys::grapnel_tensor_destroy(self.0.as_ptr()) }
    }
}
