//! What works without a runner: checkpoints, safetensors, schedulers, averages.

use std::ffi::{c_char, c_void};

use crate::*;

opaque!(grapnel_checkpoint, grapnel_scheduler, grapnel_average);

extern "C" {
    pub fn grapnel_checkpoint_list(
        dir: *const c_char,
        dir_size: usize,
        names: *mut grapnel_bytes,
    ) -> *mut grapnel_status;
    pub fn grapnel_checkpoint_latest(
        dir: *const c_char,
        dir_size: usize,
        path: *mut grapnel_bytes,
    ) -> *mut grapnel_status;
    pub fn grapnel_checkpoint_verify(path: *const c_char, path_size: usize) -> *mut grapnel_status;
    pub fn grapnel_checkpoint_open(
        path: *const c_char,
        path_size: usize,
        out: *mut *mut grapnel_checkpoint,
    ) -> *mut grapnel_status;
    pub fn grapnel_checkpoint_destroy(checkpoint: *mut grapnel_checkpoint);
    pub fn grapnel_checkpoint_epoch(checkpoint: *const grapnel_checkpoint) -> i64;
    pub fn grapnel_checkpoint_iter(checkpoint: *const grapnel_checkpoint) -> i64;
    pub fn grapnel_checkpoint_manifest(
        checkpoint: *const grapnel_checkpoint,
        encoding: grapnel_encoding,
        manifest: *mut grapnel_bytes,
    ) -> *mut grapnel_status;
    pub fn grapnel_checkpoint_sections(
        checkpoint: *const grapnel_checkpoint,
        names: *mut grapnel_bytes,
    ) -> *mut grapnel_status;
    pub fn grapnel_checkpoint_tensors(
        checkpoint: *const grapnel_checkpoint,
        section: *const c_char,
        section_size: usize,
        tensors: *mut *const grapnel_tensors,
    ) -> *mut grapnel_status;
    pub fn grapnel_safetensors_read(
        path: *const c_char,
        path_size: usize,
        tensors: *mut grapnel_tensors,
    ) -> *mut grapnel_status;
    pub fn grapnel_safetensors_write(
        path: *const c_char,
        path_size: usize,
        tensors: *const grapnel_tensors,
    ) -> *mut grapnel_status;
    pub fn grapnel_scheduler_create(
        config: *const c_void,
        config_size: usize,
        encoding: grapnel_encoding,
        values: *const *mut f64,
        num_values: usize,
        max_epochs: i64,
        max_iters: i64,
        out: *mut *mut grapnel_scheduler,
    ) -> *mut grapnel_status;
    pub fn grapnel_scheduler_destroy(scheduler: *mut grapnel_scheduler);
    pub fn grapnel_scheduler_apply(scheduler: *mut grapnel_scheduler) -> *mut grapnel_status;
    pub fn grapnel_scheduler_step(scheduler: *mut grapnel_scheduler) -> *mut grapnel_status;
    pub fn grapnel_scheduler_step_metric(
        scheduler: *mut grapnel_scheduler,
        value: f64,
    ) -> *mut grapnel_status;
    pub fn grapnel_scheduler_save_state(
        scheduler: *const grapnel_scheduler,
        state: *mut grapnel_bytes,
    ) -> *mut grapnel_status;
    pub fn grapnel_scheduler_load_state(
        scheduler: *mut grapnel_scheduler,
        state: *const c_void,
        state_size: usize,
    ) -> *mut grapnel_status;
    pub fn grapnel_average_create(
        config: *const c_void,
        config_size: usize,
        encoding: grapnel_encoding,
        parameters: *const grapnel_tensors,
        buffers: *const grapnel_tensors,
        out: *mut *mut grapnel_average,
    ) -> *mut grapnel_status;
    pub fn grapnel_average_destroy(average: *mut grapnel_average);
    pub fn grapnel_average_update(average: *mut grapnel_average) -> *mut grapnel_status;
    pub fn grapnel_average_steps(average: *const grapnel_average) -> i64;
    pub fn grapnel_average_swap_in(average: *mut grapnel_average) -> *mut grapnel_status;
    pub fn grapnel_average_swap_out(average: *mut grapnel_average) -> *mut grapnel_status;
    pub fn grapnel_average_state(
        average: *const grapnel_average,
        state: *mut grapnel_tensors,
    ) -> *mut grapnel_status;
    pub fn grapnel_average_load_state(
        average: *mut grapnel_average,
        state: *const grapnel_tensors,
        steps: i64,
    ) -> *mut grapnel_status;
}
