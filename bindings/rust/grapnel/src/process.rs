//! The library as a whole.

use grapnel_sys as sys;

use crate::bytes::Bytes;
use crate::error::{Code, Error, Result};
use crate::name::text;

/// A version of the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Changes with what isn't compatible.
    pub major: u32,
    /// Grows with what is added.
    pub minor: u32,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The version that this crate was made for.
pub const VERSION: Version =
    Version { major: sys::GRAPNEL_VERSION_MAJOR, minor: sys::GRAPNEL_VERSION_MINOR };

/// The version of the library that is running.
pub fn version() -> Version {
    // SAFETY: it asks for nothing.
    let version = unsafe { sys::grapnel_version() };
    Version { major: version >> 16, minor: version & 0xffff }
}

/// Whether the library that is running has all that this crate calls.
pub(crate) fn check_version() -> Result<()> {
    let running = version();
    if running.major == VERSION.major && running.minor >= VERSION.minor {
        return Ok(());
    }
    Err(Error::new(
        Code::FailedPrecondition,
        format!("libgrapnel: must be {VERSION} or a later {}.x, is {running}", VERSION.major),
    ))
}

/// One line for a bug report: versions of Grapnel, LibTorch and protobuf.
pub fn build_info() -> &'static str {
    // SAFETY: the text lives as long as the process.
    unsafe { text(sys::grapnel_build_info()) }
}

/// Objects of the library's that are alive: a leak test ends with 0.
pub fn live_objects() -> i64 {
    // SAFETY: it asks for nothing.
    unsafe { sys::grapnel_live_objects() }
}

/// The full names of the config messages of all that is linked in: models, layers, losses, metrics,
/// datasets, transforms, optimizers, schedulers, averages, log backends and hooks. Sorted.
pub fn registered_configs() -> Result<Vec<String>> {
    // SAFETY: the bytes are there to be written.
    Ok(Bytes::of(|names| unsafe { sys::grapnel_registered_configs(names) })?.to_lines())
}
