//! Where hooks act, and words for what they see there.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

use grapnel_sys as sys;

/// Where hooks act. Iterations of training come in this order, evaluations and checkpoints where
/// they are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(i32)]
pub enum Stage {
    /// The run has been made; its work_dir is there.
    Setup = sys::GRAPNEL_SETUP,
    /// Training, or an evaluation outside of it, begins.
    BeforeRun = sys::GRAPNEL_BEFORE_RUN,
    /// A checkpoint has been read.
    AfterLoadCheckpoint = sys::GRAPNEL_AFTER_LOAD_CHECKPOINT,
    /// What a checkpoint holds is back in place.
    AfterRestore = sys::GRAPNEL_AFTER_RESTORE,
    /// Training begins.
    BeforeTrain = sys::GRAPNEL_BEFORE_TRAIN,
    /// An epoch of training begins.
    BeforeTrainEpoch = sys::GRAPNEL_BEFORE_TRAIN_EPOCH,
    /// A batch is there, and not trained yet.
    BeforeTrainIter = sys::GRAPNEL_BEFORE_TRAIN_ITER,
    /// Gradients are there.
    BeforeOptimizerStep = sys::GRAPNEL_BEFORE_OPTIMIZER_STEP,
    /// Weights have moved.
    AfterOptimizerStep = sys::GRAPNEL_AFTER_OPTIMIZER_STEP,
    /// A batch has been trained.
    AfterTrainIter = sys::GRAPNEL_AFTER_TRAIN_ITER,
    /// An epoch of training is over.
    AfterTrainEpoch = sys::GRAPNEL_AFTER_TRAIN_EPOCH,
    /// Validation begins.
    BeforeVal = sys::GRAPNEL_BEFORE_VAL,
    /// Its pass over the data begins.
    BeforeValEpoch = sys::GRAPNEL_BEFORE_VAL_EPOCH,
    /// A batch is there.
    BeforeValIter = sys::GRAPNEL_BEFORE_VAL_ITER,
    /// The model has said what it makes of a batch.
    AfterValIter = sys::GRAPNEL_AFTER_VAL_ITER,
    /// The metrics are there.
    AfterValEpoch = sys::GRAPNEL_AFTER_VAL_EPOCH,
    /// Validation is over.
    AfterVal = sys::GRAPNEL_AFTER_VAL,
    /// A test begins.
    BeforeTest = sys::GRAPNEL_BEFORE_TEST,
    /// Its pass over the data begins.
    BeforeTestEpoch = sys::GRAPNEL_BEFORE_TEST_EPOCH,
    /// A batch is there.
    BeforeTestIter = sys::GRAPNEL_BEFORE_TEST_ITER,
    /// The model has said what it makes of a batch.
    AfterTestIter = sys::GRAPNEL_AFTER_TEST_ITER,
    /// The metrics are there.
    AfterTestEpoch = sys::GRAPNEL_AFTER_TEST_EPOCH,
    /// The test is over.
    AfterTest = sys::GRAPNEL_AFTER_TEST,
    /// A checkpoint is about to be written.
    BeforeSaveCheckpoint = sys::GRAPNEL_BEFORE_SAVE_CHECKPOINT,
    /// A checkpoint is there.
    AfterSaveCheckpoint = sys::GRAPNEL_AFTER_SAVE_CHECKPOINT,
    /// The model is about to be exported.
    BeforeExport = sys::GRAPNEL_BEFORE_EXPORT,
    /// The model has been exported.
    AfterExport = sys::GRAPNEL_AFTER_EXPORT,
    /// Training is over.
    AfterTrain = sys::GRAPNEL_AFTER_TRAIN,
    /// The run failed, or was stopped at once, with [`Code::Cancelled`](crate::Code::Cancelled). An
    /// error that a hook returns here is logged.
    OnError = sys::GRAPNEL_ON_ERROR,
    /// All is over.
    AfterRun = sys::GRAPNEL_AFTER_RUN,
}

impl Stage {
    /// All of them, in the order of their numbers.
    pub const ALL: [Stage; 30] = [
        Stage::Setup,
        Stage::BeforeRun,
        Stage::AfterLoadCheckpoint,
        Stage::AfterRestore,
        Stage::BeforeTrain,
        Stage::BeforeTrainEpoch,
        Stage::BeforeTrainIter,
        Stage::BeforeOptimizerStep,
        Stage::AfterOptimizerStep,
        Stage::AfterTrainIter,
        Stage::AfterTrainEpoch,
        Stage::BeforeVal,
        Stage::BeforeValEpoch,
        Stage::BeforeValIter,
        Stage::AfterValIter,
        Stage::AfterValEpoch,
        Stage::AfterVal,
        Stage::BeforeTest,
        Stage::BeforeTestEpoch,
        Stage::BeforeTestIter,
        Stage::AfterTestIter,
        Stage::AfterTestEpoch,
        Stage::AfterTest,
        Stage::BeforeSaveCheckpoint,
        Stage::AfterSaveCheckpoint,
        Stage::BeforeExport,
        Stage::AfterExport,
        Stage::AfterTrain,
        Stage::OnError,
        Stage::AfterRun,
    ];

    pub(crate) fn from_c(stage: sys::grapnel_stage) -> Option<Stage> {
        usize::try_from(stage).ok().and_then(|index| Stage::ALL.get(index)).copied()
    }

    /// As logs and messages call it: "after_train_iter".
    pub fn name(self) -> &'static str {
        match self {
            Stage::Setup => "setup",
            Stage::BeforeRun => "before_run",
            Stage::AfterLoadCheckpoint => "after_load_checkpoint",
            Stage::AfterRestore => "after_restore",
            Stage::BeforeTrain => "before_train",
            Stage::BeforeTrainEpoch => "before_train_epoch",
            Stage::BeforeTrainIter => "before_train_iter",
            Stage::BeforeOptimizerStep => "before_optimizer_step",
            Stage::AfterOptimizerStep => "after_optimizer_step",
            Stage::AfterTrainIter => "after_train_iter",
            Stage::AfterTrainEpoch => "after_train_epoch",
            Stage::BeforeVal => "before_val",
            Stage::BeforeValEpoch => "before_val_epoch",
            Stage::BeforeValIter => "before_val_iter",
            Stage::AfterValIter => "after_val_iter",
            Stage::AfterValEpoch => "after_val_epoch",
            Stage::AfterVal => "after_val",
            Stage::BeforeTest => "before_test",
            Stage::BeforeTestEpoch => "before_test_epoch",
            Stage::BeforeTestIter => "before_test_iter",
            Stage::AfterTestIter => "after_test_iter",
            Stage::AfterTestEpoch => "after_test_epoch",
            Stage::AfterTest => "after_test",
            Stage::BeforeSaveCheckpoint => "before_save_checkpoint",
            Stage::AfterSaveCheckpoint => "after_save_checkpoint",
            Stage::BeforeExport => "before_export",
            Stage::AfterExport => "after_export",
            Stage::AfterTrain => "after_train",
            Stage::OnError => "on_error",
            Stage::AfterRun => "after_run",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of stages.
///
/// ```
/// use grapnel::{Stage, Stages};
///
/// let stages = Stage::BeforeTrain | Stage::AfterTrainIter;
/// assert!(stages.contains(Stage::AfterTrainIter));
/// assert_eq!(stages, Stages::from([Stage::AfterTrainIter, Stage::BeforeTrain]));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Stages(u64);

impl Stages {
    /// None.
    pub const NONE: Stages = Stages(0);
    /// All that this crate knows.
    pub const ALL: Stages = Stages((1 << Stage::ALL.len()) - 1);

    /// Whether a stage is among them.
    pub const fn contains(self, stage: Stage) -> bool {
        self.0 >> stage as u32 & 1 == 1
    }

    pub(crate) fn bits(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for Stages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(Stage::ALL.iter().filter(|&&stage| self.contains(stage))).finish()
    }
}

impl From<Stage> for Stages {
    fn from(stage: Stage) -> Stages {
        Stages(1 << stage as u32)
    }
}

impl<const N: usize> From<[Stage; N]> for Stages {
    fn from(stages: [Stage; N]) -> Stages {
        stages.into_iter().collect()
    }
}

impl FromIterator<Stage> for Stages {
    fn from_iter<I: IntoIterator<Item = Stage>>(stages: I) -> Stages {
        stages.into_iter().fold(Stages::NONE, |all, stage| all | stage)
    }
}

impl<S: Into<Stages>> BitOr<S> for Stages {
    type Output = Stages;

    fn bitor(self, other: S) -> Stages {
        Stages(self.0 | other.into().0)
    }
}

impl<S: Into<Stages>> BitOr<S> for Stage {
    type Output = Stages;

    fn bitor(self, other: S) -> Stages {
        Stages::from(self) | other
    }
}

impl<S: Into<Stages>> BitOrAssign<S> for Stages {
    fn bitor_assign(&mut self, other: S) {
        *self = *self | other;
    }
}

/// Which loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(i32)]
pub enum Mode {
    /// Training.
    Train = sys::GRAPNEL_TRAIN,
    /// Validation.
    Val = sys::GRAPNEL_VAL,
    /// Test.
    Test = sys::GRAPNEL_TEST,
    /// One that this crate doesn't know, of a newer library. There are no data for it.
    Other = -1,
}

impl Mode {
    pub(crate) fn from_c(mode: sys::grapnel_mode) -> Mode {
        match mode {
            sys::GRAPNEL_TRAIN => Mode::Train,
            sys::GRAPNEL_VAL => Mode::Val,
            sys::GRAPNEL_TEST => Mode::Test,
            _ => Mode::Other,
        }
    }
}

/// Where training ends that is asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(i32)]
pub enum StopAt {
    /// After the epoch.
    AfterEpoch = sys::GRAPNEL_STOP_AFTER_EPOCH,
    /// After the iteration, with a checkpoint, so that `resume` goes on there.
    Now = sys::GRAPNEL_STOP_NOW,
}

/// How much a line of a log matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(i32)]
pub enum Severity {
    /// It goes well.
    Info = sys::GRAPNEL_INFO,
    /// Somebody should look.
    Warning = sys::GRAPNEL_WARNING,
    /// It went wrong.
    Error = sys::GRAPNEL_ERROR,
}

impl Severity {
    /// One that this crate doesn't know is an error.
    pub(crate) fn from_c(severity: sys::grapnel_severity) -> Severity {
        match severity {
            sys::GRAPNEL_INFO => Severity::Info,
            sys::GRAPNEL_WARNING => Severity::Warning,
            _ => Severity::Error,
        }
    }
}

/// Whose turn it is among the hooks of a stage: 0 is first, 100 last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(i32);

impl Priority {
    /// 0.
    pub const HIGHEST: Priority = Priority(0);
    /// 10.
    pub const VERY_HIGH: Priority = Priority(10);
    /// 30.
    pub const HIGH: Priority = Priority(30);
    /// 40.
    pub const ABOVE_NORMAL: Priority = Priority(40);
    /// 50.
    pub const NORMAL: Priority = Priority(50);
    /// 60.
    pub const BELOW_NORMAL: Priority = Priority(60);
    /// 70.
    pub const LOW: Priority = Priority(70);
    /// 90.
    pub const VERY_LOW: Priority = Priority(90);
    /// 100.
    pub const LOWEST: Priority = Priority(100);

    /// Any number. One above 100 is refused by [`Builder::build`](crate::Builder::build).
    pub const fn new(priority: u8) -> Priority {
        Priority(priority as i32)
    }

    pub(crate) fn to_c(self) -> i32 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Priority {
        Priority::NORMAL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_its_number() {
        for (number, stage) in (0..).zip(Stage::ALL) {
            assert_eq!(stage as i32, number);
            assert_eq!(Stage::from_c(number), Some(stage));
        }
        assert_eq!(Stage::from_c(-1), None);
        assert_eq!(Stage::from_c(Stage::ALL.len() as i32), None);
    }

    #[test]
    fn a_loop_that_is_not_known_is_none_of_those_that_are() {
        for mode in [Mode::Train, Mode::Val, Mode::Test, Mode::Other] {
            assert_eq!(Mode::from_c(mode as i32), mode);
        }
        assert_eq!(Mode::from_c(3), Mode::Other);
    }

    #[test]
    fn a_set_has_what_was_put_in() {
        let mut stages = Stages::NONE;
        stages |= Stage::Setup | Stage::AfterRun;
        assert_eq!(stages.bits(), 1 | 1 << 29);
        assert_eq!(format!("{stages:?}"), "{Setup, AfterRun}");
        assert_eq!(Stage::ALL.into_iter().collect::<Stages>(), Stages::ALL);
    }
}
