//! A runner, for those that may outlive it.

use std::ptr::NonNull;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use grapnel_sys as sys;

use crate::error::{Code, Error, Result};

/// A runner, for as long as there is one.
pub(crate) struct Running {
    state: Mutex<State>,
    unused: Condvar,
}

struct State {
    /// `None` once it goes.
    runner: Option<NonNull<sys::grapnel_runner>>,
    /// Calls with it that are going on.
    calls: usize,
}

// SAFETY: the pointer is only used for what may be called at any time, by any thread.
unsafe impl Send for Running {}
// SAFETY: as above.
unsafe impl Sync for Running {}

impl Running {
    pub(crate) fn new(runner: NonNull<sys::grapnel_runner>) -> Running {
        let state = State { runner: Some(runner), calls: 0 };
        Running { state: Mutex::new(state), unused: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls what may be called at any time; an error once the runner goes. No lock is held
    /// meanwhile, so that calls that wait for one another get on.
    pub(crate) fn with<T>(
        &self,
        call: impl FnOnce(NonNull<sys::grapnel_runner>) -> Result<T>,
    ) -> Result<T> {
        let runner = {
            let mut state = self.state();
            let Some(runner) = state.runner else {
                return Err(Error::new(Code::FailedPrecondition, "runner: is gone"));
            };
            state.calls += 1;
            runner
        };
        struct Call<'a>(&'a Running);
        impl Drop for Call<'_> {
            fn drop(&mut self) {
                self.0.state().calls -= 1;
                self.0.unused.notify_all();
            }
        }
        let _call = Call(self);
        call(runner)
    }

    /// The runner is about to go. Returns when nobody uses it.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        state.runner = None;
        while state.calls > 0 {
            state = self.unused.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
