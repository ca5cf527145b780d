//! The border that callbacks are called across: errors and panics become statuses, and are kept
//! until the call that they end has returned.

use std::any::Any;
use std::collections::VecDeque;
use std::ffi::c_void;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{fmt, mem, ptr};

use grapnel_sys as sys;

use crate::error::{BoxError, CallbackResult, Cause, Code, Error, Result};
use crate::status;

/// What the callbacks of one run have in common.
#[derive(Default)]
pub(crate) struct Shared {
    failures: Mutex<VecDeque<Failure>>,
    /// Whether the model's tensors are another library's, which may write them at any time.
    pub(crate) foreign_model: AtomicBool,
}

struct Failure {
    /// What the status said, which is the end of what the call's will say.
    message: String,
    cause: Cause,
}

/// Failures that are kept. A loader's that nobody heard of, as a batch was then read sample by
/// sample, go when others come.
const MAX_FAILURES: usize = 16;

impl Shared {
    fn failures(&self) -> MutexGuard<'_, VecDeque<Failure>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, message: String, cause: Cause) {
        let mut failures = self.failures();
        if failures.len() == MAX_FAILURES {
            failures.pop_front();
        }
        failures.push_back(Failure { message, cause });
    }

    /// The error of a call on the run, with what a callback failed with if that was why.
    pub(crate) fn explain(&self, error: Error) -> Error {
        let mut failures = self.failures();
        let found =
            failures.iter().rposition(|failure| error.message().ends_with(&failure.message));
        let cause = found.and_then(|index| failures.remove(index)).map(|failure| failure.cause);
        error.with_cause(cause)
    }

    /// A call on the run.
    ///
    /// # Safety
    ///
    /// As for `status::take`.
    pub(crate) unsafe fn take(&self, status: *mut sys::grapnel_status) -> Result<()> {
        // SAFETY: by our own condition.
        unsafe { status::take(status) }.map_err(|error| self.explain(error))
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// Calls what a user wrote, and gives the library what came of it.
pub(crate) fn call(
    shared: &Shared,
    body: impl FnOnce() -> CallbackResult,
) -> *mut sys::grapnel_status {
    // What a panic leaves half done is the user's own, which is as it is behind a lock: the next
    // call finds it so.
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => ptr::null_mut(),
        Ok(Err(error)) => fail(shared, error),
        Err(payload) => panicked(shared, payload),
    }
}

#[cold]
fn fail(shared: &Shared, error: BoxError) -> *mut sys::grapnel_status {
    // Display is the user's own too.
    let described = catch_unwind(AssertUnwindSafe(|| {
        let code = error.downcast_ref::<Error>().map_or(Code::Unknown, Error::code);
        (code, error.to_string())
    }));
    match described {
        Ok((code, message)) => {
            let message =
                if message.is_empty() { "error without a message".into() } else { message };
            give(shared, code, message, Cause::Error(error))
        }
        Err(payload) => panicked(shared, payload),
    }
}

/// The status of a panic, which is kept.
#[cold]
pub(crate) fn panicked(shared: &Shared, payload: Box<dyn Any + Send>) -> *mut sys::grapnel_status {
    let message = format!("panicked: {}", panic_message(&*payload));
    give(shared, Code::Internal, message, Cause::Panic(Mutex::new(payload)))
}

fn give(shared: &Shared, code: Code, message: String, cause: Cause) -> *mut sys::grapnel_status {
    // It comes back as a C string.
    let message = message.replace('\0', "\\0");
    let status = status::give(code, &message);
    shared.keep(message, cause);
    status
}

fn panic_message(payload: &(dyn Any + Send)) -> &str {
    if let Some(message) = payload.downcast_ref::<&str>() {
        message
    } else if let Some(message) = payload.downcast_ref::<String>() {
        message
    } else {
        "with no text"
    }
}

/// For what has no status to return: gives what it panicked with.
pub(crate) fn catch(body: impl FnOnce()) -> std::result::Result<(), Box<dyn Any + Send>> {
    catch_unwind(AssertUnwindSafe(body))
}

/// `destroy` of user data that is a box of `T`.
///
/// # Safety
///
/// `user_data` is a `Box<T>` made raw, and nobody uses it any more.
pub(crate) unsafe extern "C" fn destroy<T>(user_data: *mut c_void) {
    // SAFETY: by our own condition.
    let data = unsafe { Box::from_raw(user_data.cast::<T>()) };
    if let Err(payload) = catch(|| drop(data)) {
        // There is nobody to tell of a panic in `Drop`; dropping what it was with could be the
        // next.
        mem::forget(payload);
    }
}

/// Gives the library user data: `set` returns a status, and the data is its own if that is null.
///
/// # Safety
///
/// `set` passes the pointer on together with `destroy::<T>`.
pub(crate) unsafe fn hand_over<T>(
    data: T,
    set: impl FnOnce(*mut c_void) -> *mut sys::grapnel_status,
) -> Result<()> {
    let data = Box::into_raw(Box::new(data));
    // SAFETY: `set` returns what a function of the library did.
    let result = unsafe { status::take(set(data.cast())) };
    if result.is_err() {
        // SAFETY: it wasn't taken.
        drop(unsafe { Box::from_raw(data) });
    }
    result
}

/// What a run uses without owning it; dropped after the run.
#[derive(Debug)]
pub(crate) struct Kept<T: ?Sized>(ptr::NonNull<T>);

// SAFETY: it is only a box that others have a pointer to.
unsafe impl<T: Send + ?Sized> Send for Kept<T> {}

impl<T> Kept<T> {
    pub(crate) fn new(data: T) -> Kept<T> {
        // A box itself would say that nobody else has a pointer.
        Kept(ptr::NonNull::from(Box::leak(Box::new(data))))
    }

    pub(crate) fn as_ptr(&self) -> *mut T {
        self.0.as_ptr()
    }
}

impl<T: ?Sized> Drop for Kept<T> {
    fn drop(&mut self) {
        // SAFETY: it was made of a box, and whoever had the pointer is gone.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}
