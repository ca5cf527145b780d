//! A model's tensors as bytes.

use grapnel::{Dtype, Result, Runner};

/// Name and bytes of each, one behind the other.
pub fn bytes_of_weights(runner: &Runner) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for name in runner.tensor_names()? {
        let tensor = runner.tensor(&name)?;
        bytes.extend(name.as_bytes());
        match tensor.dtype() {
            Some(Dtype::Int64) => {
                bytes.extend(tensor.to_vec::<i64>()?.iter().flat_map(|x| x.to_ne_bytes()));
            }
            _ => bytes.extend(tensor.to_vec::<f32>()?.iter().flat_map(|x| x.to_ne_bytes())),
        }
    }
    Ok(bytes)
}
