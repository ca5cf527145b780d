//! Streams: samples that come one after another.

use std::ffi::c_void;
use std::mem;
use std::sync::Arc;

use grapnel_sys as sys;

use crate::callback::{call, destroy, Shared};
use crate::error::CallbackResult;
use crate::state::{self, MayHaveState, State};
use crate::tensors::TensorsRef;

/// Samples that come one after another, in passes, for a training by iteration; batches and
/// resuming are the library's.
///
/// With `num_workers: 1` calls come from a thread of the library's; never two at once. Nobody
/// interrupts a call, and dropping the runner waits for it: a stream that waits for others gives up
/// by itself, with an error.
pub trait Stream: Send + 'static {
    /// Goes to the beginning of pass `pass`, from anywhere, also after an error. Called before all
    /// else. A pass may have samples, an order and a length of its own, but the same whenever it is
    /// gone through.
    fn begin_pass(&mut self, pass: u64) -> CallbackResult;

    /// Adds to `sample` the tensors of the next one: "input", and maybe "target" and extras of
    /// other names. Nothing added: the pass has no more.
    fn next(&mut self, sample: &mut TensorsRef) -> CallbackResult;

    /// Where it is in its pass. `Some(self)` where `self` is a [`State`]; it is saved after every
    /// batch, so it should be cheap, and small, and is loaded after `begin_pass` of its pass.
    /// Without one, a run that is resumed, or repeats a batch that failed, reads the pass again
    /// from its beginning up to there. Always or never.
    fn state(&mut self) -> Option<&mut dyn State> {
        None
    }
}

/// User data of a stream.
pub(crate) struct StreamData<S> {
    stream: S,
    shared: Arc<Shared>,
    buffer: Vec<u8>,
}

impl<S: Stream> StreamData<S> {
    pub(crate) fn new(stream: S, shared: Arc<Shared>) -> Self {
        StreamData { stream, shared, buffer: Vec::new() }
    }

    pub(crate) fn callbacks(&mut self) -> sys::grapnel_stream_callbacks {
        let (save_state, load_state) = state::callbacks(self);
        sys::grapnel_stream_callbacks {
            struct_size: mem::size_of::<sys::grapnel_stream_callbacks>(),
            begin_pass: Some(begin_pass::<S>),
            next: Some(next::<S>),
            save_state,
            load_state,
            destroy: Some(destroy::<Self>),
        }
    }
}

impl<S: Stream> MayHaveState for StreamData<S> {
    fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn state(&mut self) -> Option<(&mut dyn State, &mut Vec<u8>)> {
        Some((self.stream.state()?, &mut self.buffer))
    }
}

unsafe extern "C" fn begin_pass<S: Stream>(
    user_data: *mut c_void,
    pass: i64,
) -> *mut sys::grapnel_status {
    // SAFETY: user data is this, and calls with it come one at a time.
    let data = unsafe { &mut *user_data.cast::<StreamData<S>>() };
    // A pass is 0 or more.
    call(&data.shared, || data.stream.begin_pass(pass as u64))
}

unsafe extern "C" fn next<S: Stream>(
    user_data: *mut c_void,
    sample: *mut sys::grapnel_tensors,
) -> *mut sys::grapnel_status {
    // SAFETY: user data is this, and calls with it come one at a time.
    let data = unsafe { &mut *user_data.cast::<StreamData<S>>() };
    // SAFETY: the sample is ours for this call.
    let sample = unsafe { TensorsRef::from_mut_ptr(sample) };
    call(&data.shared, || data.stream.next(sample))
}
