//! Bytes that the library hands out.

use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::{ptr, slice};

use grapnel_sys as sys;

use crate::error::{Code, Error, Result};
use crate::status;

/// What a function writes to a `grapnel_bytes`.
pub(crate) struct Bytes(sys::grapnel_bytes);

impl Bytes {
    /// Calls a function that writes bytes.
    pub(crate) fn of(
        call: impl FnOnce(*mut sys::grapnel_bytes) -> *mut sys::grapnel_status,
    ) -> Result<Bytes> {
        let mut bytes = Bytes(sys::grapnel_bytes { data: ptr::null_mut(), size: 0 });
        let status = call(&mut bytes.0);
        // SAFETY: callers pass on what a function of the library returned.
        unsafe { status::take(status)? };
        Ok(bytes)
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        if self.0.data.is_null() {
            return &[];
        }
        // SAFETY: these are `size` bytes that live until they are cleared.
        unsafe { slice::from_raw_parts(self.0.data.cast(), self.0.size) }
    }

    pub(crate) fn to_text(&self) -> String {
        String::from_utf8_lossy(self.as_slice()).into_owned()
    }

    /// Of names, a line each.
    pub(crate) fn to_lines(&self) -> Vec<String> {
        String::from_utf8_lossy(self.as_slice()).lines().map(str::to_owned).collect()
    }

    pub(crate) fn to_path(&self) -> PathBuf {
        PathBuf::from(self.to_text())
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        // SAFETY: nothing is borrowed from `self` any more.
        unsafe { sys::grapnel_bytes_clear(&mut self.0) };
    }
}

/// Puts bytes where a callback's caller wants them.
///
/// # Safety
///
/// `to` points to bytes that are nobody else's.
pub(crate) unsafe fn assign(to: *mut sys::grapnel_bytes, bytes: &[u8]) -> *mut sys::grapnel_status {
    // SAFETY: the data is as long as it says.
    unsafe { sys::grapnel_bytes_assign(to, bytes.as_ptr().cast(), bytes.len()) }
}

/// What a callback is handed as a pointer and a size.
///
/// # Safety
///
/// `data` points to `size` bytes that live for `'a`, or `size` is 0.
pub(crate) unsafe fn lent<'a>(data: *const c_void, size: usize) -> &'a [u8] {
    if size == 0 {
        return &[];
    }
    // SAFETY: by our own condition.
    unsafe { slice::from_raw_parts(data.cast(), size) }
}

/// Paths are UTF-8 in the library.
pub(crate) fn path_text(path: &Path) -> Result<&str> {
    path.to_str()
        .ok_or_else(|| Error::new(Code::InvalidArgument, format!("path {path:?}: must be UTF-8")))
}
