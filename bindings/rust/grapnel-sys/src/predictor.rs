//! Predictors.

use std::ffi::c_char;

use crate::*;

opaque!(grapnel_predictor);

pub type grapnel_weights = i32;
pub const GRAPNEL_EVALUATED: grapnel_weights = 0;
pub const GRAPNEL_AVERAGED: grapnel_weights = 1;
pub const GRAPNEL_TRAINED: grapnel_weights = 2;

extern "C" {
    pub fn grapnel_predictor_open(
        path: *const c_char,
        path_size: usize,
        weights: grapnel_weights,
        replicas: i32,
        out: *mut *mut grapnel_predictor,
    ) -> *mut grapnel_status;
    pub fn grapnel_runner_predictor(
        runner: *mut grapnel_runner,
        weights: grapnel_weights,
        replicas: i32,
        out: *mut *mut grapnel_predictor,
    ) -> *mut grapnel_status;
    pub fn grapnel_predictor_destroy(predictor: *mut grapnel_predictor);
    pub fn grapnel_predictor_refresh(predictor: *mut grapnel_predictor) -> *mut grapnel_status;
    pub fn grapnel_predictor_predict(
        predictor: *mut grapnel_predictor,
        inputs: *const grapnel_tensor,
        out: *mut *mut grapnel_tensor,
    ) -> *mut grapnel_status;
    pub fn grapnel_predictor_iter(predictor: *const grapnel_predictor) -> i64;
}
