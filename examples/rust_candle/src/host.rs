//! Elements of Candle's tensors in host memory, without a copy of their own.

use candle_core::{bail, CpuStorage, InplaceOp1, Layout, Result, Storage, Tensor, Var};

/// Writes elements into a variable, where they lie.
pub fn write(variable: &Var, elements: &[f32]) -> Result<()> {
    variable.inplace_op1(&Overwrite(elements))
}

struct Overwrite<'a>(&'a [f32]);

impl InplaceOp1 for Overwrite<'_> {
    fn name(&self) -> &'static str {
        "overwrite"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let CpuStorage::F32(elements) = storage else { bail!("a variable must be of f32") };
        match layout.contiguous_offsets() {
            Some((begin, end)) if end - begin == self.0.len() => {
                elements[begin..end].copy_from_slice(self.0);
                Ok(())
            }
            _ => bail!("a variable of {:?} doesn't take {} elements", layout.shape(), self.0.len()),
        }
    }
}

/// Reads elements, row-major, where they lie.
pub fn read<R>(tensor: &Tensor, read: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(CpuStorage::F32(elements)) = &*storage else {
        bail!("a tensor must be of f32 in host memory")
    };
    let Some((begin, end)) = layout.contiguous_offsets() else {
        bail!("a tensor must have no gaps")
    };
    Ok(read(&elements[begin..end]))
}
