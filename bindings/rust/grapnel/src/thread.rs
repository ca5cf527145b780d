//! What the current thread is in: calls on runners, and callbacks that the library makes.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr;
use std::thread::LocalKey;

thread_local! {
    static CALLS: Cell<usize> = const { Cell::new(0) };
    static CALLBACKS: Cell<usize> = const { Cell::new(0) };
}

/// Another one for each thread there is, and never 0.
pub(crate) fn number() -> usize {
    CALLS.with(|place| ptr::from_ref(place).addr())
}

/// Whether this thread is the library's own: in a callback, and in no call that makes it.
pub(crate) fn is_the_librarys() -> bool {
    CALLBACKS.get() > 0 && CALLS.get() == 0
}

/// A call or callback, for as long as it lives.
pub(crate) struct Scope {
    depth: &'static LocalKey<Cell<usize>>,
    /// It ends on its thread.
    _not_send: PhantomData<*const ()>,
}

impl Scope {
    /// A call on a runner that may make callbacks.
    pub(crate) fn call() -> Scope {
        Scope::of(&CALLS)
    }

    /// A callback of a run.
    pub(crate) fn callback() -> Scope {
        Scope::of(&CALLBACKS)
    }

    fn of(depth: &'static LocalKey<Cell<usize>>) -> Scope {
        depth.set(depth.get() + 1);
        Scope { depth, _not_send: PhantomData }
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        self.depth.set(self.depth.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callback_in_a_call_is_on_the_callers_thread() {
        assert!(!is_the_librarys());
        let callback = Scope::callback();
        assert!(is_the_librarys());
        let call = Scope::call();
        assert!(!is_the_librarys());
        drop(call);
        assert!(is_the_librarys());
        drop(callback);
        assert!(!is_the_librarys());
    }

    #[test]
    fn threads_have_numbers_of_their_own() {
        let ours = number();
        assert_eq!(number(), ours);
        std::thread::scope(|scope| {
            scope.spawn(|| assert_ne!(number(), ours));
        });
    }
}
