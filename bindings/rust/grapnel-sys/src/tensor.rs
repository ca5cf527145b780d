//! Tensors, named tensors and named numbers.

use std::ffi::{c_char, c_void};

use crate::*;

opaque!(grapnel_tensor, grapnel_tensors, grapnel_scalars);

pub type grapnel_dtype = i32;
pub const GRAPNEL_BOOL: grapnel_dtype = 1;
pub const GRAPNEL_UINT8: grapnel_dtype = 2;
pub const GRAPNEL_INT32: grapnel_dtype = 3;
pub const GRAPNEL_INT64: grapnel_dtype = 4;
pub const GRAPNEL_FLOAT16: grapnel_dtype = 5;
pub const GRAPNEL_BFLOAT16: grapnel_dtype = 6;
pub const GRAPNEL_FLOAT32: grapnel_dtype = 7;
pub const GRAPNEL_FLOAT64: grapnel_dtype = 8;
pub const GRAPNEL_INT8: grapnel_dtype = 9;
pub const GRAPNEL_INT16: grapnel_dtype = 10;

extern "C" {
    pub fn grapnel_tensor_create(
        dtype: grapnel_dtype,
        shape: *const i64,
        rank: i32,
        data: *const c_void,
        size: usize,
        out: *mut *mut grapnel_tensor,
    ) -> *mut grapnel_status;
    pub fn grapnel_tensor_share(
        tensor: *const grapnel_tensor,
        out: *mut *mut grapnel_tensor,
    ) -> *mut grapnel_status;
    pub fn grapnel_tensor_read(
        tensor: *const grapnel_tensor,
        data: *mut c_void,
        size: usize,
    ) -> *mut grapnel_status;
    pub fn grapnel_tensor_write(
        tensor: *mut grapnel_tensor,
        data: *const c_void,
        size: usize,
    ) -> *mut grapnel_status;
    pub fn grapnel_tensor_from_dlpack(
        dlpack: *mut DLManagedTensorVersioned,
        out: *mut *mut grapnel_tensor,
    ) -> *mut grapnel_status;
    pub fn grapnel_tensor_to_dlpack(
        tensor: *const grapnel_tensor,
        out: *mut *mut DLManagedTensorVersioned,
    ) -> *mut grapnel_status;
    pub fn grapnel_tensor_dtype(tensor: *const grapnel_tensor) -> grapnel_dtype;
    pub fn grapnel_tensor_rank(tensor: *const grapnel_tensor) -> i32;
    pub fn grapnel_tensor_shape(tensor: *const grapnel_tensor) -> *const i64;
    pub fn grapnel_tensor_numel(tensor: *const grapnel_tensor) -> i64;
    pub fn grapnel_tensor_data(tensor: *const grapnel_tensor) -> *mut c_void;
    pub fn grapnel_tensor_destroy(tensor: *mut grapnel_tensor);
    pub fn grapnel_tensors_create(out: *mut *mut grapnel_tensors) -> *mut grapnel_status;
    pub fn grapnel_tensors_add(
        tensors: *mut grapnel_tensors,
        name: *const c_char,
        name_size: usize,
        tensor: *mut grapnel_tensor,
    ) -> *mut grapnel_status;
    pub fn grapnel_tensors_add_copy(
        tensors: *mut grapnel_tensors,
        name: *const c_char,
        name_size: usize,
        dtype: grapnel_dtype,
        shape: *const i64,
        rank: i32,
        data: *const c_void,
        size: usize,
    ) -> *mut grapnel_status;
    pub fn grapnel_tensors_add_new(
        tensors: *mut grapnel_tensors,
        name: *const c_char,
        name_size: usize,
        dtype: grapnel_dtype,
        shape: *const i64,
        rank: i32,
        data: *mut *mut c_void,
    ) -> *mut grapnel_status;
    pub fn grapnel_tensors_size(tensors: *const grapnel_tensors) -> i64;
    pub fn grapnel_tensors_name(tensors: *const grapnel_tensors, index: i64) -> *const c_char;
    pub fn grapnel_tensors_at(tensors: *const grapnel_tensors, index: i64)
        -> *const grapnel_tensor;
    pub fn grapnel_tensors_find(
        tensors: *const grapnel_tensors,
        name: *const c_char,
        name_size: usize,
    ) -> *const grapnel_tensor;
    pub fn grapnel_tensors_clear(tensors: *mut grapnel_tensors);
    pub fn grapnel_tensors_destroy(tensors: *mut grapnel_tensors);
    pub fn grapnel_scalars_create(out: *mut *mut grapnel_scalars) -> *mut grapnel_status;
    pub fn grapnel_scalars_add(
        scalars: *mut grapnel_scalars,
        name: *const c_char,
        name_size: usize,
        value: f64,
    ) -> *mut grapnel_status;
    pub fn grapnel_scalars_size(scalars: *const grapnel_scalars) -> i64;
    pub fn grapnel_scalars_name(scalars: *const grapnel_scalars, index: i64) -> *const c_char;
    pub fn grapnel_scalars_value(scalars: *const grapnel_scalars, index: i64) -> f64;
    pub fn grapnel_scalars_find(
        scalars: *const grapnel_scalars,
        name: *const c_char,
        name_size: usize,
        value: *mut f64,
    ) -> *mut grapnel_status;
    pub fn grapnel_scalars_clear(scalars: *mut grapnel_scalars);
    pub fn grapnel_scalars_destroy(scalars: *mut grapnel_scalars);
}
