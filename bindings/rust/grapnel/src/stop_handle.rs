//! Stopping a run from anywhere.

use std::fmt;
use std::sync::Arc;

use grapnel_sys as sys;

use crate::error::Result;
use crate::running::Running;
use crate::stage::StopAt;
use crate::status;

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
    /// [`Code::FailedPrecondition`](crate::Code::FailedPrecondition) once the runner is gone.
    pub fn request_stop(&self, at: StopAt, reason: &str) -> Result<()> {
        // SAFETY: it is a runner, and may be asked to stop at any time; the reason is as long as it
        // says.
        self.0.with(|runner| unsafe {
            status::take(sys::grapnel_runner_request_stop(
                runner.as_ptr(),
                at as i32,
                reason.as_ptr().cast(),
                reason.len(),
            ))
        })
    }
}

impl fmt::Debug for StopHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StopHandle").finish_non_exhaustive()
    }
}
