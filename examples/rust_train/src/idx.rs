//! Files of the IDX format, which MNIST's are of: bytes in an array of some dimensions.

use std::fs;
use std::path::Path;

use grapnel::CallbackResult;

/// The sizes of the dimensions, and the bytes, row-major.
pub fn read<const RANK: usize>(path: &Path) -> CallbackResult<([usize; RANK], Vec<u8>)> {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let file = fs::read(path).map_err(|error| named(&error))?;
    Ok(parse(&file).map_err(|error| named(&error))?)
}

fn parse<const RANK: usize>(file: &[u8]) -> Result<([usize; RANK], Vec<u8>), String> {
    // Two zeros, 8 for bytes, and the number of dimensions.
    let [0, 0, 8, rank, rest @ ..] = file else {
        return Err("is not in the IDX format of bytes".to_owned());
    };
    if usize::from(*rank) != RANK {
        return Err(format!("must have {RANK} dimensions, has {rank}"));
    }
    let Some((header, bytes)) = rest.split_at_checked(4 * RANK) else {
        return Err("ends within its header".to_owned());
    };
    let mut sizes = [0; RANK];
    for (size, bytes) in sizes.iter_mut().zip(header.chunks_exact(4)) {
        *size = bytes.iter().fold(0, |size, &byte| size << 8 | usize::from(byte));
    }
    let len = sizes.iter().try_fold(1usize, |len, &size| len.checked_mul(size));
    if len != Some(bytes.len()) {
        return Err(format!("must have the bytes of {sizes:?}, has {}", bytes.len()));
    }
    Ok((sizes, bytes.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn sizes_are_big_endian() {
        let mut file = vec![0, 0, 8, 2, 0, 0, 1, 1, 0, 0, 0, 2];
        file.extend((0..514).map(|i| i as u8));
        let (sizes, bytes) = parse::<2>(&file).unwrap();
        assert_eq!(sizes, [257, 2]);
        assert_eq!(bytes, file[12..]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (file, expected) in [
            (&b""[..], "is not in the IDX format of bytes"),
            (b"\0\0\x0d\x01", "is not in the IDX format of bytes"),
            (b"\0\0\x08\x03", "must have 1 dimensions, has 3"),
            (b"\0\0\x08\x01\0\0", "ends within its header"),
            (b"\0\0\x08\x01\0\0\0\x02a", "must have the bytes of [2], has 1"),
            (b"\0\0\x08\x01\0\0\0\x02abc", "must have the bytes of [2], has 3"),
        ] {
            assert_eq!(parse::<1>(file), Err(expected.to_owned()), "{file:?}");
        }
    }

    #[test]
    fn sizes_whose_product_is_too_large_are_refused() {
        let mut file = b"\0\0\x08\x03".to_vec();
        file.extend([0xff; 12]);
        assert!(parse::<3>(&file).unwrap_err().starts_with("must have the bytes of"));
    }
}
