//! A model's memory in the hands of a hook.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Code, Error, Result};
use crate::thread;

/// How many tensors of its model a run has lent to a hook, and on which thread. Only that thread
/// writes it, and asks for more than whether it is another one.
#[derive(Debug, Default)]
pub(crate) struct Lent {
    thread: AtomicUsize,
    count: AtomicUsize,
}

impl Lent {
    pub(crate) fn add(&self) {
        self.thread.store(thread::number(), Ordering::Relaxed);
        self.count.store(self.count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    pub(crate) fn remove(&self) {
        self.count.store(self.count.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
    }

    /// The hook has returned, and has none any more, however it let go of them.
    pub(crate) fn clear(&self) {
        self.count.store(0, Ordering::Relaxed);
    }

    /// An error if this thread may be writing the model. Another one that reads it waits for the
    /// iteration to end.
    pub(crate) fn check(&self) -> Result<()> {
        if self.count.load(Ordering::Relaxed) == 0
            || self.thread.load(Ordering::Relaxed) != thread::number()
        {
            return Ok(());
        }
        Err(Error::new(
            Code::FailedPrecondition,
            "predictor: the hook has a tensor of the model's, which it may be writing; let go of \
             it first",
        ))
    }
}
