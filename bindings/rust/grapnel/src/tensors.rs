//! Named tensors: a sample, a batch, a model's weights.

use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::{fmt, mem, slice};

use grapnel_sys as sys;

use crate::element::Element;
use crate::error::{Code, Error, Result};
use crate::name::text;
use crate::status;
use crate::tensor::{rank, Tensor, TensorRef};

/// Named tensors, in order, that somebody else owns; always behind a reference, as `str` is. What
/// it refers to is the library's: exchanging two of them by [`mem::swap`] changes nothing.
#[repr(transparent)]
pub struct TensorsRef(sys::grapnel_tensors);

/// Elements of a new tensor that have no values yet, and how many they are. Whatever happens, a panic
/// of an iterator included, they become zeros.
struct Unwritten<T>(*mut T, usize);

impl<T> Drop for Unwritten<T> {
    fn drop(&mut self) {
        // SAFETY: they are elements of the tensor, of a type for which zeros are a value.
        unsafe { ptr::write_bytes(self.0, 0, self.1) };
    }
}

impl TensorsRef {
    /// # Safety
    ///
    /// `tensors` lives for `'a`, and nobody writes it or its tensors' memory for as long.
    pub(crate) unsafe fn from_ptr<'a>(tensors: *const sys::grapnel_tensors) -> &'a TensorsRef {
        // SAFETY: the layout is that of the pointed to, and nothing of it is read here.
        unsafe { &*tensors.cast() }
    }

    /// # Safety
    ///
    /// As for `from_ptr`, and nobody reads them either.
    pub(crate) unsafe fn from_mut_ptr<'a>(
        tensors: *mut sys::grapnel_tensors,
    ) -> &'a mut TensorsRef {
        // SAFETY: as in `from_ptr`.
        unsafe { &mut *tensors.cast() }
    }

    pub(crate) fn as_ptr(&self) -> *const sys::grapnel_tensors {
        ptr::from_ref(self).cast()
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut sys::grapnel_tensors {
        ptr::from_mut(self).cast()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        // SAFETY: they are tensors. A number of them is 0 or more.
        unsafe { sys::grapnel_tensors_size(self.as_ptr()) as usize }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The one of that name.
    pub fn get(&self, name: &str) -> Option<&TensorRef> {
        let found = self.find(name);
        // SAFETY: what is found lives as long as `self`, and is as `self` is.
        (!found.is_null()).then(|| unsafe { TensorRef::from_ptr(found) })
    }

    /// The one of that name, to be written.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut TensorRef> {
        let found = self.find(name).cast_mut();
        // SAFETY: as in `get`. Each has memory of its own, and `self` is borrowed by nobody else.
        (!found.is_null()).then(|| unsafe { TensorRef::from_mut_ptr(found) })
    }

    /// The one of that name, or an error that names it.
    pub fn require(&self, name: &str) -> Result<&TensorRef> {
        self.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.iter().map(|(name, _)| name).collect();
            Error::new(Code::NotFound, format!("there is no tensor {name:?} among {names:?}"))
        })
    }

    fn find(&self, name: &str) -> *const sys::grapnel_tensor {
        // SAFETY: they are tensors, and the name is as long as it says.
        unsafe { sys::grapnel_tensors_find(self.as_ptr(), name.as_ptr().cast(), name.len()) }
    }

    /// All of them, with their names.
    pub fn iter(&self) -> TensorsIter<'_> {
        TensorsIter { tensors: self, next: 0 }
    }

    /// Adds a tensor. [`Code::AlreadyExists`] if the name is there.
    pub fn insert(&mut self, name: &str, tensor: Tensor) -> Result<()> {
        let tensor = tensor.into_raw();
        // SAFETY: `self` is borrowed by nobody else. The tensor is taken if it goes well; else it
        // is still ours, and dropped.
        unsafe {
            status::take(sys::grapnel_tensors_add(
                self.as_mut_ptr(),
                name.as_ptr().cast(),
                name.len(),
                tensor,
            ))
            .inspect_err(|_| drop(Tensor::from_raw(tensor)))
        }
    }

    /// Adds a copy of row-major elements.
    pub fn insert_slice<T: Element>(
        &mut self,
        name: &str,
        elements: &[T],
        shape: &[usize],
    ) -> Result<()> {
        // SAFETY: name, shape and elements are as long as they say; see Tensor::from_slice.
        unsafe {
            status::take(sys::grapnel_tensors_add_copy(
                self.as_mut_ptr(),
                name.as_ptr().cast(),
                name.len(),
                T::DTYPE.to_c(),
                shape.as_ptr().cast(),
                rank(shape)?,
                elements.as_ptr().cast(),
                mem::size_of_val(elements),
            ))
        }
    }

    /// Adds a tensor of zeros, and gives its elements to be written, row-major. The memory is the
    /// library's own: nothing is copied.
    pub fn insert_zeros<T: Element>(&mut self, name: &str, shape: &[usize]) -> Result<&mut [T]> {
        let (data, len) = self.insert_new::<T>(name, shape)?;
        if len == 0 {
            return Ok(&mut []);
        }
        // SAFETY: these are elements of a tensor of its own, of which `len` are zeros from here on;
        // they live as long as the tensor, which can't be reached while `self` is borrowed.
        unsafe {
            ptr::write_bytes(data, 0, len);
            Ok(slice::from_raw_parts_mut(data, len))
        }
    }

    /// Adds a tensor with elements of `elements`, row-major, written once and not copied. More than
    /// there is room for are left. Too few are an error: before anything is added, if the iterator
    /// says so by its [`size_hint`](Iterator::size_hint); else the tensor is there, with zeros at
    /// its end.
    pub fn insert_from_iter<T: Element>(
        &mut self,
        name: &str,
        shape: &[usize],
        elements: impl IntoIterator<Item = T>,
    ) -> Result<()> {
        let elements = elements.into_iter();
        let missing = |missing: usize, len: usize| {
            let message = format!("tensor {name:?}: {missing} of {len} elements are missing");
            Error::new(Code::InvalidArgument, message)
        };
        if let (Some(most), Some(len)) = (elements.size_hint().1, len_of(shape)) {
            if most < len {
                return Err(missing(len - most, len));
            }
        }
        let (data, len) = self.insert_new::<T>(name, shape)?;
        let mut rest = Unwritten(data, len);
        for element in elements.take(len) {
            // SAFETY: `take` ends it where the elements do.
            unsafe {
                rest.0.write(element);
                rest.0 = rest.0.add(1);
            }
            rest.1 -= 1;
        }
        if rest.1 == 0 {
            return Ok(());
        }
        Err(missing(rest.1, len))
    }

    /// Adds a tensor with the elements of `rows`, one row behind the other, each copied once: a
    /// batch of samples, for example. Together they must have as many as the shape; after an error
    /// the tensor is there, with zeros behind what was given.
    ///
    /// ```
    /// # let mut batch = grapnel::Tensors::new()?;
    /// let table = [0.0f32, 0.1, 1.0, 1.1, 2.0, 2.1];
    /// let rows = [2, 0].map(|index| &table[2 * index..2 * index + 2]);
    /// batch.insert_rows("input", &[2, 2], rows)?;
    /// assert_eq!(batch.require("input")?.data::<f32>()?, [2.0, 2.1, 0.0, 0.1]);
    /// # Ok::<(), grapnel::Error>(())
    /// ```
    pub fn insert_rows<T: Element, R: AsRef<[T]>>(
        &mut self,
        name: &str,
        shape: &[usize],
        rows: impl IntoIterator<Item = R>,
    ) -> Result<()> {
        let (data, len) = self.insert_new::<T>(name, shape)?;
        let mut rest = Unwritten(data, len);
        let wrong = |what: String| {
            Err(Error::new(Code::InvalidArgument, format!("tensor {name:?}: {what}")))
        };
        for (number, row) in rows.into_iter().enumerate() {
            let row = row.as_ref();
            if row.len() > rest.1 {
                return wrong(format!("row {number} goes beyond its {len} elements"));
            }
            // SAFETY: there is room, and nobody else knows the memory.
            unsafe {
                ptr::copy_nonoverlapping(row.as_ptr(), rest.0, row.len());
                rest.0 = rest.0.add(row.len());
            }
            rest.1 -= row.len();
        }
        match rest.1 {
            0 => Ok(()),
            missing => wrong(format!("{missing} of {len} elements are missing")),
        }
    }

    /// A tensor whose elements have no values yet, and how many they are.
    fn insert_new<T: Element>(&mut self, name: &str, shape: &[usize]) -> Result<(*mut T, usize)> {
        let mut data = ptr::null_mut();
        // SAFETY: name and shape are as long as they say.
        unsafe {
            status::take(sys::grapnel_tensors_add_new(
                self.as_mut_ptr(),
                name.as_ptr().cast(),
                name.len(),
                T::DTYPE.to_c(),
                shape.as_ptr().cast(),
                rank(shape)?,
                &mut data,
            ))?;
        }
        let len = len_of(shape).expect("the library has made it");
        Ok((if len == 0 { NonNull::dangling().as_ptr() } else { data.cast() }, len))
    }

    /// Copies all of them, to be kept.
    pub fn to_tensors(&self) -> Result<Tensors> {
        let mut copies = Tensors::new()?;
        for (name, tensor) in self {
            copies.insert(name, tensor.to_tensor()?)?;
        }
        Ok(copies)
    }
}

/// The number of elements, if a `usize` holds it. With a zero among the sizes, others may be of any
/// size.
fn len_of(shape: &[usize]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1usize, |len, &size| len.checked_mul(size))
}

impl fmt::Debug for TensorsRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

/// See [`TensorsRef::iter`].
#[derive(Debug, Clone)]
pub struct TensorsIter<'a> {
    tensors: &'a TensorsRef,
    next: usize,
}

impl<'a> Iterator for TensorsIter<'a> {
    type Item = (&'a str, &'a TensorRef);

    fn next(&mut self) -> Option<Self::Item> {
        let index = i64::try_from(self.next).ok()?;
        let tensors = self.tensors.as_ptr();
        // SAFETY: they are tensors, of which there is none at a null; what there is lives as long
        // as they do.
        unsafe {
            let tensor = sys::grapnel_tensors_at(tensors, index);
            if tensor.is_null() {
                return None;
            }
            self.next += 1;
            let name = text(sys::grapnel_tensors_name(tensors, index));
            Some((name, TensorRef::from_ptr(tensor)))
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.tensors.len().saturating_sub(self.next);
        (left, Some(left))
    }
}

impl ExactSizeIterator for TensorsIter<'_> {}

impl<'a> IntoIterator for &'a TensorsRef {
    type Item = (&'a str, &'a TensorRef);
    type IntoIter = TensorsIter<'a>;

    fn into_iter(self) -> TensorsIter<'a> {
        self.iter()
    }
}

/// Named tensors of one's own. `Send`, but not `Sync`.
pub struct Tensors(NonNull<sys::grapnel_tensors>);

// SAFETY: nothing of tensors belongs to a thread.
unsafe impl Send for Tensors {}

impl Tensors {
    /// None yet.
    pub fn new() -> Result<Tensors> {
        let mut out = ptr::null_mut();
        // SAFETY: `out` is written on success.
        unsafe {
            status::take(sys::grapnel_tensors_create(&mut out))?;
            Ok(Tensors(NonNull::new_unchecked(out)))
        }
    }

    /// These, each with its name.
    pub fn from_named<'a>(tensors: impl IntoIterator<Item = (&'a str, Tensor)>) -> Result<Tensors> {
        let mut made = Tensors::new()?;
        for (name, tensor) in tensors {
            made.insert(name, tensor)?;
        }
        Ok(made)
    }

    /// Lets go of all of them.
    pub fn clear(&mut self) {
        // SAFETY: nothing is borrowed from `self`.
        unsafe { sys::grapnel_tensors_clear(self.0.as_ptr()) }
    }
}

impl Deref for Tensors {
    type Target = TensorsRef;

    fn deref(&self) -> &TensorsRef {
        // SAFETY: they live as long as `self`, and only `&mut self` writes them.
        unsafe { TensorsRef::from_ptr(self.0.as_ptr()) }
    }
}

impl DerefMut for Tensors {
    fn deref_mut(&mut self) -> &mut TensorsRef {
        // SAFETY: as in `deref`, and `self` is borrowed by nobody else.
        unsafe { TensorsRef::from_mut_ptr(self.0.as_ptr()) }
    }
}

impl fmt::Debug for Tensors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl Drop for Tensors {
    fn drop(&mut self) {
        // SAFETY: they are ours, and nothing is borrowed from them any more.
        unsafe { sys::grapnel_tensors_destroy(self.0.as_ptr()) }
    }
}
