//! Training as an iterator.

use std::iter::FusedIterator;

use crate::error::Result;
use crate::runner::Runner;

/// What a step has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Step {
    /// Completed epochs.
    pub epoch: i64,
    /// Completed iterations.
    pub iter: i64,
}

/// Steps to the end of training; see [`Runner::steps`]. The first error is the last item.
#[derive(Debug)]
#[must_use = "nothing is trained unless items are asked for"]
pub struct Steps<'a> {
    runner: &'a mut Runner,
    more: bool,
}

impl<'a> Steps<'a> {
    pub(crate) fn new(runner: &'a mut Runner) -> Self {
        Steps { runner, more: true }
    }

    /// The runner, between two steps.
    pub fn runner(&mut self) -> &mut Runner {
        self.runner
    }
}

impl Iterator for Steps<'_> {
    type Item = Result<Step>;

    fn next(&mut self) -> Option<Self::Item> {
        if !self.more {
            return None;
        }
        let before = self.runner.iter();
        match self.runner.step() {
            Ok(more) => {
                self.more = more;
                let step = Step { epoch: self.runner.epoch(), iter: self.runner.iter() };
                // A run that was done has none.
                (more || step.iter > before).then_some(Ok(step))
            }
            Err(error) => {
                self.more = false;
                Some(Err(error))
            }
        }
    }
}

impl FusedIterator for Steps<'_> {}
