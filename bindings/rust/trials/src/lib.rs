//! What the programs of this package are made of. Tests of all of Grapnel compare them with the
//! same trainings in C and C++, kill them, and watch their memory; see src/bin.

pub mod digits;
pub mod guest;
pub mod hex_float;
pub mod idx;
pub mod resources;
pub mod weights;
