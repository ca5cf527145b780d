//! Datasets: samples by position.

use std::ffi::c_void;
use std::sync::Arc;
use std::{mem, slice};

use grapnel_sys as sys;

use crate::callback::{call, call_logged, destroy, Shared};
use crate::error::{CallbackResult, Code, Error};
use crate::tensors::TensorsRef;

/// How a dataset is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Access {
    /// By `get`, a sample at a time; samples are copied together into a batch.
    #[default]
    Samples,
    /// By `get_batch`: what it gives is the batch. By a `get` there is none, so that an error in a
    /// batch can't be told to be a sample's, and `transforms` can't be applied.
    Batches,
    /// By `get_batch`, and by `get` where that failed or there are `transforms`.
    Both,
}

/// Samples by position; batches, shuffling, sharding and resuming are the library's.
///
/// With `num_workers` > 0 calls come from threads of the library's, one at a time, ahead of the
/// iteration that is going on. A [`SyncDataset`] is called by several of them at once.
///
/// ```
/// use grapnel::{CallbackResult, Dataset, TensorsRef};
///
/// struct Squares;
///
/// impl Dataset for Squares {
///     fn len(&self) -> usize {
///         100
///     }
///
///     fn get(&mut self, index: usize, sample: &mut TensorsRef) -> CallbackResult {
///         let x = index as f32;
///         sample.insert_slice("input", &[x], &[1])?;
///         sample.insert_slice("target", &[x * x], &[1])?;
///         Ok(())
///     }
/// }
/// ```
pub trait Dataset: Send + 'static {
    /// Samples, 1 or more. Asked once.
    fn len(&self) -> usize;

    /// Always `false`.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Which of the two below there are. Asked once.
    fn access(&self) -> Access {
        Access::Samples
    }

    /// Adds to `sample` the tensors of sample `index`: "input", and maybe "target" and extras of
    /// other names.
    fn get(&mut self, index: usize, sample: &mut TensorsRef) -> CallbackResult {
        let _ = (index, sample);
        Err(missing("get", "Access::Batches"))
    }

    /// Adds to `batch` the tensors of several samples, each (`indices.len()`, ...).
    fn get_batch(&mut self, indices: &[usize], batch: &mut TensorsRef) -> CallbackResult {
        let _ = (indices, batch);
        Err(missing("get_batch", "Access::Samples"))
    }
}

/// A [`Dataset`] that several threads read at once.
pub trait SyncDataset: Send + Sync + 'static {
    /// Samples, 1 or more. Asked once.
    fn len(&self) -> usize;

    /// Always `false`.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Which of the two below there are. Asked once.
    fn access(&self) -> Access {
        Access::Samples
    }

    /// As [`Dataset::get`].
    fn get(&self, index: usize, sample: &mut TensorsRef) -> CallbackResult {
        let _ = (index, sample);
        Err(missing("get", "Access::Batches"))
    }

    /// As [`Dataset::get_batch`].
    fn get_batch(&self, indices: &[usize], batch: &mut TensorsRef) -> CallbackResult {
        let _ = (indices, batch);
        Err(missing("get_batch", "Access::Samples"))
    }
}

fn missing(method: &str, access: &str) -> crate::BoxError {
    let message = format!("dataset: has no {method}, but access isn't {access}");
    Error::new(Code::Unimplemented, message).into()
}

/// User data of a dataset.
pub(crate) struct DatasetData<D> {
    dataset: D,
    given: Given,
}

/// What a dataset is read with, beside itself.
struct Given {
    access: Access,
    shared: Arc<Shared>,
}

impl Given {
    fn get(&self, body: impl FnOnce() -> CallbackResult) -> *mut sys::grapnel_status {
        call(&self.shared, body)
    }

    fn get_batch(&self, body: impl FnOnce() -> CallbackResult) -> *mut sys::grapnel_status {
        match self.access {
            // Samples are got one by one then, and what that comes to is what counts.
            Access::Both => call_logged(body),
            Access::Samples | Access::Batches => call(&self.shared, body),
        }
    }
}

impl<D> DatasetData<D> {
    fn with_access(dataset: D, access: Access, shared: Arc<Shared>) -> Self {
        DatasetData { dataset, given: Given { access, shared } }
    }

    /// # Safety
    ///
    /// `user_data` is this.
    unsafe fn exclusive<'a>(user_data: *mut c_void) -> (&'a mut D, &'a Given) {
        // SAFETY: by our own condition. Without thread_safe, calls come one at a time.
        let DatasetData { dataset, given } = unsafe { &mut *user_data.cast::<Self>() };
        (dataset, given)
    }

    /// # Safety
    ///
    /// `user_data` is this.
    unsafe fn concurrent<'a>(user_data: *mut c_void) -> (&'a D, &'a Given) {
        // SAFETY: by our own condition. Several calls have it at once, so it is not written.
        let DatasetData { dataset, given } = unsafe { &*user_data.cast::<Self>() };
        (dataset, given)
    }
}

fn callbacks<D>(len: usize, thread_safe: i32) -> sys::grapnel_dataset_callbacks {
    sys::grapnel_dataset_callbacks {
        struct_size: mem::size_of::<sys::grapnel_dataset_callbacks>(),
        // More than there can be is refused as a negative number is.
        size: i64::try_from(len).unwrap_or(-1),
        thread_safe,
        destroy: Some(destroy::<DatasetData<D>>),
        ..Default::default()
    }
}

impl<D: Dataset> DatasetData<D> {
    pub(crate) fn new(dataset: D, shared: Arc<Shared>) -> Self {
        let access = dataset.access();
        DatasetData::with_access(dataset, access, shared)
    }

    pub(crate) fn callbacks(&self) -> sys::grapnel_dataset_callbacks {
        let access = self.given.access;
        sys::grapnel_dataset_callbacks {
            get: (access != Access::Batches).then_some(get::<D> as _),
            get_batch: (access != Access::Samples).then_some(get_batch::<D> as _),
            ..callbacks::<D>(self.dataset.len(), 0)
        }
    }
}

impl<D: SyncDataset> DatasetData<D> {
    pub(crate) fn sync(dataset: D, shared: Arc<Shared>) -> Self {
        let access = dataset.access();
        DatasetData::with_access(dataset, access, shared)
    }

    pub(crate) fn sync_callbacks(&self) -> sys::grapnel_dataset_callbacks {
        let access = self.given.access;
        sys::grapnel_dataset_callbacks {
            get: (access != Access::Batches).then_some(sync_get::<D> as _),
            get_batch: (access != Access::Samples).then_some(sync_get_batch::<D> as _),
            ..callbacks::<D>(self.dataset.len(), 1)
        }
    }
}

/// # Safety
///
/// `indices` points to `count` of them, each 0 or more.
unsafe fn positions<'a>(indices: *const i64, count: usize) -> &'a [usize] {
    if count == 0 {
        return &[];
    }
    // SAFETY: by our own condition; such an i64 and a usize are the same bits.
    unsafe { slice::from_raw_parts(indices.cast(), count) }
}

unsafe extern "C" fn get<D: Dataset>(
    user_data: *mut c_void,
    index: i64,
    sample: *mut sys::grapnel_tensors,
) -> *mut sys::grapnel_status {
    // SAFETY: user data is this.
    let (dataset, given) = unsafe { DatasetData::<D>::exclusive(user_data) };
    // SAFETY: the sample is ours for this call.
    let sample = unsafe { TensorsRef::from_mut_ptr(sample) };
    given.get(|| dataset.get(index as usize, sample))
}

unsafe extern "C" fn get_batch<D: Dataset>(
    user_data: *mut c_void,
    indices: *const i64,
    count: usize,
    batch: *mut sys::grapnel_tensors,
) -> *mut sys::grapnel_status {
    // SAFETY: user data is this.
    let (dataset, given) = unsafe { DatasetData::<D>::exclusive(user_data) };
    // SAFETY: the library passes positions of samples; the batch is ours for this call.
    given.get_batch(|| unsafe {
        dataset.get_batch(positions(indices, count), TensorsRef::from_mut_ptr(batch))
    })
}

unsafe extern "C" fn sync_get<D: SyncDataset>(
    user_data: *mut c_void,
    index: i64,
    sample: *mut sys::grapnel_tensors,
) -> *mut sys::grapnel_status {
    // SAFETY: user data is this.
    let (dataset, given) = unsafe { DatasetData::<D>::concurrent(user_data) };
    // SAFETY: the sample is ours for this call.
    let sample = unsafe { TensorsRef::from_mut_ptr(sample) };
    given.get(|| dataset.get(index as usize, sample))
}

unsafe extern "C" fn sync_get_batch<D: SyncDataset>(
    user_data: *mut c_void,
    indices: *const i64,
    count: usize,
    batch: *mut sys::grapnel_tensors,
) -> *mut sys::grapnel_status {
    // SAFETY: user data is this.
    let (dataset, given) = unsafe { DatasetData::<D>::concurrent(user_data) };
    // SAFETY: the library passes positions of samples; the batch is ours for this call.
    given.get_batch(|| unsafe {
        dataset.get_batch(positions(indices, count), TensorsRef::from_mut_ptr(batch))
    })
}
