//! Configurations and runners.

use std::ffi::c_char;

use crate::*;

opaque!(grapnel_runner);

pub type grapnel_encoding = i32;
pub const GRAPNEL_BINARY: grapnel_encoding = 1;
pub const GRAPNEL_TEXT: grapnel_encoding = 2;
pub const GRAPNEL_JSON: grapnel_encoding = 3;

extern "C" {
    pub fn grapnel_registered_configs(names: *mut grapnel_bytes) -> *mut grapnel_status;
    pub fn grapnel_runner_create(
        options: *mut grapnel_runner_options,
        out: *mut *mut grapnel_runner,
    ) -> *mut grapnel_status;
    pub fn grapnel_runner_destroy(runner: *mut grapnel_runner);
    pub fn grapnel_runner_config(
        runner: *const grapnel_runner,
        encoding: grapnel_encoding,
        config: *mut grapnel_bytes,
    ) -> *mut grapnel_status;
    pub fn grapnel_runner_rank(runner: *const grapnel_runner) -> i32;
    pub fn grapnel_runner_world_size(runner: *const grapnel_runner) -> i32;
    pub fn grapnel_runner_is_master(runner: *const grapnel_runner) -> i32;
    pub fn grapnel_runner_local_rank(runner: *const grapnel_runner) -> i32;
    pub fn grapnel_runner_train(runner: *mut grapnel_runner) -> *mut grapnel_status;
    pub fn grapnel_runner_step(runner: *mut grapnel_runner, more: *mut i32) -> *mut grapnel_status;
    pub fn grapnel_runner_train_until(
        runner: *mut grapnel_runner,
        unix_seconds: f64,
        more: *mut i32,
    ) -> *mut grapnel_status;
    pub fn grapnel_runner_val(
        runner: *mut grapnel_runner,
        metrics: *mut grapnel_scalars,
    ) -> *mut grapnel_status;
    pub fn grapnel_runner_test(
        runner: *mut grapnel_runner,
        metrics: *mut grapnel_scalars,
    ) -> *mut grapnel_status;
    pub fn grapnel_runner_export(
        runner: *mut grapnel_runner,
        path: *const c_char,
        path_size: usize,
    ) -> *mut grapnel_status;
    pub fn grapnel_runner_save(
        runner: *mut grapnel_runner,
        name: *const c_char,
        name_size: usize,
    ) -> *mut grapnel_status;
    pub fn grapnel_runner_request_stop(
        runner: *mut grapnel_runner,
        at: grapnel_stop,
        reason: *const c_char,
        reason_size: usize,
    ) -> *mut grapnel_status;
    pub fn grapnel_runner_stop_reason(
        runner: *const grapnel_runner,
        reason: *mut grapnel_bytes,
    ) -> *mut grapnel_status;
    pub fn grapnel_runner_epoch(runner: *const grapnel_runner) -> i64;
    pub fn grapnel_runner_iter(runner: *const grapnel_runner) -> i64;
    pub fn grapnel_runner_scalar(
        runner: *const grapnel_runner,
        name: *const c_char,
        name_size: usize,
        value: *mut f64,
    ) -> *mut grapnel_status;
    pub fn grapnel_runner_scalar_names(
        runner: *const grapnel_runner,
        names: *mut grapnel_bytes,
    ) -> *mut grapnel_status;
    pub fn grapnel_runner_info(
        runner: *const grapnel_runner,
        name: *const c_char,
        name_size: usize,
        value: *mut grapnel_bytes,
    ) -> *mut grapnel_status;
    pub fn grapnel_runner_get_tensor(
        runner: *const grapnel_runner,
        name: *const c_char,
        name_size: usize,
        out: *mut *mut grapnel_tensor,
    ) -> *mut grapnel_status;
    pub fn grapnel_runner_set_tensor(
        runner: *mut grapnel_runner,
        name: *const c_char,
        name_size: usize,
        value: *const grapnel_tensor,
    ) -> *mut grapnel_status;
    pub fn grapnel_runner_tensor_names(
        runner: *const grapnel_runner,
        names: *mut grapnel_bytes,
    ) -> *mut grapnel_status;
    pub fn grapnel_runner_stage_table(
        runner: *const grapnel_runner,
        table: *mut grapnel_bytes,
    ) -> *mut grapnel_status;
    pub fn grapnel_runner_work_dir(
        runner: *const grapnel_runner,
        path: *mut grapnel_bytes,
    ) -> *mut grapnel_status;
}
