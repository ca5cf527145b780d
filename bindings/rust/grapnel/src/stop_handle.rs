//! Stopping a run from anywhere.

use std::fmt;
use std::ptr::NonNull;
use std::sync::{Arc, PoisonError, RwLock};

use grapnel_sys as sys;

use crate::error::{Code, Error, Result};
use crate::stage::StopAt;
use crate::status;

/// A runner, for as long as there is one.
pub(crate) struct Running(RwLock<Option<NonNull<sys::grapnel_runner>>>);

// SAFETY: the pointer is only used for what may be called at any time, by any thread.
unsafe impl Send for Running {}
// SAFETY: as above.
unsafe impl Sync for Running {}

impl Running {
    pub(crate) fn new(runner: NonNull<sys::grapnel_runner>) -> Running {
        Running(RwLock::new(Some(runner)))
    }

    /// The runner is about to go. Returns when nobody uses it.
    pub(crate) fn end(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Stops a [`Runner`](crate::Runner) from another thread, or from a callback. It may outlive it.
///
/// Not for signal handlers, as it takes locks and memory: let a thread wait for the signal, or the
/// handler set a flag that a hook reads.
#[derive(Clone)]
pub struct StopHandle(Arc<Running>);

impl StopHandle {
    pub(crate) fn new(running: Arc<Running>) -> StopHandle {
        StopHandle(running)
    }

    /// Ends training, which then has come out well. The first reason is kept, but that of
    /// [`StopAt::Now`] takes the place of one after the epoch.
    ///
    /// [`Code::FailedPrecondition`] once the runner is gone.
    pub fn request_stop(&self, at: StopAt, reason: &str) -> Result<()> {
        let runner = self.0 .0.read().unwrap_or_else(PoisonError::into_inner);
        let Some(runner) = *runner else {
            return Err(Error::new(Code::FailedPrecondition, "runner: is gone"));
        };
        // SAFETY: it can't go while the lock is held, and may be asked to stop at any time; the
        // reason is as long as it says.
        unsafe {
            status::take(sys::grapnel_runner_request_stop(
                runner.as_ptr(),
                at as i32,
                reason.as_ptr().cast(),
                reason.len(),
            ))
        }
    }
}

impl fmt::Debug for StopHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StopHandle").finish_non_exhaustive()
    }
}
