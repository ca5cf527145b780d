//! The border that callbacks are called across: errors and panics become statuses, and are kept
//! until the call that they end has returned.

use std::any::Any;
use std::collections::VecDeque;
use std::ffi::c_void;
use std::mem::{self, ManuallyDrop};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fmt, ptr};

use grapnel_sys as sys;

use crate::error::{BoxError, CallbackResult, Cause, Code, Error, Result};
use crate::lent::Lent;
use crate::status;
use crate::thread::{self, Scope};

/// What the callbacks of one run have in common.
#[derive(Default)]
pub(crate) struct Shared {
    failures: Mutex<VecDeque<Failure>>,
    /// The thread of the call that is going on, or 0.
    caller: AtomicUsize,
    /// What hooks have of the model.
    pub(crate) lent: Arc<Lent>,
    /// Whether the model's tensors are another library's, which may write them at any time.
    pub(crate) foreign_model: AtomicBool,
}

struct Failure {
    /// What the status said, which is the end of what the call's will say.
    message: String,
    cause: Quiet<Cause>,
    /// Whether it came on the thread of the call that was going on: it is why that failed, or it is
    /// of no interest any more.
    of_call: bool,
}

impl Failure {
    /// Whether it is what an error says: all of it, or what is behind its last context.
    fn explains(&self, error: &Error) -> bool {
        let context = error.message().strip_suffix(self.message.as_str());
        context.is_some_and(|context| context.is_empty() || context.ends_with(": "))
    }
}

/// Failures that are kept. Those of a loader's threads come out of a call to come; they stay if it
/// never comes, as the run is stopped, until there are as many others.
const MAX_FAILURES: usize = 16;

impl Shared {
    fn failures(&self) -> MutexGuard<'_, VecDeque<Failure>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, message: String, cause: Cause) {
        let of_call = self.caller.load(Ordering::Relaxed) == thread::number();
        let mut failures = self.failures();
        let evicted = if failures.len() == MAX_FAILURES { failures.pop_front() } else { None };
        failures.push_back(Failure { message, cause: Quiet::new(cause), of_call });
        // Dropping it is the user's business, so not under the lock.
        drop(failures);
        drop(evicted);
    }

    /// The error of a call on the run, with what a callback failed with if that was why: of several
    /// that would do the one that says most, and of those the last.
    fn explain(&self, error: Error) -> Error {
        let mut failures = self.failures();
        let explaining =
            failures.iter().enumerate().filter(|(_, failure)| failure.explains(&error));
        let found = explaining.max_by_key(|(_, failure)| failure.message.len());
        let found = found.map(|(index, _)| index);
        let cause = found.and_then(|index| failures.remove(index));
        error.with_cause(cause.map(|failure| failure.cause.into_inner()))
    }

    /// Lets go of what callbacks on the caller's thread failed with and the call did not.
    fn forget_those_of_call(&self) {
        let mut failures = self.failures();
        if failures.is_empty() {
            return;
        }
        let (gone, kept) = mem::take(&mut *failures).into_iter().partition(|f| f.of_call);
        *failures = kept;
        // As in `keep`.
        drop(failures);
        drop::<VecDeque<Failure>>(gone);
    }

    /// A call that may call callbacks.
    ///
    /// # Safety
    ///
    /// `call` returns what a function of the library did.
    pub(crate) unsafe fn call(
        &self,
        call: impl FnOnce() -> *mut sys::grapnel_status,
    ) -> Result<()> {
        let _scope = Scope::call();
        self.caller.store(thread::number(), Ordering::Relaxed);
        // SAFETY: by our own condition.
        let result = unsafe { status::take(call()) }.map_err(|error| self.explain(error));
        self.caller.store(0, Ordering::Relaxed);
        self.forget_those_of_call();
        result
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
    settle(Some(shared), body)
}

/// The same where an error ends no call, and is only logged.
pub(crate) fn call_logged(body: impl FnOnce() -> CallbackResult) -> *mut sys::grapnel_status {
    settle(None, body)
}

/// `keeper` keeps what it failed with.
fn settle(
    keeper: Option<&Shared>,
    body: impl FnOnce() -> CallbackResult,
) -> *mut sys::grapnel_status {
    let _scope = Scope::callback();
    // What a panic leaves half done is the user's own, which is as it is behind a lock: the next
    // call finds it so.
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => ptr::null_mut(),
        Ok(Err(error)) => fail(keeper, error),
        Err(payload) => panicked(keeper, payload),
    }
}

#[cold]
fn fail(keeper: Option<&Shared>, error: BoxError) -> *mut sys::grapnel_status {
    // Display is the user's own too, and so is Drop.
    let described = catch_unwind(AssertUnwindSafe(|| {
        let code = error.downcast_ref::<Error>().map_or(Code::Unknown, Error::code);
        (code, error.to_string())
    }));
    match described {
        Ok((code, message)) => {
            let message =
                if message.is_empty() { "error without a message".into() } else { message };
            give(keeper, code, message, Cause::Error(error))
        }
        Err(payload) => {
            let_go(error);
            panicked(keeper, payload)
        }
    }
}

/// The status of a panic.
#[cold]
pub(crate) fn panicked(
    keeper: Option<&Shared>,
    payload: Box<dyn Any + Send>,
) -> *mut sys::grapnel_status {
    let message = format!("panicked: {}", panic_message(&*payload));
    give(keeper, Code::Internal, message, Cause::Panic(Mutex::new(payload)))
}

fn give(
    keeper: Option<&Shared>,
    code: Code,
    message: String,
    cause: Cause,
) -> *mut sys::grapnel_status {
    // It comes back as a C string.
    let message = message.replace('\0', "\\0");
    let status = status::give(code, &message);
    match keeper {
        Some(shared) => shared.keep(message, cause),
        None => let_go(cause),
    }
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

/// Drops what a user made, where a panic in its `Drop` can't go on: there is nobody to tell of it.
pub(crate) fn let_go<T>(value: T) {
    if let Err(payload) = catch(|| drop(value)) {
        // Dropping what it was with could be the next.
        mem::forget(payload);
    }
}

/// What a user made, and is let go of wherever it is dropped.
pub(crate) struct Quiet<T>(ManuallyDrop<T>);

impl<T> Quiet<T> {
    pub(crate) fn new(value: T) -> Quiet<T> {
        Quiet(ManuallyDrop::new(value))
    }

    pub(crate) fn into_inner(self) -> T {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` isn't used or dropped any more.
        unsafe { ManuallyDrop::take(&mut this.0) }
    }
}

impl<T> Drop for Quiet<T> {
    fn drop(&mut self) {
        // SAFETY: nobody uses it after its drop.
        let_go(unsafe { ManuallyDrop::take(&mut self.0) });
    }
}

/// `destroy` of user data that is a box of `T`.
///
/// # Safety
///
/// `user_data` is a `Box<T>` made raw, and nobody uses it any more.
pub(crate) unsafe extern "C" fn destroy<T>(user_data: *mut c_void) {
    // SAFETY: by our own condition.
    let_go(unsafe { Box::from_raw(user_data.cast::<T>()) });
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
        let_go(unsafe { Box::from_raw(data) });
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
        let_go(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    /// Ends the call with `message`, as the library would.
    fn fails_with(shared: &Shared, message: &str, before: impl FnOnce()) -> Error {
        // SAFETY: the status is a function's of the library.
        let result = unsafe {
            shared.call(|| {
                before();
                status::give(Code::Unknown, message)
            })
        };
        result.unwrap_err()
    }

    /// A callback that fails with `message`.
    fn callback(shared: &Shared, message: &str) {
        let message = message.to_owned();
        taken(call(shared, || Err(message.into())));
    }

    /// What a callback returned.
    fn taken(status: *mut sys::grapnel_status) -> Error {
        // SAFETY: it is ours.
        unsafe { status::take(status) }.unwrap_err()
    }

    fn source(error: &Error) -> Option<String> {
        error.source().map(ToString::to_string)
    }

    #[test]
    fn a_source_is_all_that_is_behind_a_context() {
        let shared = Shared::default();
        for (failures, message, expected) in [
            (&["b"][..], "b", Some("b")),
            (&["b"], "hook: b", Some("b")),
            (&["b"], "hook: ab", None),
            (&["b"], "hook:b", None),
            (&["b"], "hook: b: c", None),
            (&["a: b", "b"], "hook: a: b", Some("a: b")),
            (&["b", "a: b"], "hook: a: b", Some("a: b")),
        ] {
            let error = fails_with(&shared, message, || {
                failures.iter().for_each(|failure| callback(&shared, failure));
            });
            assert_eq!(source(&error).as_deref(), expected, "{message}");
        }
    }

    #[test]
    fn a_failure_explains_its_own_call_only() {
        let shared = Shared::default();
        // SAFETY: the status is null.
        unsafe {
            shared.call(|| {
                callback(&shared, "b");
                ptr::null_mut()
            })
        }
        .unwrap();
        assert_eq!(source(&fails_with(&shared, "hook: b", || {})), None);
        // One of a loader's comes in one call, and out of another.
        std::thread::scope(|scope| {
            scope.spawn(|| callback(&shared, "b"));
        });
        assert_eq!(source(&fails_with(&shared, "hook: c", || {})), None);
        assert_eq!(source(&fails_with(&shared, "hook: b", || {})).as_deref(), Some("b"));
        assert_eq!(source(&fails_with(&shared, "hook: b", || {})), None);
    }

    #[test]
    fn a_failure_that_is_only_logged_is_not_kept() {
        let shared = Shared::default();
        let error = fails_with(&shared, "hook: b", || {
            assert_eq!(taken(call_logged(|| Err("b".into()))).message(), "b");
        });
        assert_eq!(source(&error), None);
    }

    /// Panics when it is dropped, and so does what it panics with.
    #[derive(Debug)]
    struct Loud;

    impl Drop for Loud {
        fn drop(&mut self) {
            std::panic::panic_any(LoudPanic);
        }
    }

    struct LoudPanic;

    impl Drop for LoudPanic {
        fn drop(&mut self) {
            panic!("once more");
        }
    }

    impl fmt::Display for Loud {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("loud")
        }
    }

    impl std::error::Error for Loud {}

    #[test]
    fn a_failure_may_panic_in_its_drop() {
        let shared = Shared::default();
        // Evicted, of a call that is over, and with the run.
        for _ in 0..MAX_FAILURES + 2 {
            taken(call(&shared, || Err(Loud.into())));
        }
        assert_eq!(shared.failures().len(), MAX_FAILURES);
        assert_eq!(source(&fails_with(&shared, "another", || {})), None);
        taken(call(&shared, || Err(Loud.into())));
        drop(shared);
        // Never kept.
        taken(call_logged(|| Err(Loud.into())));
        taken(call_logged(|| std::panic::panic_any(Loud)));
    }

    #[test]
    fn what_was_made_may_panic_in_its_drop() {
        let_go(Loud);
        drop(Quiet::new(Loud));
        drop(Kept::new(Loud));
        // SAFETY: it is a box's, and `set` refuses it.
        unsafe {
            destroy::<Loud>(Box::into_raw(Box::new(Loud)).cast());
            hand_over(Loud, |_| status::give(Code::Unknown, "no")).unwrap_err();
        }
        mem::forget(Quiet::new(Loud).into_inner());
    }
}
