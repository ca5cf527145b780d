//! Files of safetensors.

use std::path::Path;

use grapnel_sys as sys;

use crate::bytes::path_text;
use crate::error::Result;
use crate::status;
use crate::tensors::{Tensors, TensorsRef};

/// A file's tensors, in its order.
pub fn read(path: impl AsRef<Path>) -> Result<Tensors> {
    let path = path_text(path.as_ref())?;
    let mut tensors = Tensors::new()?;
    // SAFETY: the path is as long as it says; each tensor has memory of its own.
    unsafe {
        status::take(sys::grapnel_safetensors_read(
            path.as_ptr().cast(),
            path.len(),
            tensors.as_mut_ptr(),
        ))?;
    }
    Ok(tensors)
}

/// Writes tensors to a file, which is there whole, or as it was before.
pub fn write(path: impl AsRef<Path>, tensors: &TensorsRef) -> Result<()> {
    let path = path_text(path.as_ref())?;
    // SAFETY: the path is as long as it says.
    unsafe {
        let path = (path.as_ptr().cast(), path.len());
        status::take(sys::grapnel_safetensors_write(path.0, path.1, tensors.as_ptr()))
    }
}
