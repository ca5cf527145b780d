//! Types of a tensor's elements.

use grapnel_sys as sys;

/// A tensor's type of elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dtype {
    /// `bool`.
    Bool,
    /// `u8`.
    Uint8,
    /// `i8`.
    Int8,
    /// `i16`.
    Int16,
    /// `i32`.
    Int32,
    /// `i64`.
    Int64,
    /// [`Float16`].
    Float16,
    /// [`Bfloat16`].
    Bfloat16,
    /// `f32`.
    Float32,
    /// `f64`.
    Float64,
}

impl Dtype {
    pub(crate) fn from_c(dtype: sys::grapnel_dtype) -> Option<Dtype> {
        Some(match dtype {
            sys::GRAPNEL_BOOL => Dtype::Bool,
            sys::GRAPNEL_UINT8 => Dtype::Uint8,
            sys::GRAPNEL_INT8 => Dtype::Int8,
            sys::GRAPNEL_INT16 => Dtype::Int16,
            sys::GRAPNEL_INT32 => Dtype::Int32,
            sys::GRAPNEL_INT64 => Dtype::Int64,
            sys::GRAPNEL_FLOAT16 => Dtype::Float16,
            sys::GRAPNEL_BFLOAT16 => Dtype::Bfloat16,
            sys::GRAPNEL_FLOAT32 => Dtype::Float32,
            sys::GRAPNEL_FLOAT64 => Dtype::Float64,
            _ => return None,
        })
    }

    pub(crate) fn to_c(self) -> sys::grapnel_dtype {
        match self {
            Dtype::Bool => sys::GRAPNEL_BOOL,
            Dtype::Uint8 => sys::GRAPNEL_UINT8,
            Dtype::Int8 => sys::GRAPNEL_INT8,
            Dtype::Int16 => sys::GRAPNEL_INT16,
            Dtype::Int32 => sys::GRAPNEL_INT32,
            Dtype::Int64 => sys::GRAPNEL_INT64,
            Dtype::Float16 => sys::GRAPNEL_FLOAT16,
            Dtype::Bfloat16 => sys::GRAPNEL_BFLOAT16,
            Dtype::Float32 => sys::GRAPNEL_FLOAT32,
            Dtype::Float64 => sys::GRAPNEL_FLOAT64,
        }
    }

    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            Dtype::Bool | Dtype::Uint8 | Dtype::Int8 => 1,
            Dtype::Int16 | Dtype::Float16 | Dtype::Bfloat16 => 2,
            Dtype::Int32 | Dtype::Float32 => 4,
            Dtype::Int64 | Dtype::Float64 => 8,
        }
    }

    pub(crate) fn to_dlpack(self) -> sys::DLDataType {
        let code = match self {
            Dtype::Bool => sys::kDLBool,
            Dtype::Uint8 => sys::kDLUInt,
            Dtype::Int8 | Dtype::Int16 | Dtype::Int32 | Dtype::Int64 => sys::kDLInt,
            Dtype::Float16 | Dtype::Float32 | Dtype::Float64 => sys::kDLFloat,
            Dtype::Bfloat16 => sys::kDLBfloat,
        };
        // A size is at most 8.
        sys::DLDataType { code, bits: 8 * self.size() as u8, lanes: 1 }
    }
}

/// The bits of an IEEE 754 number of 16 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct Float16(pub u16);

/// The upper 16 bits of an `f32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct Bfloat16(pub u16);

impl From<Bfloat16> for f32 {
    fn from(value: Bfloat16) -> f32 {
        f32::from_bits(u32::from(value.0) << 16)
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A type that tensors have elements of. All bits zero is a value of it, and it needs no drop.
pub trait Element: sealed::Sealed + Copy + Send + Sync + 'static {
    /// What tensors call it.
    const DTYPE: Dtype;
}

macro_rules! elements {
    ($($type:ty => $dtype:ident),* $(,)?) => {$(
        impl sealed::Sealed for $type {}
        impl Element for $type {
            const DTYPE: Dtype = Dtype::$dtype;
        }
    )*};
}

elements! {
    bool => Bool,
    u8 => Uint8,
    i8 => Int8,
    i16 => Int16,
    i32 => Int32,
    i64 => Int64,
    Float16 => Float16,
    Bfloat16 => Bfloat16,
    f32 => Float32,
    f64 => Float64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_c() {
        for number in 1..=10 {
            let dtype = Dtype::from_c(number).unwrap();
            assert_eq!(dtype.to_c(), number);
            assert_eq!(usize::from(dtype.to_dlpack().bits), 8 * dtype.size());
        }
        assert_eq!(Dtype::from_c(0), None);
        assert_eq!(Dtype::from_c(11), None);
    }

    #[test]
    fn bfloat16_is_half_of_a_float() {
        assert_eq!(f32::from(Bfloat16(0x3fc0)), 1.5);
    }
}
