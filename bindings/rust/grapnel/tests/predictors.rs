//! Predictors while their run is being trained.

mod runs;

use std::sync::{mpsc, Arc, Mutex, OnceLock};
use std::{mem, thread};

use grapnel::{
    hook_fn, Builder, CallbackResult, Code, Dataset, Error, Predictor, PredictorHandle,
    PredictorWeights, Run, Stage, StopAt, Tensor, Tensors, TensorsRef,
};

use runs::{sample, small, with_data_of, Plane, TempDir, SAMPLES};

const TRAINED: PredictorWeights = PredictorWeights::Trained;

/// What callbacks predict with, once there is a runner to take it from.
type Later<T> = Arc<OnceLock<T>>;

/// Calls `body` once, after the first iteration, with a predictor of the run's.
fn once(
    builder: Builder,
    body: impl Fn(&mut Run<'_>, &Predictor, &PredictorHandle) -> CallbackResult + Send + 'static,
) {
    let given: Later<(Predictor, PredictorHandle)> = Later::default();
    let later = Arc::clone(&given);
    let hook = hook_fn(Stage::AfterTrainIter, move |_, run| {
        let (predictor, handle) = later.get().unwrap();
        body(run, predictor, handle)
    });
    let mut runner = builder.hook("once", hook).build().unwrap();
    let predictor = runner.predictor(TRAINED, 1).unwrap();
    assert!(given.set((predictor, runner.predictor_handle())).is_ok());
    runner.step().unwrap();
}

fn bias_of(predictor: &Predictor) -> f32 {
    let origin = Tensor::from_slice(&[0.0f32, 0.0], &[1, 2]).unwrap();
    predictor.predict(&origin).unwrap().item().unwrap()
}

/// A run of one layer, that learns nothing.
fn still(dir: &TempDir) -> Builder {
    let config = runs::CONFIG
        .replace("layers { linear { out_features: 8 } }", "")
        .replace("layers { relu {} }", "")
        .replace("layers { dropout { p: 0.25 } }", "")
        .replace("lr: 0.01", "lr: 0");
    small(dir).config_text(&config)
}

#[test]
fn weights_that_a_hook_may_be_writing_are_not_taken() {
    let dir = TempDir::new();
    once(still(&dir), |run, predictor, handle| {
        let mut bias = run.tensor("0.bias")?;
        let values = bias.data_mut::<f32>()?;
        values[0] = 1000.0;
        let error = predictor.refresh().unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
        assert!(error.message().contains("let go of it first"), "{error}");
        let error = handle.predictor(TRAINED, 1).unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
        values[0] = 3.0;
        drop(bias);
        predictor.refresh()?;
        assert_eq!(bias_of(predictor), 3.0);
        assert_eq!(bias_of(&handle.predictor(TRAINED, 1)?), 3.0);
        Ok(())
    });
}

#[test]
fn a_tensor_that_was_forgotten_is_let_go_of_with_the_hook() {
    let dir = TempDir::new();
    let given: Later<Predictor> = Later::default();
    let later = Arc::clone(&given);
    let hook = hook_fn(Stage::AfterTrainIter, move |_, run| {
        mem::forget(run.tensor("0.bias")?);
        assert!(later.get().unwrap().refresh().is_err());
        Ok(())
    });
    let mut runner = still(&dir).hook("forgetful", hook).build().unwrap();
    assert!(given.set(runner.predictor(TRAINED, 1).unwrap()).is_ok());
    runner.step().unwrap();
    given.get().unwrap().refresh().unwrap();
    assert_eq!(given.get().unwrap().iter(), 1);
}

#[test]
fn predictors_of_other_runs_do_not_mind() {
    let dirs = [TempDir::new(), TempDir::new()];
    let mut other = still(&dirs[0]).build().unwrap();
    other.step().unwrap();
    let others = other.predictor(TRAINED, 1).unwrap();
    once(still(&dirs[1]), move |run, _, _| {
        let _bias = run.tensor("0.bias")?;
        others.refresh()?;
        Ok(())
    });
}

#[test]
fn other_threads_make_and_refresh_them_while_it_trains() {
    let dir = TempDir::new();
    let hook = hook_fn(Stage::AfterTrainIter, |_, run| {
        // In its hands for most of the time.
        let mut bias = run.tensor("0.bias")?;
        let values = bias.data_mut::<f32>()?;
        values[0] = 1000.0;
        thread::yield_now();
        values[0] = 3.0;
        Ok(())
    });
    let builder = still(&dir).set("train_cfg.max_epochs=1000000").hook("writer", hook);
    let mut runner = builder.build().unwrap();
    runner.step().unwrap();
    let (handle, stop) = (runner.predictor_handle(), runner.stop_handle());
    let (send, receive) = mpsc::channel();
    let watcher = {
        let handle = handle.clone();
        thread::spawn(move || {
            receive.recv().unwrap();
            let predictor = handle.predictor(TRAINED, 1).unwrap();
            let mut before = predictor.iter();
            for _ in 0..20 {
                predictor.refresh().unwrap();
                assert!(predictor.iter() > before);
                before = predictor.iter();
                assert_eq!(bias_of(&predictor), 3.0);
            }
            stop.request_stop(StopAt::Now, "seen enough").unwrap();
            before
        })
    };
    send.send(()).unwrap();
    runner.train().unwrap();
    let seen = watcher.join().unwrap();
    assert!(seen <= runner.iter());
    drop(runner);
    let error = handle.predictor(TRAINED, 1).unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::FailedPrecondition, "runner: is gone"));
    assert!(format!("{handle:?}").contains("PredictorHandle"));
}

/// Reads samples, and refreshes a predictor meanwhile.
struct Refreshing {
    predictor: Later<Predictor>,
    errors: Arc<Mutex<Vec<Code>>>,
}

impl Dataset for Refreshing {
    fn len(&self) -> usize {
        SAMPLES
    }

    fn get(&mut self, index: usize, to: &mut TensorsRef) -> CallbackResult {
        if let Some(Err(error)) = self.predictor.get().map(Predictor::refresh) {
            self.errors.lock().unwrap().push(error.code());
        }
        Plane.get(index, to)
    }
}

#[test]
fn a_callback_that_a_call_may_be_waiting_for_is_refused_and_does_not_hang() {
    for workers in [0, 1] {
        let dir = TempDir::new();
        let (predictor, errors) = (Later::default(), Arc::default());
        let dataset = Refreshing { predictor: Arc::clone(&predictor), errors: Arc::clone(&errors) };
        let in_log: Later<Predictor> = Arc::clone(&predictor);
        let refused = Arc::new(Mutex::new(0));
        let count = Arc::clone(&refused);
        let mut runner = with_data_of(&dir, dataset)
            .set(&format!("train_dataloader.num_workers={workers}"))
            .log(move |_, _| {
                if in_log.get().is_some_and(|predictor| predictor.refresh().is_err()) {
                    *count.lock().unwrap() += 1;
                }
            })
            .build()
            .unwrap();
        runner.step().unwrap();
        assert!(predictor.set(runner.predictor(TRAINED, 1).unwrap()).is_ok());
        runner.train().unwrap();
        drop(runner);
        let errors = errors.lock().unwrap();
        // On the caller's thread it is as in a hook.
        assert_eq!(errors.is_empty(), workers == 0, "{errors:?}");
        assert!(errors.iter().all(|code| *code == Code::FailedPrecondition), "{errors:?}");
        assert!(*refused.lock().unwrap() > 0);
    }
}

#[test]
fn tensors_are_taken_by_any_reference() -> Result<(), Error> {
    let dir = TempDir::new();
    let mut runner = still(&dir).build().unwrap();
    runner.step().unwrap();
    let predictor = runner.predictor(TRAINED, 1).unwrap();
    let input = || Tensor::from_slice(&sample(3).0, &[1, 2]);
    let of = |output: Tensor| output.item::<f32>().unwrap();
    let output = of(predictor.predict(&input()?)?);
    let named = Tensors::from_named([("input", input()?)])?;
    assert_eq!(of(predictor.predict(named.require("input")?)?), output);
    assert_eq!(of(predictor.predict(&*input()?)?), output);
    runner.set_tensor("0.bias", &Tensor::from_slice(&[7.0f32], &[1])?)?;
    assert_eq!(of(runner.tensor("0.bias")?), 7.0);
    Ok(())
}
