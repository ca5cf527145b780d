//! Ctrl-C and SIGTERM.

use std::io;
use std::thread::{self, JoinHandle};

use grapnel::{StopAt, StopHandle};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use signal_hook::low_level::{emulate_default_handler, signal_name};

/// Stops a run at the first SIGINT or SIGTERM, after the iteration and with a checkpoint. The
/// second one ends the process, as if it were not handled.
///
/// A thread of its own waits for them: a handler must not call the library.
pub struct StopOnSignal {
    handle: Handle,
    thread: JoinHandle<Option<u8>>,
}

impl StopOnSignal {
    pub fn new(run: StopHandle) -> io::Result<StopOnSignal> {
        let signals = Signals::new([SIGINT, SIGTERM])?;
        let handle = signals.handle();
        let thread =
            thread::Builder::new().name("signals".to_owned()).spawn(move || wait(signals, &run))?;
        Ok(StopOnSignal { handle, thread })
    }

    /// The number of the signal that came.
    pub fn finish(self) -> Option<u8> {
        self.handle.close();
        self.thread.join().expect("the thread of signals has no reason to panic")
    }
}

fn wait(mut signals: Signals, run: &StopHandle) -> Option<u8> {
    let mut first = None;
    for signal in signals.forever() {
        if first.is_none() {
            first = u8::try_from(signal).ok();
            let stopped = run.request_stop(StopAt::Now, signal_name(signal).unwrap_or("a signal"));
            if stopped.is_ok() {
                continue;
            }
        }
        // Comes back only if the system refuses to end us.
        let _ = emulate_default_handler(signal);
    }
    first
}
