//! Logs: of a run, its records, and of the process.

use std::ffi::{c_char, c_void};
use std::sync::{Arc, PoisonError, RwLock};
use std::{mem, ptr};

use grapnel_sys as sys;

use crate::bytes;
use crate::callback::{call_logged, catch};
use crate::error::CallbackResult;
use crate::scalars::ScalarsRef;
use crate::stage::{Mode, Severity};
use crate::thread::Scope;

/// # Safety
///
/// As for `bytes::lent`.
unsafe fn message_of(message: *const c_char, size: usize) -> String {
    // SAFETY: by our own condition.
    String::from_utf8_lossy(unsafe { bytes::lent(message.cast(), size) }).into_owned()
}

/// User data of a run's log.
pub(crate) struct LogData<F> {
    sink: F,
    /// It panicked: it isn't called again.
    dead: bool,
}

impl<F: FnMut(Severity, &str) + Send + 'static> LogData<F> {
    pub(crate) fn new(sink: F) -> Self {
        LogData { sink, dead: false }
    }

    pub(crate) fn callback() -> sys::grapnel_log_callback {
        Some(write_line::<F>)
    }
}

unsafe extern "C" fn write_line<F: FnMut(Severity, &str)>(
    user_data: *mut c_void,
    severity: sys::grapnel_severity,
    message: *const c_char,
    message_size: usize,
) {
    // SAFETY: user data is this, and lines come one after the other.
    let data = unsafe { &mut *user_data.cast::<LogData<F>>() };
    if data.dead {
        return;
    }
    let _scope = Scope::callback();
    let caught = catch(|| {
        // SAFETY: the line lives for this call.
        let line = unsafe { bytes::lent(message.cast(), message_size) };
        (data.sink)(Severity::from_c(severity), &String::from_utf8_lossy(line));
    });
    if let Err(payload) = caught {
        data.dead = true;
        mem::forget(payload);
    }
}

/// Numbers of one moment, as they are written for plots: of training every few iterations, as the
/// logger hook's interval says, and of each evaluation.
#[derive(Debug)]
#[non_exhaustive]
pub struct Record<'a> {
    /// Which loop.
    pub mode: Mode,
    /// x of a plot; of no meaning in a test.
    pub step: i64,
    /// The numbers.
    pub scalars: &'a ScalarsRef,
}

/// User data of a run's records.
pub(crate) struct RecordData<F> {
    sink: F,
}

impl<F: FnMut(&Record<'_>) -> CallbackResult + Send + 'static> RecordData<F> {
    pub(crate) fn new(sink: F) -> Self {
        RecordData { sink }
    }

    pub(crate) fn callback() -> sys::grapnel_record_callback {
        Some(write_record::<F>)
    }
}

unsafe extern "C" fn write_record<F: FnMut(&Record<'_>) -> CallbackResult>(
    user_data: *mut c_void,
    mode: sys::grapnel_mode,
    step: i64,
    record: *const sys::grapnel_scalars,
) -> *mut sys::grapnel_status {
    // SAFETY: user data is this, and records come one after the other.
    let RecordData { sink } = unsafe { &mut *user_data.cast::<RecordData<F>>() };
    call_logged(|| {
        // SAFETY: the record lives for this call, in which nobody writes it.
        let scalars = unsafe { ScalarsRef::from_ptr(record) };
        sink(&Record { mode: Mode::from_c(mode), step, scalars })
    })
}

type Sink = dyn Fn(Severity, &str) + Send + Sync;

static PROCESS_LOG: RwLock<Option<Arc<Sink>>> = RwLock::new(None);

/// Sends what the library has to say outside of runs to `sink` instead of stderr, until it is set
/// anew. Any thread may call it, several at once. If it panics, that line is lost.
pub fn set_process_log(sink: impl Fn(Severity, &str) + Send + Sync + 'static) {
    replace(Some(Arc::new(sink)));
}

/// Sends what the library has to say outside of runs to stderr, as at first.
pub fn reset_process_log() {
    replace(None);
}

fn replace(sink: Option<Arc<Sink>>) {
    let old = {
        let mut current = PROCESS_LOG.write().unwrap_or_else(PoisonError::into_inner);
        mem::replace(&mut *current, sink)
    };
    // The library's callback goes with the sink, also when several threads set them: whoever is the
    // last to set the former looks at the latter once more. No lock is held, as the library waits
    // for lines on their way, whose sinks may set others.
    loop {
        let wanted = has_sink();
        let callback: sys::grapnel_log_callback =
            if wanted { Some(write_process_line) } else { None };
        // SAFETY: the callback is there for ever, and needs no user data.
        unsafe { sys::grapnel_set_log_callback(callback, ptr::null_mut()) };
        if has_sink() == wanted {
            break;
        }
    }
    // Not under the lock: dropping it may log.
    drop(old);
}

fn has_sink() -> bool {
    PROCESS_LOG.read().unwrap_or_else(PoisonError::into_inner).is_some()
}

unsafe extern "C" fn write_process_line(
    _user_data: *mut c_void,
    severity: sys::grapnel_severity,
    message: *const c_char,
    message_size: usize,
) {
    // A reference of its own, so that the sink may set another one.
    let sink = PROCESS_LOG.read().unwrap_or_else(PoisonError::into_inner).clone();
    let Some(sink) = sink else { return };
    // SAFETY: the line lives for this call.
    let line = unsafe { message_of(message, message_size) };
    if let Err(payload) = catch(move || sink(Severity::from_c(severity), &line)) {
        mem::forget(payload);
    }
}

/// A line as an event, with the target "grapnel".
#[cfg(feature = "tracing")]
pub(crate) fn trace(severity: Severity, line: &str) {
    match severity {
        Severity::Info => tracing::info!(target: "grapnel", "{line}"),
        Severity::Warning => tracing::warn!(target: "grapnel", "{line}"),
        Severity::Error => tracing::error!(target: "grapnel", "{line}"),
    }
}

/// Sends what the library has to say outside of runs to `tracing`, as events with the target
/// "grapnel".
#[cfg(feature = "tracing")]
pub fn set_process_log_to_tracing() {
    set_process_log(trace);
}
