//! The C API of Grapnel, declared by hand: `grapnel/grapnel.h`, which says what each function does.
//! `tests/header/main.rs` holds every declaration against the header. The crate `grapnel` is a safe
//! API on this one.
//!
//! # Finding the library
//!
//! The build script looks for an installation of Grapnel:
//!
//! 1. in the folder that the environment variable `GRAPNEL_PREFIX` names: `lib/libgrapnel.so` in
//!    it;
//! 2. else where the program `pkg-config` says that `grapnel` is, with `PKG_CONFIG_PATH`.
//!
//! `cargo run` and `cargo test` then find the library without more: the build script links to it in
//! its `OUT_DIR`, which cargo puts on `LD_LIBRARY_PATH`. It does so only for folders below its
//! target folder: not where its setting `build.build-dir` puts `OUT_DIR` elsewhere. There, and when
//! it is started by itself, a program needs an rpath, or the library's folder on `LD_LIBRARY_PATH`.
//! For the former its package has a build script, and `grapnel-sys` among its own dependencies, as
//! cargo gives these variables to no others:
//!
//! ```no_run
//! let libdir = std::env::var("DEP_GRAPNEL_LIBDIR").expect("grapnel-sys is a dependency");
//! println!("cargo:rustc-link-arg-bins=-Wl,-rpath,{libdir}");
//! ```

#![allow(non_camel_case_types, non_upper_case_globals)]

/// Types known by pointer only, which are neither `Send`, `Sync` nor `Unpin`.
macro_rules! opaque {
    ($($name:ident),*) => {$(
        /// Known by pointer only.
        #[repr(C)]
        pub struct $name {
            _data: std::cell::UnsafeCell<[u8; 0]>,
            _marker: std::marker::PhantomData<(*mut u8, std::marker::PhantomPinned)>,
        }
    )*};
}

mod callbacks;
mod dlpack;
mod options;
mod parts;
mod predictor;
mod process;
mod run;
mod runner;
mod tensor;

pub use callbacks::*;
pub use dlpack::*;
pub use options::*;
pub use parts::*;
pub use predictor::*;
pub use process::*;
pub use run::*;
pub use runner::*;
pub use tensor::*;
