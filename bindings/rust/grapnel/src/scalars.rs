//! Named numbers: metrics, losses, the record of an iteration.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};

use grapnel_sys as sys;

use crate::error::Result;
use crate::name::text;
use crate::status;

/// Named numbers, in order, that somebody else owns; always behind a reference, as `str` is.
#[repr(transparent)]
pub struct ScalarsRef(sys::grapnel_scalars);

impl ScalarsRef {
    /// # Safety
    ///
    /// `scalars` lives for `'a`, and nobody writes it for as long.
    pub(crate) unsafe fn from_ptr<'a>(scalars: *const sys::grapnel_scalars) -> &'a ScalarsRef {
        // SAFETY: the layout is that of the pointed to, and nothing of it is read here.
        unsafe { &*scalars.cast() }
    }

    /// # Safety
    ///
    /// As for `from_ptr`, and nobody reads it either.
    pub(crate) unsafe fn from_mut_ptr<'a>(
        scalars: *mut sys::grapnel_scalars,
    ) -> &'a mut ScalarsRef {
        // SAFETY: as in `from_ptr`.
        unsafe { &mut *scalars.cast() }
    }

    fn as_ptr(&self) -> *const sys::grapnel_scalars {
        ptr::from_ref(self).cast()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        // SAFETY: they are scalars. A number of them is 0 or more.
        unsafe { sys::grapnel_scalars_size(self.as_ptr()) as usize }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The one of that name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.iter().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    /// All of them, with their names.
    pub fn iter(&self) -> ScalarsIter<'_> {
        ScalarsIter { scalars: self, next: 0 }
    }

    /// Adds a number. [`Code::AlreadyExists`](crate::Code::AlreadyExists) if the name is there.
    pub fn insert(&mut self, name: &str, value: f64) -> Result<()> {
        let scalars = ptr::from_mut(self).cast();
        // SAFETY: `self` is borrowed by nobody else, and the name is as long as it says.
        unsafe {
            status::take(sys::grapnel_scalars_add(scalars, name.as_ptr().cast(), name.len(), value))
        }
    }
}

impl fmt::Debug for ScalarsRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

/// See [`ScalarsRef::iter`].
#[derive(Debug, Clone)]
pub struct ScalarsIter<'a> {
    scalars: &'a ScalarsRef,
    next: usize,
}

impl<'a> Iterator for ScalarsIter<'a> {
    type Item = (&'a str, f64);

    fn next(&mut self) -> Option<Self::Item> {
        let index = i64::try_from(self.next).ok()?;
        let scalars = self.scalars.as_ptr();
        // SAFETY: they are scalars; a name is null where there is none, and lives as long as they.
        unsafe {
            let name = sys::grapnel_scalars_name(scalars, index);
            if name.is_null() {
                return None;
            }
            self.next += 1;
            Some((text(name), sys::grapnel_scalars_value(scalars, index)))
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.scalars.len().saturating_sub(self.next);
        (left, Some(left))
    }
}

impl ExactSizeIterator for ScalarsIter<'_> {}

impl<'a> IntoIterator for &'a ScalarsRef {
    type Item = (&'a str, f64);
    type IntoIter = ScalarsIter<'a>;

    fn into_iter(self) -> ScalarsIter<'a> {
        self.iter()
    }
}

/// Named numbers of one's own. `Send`, but not `Sync`.
pub struct Scalars(NonNull<sys::grapnel_scalars>);

// SAFETY: nothing of scalars belongs to a thread.
unsafe impl Send for Scalars {}

impl Scalars {
    /// None yet.
    pub fn new() -> Result<Scalars> {
        let mut out = ptr::null_mut();
        // SAFETY: `out` is written on success.
        unsafe {
            status::take(sys::grapnel_scalars_create(&mut out))?;
            Ok(Scalars(NonNull::new_unchecked(out)))
        }
    }

    /// Lets go of all of them.
    pub fn clear(&mut self) {
        // SAFETY: nothing is borrowed from `self`.
        unsafe { sys::grapnel_scalars_clear(self.0.as_ptr()) }
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut sys::grapnel_scalars {
        self.0.as_ptr()
    }
}

impl Deref for Scalars {
    type Target = ScalarsRef;

    fn deref(&self) -> &ScalarsRef {
        // SAFETY: they live as long as `self`, and only `&mut self` writes them.
        unsafe { ScalarsRef::from_ptr(self.0.as_ptr()) }
    }
}

impl DerefMut for Scalars {
    fn deref_mut(&mut self) -> &mut ScalarsRef {
        // SAFETY: as in `deref`, and `self` is borrowed by nobody else.
        unsafe { ScalarsRef::from_mut_ptr(self.0.as_ptr()) }
    }
}

impl fmt::Debug for Scalars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl Drop for Scalars {
    fn drop(&mut self) {
        // SAFETY: they are ours, and nothing is borrowed from them any more.
        unsafe { sys::grapnel_scalars_destroy(self.0.as_ptr()) }
    }
}
