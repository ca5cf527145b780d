//! A runner's options.

use std::ffi::{c_char, c_void};

use crate::*;

opaque!(grapnel_runner_options);

pub type grapnel_record_callback = Option<
    unsafe extern "C" fn(
        user_data: *mut c_void,
        mode: grapnel_mode,
        step: i64,
        record: *const grapnel_scalars,
    ) -> *mut grapnel_status,
>;

extern "C" {
    pub fn grapnel_runner_options_create(
        out: *mut *mut grapnel_runner_options,
    ) -> *mut grapnel_status;
    pub fn grapnel_runner_options_destroy(options: *mut grapnel_runner_options);
    pub fn grapnel_runner_options_set_config(
        options: *mut grapnel_runner_options,
        config: *const c_void,
        config_size: usize,
        encoding: grapnel_encoding,
    ) -> *mut grapnel_status;
    pub fn grapnel_runner_options_set_config_file(
        options: *mut grapnel_runner_options,
        path: *const c_char,
        path_size: usize,
    ) -> *mut grapnel_status;
    pub fn grapnel_runner_options_override(
        options: *mut grapnel_runner_options,
        assignment: *const c_char,
        assignment_size: usize,
    ) -> *mut grapnel_status;
    pub fn grapnel_runner_options_set_base_dir(
        options: *mut grapnel_runner_options,
        dir: *const c_char,
        dir_size: usize,
    ) -> *mut grapnel_status;
    pub fn grapnel_runner_options_set_for_training(
        options: *mut grapnel_runner_options,
        for_training: i32,
    ) -> *mut grapnel_status;
    pub fn grapnel_runner_options_set_wait_for_lock(
        options: *mut grapnel_runner_options,
        seconds: f64,
    ) -> *mut grapnel_status;
    pub fn grapnel_runner_options_set_terminal_fd(
        options: *mut grapnel_runner_options,
        fd: i32,
    ) -> *mut grapnel_status;
    pub fn grapnel_runner_options_set_log_callback(
        options: *mut grapnel_runner_options,
        callback: grapnel_log_callback,
        user_data: *mut c_void,
    ) -> *mut grapnel_status;
    pub fn grapnel_runner_options_set_record_callback(
        options: *mut grapnel_runner_options,
        callback: grapnel_record_callback,
        user_data: *mut c_void,
    ) -> *mut grapnel_status;
    pub fn grapnel_runner_options_set_dataset(
        options: *mut grapnel_runner_options,
        mode: grapnel_mode,
        callbacks: *const grapnel_dataset_callbacks,
        user_data: *mut c_void,
    ) -> *mut grapnel_status;
    pub fn grapnel_runner_options_set_tensors(
        options: *mut grapnel_runner_options,
        mode: grapnel_mode,
        tensors: *const grapnel_tensors,
    ) -> *mut grapnel_status;
    pub fn grapnel_runner_options_set_stream(
        options: *mut grapnel_runner_options,
        callbacks: *const grapnel_stream_callbacks,
        user_data: *mut c_void,
    ) -> *mut grapnel_status;
    pub fn grapnel_runner_options_set_model(
        options: *mut grapnel_runner_options,
        callbacks: *const grapnel_model_callbacks,
        parameters: *const grapnel_tensors,
        buffers: *const grapnel_tensors,
        user_data: *mut c_void,
    ) -> *mut grapnel_status;
    pub fn grapnel_runner_options_set_loss(
        options: *mut grapnel_runner_options,
        callbacks: *const grapnel_loss_callbacks,
        user_data: *mut c_void,
    ) -> *mut grapnel_status;
    pub fn grapnel_runner_options_add_metric(
        options: *mut grapnel_runner_options,
        mode: grapnel_mode,
        callbacks: *const grapnel_metric_callbacks,
        user_data: *mut c_void,
    ) -> *mut grapnel_status;
    pub fn grapnel_runner_options_add_hook(
        options: *mut grapnel_runner_options,
        name: *const c_char,
        name_size: usize,
        callbacks: *const grapnel_hook_callbacks,
        user_data: *mut c_void,
    ) -> *mut grapnel_status;
}
