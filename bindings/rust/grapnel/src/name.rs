//! Names that the library hands out.

use std::ffi::{c_char, CStr};

/// A text of the library's, which are UTF-8; what isn't is "".
///
/// # Safety
///
/// `text` is null, or ends with NUL and lives for `'a`.
pub(crate) unsafe fn text<'a>(text: *const c_char) -> &'a str {
    if text.is_null() {
        return "";
    }
    // SAFETY: by our own condition.
    unsafe { CStr::from_ptr(text) }.to_str().unwrap_or("")
}
