//! Statuses of the C API as results.

use std::ffi::CStr;

use grapnel_sys as sys;

use crate::error::{Code, Error, Result};

/// A result of a status, which is destroyed.
///
/// # Safety
///
/// `status` is null, or a status that nobody else has.
pub(crate) unsafe fn take(status: *mut sys::grapnel_status) -> Result<()> {
    if status.is_null() {
        return Ok(());
    }
    // SAFETY: it is a status, by our own condition.
    let error = unsafe { read(status) };
    // SAFETY: it is nobody else's.
    unsafe { sys::grapnel_status_destroy(status) };
    Err(error)
}

/// The error that a status is.
///
/// # Safety
///
/// `status` is null or points to a status.
pub(crate) unsafe fn read(status: *const sys::grapnel_status) -> Error {
    // SAFETY: a message ends with NUL, and lives as long as its status.
    let message = unsafe { CStr::from_ptr(sys::grapnel_status_message(status)) };
    // SAFETY: by our own condition.
    let code = Code::from_c(unsafe { sys::grapnel_status_code(status) });
    Error::new(code, message.to_string_lossy())
}

/// A status for the library, which takes it.
pub(crate) fn give(code: Code, message: &str) -> *mut sys::grapnel_status {
    // SAFETY: the message is bytes of that size.
    unsafe { sys::grapnel_status_create(code.to_c(), message.as_ptr().cast(), message.len()) }
}
