//! Metrics: what an evaluation comes to.

use std::ffi::c_void;
use std::mem;
use std::sync::Arc;

use grapnel_sys as sys;

use crate::callback::{call, destroy, Shared};
use crate::error::CallbackResult;
use crate::scalars::ScalarsRef;
use crate::tensors::TensorsRef;

/// What an evaluation comes to. Calls come on the thread that called the runner. Not over several
/// ranks: [`Code::Unimplemented`](crate::Code::Unimplemented).
pub trait Metric: Send + 'static {
    /// An evaluation begins: forgets everything.
    fn reset(&mut self) -> CallbackResult;

    /// Takes a batch and what the model says of it: "output", and losses.
    fn process(&mut self, predictions: &TensorsRef, batch: &TensorsRef) -> CallbackResult;

    /// Adds the values.
    fn compute(&mut self, metrics: &mut ScalarsRef) -> CallbackResult;
}

/// User data of a metric.
pub(crate) struct MetricData<M> {
    metric: M,
    shared: Arc<Shared>,
}

impl<M: Metric> MetricData<M> {
    pub(crate) fn new(metric: M, shared: Arc<Shared>) -> Self {
        MetricData { metric, shared }
    }

    pub(crate) fn callbacks(&self) -> sys::grapnel_metric_callbacks {
        sys::grapnel_metric_callbacks {
            struct_size: mem::size_of::<sys::grapnel_metric_callbacks>(),
            reset: Some(reset::<M>),
            process: Some(process::<M>),
            compute: Some(compute::<M>),
            destroy: Some(destroy::<Self>),
        }
    }
}

unsafe extern "C" fn reset<M: Metric>(user_data: *mut c_void) -> *mut sys::grapnel_status {
    // SAFETY: user data is this, and calls with it come one at a time; here and below.
    let data = unsafe { &mut *user_data.cast::<MetricData<M>>() };
    call(&data.shared, || data.metric.reset())
}

unsafe extern "C" fn process<M: Metric>(
    user_data: *mut c_void,
    predictions: *const sys::grapnel_tensors,
    batch: *const sys::grapnel_tensors,
) -> *mut sys::grapnel_status {
    // SAFETY: as above.
    let data = unsafe { &mut *user_data.cast::<MetricData<M>>() };
    // SAFETY: both live for this call, in which nobody writes them.
    call(&data.shared, || unsafe {
        data.metric.process(TensorsRef::from_ptr(predictions), TensorsRef::from_ptr(batch))
    })
}

unsafe extern "C" fn compute<M: Metric>(
    user_data: *mut c_void,
    metrics: *mut sys::grapnel_scalars,
) -> *mut sys::grapnel_status {
    // SAFETY: as above.
    let data = unsafe { &mut *user_data.cast::<MetricData<M>>() };
    // SAFETY: the scalars are ours for this call.
    let metrics = unsafe { ScalarsRef::from_mut_ptr(metrics) };
    call(&data.shared, || data.metric.compute(metrics))
}
