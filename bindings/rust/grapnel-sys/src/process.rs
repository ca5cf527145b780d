//! Version, statuses, bytes and the log.

use std::ffi::{c_char, c_void};

opaque!(grapnel_status);

pub type grapnel_code = i32;
pub const GRAPNEL_OK: grapnel_code = 0;
pub const GRAPNEL_CANCELLED: grapnel_code = 1;
pub const GRAPNEL_UNKNOWN: grapnel_code = 2;
pub const GRAPNEL_INVALID_ARGUMENT: grapnel_code = 3;
pub const GRAPNEL_DEADLINE_EXCEEDED: grapnel_code = 4;
pub const GRAPNEL_NOT_FOUND: grapnel_code = 5;
pub const GRAPNEL_ALREADY_EXISTS: grapnel_code = 6;
pub const GRAPNEL_PERMISSION_DENIED: grapnel_code = 7;
pub const GRAPNEL_RESOURCE_EXHAUSTED: grapnel_code = 8;
pub const GRAPNEL_FAILED_PRECONDITION: grapnel_code = 9;
pub const GRAPNEL_ABORTED: grapnel_code = 10;
pub const GRAPNEL_OUT_OF_RANGE: grapnel_code = 11;
pub const GRAPNEL_UNIMPLEMENTED: grapnel_code = 12;
pub const GRAPNEL_INTERNAL: grapnel_code = 13;
pub const GRAPNEL_UNAVAILABLE: grapnel_code = 14;
pub const GRAPNEL_DATA_LOSS: grapnel_code = 15;
pub const GRAPNEL_UNAUTHENTICATED: grapnel_code = 16;

pub type grapnel_severity = i32;
pub const GRAPNEL_INFO: grapnel_severity = 0;
pub const GRAPNEL_WARNING: grapnel_severity = 1;
pub const GRAPNEL_ERROR: grapnel_severity = 2;

pub const GRAPNEL_VERSION_MAJOR: u32 = 0;
pub const GRAPNEL_VERSION_MINOR: u32 = 1;

/// Zero is a good value to start with.
#[repr(C)]
#[derive(Debug)]
pub struct grapnel_bytes {
    pub data: *mut c_char,
    pub size: usize,
}

pub type grapnel_log_callback = Option<
    unsafe extern "C" fn(
        user_data: *mut c_void,
        severity: grapnel_severity,
        message: *const c_char,
        message_size: usize,
    ),
>;

extern "C" {
    pub fn grapnel_version() -> u32;
    pub fn grapnel_build_info() -> *const c_char;
    pub fn grapnel_live_objects() -> i64;
    pub fn grapnel_status_create(
        code: grapnel_code,
        message: *const c_char,
        message_size: usize,
    ) -> *mut grapnel_status;
    pub fn grapnel_status_code(status: *const grapnel_status) -> grapnel_code;
    pub fn grapnel_status_message(status: *const grapnel_status) -> *const c_char;
    pub fn grapnel_status_destroy(status: *mut grapnel_status);
    pub fn grapnel_bytes_assign(
        bytes: *mut grapnel_bytes,
        data: *const c_void,
        size: usize,
    ) -> *mut grapnel_status;
    pub fn grapnel_bytes_clear(bytes: *mut grapnel_bytes);
    pub fn grapnel_set_log_callback(callback: grapnel_log_callback, user_data: *mut c_void);
}
