//! Models whose gradients another engine computes.

use std::any::Any;
use std::ffi::{c_char, c_void};
use std::fmt;
use std::mem;
use std::path::Path;
use std::sync::Arc;

use grapnel_sys as sys;

use crate::bytes;
use crate::callback::{call, catch, destroy, panicked, Quiet, Shared};
use crate::element::Element;
use crate::error::{CallbackResult, Code, Error, Result};
use crate::model_tensor::{ModelTensor, ModelTensorMut};
use crate::scalars::ScalarsRef;
use crate::tensor::Tensor;
use crate::tensors::{Tensors, TensorsRef};

/// A model whose gradients another engine computes: Candle, tch, or a few loops. Its parameters and
/// buffers are given to [`Builder::model`](crate::Builder::model), trained by the library in place,
/// and lent to each call.
///
/// Calls come on the thread that called the runner, one at a time.
pub trait Model: Send + 'static {
    /// Adds to `gradients` those of the mean loss of the batch, by the names of the parameters, and
    /// to `losses` what is to be logged: the total first, as "loss", if there are several.
    fn train_step(
        &mut self,
        weights: &mut Weights<'_>,
        batch: &TensorsRef,
        gradients: &mut Gradients<'_>,
        losses: &mut ScalarsRef,
    ) -> CallbackResult;

    /// Whether there is a `val_step`. Asked once.
    fn can_evaluate(&self) -> bool {
        true
    }

    /// Adds "output", (N, ...), to `predictions`, and to `losses` those of the batch, if it has
    /// targets.
    fn val_step(
        &mut self,
        weights: &mut Weights<'_>,
        batch: &TensorsRef,
        predictions: &mut TensorsRef,
        losses: &mut ScalarsRef,
    ) -> CallbackResult {
        let _ = (weights, batch, predictions, losses);
        Err(Error::new(Code::Unimplemented, "the model can't be evaluated").into())
    }

    /// Called before the two above if weights have been written since the last one: by a step, a
    /// load, an average that comes or goes, a hook. For engines that have copies of their own.
    fn weights_written(&mut self, weights: &mut Weights<'_>) -> CallbackResult {
        let _ = weights;
        Ok(())
    }

    /// Whether the steps to come are of training.
    fn set_training(&mut self, training: bool) {
        let _ = training;
    }

    /// Writes the model in a format of its own.
    fn export(&mut self, weights: &mut Weights<'_>, path: &Path) -> CallbackResult {
        let _ = (weights, path);
        Err(Error::new(Code::Unimplemented, "the model has no format to be exported in").into())
    }
}

/// Tensors for a model, which the library trains in place.
pub struct SharedTensors {
    pub(crate) tensors: Tensors,
    /// Whether another library has the memory too.
    pub(crate) foreign: bool,
}

impl SharedTensors {
    /// None.
    pub fn none() -> Result<SharedTensors> {
        Ok(Tensors::new()?.into())
    }
}

impl From<Tensors> for SharedTensors {
    fn from(tensors: Tensors) -> SharedTensors {
        SharedTensors { tensors, foreign: false }
    }
}

impl fmt::Debug for SharedTensors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tensors.fmt(f)
    }
}

/// A model's parameters and buffers, for a call of the model.
pub struct Weights<'a> {
    parameters: &'a mut SharedTensors,
    buffers: &'a mut SharedTensors,
}

impl Weights<'_> {
    /// The parameter of that name.
    pub fn parameter(&self, name: &str) -> Result<ModelTensor<'_>> {
        let SharedTensors { tensors, foreign } = &*self.parameters;
        Ok(ModelTensor::new(tensors.require(name)?, *foreign))
    }

    /// The buffer of that name.
    pub fn buffer(&self, name: &str) -> Result<ModelTensor<'_>> {
        let SharedTensors { tensors, foreign } = &*self.buffers;
        Ok(ModelTensor::new(tensors.require(name)?, *foreign))
    }

    /// The buffer of that name, which the model itself writes.
    pub fn buffer_mut(&mut self, name: &str) -> Result<ModelTensorMut<'_>> {
        let SharedTensors { tensors, foreign } = &mut *self.buffers;
        tensors.require(name)?;
        let tensor = tensors.get_mut(name).expect("it is there");
        Ok(ModelTensorMut::lent(tensor, *foreign))
    }

    /// All parameters, with their names.
    pub fn parameters(&self) -> impl ExactSizeIterator<Item = (&str, ModelTensor<'_>)> {
        named(self.parameters)
    }

    /// All buffers, with their names.
    pub fn buffers(&self) -> impl ExactSizeIterator<Item = (&str, ModelTensor<'_>)> {
        named(self.buffers)
    }
}

fn named(shared: &SharedTensors) -> impl ExactSizeIterator<Item = (&str, ModelTensor<'_>)> {
    let foreign = shared.foreign;
    shared.tensors.iter().map(move |(name, tensor)| (name, ModelTensor::new(tensor, foreign)))
}

impl fmt::Debug for Weights<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Weights")
            .field("parameters", &self.parameters)
            .field("buffers", &self.buffers)
            .finish()
    }
}

/// Where a model puts its gradients; they are not to be read again.
#[derive(Debug)]
pub struct Gradients<'a>(pub(crate) &'a mut TensorsRef);

impl Gradients<'_> {
    /// The gradient of a parameter.
    pub fn insert(&mut self, parameter: &str, gradient: Tensor) -> Result<()> {
        self.0.insert(parameter, gradient)
    }

    /// The same as a copy of row-major elements.
    pub fn insert_slice<T: Element>(
        &mut self,
        parameter: &str,
        elements: &[T],
        shape: &[usize],
    ) -> Result<()> {
        self.0.insert_slice(parameter, elements, shape)
    }

    /// Zeros, to be written; see [`TensorsRef::insert_zeros`].
    pub fn insert_zeros<T: Element>(
        &mut self,
        parameter: &str,
        shape: &[usize],
    ) -> Result<&mut [T]> {
        self.0.insert_zeros(parameter, shape)
    }
}

/// User data of a model.
pub(crate) struct ModelData<M> {
    model: M,
    parameters: SharedTensors,
    buffers: SharedTensors,
    /// Of `set_training`, which can't fail: the next call does.
    panic: Option<Quiet<Box<dyn Any + Send>>>,
    shared: Arc<Shared>,
}

impl<M: Model> ModelData<M> {
    pub(crate) fn new(
        model: M,
        parameters: SharedTensors,
        buffers: SharedTensors,
        shared: Arc<Shared>,
    ) -> Self {
        ModelData { model, parameters, buffers, panic: None, shared }
    }

    pub(crate) fn callbacks(&self) -> sys::grapnel_model_callbacks {
        sys::grapnel_model_callbacks {
            struct_size: mem::size_of::<sys::grapnel_model_callbacks>(),
            train_step: Some(train_step::<M>),
            val_step: self.model.can_evaluate().then_some(val_step::<M> as _),
            tensors_written: Some(tensors_written::<M>),
            set_training: Some(set_training::<M>),
            export_model: Some(export_model::<M>),
            destroy: Some(destroy::<Self>),
        }
    }

    /// Calls the model with its weights.
    ///
    /// # Safety
    ///
    /// `user_data` is this, and nobody else uses it.
    unsafe fn call(
        user_data: *mut c_void,
        body: impl FnOnce(&mut M, &mut Weights<'_>) -> CallbackResult,
    ) -> *mut sys::grapnel_status {
        // SAFETY: by our own condition.
        let ModelData { model, parameters, buffers, panic, shared } =
            unsafe { &mut *user_data.cast::<Self>() };
        if let Some(payload) = panic.take() {
            return panicked(Some(shared), payload.into_inner());
        }
        call(shared, || body(model, &mut Weights { parameters, buffers }))
    }
}

// SAFETY, of all of these: user data is a model's, and calls with it come one at a time. What else
// they are handed is theirs for the call, or written by nobody in it.

unsafe extern "C" fn train_step<M: Model>(
    user_data: *mut c_void,
    batch: *const sys::grapnel_tensors,
    gradients: *mut sys::grapnel_tensors,
    losses: *mut sys::grapnel_scalars,
) -> *mut sys::grapnel_status {
    // SAFETY: see above.
    unsafe {
        ModelData::<M>::call(user_data, |model, weights| {
            model.train_step(
                weights,
                TensorsRef::from_ptr(batch),
                &mut Gradients(TensorsRef::from_mut_ptr(gradients)),
                ScalarsRef::from_mut_ptr(losses),
            )
        })
    }
}

unsafe extern "C" fn val_step<M: Model>(
    user_data: *mut c_void,
    batch: *const sys::grapnel_tensors,
    predictions: *mut sys::grapnel_tensors,
    losses: *mut sys::grapnel_scalars,
) -> *mut sys::grapnel_status {
    // SAFETY: see above.
    unsafe {
        ModelData::<M>::call(user_data, |model, weights| {
            model.val_step(
                weights,
                TensorsRef::from_ptr(batch),
                TensorsRef::from_mut_ptr(predictions),
                ScalarsRef::from_mut_ptr(losses),
            )
        })
    }
}

unsafe extern "C" fn tensors_written<M: Model>(user_data: *mut c_void) -> *mut sys::grapnel_status {
    // SAFETY: see above.
    unsafe { ModelData::<M>::call(user_data, |model, weights| model.weights_written(weights)) }
}

unsafe extern "C" fn set_training<M: Model>(user_data: *mut c_void, training: i32) {
    // SAFETY: see above.
    let data = unsafe { &mut *user_data.cast::<ModelData<M>>() };
    if let Err(payload) = catch(|| data.model.set_training(training != 0)) {
        data.panic = Some(Quiet::new(payload));
    }
}

unsafe extern "C" fn export_model<M: Model>(
    user_data: *mut c_void,
    path: *const c_char,
    path_size: usize,
) -> *mut sys::grapnel_status {
    // SAFETY: see above. A path of the library's is UTF-8.
    unsafe {
        ModelData::<M>::call(user_data, |model, weights| {
            let path = std::str::from_utf8(bytes::lent(path.cast(), path_size))?;
            model.export(weights, Path::new(path))
        })
    }
}
