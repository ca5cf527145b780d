//! Nothing of the library's is left alive, and everything of the user's is dropped once. The tests
//! of this file share what they count, so they come one at a time.

mod runs;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fmt, thread};

use grapnel::pb::{AveragedModelConfig, ExponentialMovingAverageConfig};
use grapnel::{
    hook_fn, live_objects, reset_process_log, set_process_log, Access, Average, CallbackResult,
    Dataset, Mode, Predictor, PredictorWeights, Record, Severity, Stage, StopAt, Tensor, Tensors,
    TensorsRef,
};

use runs::{sample, small, without_data, Plane, TempDir, SAMPLES};

static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    let guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(live_objects(), 0);
    guard
}

/// Counts its drops.
#[derive(Clone)]
struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct Counted(#[allow(dead_code, reason = "it is dropped")] Dropped);

impl Dataset for Counted {
    fn len(&self) -> usize {
        SAMPLES
    }
    fn get(&mut self, index: usize, to: &mut TensorsRef) -> CallbackResult {
        Plane.get(index, to)
    }
}

#[test]
fn tensors_leave_nothing() {
    let _alone = alone();
    let tensors = Tensors::from_named([
        ("a", Tensor::from_vec(vec![1.0f32; 10], &[10]).unwrap()),
        ("b", Tensor::zeros::<i64>(&[2]).unwrap()),
    ])
    .unwrap();
    assert!(live_objects() > 0);
    let mut other = tensors.to_tensors().unwrap();
    assert!(other.insert("a", Tensor::from_scalar(1u8).unwrap()).is_err());
    drop(Tensor::from_scalar(1u8).unwrap().through_dlpack());
    drop((tensors, other));
    assert_eq!(live_objects(), 0);
}

trait Back {
    fn through_dlpack(self) -> Tensor;
}

impl Back for Tensor {
    fn through_dlpack(self) -> Tensor {
        self.into_dlpack().unwrap().into_tensor().unwrap()
    }
}

#[test]
fn a_run_leaves_nothing_wherever_it_ends() {
    let _alone = alone();
    for steps in [0, 1, 7, 100] {
        let dir = TempDir::new();
        let drops = Arc::new(AtomicUsize::new(0));
        let dropped = || Counted(Dropped(Arc::clone(&drops)));
        let in_hook = Dropped(Arc::clone(&drops));
        let in_log = Dropped(Arc::clone(&drops));
        let in_record = Dropped(Arc::clone(&drops));
        let mut runner = without_data(&dir)
            .set("train_dataloader.num_workers=2")
            .dataset(Mode::Train, dropped())
            .dataset(Mode::Val, dropped())
            .dataset(Mode::Test, dropped())
            .log(move |_, _| {
                let _ = &in_log;
            })
            .records(move |_| {
                let _ = &in_record;
                Ok(())
            })
            .hook(
                "keep",
                hook_fn(Stage::AfterTrainIter, move |_, run| {
                    let _ = (&in_hook, run.batch()?);
                    let _ = run.tensor("0.bias")?;
                    Ok(())
                }),
            )
            .build()
            .unwrap();
        for step in runner.steps().take(steps) {
            step.unwrap();
        }
        assert_eq!(drops.load(Ordering::Relaxed), 0);
        drop(runner);
        assert_eq!(drops.load(Ordering::Relaxed), 6, "{steps} steps");
        assert_eq!(live_objects(), 0);
    }
}

#[test]
fn a_run_that_is_never_made_leaves_nothing() {
    let _alone = alone();
    let drops = Arc::new(AtomicUsize::new(0));
    let dropped = || Counted(Dropped(Arc::clone(&drops)));
    let dir = TempDir::new();
    // Never built, not buildable, and refused.
    drop(without_data(&dir).dataset(Mode::Train, dropped()));
    assert!(without_data(&dir).dataset(Mode::Train, dropped()).build().is_err());
    let named = |name: &str| {
        let in_hook = Dropped(Arc::clone(&drops));
        small(&dir).hook(
            name,
            hook_fn(Stage::AfterTrainIter, move |_, _| {
                let _ = &in_hook;
                Ok(())
            }),
        )
    };
    assert!(named("").build().is_err());
    assert!(named("\u{0}").build().is_err());
    drop(named("fine"));
    // Replaced by another.
    let builder = small(&dir).dataset(Mode::Train, dropped());
    drop(builder.dataset(Mode::Train, Plane).build().unwrap());
    assert_eq!(drops.load(Ordering::Relaxed), 6);
    assert_eq!(live_objects(), 0);
}

#[test]
fn a_panic_in_a_drop_ends_there() {
    let _alone = alone();
    let dir = TempDir::new();
    let hook = |loud: Loud| {
        hook_fn(Stage::AfterTrainIter, move |_, _| {
            let _ = &loud;
            Ok(())
        })
    };
    let log = |loud: Loud| {
        move |_: Severity, _: &str| {
            let _ = &loud;
        }
    };
    let record = |loud: Loud| {
        move |_: &Record<'_>| {
            let _ = &loud;
            Ok(())
        }
    };
    let mut runner = small(&dir)
        .hook("loud", hook(Loud))
        .log(log(Loud))
        .records(record(Loud))
        .dataset(Mode::Train, Loud)
        .build()
        .unwrap();
    runner.step().unwrap();
    drop(runner);
    // Of a builder, and what is refused or comes behind that.
    drop(small(&dir).hook("loud", hook(Loud)).log(log(Loud)).records(record(Loud)));
    let builder = small(&dir).hook("", hook(Loud)).hook("late", hook(Loud)).log(log(Loud));
    assert!(builder.dataset(Mode::Train, Loud).build().is_err());
    // One that replaces another.
    drop(small(&dir).log(log(Loud)).log(log(Loud)).dataset(Mode::Train, Loud));
    assert_eq!(live_objects(), 0);
}

/// Panics when it is dropped.
#[derive(Debug)]
struct Loud;

impl Drop for Loud {
    fn drop(&mut self) {
        panic!("on the way out");
    }
}

impl fmt::Display for Loud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("loud")
    }
}

impl std::error::Error for Loud {}

/// Gives no batches.
impl Dataset for Loud {
    fn len(&self) -> usize {
        SAMPLES
    }
    fn access(&self) -> Access {
        Access::Both
    }
    fn get(&mut self, index: usize, to: &mut TensorsRef) -> CallbackResult {
        Plane.get(index, to)
    }
    fn get_batch(&mut self, _: &[usize], _: &mut TensorsRef) -> CallbackResult {
        Err(Loud.into())
    }
}

#[test]
fn a_panic_in_an_errors_drop_ends_there() {
    let _alone = alone();
    // More than are kept.
    let dir = TempDir::new();
    let mut runner = small(&dir).dataset(Mode::Train, Loud).build().unwrap();
    runner.train().unwrap();
    drop(runner);
    // One that can't say what it is either.
    #[derive(Debug)]
    struct Mute(#[allow(dead_code, reason = "it is dropped")] Loud);
    impl fmt::Display for Mute {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("don't ask")
        }
    }
    impl std::error::Error for Mute {}
    let dir = TempDir::new();
    let hook = hook_fn(Stage::AfterTrainIter, |_, _| Err(Mute(Loud).into()));
    let mut runner = small(&dir).hook("mute", hook).build().unwrap();
    assert!(runner.step().unwrap_err().is_panic());
    drop(runner);
    assert_eq!(live_objects(), 0);
}

#[test]
fn predictors_and_stop_handles_outlive_the_runner() {
    let _alone = alone();
    let dir = TempDir::new();
    let mut runner = small(&dir).build().unwrap();
    runner.train().unwrap();
    let predictor = runner.predictor(PredictorWeights::Evaluated, 1).unwrap();
    let handle = runner.stop_handle();
    drop(runner);
    let inputs = Tensor::from_slice(&sample(3).0, &[1, 2]).unwrap();
    let first = predictor.predict(&inputs).unwrap().item::<f32>().unwrap();
    let opened = Predictor::open(dir.path(), PredictorWeights::Evaluated, 1).unwrap();
    assert_eq!(opened.predict(&inputs).unwrap().item::<f32>().unwrap(), first);
    assert!(handle.request_stop(StopAt::Now, "late").is_err());
    drop((predictor, opened, inputs, handle));
    assert_eq!(live_objects(), 0);
}

#[test]
fn errors_leave_nothing() {
    let _alone = alone();
    let dir = TempDir::new();
    let drops = Arc::new(AtomicUsize::new(0));
    #[derive(Debug)]
    struct Mine(#[allow(dead_code, reason = "it is dropped")] Arc<AtomicUsize>);
    impl std::fmt::Display for Mine {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("mine")
        }
    }
    impl std::error::Error for Mine {}
    impl Drop for Mine {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let count = Arc::clone(&drops);
    let hook = hook_fn(Stage::AfterTrainIter, move |_, _| Err(Mine(Arc::clone(&count)).into()));
    let mut runner = small(&dir).hook("bad", hook).build().unwrap();
    let mut failures = 0;
    let mut more = true;
    while more {
        // One that failed goes on behind the hook that did.
        match runner.step() {
            Ok(goes_on) => more = goes_on,
            Err(error) => {
                assert_eq!(drops.load(Ordering::Relaxed), failures);
                failures += 1;
                drop(error);
                assert_eq!(drops.load(Ordering::Relaxed), failures);
            }
        }
    }
    assert_eq!(failures, runs::ITERS as usize);
    drop(runner);
    assert_eq!(live_objects(), 0);
}

#[test]
fn what_the_process_says_goes_to_its_log() {
    let _alone = alone();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&lines);
    set_process_log(move |severity: Severity, line: &str| {
        sink.lock().unwrap().push((severity, line.to_owned()));
    });
    average_of_a_large_momentum();
    reset_process_log();
    let heard = lines.lock().unwrap().clone();
    let [(Severity::Warning, line)] = &heard[..] else { panic!("{heard:?}") };
    assert!(line.starts_with("momentum: is 0.9"), "{line}");

    // One that panics loses its line, and may set another one.
    set_process_log(|_, _| panic!("no more lines"));
    average_of_a_large_momentum();
    set_process_log(|_, _| set_process_log(|_, _| {}));
    average_of_a_large_momentum();
    average_of_a_large_momentum();
    reset_process_log();
    assert_eq!(Arc::strong_count(&lines), 1);
    assert_eq!(live_objects(), 0);
}

#[test]
fn sinks_of_the_process_log_set_others_while_threads_do() {
    let _alone = alone();
    fn sink(_: Severity, _: &str) {
        set_process_log(sink);
    }
    set_process_log(sink);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..200).for_each(|_| average_of_a_large_momentum()));
            scope.spawn(|| (0..200).for_each(|_| set_process_log(sink)));
        }
    });
    reset_process_log();
}

/// What the library warns of, outside of any run.
fn average_of_a_large_momentum() {
    let strategy = ExponentialMovingAverageConfig { momentum: Some(0.9), ..Default::default() };
    let config = AveragedModelConfig { strategy: Some(strategy.into()), ..Default::default() };
    Average::new(&config, Tensors::new().unwrap(), None).unwrap();
}
