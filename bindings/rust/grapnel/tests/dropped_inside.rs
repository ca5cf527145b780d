//! A runner that is dropped by one of its own callbacks, on a thread that it would have to wait
//! for.

mod runs;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{mpsc, Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use grapnel::{live_objects, CallbackResult, Dataset, Runner, TensorsRef};

use runs::{with_data_of, Plane, TempDir, SAMPLES};

const LONG: Duration = Duration::from_secs(30);

/// Where a runner is left for its callback.
#[derive(Clone, Default)]
struct Slot(Arc<(Mutex<Option<Runner>>, Condvar)>);

impl Slot {
    fn leave(&self, runner: Runner) {
        *self.0 .0.lock().unwrap() = Some(runner);
        self.0 .1.notify_all();
    }

    /// Waits for the runner, and drops it.
    fn drop_runner(&self) {
        let guard = self.0 .0.lock().unwrap();
        let (mut guard, time) =
            self.0 .1.wait_timeout_while(guard, LONG, |runner| runner.is_none()).unwrap();
        assert!(!time.timed_out(), "no runner was left here");
        let runner = guard.take();
        drop(guard);
        drop(runner);
    }
}

/// Where the runner is dropped.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Place {
    Dataset,
    Log,
    Records,
}

/// Reads a batch, and drops its own runner before the third.
struct Data {
    slot: Option<Slot>,
    calls: usize,
    dropped: mpsc::Sender<thread::ThreadId>,
    in_get: Arc<AtomicBool>,
}

impl Dataset for Data {
    fn len(&self) -> usize {
        SAMPLES
    }

    fn get(&mut self, index: usize, to: &mut TensorsRef) -> CallbackResult {
        self.in_get.store(true, Ordering::SeqCst);
        self.calls += 1;
        if self.calls == 12 {
            if let Some(slot) = self.slot.take() {
                slot.drop_runner();
                // It can't be gone: this is its data.
                self.calls += 1;
            }
        }
        let result = Plane.get(index, to);
        self.in_get.store(false, Ordering::SeqCst);
        result
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        assert!(!self.in_get.load(Ordering::SeqCst), "dropped while it is called");
        let _ = self.dropped.send(thread::current().id());
    }
}

#[test]
fn a_runner_that_its_own_threads_drop_is_destroyed_by_another() {
    for place in [Place::Dataset, Place::Log, Place::Records] {
        let dir = TempDir::new();
        let slot = Slot::default();
        let (dropped, was_dropped) = mpsc::channel();
        let at = |wanted: Place| (place == wanted).then(|| slot.clone());
        let (mut in_log, mut in_record) = (at(Place::Log), at(Place::Records));
        let mut lines = Vec::new();
        let data = Data { slot: at(Place::Dataset), calls: 0, dropped, in_get: Arc::default() };
        let mut runner = with_data_of(&dir, data)
            .set("train_dataloader.num_workers=1")
            .set("train_dataloader.prefetch_factor=4")
            .set("default_hooks.logger.interval=1")
            .log(move |_, line| {
                if line.contains("Epoch(train)") {
                    if let Some(slot) = in_log.take() {
                        slot.drop_runner();
                    }
                }
                // Its own memory is there until the last line.
                lines.push(line.to_owned());
            })
            .records(move |_| {
                if let Some(slot) = in_record.take() {
                    slot.drop_runner();
                }
                Ok(())
            })
            .build()
            .unwrap();
        runner.step().unwrap();
        let stop = runner.stop_handle();
        slot.leave(runner);
        let by = was_dropped.recv_timeout(LONG).unwrap_or_else(|e| panic!("{place:?}: {e}"));
        assert_ne!(by, thread::current().id());
        assert!(stop.request_stop(grapnel::StopAt::Now, "late").is_err());
        let end = Instant::now() + LONG;
        while live_objects() != 0 {
            assert!(Instant::now() < end, "{place:?}: {} objects live", live_objects());
            thread::sleep(Duration::from_millis(1));
        }
    }
}
