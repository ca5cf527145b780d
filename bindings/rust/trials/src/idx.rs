//! The handwritten digits, two files of the MNIST format for each part.

use std::path::Path;
use std::{fs, io};

/// Pixels of an image, 8 by 8.
pub const PIXELS: usize = 64;

/// Images with labels.
pub struct Digits {
    pixels: Vec<u8>,
    labels: Vec<u8>,
}

impl Digits {
    /// `part` is "train" or "test".
    pub fn read(dir: &Path, part: &str) -> io::Result<Digits> {
        let pixels = read_idx(&dir.join(format!("{part}-images-idx3-ubyte")), 3)?;
        let labels = read_idx(&dir.join(format!("{part}-labels-idx1-ubyte")), 1)?;
        if pixels.len() != PIXELS * labels.len() {
            return Err(io::Error::other(format!("{part}: images and labels don't match")));
        }
        Ok(Digits { pixels, labels })
    }

    pub fn len(&self) -> usize {
        self.labels.len()
    }

    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Pixels are 0 to 16, and in the image 0 to 1.
    pub fn write_image(&self, index: usize, image: &mut [f32]) {
        let pixels = &self.pixels[PIXELS * index..][..PIXELS];
        for (to, &pixel) in image.iter_mut().zip(pixels) {
            *to = f32::from(pixel) * 0.0625;
        }
    }

    pub fn label(&self, index: usize) -> i64 {
        self.labels[index].into()
    }
}

/// The bytes behind the header of a file of that many dimensions.
fn read_idx(path: &Path, rank: usize) -> io::Result<Vec<u8>> {
    let bytes = fs::read(path)?;
    let header = 4 + 4 * rank;
    if bytes.len() < header || bytes[..4] != [0, 0, 8, rank as u8] {
        return Err(io::Error::other(format!("{}: is no such file", path.display())));
    }
    let size = |i: usize| u32::from_be_bytes(bytes[4 + 4 * i..][..4].try_into().expect("4 bytes"));
    let total: usize = (0..rank).map(|i| size(i) as usize).product();
    if bytes.len() != header + total {
        return Err(io::Error::other(format!("{}: is cut short", path.display())));
    }
    Ok(bytes[header..].to_vec())
}
