//! A run, as its hooks see it.

use std::ffi::c_char;

use crate::*;

opaque!(grapnel_run);

pub type grapnel_stage = i32;
pub const GRAPNEL_SETUP: grapnel_stage = 0;
pub const GRAPNEL_BEFORE_RUN: grapnel_stage = 1;
pub const GRAPNEL_AFTER_LOAD_CHECKPOINT: grapnel_stage = 2;
pub const GRAPNEL_AFTER_RESTORE: grapnel_stage = 3;
pub const GRAPNEL_BEFORE_TRAIN: grapnel_stage = 4;
pub const GRAPNEL_BEFORE_TRAIN_EPOCH: grapnel_stage = 5;
pub const GRAPNEL_BEFORE_TRAIN_ITER: grapnel_stage = 6;
pub const GRAPNEL_BEFORE_OPTIMIZER_STEP: grapnel_stage = 7;
pub const GRAPNEL_AFTER_OPTIMIZER_STEP: grapnel_stage = 8;
pub const GRAPNEL_AFTER_TRAIN_ITER: grapnel_stage = 9;
pub const GRAPNEL_AFTER_TRAIN_EPOCH: grapnel_stage = 10;
pub const GRAPNEL_BEFORE_VAL: grapnel_stage = 11;
pub const GRAPNEL_BEFORE_VAL_EPOCH: grapnel_stage = 12;
pub const GRAPNEL_BEFORE_VAL_ITER: grapnel_stage = 13;
pub const GRAPNEL_AFTER_VAL_ITER: grapnel_stage = 14;
pub const GRAPNEL_AFTER_VAL_EPOCH: grapnel_stage = 15;
pub const GRAPNEL_AFTER_VAL: grapnel_stage = 16;
pub const GRAPNEL_BEFORE_TEST: grapnel_stage = 17;
pub const GRAPNEL_BEFORE_TEST_EPOCH: grapnel_stage = 18;
pub const GRAPNEL_BEFORE_TEST_ITER: grapnel_stage = 19;
pub const GRAPNEL_AFTER_TEST_ITER: grapnel_stage = 20;
pub const GRAPNEL_AFTER_TEST_EPOCH: grapnel_stage = 21;
pub const GRAPNEL_AFTER_TEST: grapnel_stage = 22;
pub const GRAPNEL_BEFORE_SAVE_CHECKPOINT: grapnel_stage = 23;
pub const GRAPNEL_AFTER_SAVE_CHECKPOINT: grapnel_stage = 24;
pub const GRAPNEL_BEFORE_EXPORT: grapnel_stage = 25;
pub const GRAPNEL_AFTER_EXPORT: grapnel_stage = 26;
pub const GRAPNEL_AFTER_TRAIN: grapnel_stage = 27;
pub const GRAPNEL_ON_ERROR: grapnel_stage = 28;
pub const GRAPNEL_AFTER_RUN: grapnel_stage = 29;

pub type grapnel_mode = i32;
pub const GRAPNEL_TRAIN: grapnel_mode = 0;
pub const GRAPNEL_VAL: grapnel_mode = 1;
pub const GRAPNEL_TEST: grapnel_mode = 2;

pub type grapnel_stop = i32;
pub const GRAPNEL_STOP_AFTER_EPOCH: grapnel_stop = 0;
pub const GRAPNEL_STOP_NOW: grapnel_stop = 1;

extern "C" {
    pub fn grapnel_run_epoch(run: *const grapnel_run) -> i64;
    pub fn grapnel_run_iter(run: *const grapnel_run) -> i64;
    pub fn grapnel_run_max_epochs(run: *const grapnel_run) -> i64;
    pub fn grapnel_run_max_iters(run: *const grapnel_run) -> i64;
    pub fn grapnel_run_mode(run: *const grapnel_run) -> grapnel_mode;
    pub fn grapnel_run_training(run: *const grapnel_run) -> i32;
    pub fn grapnel_run_batch_idx(run: *const grapnel_run) -> i64;
    pub fn grapnel_run_num_batches(run: *const grapnel_run) -> i64;
    pub fn grapnel_run_rank(run: *const grapnel_run) -> i32;
    pub fn grapnel_run_world_size(run: *const grapnel_run) -> i32;
    pub fn grapnel_run_is_master(run: *const grapnel_run) -> i32;
    pub fn grapnel_run_batch(
        run: *mut grapnel_run,
        batch: *mut *const grapnel_tensors,
    ) -> *mut grapnel_status;
    pub fn grapnel_run_log_vars(
        run: *mut grapnel_run,
        log_vars: *mut *const grapnel_scalars,
    ) -> *mut grapnel_status;
    pub fn grapnel_run_predictions(
        run: *mut grapnel_run,
        predictions: *mut *const grapnel_tensors,
    ) -> *mut grapnel_status;
    pub fn grapnel_run_metrics(
        run: *mut grapnel_run,
        metrics: *mut *const grapnel_scalars,
    ) -> *mut grapnel_status;
    pub fn grapnel_run_saved_path(
        run: *mut grapnel_run,
        path: *mut *const c_char,
    ) -> *mut grapnel_status;
    pub fn grapnel_run_error(
        run: *mut grapnel_run,
        error: *mut *const grapnel_status,
    ) -> *mut grapnel_status;
    pub fn grapnel_run_tensor(
        run: *mut grapnel_run,
        name: *const c_char,
        name_size: usize,
        out: *mut *mut grapnel_tensor,
    ) -> *mut grapnel_status;
    pub fn grapnel_run_scalar(
        run: *mut grapnel_run,
        name: *const c_char,
        name_size: usize,
        value: *mut f64,
    ) -> *mut grapnel_status;
    pub fn grapnel_run_add_scalar(
        run: *mut grapnel_run,
        name: *const c_char,
        name_size: usize,
        value: f64,
    ) -> *mut grapnel_status;
    pub fn grapnel_run_save(
        run: *mut grapnel_run,
        name: *const c_char,
        name_size: usize,
    ) -> *mut grapnel_status;
    pub fn grapnel_run_request_stop(
        run: *mut grapnel_run,
        at: grapnel_stop,
        reason: *const c_char,
        reason_size: usize,
    ) -> *mut grapnel_status;
    pub fn grapnel_run_log(
        run: *mut grapnel_run,
        severity: grapnel_severity,
        message: *const c_char,
        message_size: usize,
    ) -> *mut grapnel_status;
}
