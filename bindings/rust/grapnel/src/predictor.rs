//! Predictions with a run's weights.

use std::fmt;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use grapnel_sys as sys;

use crate::bytes::path_text;
use crate::error::{Code, Error, Result};
use crate::lent::Lent;
use crate::running::Running;
use crate::status;
use crate::tensor::{Tensor, TensorRef};
use crate::thread;

/// Which weights to predict with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
#[repr(i32)]
pub enum PredictorWeights {
    /// What the run's evaluations see: the average that is evaluated, or the trained ones where
    /// there is none.
    #[default]
    Evaluated = sys::GRAPNEL_EVALUATED,
    /// That average; it is an error if there is none.
    Averaged = sys::GRAPNEL_AVERAGED,
    /// The trained ones.
    Trained = sys::GRAPNEL_TRAINED,
}

/// Predicts with a run's weights, all of one moment, in models of its own. `Send` and `Sync`:
/// several threads may use it at once.
pub struct Predictor {
    predictor: NonNull<sys::grapnel_predictor>,
    /// Of the run whose weights it takes, if there is one.
    lent: Option<Arc<Lent>>,
}

// SAFETY: all but its destruction may be called at any time, by several threads at once.
unsafe impl Send for Predictor {}
// SAFETY: as above.
unsafe impl Sync for Predictor {}

impl Predictor {
    /// From a checkpoint alone: nothing else of the run need be there. `path` is a checkpoint, or a
    /// work_dir, for the newest one in it that can be read whole. `replicas`, 1 or more, is how
    /// many predictions can be made at the same time; others wait. Each needs a copy of the model.
    pub fn open(
        path: impl AsRef<Path>,
        weights: PredictorWeights,
        replicas: u32,
    ) -> Result<Predictor> {
        let path = path_text(path.as_ref())?;
        let replicas = count(replicas)?;
        let mut out = ptr::null_mut();
        // SAFETY: the path is as long as it says; `out` is written on success.
        unsafe {
            status::take(sys::grapnel_predictor_open(
                path.as_ptr().cast(),
                path.len(),
                weights as i32,
                replicas,
                &mut out,
            ))?;
            Ok(Predictor { predictor: NonNull::new_unchecked(out), lent: None })
        }
    }

    /// Takes newer weights; predictions that have begun end with theirs. After an error those
    /// before stay.
    ///
    /// Of a path: what is there now. Of a runner: as they are now; while a call on it is going on,
    /// as they are after the next training iteration, or where the call ends, which is waited for;
    /// in a hook, at once. [`Code::FailedPrecondition`] once the runner is gone, in a hook that has
    /// a tensor of the model's, and in a callback that comes on a thread of the library's: a
    /// dataset's with `num_workers` > 0 or a log's, which the call may be waiting for.
    pub fn refresh(&self) -> Result<()> {
        if let Some(lent) = &self.lent {
            check_now(lent)?;
        }
        // SAFETY: it is a predictor; here and below.
        unsafe { status::take(sys::grapnel_predictor_refresh(self.predictor.as_ptr())) }
    }

    /// Outputs (N, ...) for inputs (N, ...): those that the run's validation would have with these
    /// weights, to the bit.
    pub fn predict(&self, inputs: &(impl AsRef<TensorRef> + ?Sized)) -> Result<Tensor> {
        let inputs = inputs.as_ref();
        let mut out = ptr::null_mut();
        // SAFETY: as above.
        let outputs = unsafe {
            let status =
                sys::grapnel_predictor_predict(self.predictor.as_ptr(), inputs.as_ptr(), &mut out);
            status::take(status)?;
            Tensor::from_raw(out)
        };
        // A model may give what it got, or a weight of its own, where a tensor of ours must have
        // memory that nobody else has.
        outputs.to_tensor()
    }

    /// Completed iterations of the run when the weights were taken that the next prediction is made
    /// with; 0 if there are none yet.
    pub fn iter(&self) -> i64 {
        // SAFETY: as above.
        unsafe { sys::grapnel_predictor_iter(self.predictor.as_ptr()) }
    }
}

/// An error where a run's weights can't be taken, or waited for.
fn check_now(lent: &Lent) -> Result<()> {
    if thread::is_the_librarys() {
        return Err(Error::new(
            Code::FailedPrecondition,
            "predictor: takes no weights in a callback on a thread of the library's, which the \
             run may be waiting for",
        ));
    }
    lent.check()
}

/// Makes predictors of a [`Runner`](crate::Runner)'s weights on any thread, also while it trains.
/// It may outlive the runner.
#[derive(Clone)]
pub struct PredictorHandle {
    running: Arc<Running>,
    lent: Arc<Lent>,
}

impl PredictorHandle {
    pub(crate) fn new(running: Arc<Running>, lent: Arc<Lent>) -> PredictorHandle {
        PredictorHandle { running, lent }
    }

    /// As [`Runner::predictor`](crate::Runner::predictor). While a call on the runner is going on
    /// it waits, and can't be called, as [`Predictor::refresh`].
    pub fn predictor(&self, weights: PredictorWeights, replicas: u32) -> Result<Predictor> {
        let replicas = count(replicas)?;
        check_now(&self.lent)?;
        let mut out = ptr::null_mut();
        // SAFETY: it is a runner, which may be asked at any time; `out` is written on success.
        self.running.with(|runner| unsafe {
            status::take(sys::grapnel_runner_predictor(
                runner.as_ptr(),
                weights as i32,
                replicas,
                &mut out,
            ))?;
            let predictor = NonNull::new_unchecked(out);
            Ok(Predictor { predictor, lent: Some(Arc::clone(&self.lent)) })
        })
    }
}

impl fmt::Debug for PredictorHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PredictorHandle").finish_non_exhaustive()
    }
}

fn count(replicas: u32) -> Result<i32> {
    i32::try_from(replicas).map_err(|_| {
        Error::new(Code::InvalidArgument, format!("replicas: is {replicas}, which is too many"))
    })
}

impl fmt::Debug for Predictor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Predictor").field("iter", &self.iter()).finish_non_exhaustive()
    }
}

impl Drop for Predictor {
    fn drop(&mut self) {
        // SAFETY: it is ours, and nobody is calling it.
        unsafe { sys::grapnel_predictor_destroy(self.predictor.as_ptr()) }
    }
}
