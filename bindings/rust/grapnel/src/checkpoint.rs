//! Checkpoints, without a runner.

use std::fmt;
use std::path::{Path, PathBuf};
use std::ptr::{self, NonNull};

use grapnel_sys as sys;
use prost::Message;

use crate::bytes::{path_text, Bytes};
use crate::error::{Code, Error, Result};
use crate::pb::CheckpointManifest;
use crate::status;
use crate::tensors::TensorsRef;

/// A checkpoint that is read, all of it.
pub struct Checkpoint(NonNull<sys::grapnel_checkpoint>);

// SAFETY: nothing of a checkpoint belongs to a thread.
unsafe impl Send for Checkpoint {}

impl Checkpoint {
    /// Reads one. [`Code::DataLoss`], naming the file, if it is damaged.
    pub fn open(path: impl AsRef<Path>) -> Result<Checkpoint> {
        let path = path_text(path.as_ref())?;
        let mut out = ptr::null_mut();
        // SAFETY: the path is as long as it says; `out` is written on success.
        unsafe {
            let path = (path.as_ptr().cast(), path.len());
            status::take(sys::grapnel_checkpoint_open(path.0, path.1, &mut out))?;
            Ok(Checkpoint(NonNull::new_unchecked(out)))
        }
    }

    /// Names of the complete checkpoints in a folder, the newest first.
    pub fn list(dir: impl AsRef<Path>) -> Result<Vec<String>> {
        let dir = path_text(dir.as_ref())?;
        // SAFETY: the path is as long as it says; here and below.
        let names = Bytes::of(|names| unsafe {
            sys::grapnel_checkpoint_list(dir.as_ptr().cast(), dir.len(), names)
        })?;
        Ok(names.to_lines())
    }

    /// The path of the newest one in a folder that can be read whole, as `resume` finds it.
    /// [`Code::NotFound`] if there is none.
    pub fn latest(dir: impl AsRef<Path>) -> Result<PathBuf> {
        let dir = path_text(dir.as_ref())?;
        // SAFETY: as above.
        let path = Bytes::of(|path| unsafe {
            sys::grapnel_checkpoint_latest(dir.as_ptr().cast(), dir.len(), path)
        })?;
        Ok(path.to_path())
    }

    /// Reads all of one and checks every digest: [`Code::DataLoss`], naming the file, if one is
    /// wrong.
    pub fn verify(path: impl AsRef<Path>) -> Result<()> {
        let path = path_text(path.as_ref())?;
        // SAFETY: as above.
        unsafe { status::take(sys::grapnel_checkpoint_verify(path.as_ptr().cast(), path.len())) }
    }

    /// Completed epochs when it was made.
    pub fn epoch(&self) -> i64 {
        // SAFETY: it is a checkpoint; here and below.
        unsafe { sys::grapnel_checkpoint_epoch(self.0.as_ptr()) }
    }

    /// Completed iterations when it was made.
    pub fn iter(&self) -> i64 {
        // SAFETY: as above.
        unsafe { sys::grapnel_checkpoint_iter(self.0.as_ptr()) }
    }

    /// What it says of itself.
    pub fn manifest(&self) -> Result<CheckpointManifest> {
        // SAFETY: as above.
        let bytes = Bytes::of(|manifest| unsafe {
            sys::grapnel_checkpoint_manifest(self.0.as_ptr(), sys::GRAPNEL_BINARY, manifest)
        })?;
        CheckpointManifest::decode(bytes.as_slice())
            .map_err(|error| Error::new(Code::DataLoss, format!("manifest: {error}")))
    }

    /// Names of its sections of tensors: "model", "optimizer", "ema" and the like.
    pub fn sections(&self) -> Result<Vec<String>> {
        // SAFETY: as above.
        let names =
            Bytes::of(|names| unsafe { sys::grapnel_checkpoint_sections(self.0.as_ptr(), names) })?;
        Ok(names.to_lines())
    }

    /// The tensors of a section. [`Code::NotFound`] if there is none of that name.
    pub fn tensors(&self, section: &str) -> Result<&TensorsRef> {
        let mut tensors = ptr::null();
        // SAFETY: it is a checkpoint, whose tensors live as long as it does, and are never written.
        unsafe {
            status::take(sys::grapnel_checkpoint_tensors(
                self.0.as_ptr(),
                section.as_ptr().cast(),
                section.len(),
                &mut tensors,
            ))?;
            Ok(TensorsRef::from_ptr(tensors))
        }
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoint")
            .field("epoch", &self.epoch())
            .field("iter", &self.iter())
            .finish_non_exhaustive()
    }
}

impl Drop for Checkpoint {
    fn drop(&mut self) {
        // SAFETY: it is ours, and nothing is borrowed from it any more.
        unsafe { sys::grapnel_checkpoint_destroy(self.0.as_ptr()) }
    }
}
