//! What a runner is made of.

use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, mem};

use grapnel_sys as sys;
use prost::Message;

use crate::bytes::path_text;
use crate::callback::{hand_over, let_go, Kept, Shared};
use crate::dataset::{Dataset, DatasetData, SyncDataset};
use crate::error::{CallbackResult, Result};
use crate::hook::{Hook, HookData};
use crate::log::{LogData, Record, RecordData};
use crate::loss::{Loss, LossData};
use crate::metric::{Metric, MetricData};
use crate::model::{Model, ModelData, SharedTensors};
use crate::pb::RunnerConfig;
use crate::process::check_version;
use crate::runner::Runner;
use crate::stage::{Mode, Severity};
use crate::status;
use crate::stream::{Stream, StreamData};
use crate::tensors::Tensors;
use crate::text_format;

/// Makes a [`Runner`]: a config, and what is given in code.
///
/// The first thing that goes wrong is what [`build`](Builder::build) fails with; what comes behind
/// it is dropped.
#[must_use = "a builder makes a runner by `build`"]
pub struct Builder {
    /// What was made so far, or why it wasn't.
    state: Result<Options>,
}

/// Dropped in this order: what is kept is used by options.
struct Options {
    options: OwnedOptions,
    kept: Vec<Box<dyn Send>>,
    shared: Arc<Shared>,
}

struct OwnedOptions(NonNull<sys::grapnel_runner_options>);

impl Drop for OwnedOptions {
    fn drop(&mut self) {
        // SAFETY: they are ours.
        unsafe { sys::grapnel_runner_options_destroy(self.0.as_ptr()) }
    }
}

// SAFETY: nothing of options belongs to a thread; what users put in is `Send`.
unsafe impl Send for OwnedOptions {}

type OptionsPtr = *mut sys::grapnel_runner_options;

impl Options {
    fn new() -> Result<Options> {
        check_version()?;
        let mut out = ptr::null_mut();
        // SAFETY: `out` is written on success.
        let options = unsafe {
            status::take(sys::grapnel_runner_options_create(&mut out))?;
            OwnedOptions(NonNull::new_unchecked(out))
        };
        Ok(Options { options, kept: Vec::new(), shared: Arc::default() })
    }

    fn as_ptr(&mut self) -> OptionsPtr {
        self.options.0.as_ptr()
    }

    /// What is shared with the callbacks of user data to be.
    fn parts(&mut self) -> (OptionsPtr, Arc<Shared>) {
        (self.as_ptr(), Arc::clone(&self.shared))
    }
}

impl Builder {
    pub(crate) fn new() -> Builder {
        Builder { state: Options::new() }
    }

    fn and(mut self, set: impl FnOnce(&mut Options) -> Result<()>) -> Builder {
        match &mut self.state {
            Ok(options) => {
                if let Err(error) = set(options) {
                    self.state = Err(error);
                }
            }
            Err(_) => let_go(set),
        }
        self
    }

    /// # Safety
    ///
    /// `set` is a function of the library's with the bytes of `text`.
    unsafe fn and_text(
        self,
        text: &str,
        set: unsafe extern "C" fn(
            OptionsPtr,
            *const std::ffi::c_char,
            usize,
        ) -> *mut sys::grapnel_status,
    ) -> Builder {
        // SAFETY: by our own condition.
        self.and(|options| unsafe {
            status::take(set(options.as_ptr(), text.as_ptr().cast(), text.len()))
        })
    }

    fn encoded(self, config: &[u8], encoding: sys::grapnel_encoding) -> Builder {
        // SAFETY: the config is as long as it says.
        self.and(|options| unsafe {
            status::take(sys::grapnel_runner_options_set_config(
                options.as_ptr(),
                config.as_ptr().cast(),
                config.len(),
                encoding,
            ))
        })
    }

    /// The config.
    pub fn config(self, config: &RunnerConfig) -> Builder {
        self.encoded(&config.encode_to_vec(), sys::GRAPNEL_BINARY)
    }

    /// The config, in protobuf's text format.
    pub fn config_text(self, config: &str) -> Builder {
        self.encoded(config.as_bytes(), sys::GRAPNEL_TEXT)
    }

    /// The config, in JSON.
    pub fn config_json(self, config: &str) -> Builder {
        self.encoded(config.as_bytes(), sys::GRAPNEL_JSON)
    }

    /// The config, of a file in the text format, JSON or binary, as its name says. Its relative
    /// paths start at its folder.
    pub fn config_file(self, path: impl AsRef<Path>) -> Builder {
        let path = path.as_ref();
        match path_text(path) {
            // SAFETY: it is such a function.
            Ok(path) => unsafe { self.and_text(path, sys::grapnel_runner_options_set_config_file) },
            Err(error) => self.and(|_| Err(error)),
        }
    }

    /// Changes a field, on top of the config: "train_cfg.max_epochs=20".
    pub fn set(self, assignment: &str) -> Builder {
        // SAFETY: it is such a function.
        unsafe { self.and_text(assignment, sys::grapnel_runner_options_override) }
    }

    /// Where relative paths of the config start; "" is the process's folder.
    pub fn base_dir(self, dir: impl AsRef<Path>) -> Builder {
        let dir = dir.as_ref();
        match path_text(dir) {
            // SAFETY: it is such a function.
            Ok(dir) => unsafe { self.and_text(dir, sys::grapnel_runner_options_set_base_dir) },
            Err(error) => self.and(|_| Err(error)),
        }
    }

    /// Where the run writes, in place of what the config says; a relative path starts where those
    /// of the config do. By default "work_dirs" and the config file's name.
    pub fn work_dir(self, dir: impl AsRef<Path>) -> Builder {
        let dir = dir.as_ref();
        match path_text(dir) {
            Ok(dir) => self.set(&format!("work_dir={}", text_format::quoted(dir))),
            Err(error) => self.and(|_| Err(error)),
        }
    }

    /// `false`: it won't be trained, so that nothing for that is opened.
    pub fn for_training(self, for_training: bool) -> Builder {
        // SAFETY: they are options; here and below.
        self.and(|options| unsafe {
            status::take(sys::grapnel_runner_options_set_for_training(
                options.as_ptr(),
                i32::from(for_training),
            ))
        })
    }

    /// How long to wait for another run in work_dir to end. Not, by default.
    pub fn wait_for_lock(self, time: Duration) -> Builder {
        // SAFETY: as above.
        self.and(|options| unsafe {
            status::take(sys::grapnel_runner_options_set_wait_for_lock(
                options.as_ptr(),
                time.as_secs_f64(),
            ))
        })
    }

    /// Lines of the run's log go to stderr too.
    pub fn log_to_stderr(self) -> Builder {
        // SAFETY: as above.
        self.and(|options| unsafe {
            status::take(sys::grapnel_runner_options_set_terminal_fd(options.as_ptr(), 2))
        })
    }

    /// Lines of the run's log go to `sink`, and not to the run's log file. Called on a thread of
    /// the runner's, one line after the other; on this one while `build` waits for work_dir. If it
    /// panics, it isn't called again.
    pub fn log(self, sink: impl FnMut(Severity, &str) + Send + 'static) -> Builder {
        fn callback<F: FnMut(Severity, &str) + Send + 'static>(
            _: &Kept<LogData<F>>,
        ) -> sys::grapnel_log_callback {
            LogData::<F>::callback()
        }
        self.and(|options| {
            let data = Kept::new(LogData::new(sink));
            // SAFETY: the data is kept for longer than the runner is.
            unsafe {
                status::take(sys::grapnel_runner_options_set_log_callback(
                    options.as_ptr(),
                    callback(&data),
                    data.as_ptr().cast(),
                ))?;
            }
            options.kept.push(Box::new(data));
            Ok(())
        })
    }

    /// Lines of the run's log become events of `tracing`, with the target "grapnel", and don't go
    /// to the run's log file.
    #[cfg(feature = "tracing")]
    pub fn log_to_tracing(self) -> Builder {
        self.log(crate::log::trace)
    }

    /// The run's records go to `sink` too. Called on a thread of the runner's, one record after the
    /// other; all have come when training ends, or an evaluation outside of it. An error is logged,
    /// ends the calls, and not the run.
    pub fn records(
        self,
        sink: impl FnMut(&Record<'_>) -> CallbackResult + Send + 'static,
    ) -> Builder {
        fn callback<F: FnMut(&Record<'_>) -> CallbackResult + Send + 'static>(
            _: &Kept<RecordData<F>>,
        ) -> sys::grapnel_record_callback {
            RecordData::<F>::callback()
        }
        self.and(|options| {
            let data = Kept::new(RecordData::new(sink));
            // SAFETY: the data is kept for longer than the runner is.
            unsafe {
                status::take(sys::grapnel_runner_options_set_record_callback(
                    options.as_ptr(),
                    callback(&data),
                    data.as_ptr().cast(),
                ))?;
            }
            options.kept.push(Box::new(data));
            Ok(())
        })
    }

    /// Data of a loop, in place of what the config describes.
    pub fn dataset(self, mode: Mode, dataset: impl Dataset) -> Builder {
        self.and(|options| {
            let (options, shared) = options.parts();
            let data = DatasetData::new(dataset, shared);
            let callbacks = data.callbacks();
            // SAFETY: the callbacks are those of the data, here and below.
            unsafe {
                hand_over(data, |data| {
                    sys::grapnel_runner_options_set_dataset(options, mode as i32, &callbacks, data)
                })
            }
        })
    }

    /// The same, of a dataset that several threads read at once.
    pub fn sync_dataset(self, mode: Mode, dataset: impl SyncDataset) -> Builder {
        self.and(|options| {
            let (options, shared) = options.parts();
            let data = DatasetData::sync(dataset, shared);
            let callbacks = data.sync_callbacks();
            // SAFETY: as above.
            unsafe {
                hand_over(data, |data| {
                    sys::grapnel_runner_options_set_dataset(options, mode as i32, &callbacks, data)
                })
            }
        })
    }

    /// Data of a loop from tensors of N samples each, "input" and the like, (N, ...). They are not
    /// copied.
    pub fn tensors(self, mode: Mode, tensors: Tensors) -> Builder {
        // SAFETY: they are tensors, whose memory is the library's from here on.
        self.and(|options| unsafe {
            status::take(sys::grapnel_runner_options_set_tensors(
                options.as_ptr(),
                mode as i32,
                tensors.as_ptr(),
            ))
        })
    }

    /// What is trained on, in place of a dataset. `train_cfg.by_epoch` is false.
    pub fn stream(self, stream: impl Stream) -> Builder {
        self.and(|options| {
            let (options, shared) = options.parts();
            let mut data = StreamData::new(stream, shared);
            let callbacks = data.callbacks();
            // SAFETY: as above.
            unsafe {
                hand_over(data, |data| {
                    sys::grapnel_runner_options_set_stream(options, &callbacks, data)
                })
            }
        })
    }

    /// In place of the config's model. Its tensors are trained in place; parameters must be
    /// floating.
    pub fn model(
        self,
        model: impl Model,
        parameters: impl Into<SharedTensors>,
        buffers: impl Into<SharedTensors>,
    ) -> Builder {
        let (parameters, buffers) = (parameters.into(), buffers.into());
        self.and(|options| {
            let foreign = parameters.foreign || buffers.foreign;
            options.shared.foreign_model.store(foreign, Ordering::Relaxed);
            let (options, shared) = options.parts();
            let (parameters_ptr, buffers_ptr) =
                (parameters.tensors.as_ptr(), buffers.tensors.as_ptr());
            let data = ModelData::new(model, parameters, buffers, shared);
            let callbacks = data.callbacks();
            // SAFETY: as above. Both pointers are to what the data owns elsewhere.
            unsafe {
                hand_over(data, |data| {
                    sys::grapnel_runner_options_set_model(
                        options,
                        &callbacks,
                        parameters_ptr,
                        buffers_ptr,
                        data,
                    )
                })
            }
        })
    }

    /// For a model from the config that has no loss there.
    pub fn loss(self, loss: impl Loss) -> Builder {
        self.and(|options| {
            let (options, shared) = options.parts();
            let data = LossData::new(loss, shared);
            let callbacks = data.callbacks();
            // SAFETY: as above.
            unsafe {
                hand_over(data, |data| {
                    sys::grapnel_runner_options_set_loss(options, &callbacks, data)
                })
            }
        })
    }

    /// Beside those of the config. `mode` is [`Mode::Val`] or [`Mode::Test`].
    pub fn metric(self, mode: Mode, metric: impl Metric) -> Builder {
        self.and(|options| {
            let (options, shared) = options.parts();
            let data = MetricData::new(metric, shared);
            let callbacks = data.callbacks();
            // SAFETY: as above.
            unsafe {
                hand_over(data, |data| {
                    sys::grapnel_runner_options_add_metric(options, mode as i32, &callbacks, data)
                })
            }
        })
    }

    /// Behind those of the config. `name`, unique in the run, keys its state.
    pub fn hook(self, name: &str, hook: impl Hook) -> Builder {
        self.and(|options| {
            let (options, shared) = options.parts();
            let mut data = HookData::new(hook, shared);
            let callbacks = data.callbacks();
            // SAFETY: as above; the name is as long as it says.
            unsafe {
                hand_over(data, |data| {
                    sys::grapnel_runner_options_add_hook(
                        options,
                        name.as_ptr().cast(),
                        name.len(),
                        &callbacks,
                        data,
                    )
                })
            }
        })
    }

    /// Makes the runner. It may get a sample already: layers take their sizes from it.
    pub fn build(self) -> Result<Runner> {
        let mut options = self.state?;
        let mut out = ptr::null_mut();
        // SAFETY: they are options; `out` is written on success.
        let runner = unsafe {
            let shared = Arc::clone(&options.shared);
            shared.call(|| sys::grapnel_runner_create(options.as_ptr(), &mut out))?;
            NonNull::new_unchecked(out)
        };
        let kept = mem::take(&mut options.kept);
        Ok(Runner::new(runner, Arc::clone(&options.shared), kept))
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("error", &self.state.as_ref().err()).finish_non_exhaustive()
    }
}
