//! The dataset: images of handwritten digits, in memory.

use std::path::Path;

use grapnel::{Access, CallbackResult, SyncDataset, TensorsRef};

use crate::idx;

/// The brightest pixel.
const WHITE: f32 = 16.0;

/// Images with their digits. Nothing is written once it is read, so several threads make batches at
/// once.
pub struct Digits {
    rows: usize,
    columns: usize,
    /// One image after the other, a byte a pixel.
    pixels: Vec<u8>,
    labels: Vec<u8>,
}

impl Digits {
    /// Reads a part, "train" or "test": PART-images-idx3-ubyte and PART-labels-idx1-ubyte.
    pub fn read(dir: &Path, part: &str) -> CallbackResult<Digits> {
        let ([images, rows, columns], pixels) =
            idx::read(&dir.join(format!("{part}-images-idx3-ubyte")))?;
        let ([count], labels) = idx::read(&dir.join(format!("{part}-labels-idx1-ubyte")))?;
        if images != count {
            let dir = dir.display();
            return Err(
                format!("{dir}: there are {images} {part} images and {count} labels").into()
            );
        }
        Ok(Digits { rows, columns, pixels, labels })
    }
}

impl SyncDataset for Digits {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn access(&self) -> Access {
        Access::Batches
    }

    /// "input" (N, 1, rows, columns), 0 to 1, and "target" (N), 0 to 9. Both are written where the
    /// model reads them.
    fn get_batch(&self, indices: &[usize], batch: &mut TensorsRef) -> CallbackResult {
        let size = self.rows * self.columns;
        let pixels = indices.iter().flat_map(|&index| &self.pixels[size * index..][..size]);
        let shape = [indices.len(), 1, self.rows, self.columns];
        batch.insert_from_iter("input", &shape, pixels.map(|&pixel| f32::from(pixel) / WHITE))?;
        let labels = indices.iter().map(|&index| i64::from(self.labels[index]));
        batch.insert_from_iter("target", &[indices.len()], labels)?;
        Ok(())
    }
}
