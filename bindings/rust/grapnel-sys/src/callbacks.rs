//! What runs can be made of: structs of callbacks.

use std::ffi::{c_char, c_void};

use crate::*;

/// Zero is a good value to start with, but for `struct_size`, which is the size of this.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct grapnel_hook_callbacks {
    pub struct_size: usize,
    pub stages: u64,
    pub priority: i32,
    pub on_stage: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            stage: grapnel_stage,
            run: *mut grapnel_run,
        ) -> *mut grapnel_status,
    >,
    pub save_state: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            state: *mut grapnel_bytes,
        ) -> *mut grapnel_status,
    >,
    pub load_state: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            state: *const c_void,
            state_size: usize,
        ) -> *mut grapnel_status,
    >,
    pub destroy: Option<unsafe extern "C" fn(user_data: *mut c_void)>,
}

/// Zero is a good value to start with, but for `struct_size`, which is the size of this.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct grapnel_dataset_callbacks {
    pub struct_size: usize,
    pub size: i64,
    pub thread_safe: i32,
    pub get: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            index: i64,
            sample: *mut grapnel_tensors,
        ) -> *mut grapnel_status,
    >,
    pub get_batch: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            indices: *const i64,
            count: usize,
            batch: *mut grapnel_tensors,
        ) -> *mut grapnel_status,
    >,
    pub destroy: Option<unsafe extern "C" fn(user_data: *mut c_void)>,
}

/// Zero is a good value to start with, but for `struct_size`, which is the size of this.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct grapnel_stream_callbacks {
    pub struct_size: usize,
    pub begin_pass:
        Option<unsafe extern "C" fn(user_data: *mut c_void, pass: i64) -> *mut grapnel_status>,
    pub next: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            sample: *mut grapnel_tensors,
        ) -> *mut grapnel_status,
    >,
    pub save_state: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            state: *mut grapnel_bytes,
        ) -> *mut grapnel_status,
    >,
    pub load_state: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            state: *const c_void,
            state_size: usize,
        ) -> *mut grapnel_status,
    >,
    pub destroy: Option<unsafe extern "C" fn(user_data: *mut c_void)>,
}

/// Zero is a good value to start with, but for `struct_size`, which is the size of this.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct grapnel_model_callbacks {
    pub struct_size: usize,
    pub train_step: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            batch: *const grapnel_tensors,
            gradients: *mut grapnel_tensors,
            losses: *mut grapnel_scalars,
        ) -> *mut grapnel_status,
    >,
    pub val_step: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            batch: *const grapnel_tensors,
            predictions: *mut grapnel_tensors,
            losses: *mut grapnel_scalars,
        ) -> *mut grapnel_status,
    >,
    pub tensors_written:
        Option<unsafe extern "C" fn(user_data: *mut c_void) -> *mut grapnel_status>,
    pub set_training: Option<unsafe extern "C" fn(user_data: *mut c_void, training: i32)>,
    pub export_model: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            path: *const c_char,
            path_size: usize,
        ) -> *mut grapnel_status,
    >,
    pub destroy: Option<unsafe extern "C" fn(user_data: *mut c_void)>,
}

/// Zero is a good value to start with, but for `struct_size`, which is the size of this.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct grapnel_loss_callbacks {
    pub struct_size: usize,
    pub compute: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            output: *const grapnel_tensor,
            batch: *const grapnel_tensors,
            loss: *mut f64,
            grad: *mut *mut grapnel_tensor,
        ) -> *mut grapnel_status,
    >,
    pub destroy: Option<unsafe extern "C" fn(user_data: *mut c_void)>,
}

/// Zero is a good value to start with, but for `struct_size`, which is the size of this.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct grapnel_metric_callbacks {
    pub struct_size: usize,
    pub reset: Option<unsafe extern "C" fn(user_data: *mut c_void) -> *mut grapnel_status>,
    pub process: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            predictions: *const grapnel_tensors,
            batch: *const grapnel_tensors,
        ) -> *mut grapnel_status,
    >,
    pub compute: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            metrics: *mut grapnel_scalars,
        ) -> *mut grapnel_status,
    >,
    pub destroy: Option<unsafe extern "C" fn(user_data: *mut c_void)>,
}
