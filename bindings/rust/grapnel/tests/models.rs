//! Models of callbacks.

mod runs;

use std::fs;
use std::sync::{Arc, Mutex};

use grapnel::{
    Builder, CallbackResult, Checkpoint, Code, Gradients, Model, Runner, ScalarsRef, SharedTensors,
    Tensor, Tensors, TensorsRef, Weights,
};

use runs::failing::{check, fails, Way};
use runs::{small, TempDir, ITERS};

/// y = w x + b, by loops.
struct Line {
    bad: Option<(Way, &'static str)>,
    calls: Arc<Mutex<Vec<&'static str>>>,
}

impl Line {
    fn at(&self, place: &'static str) -> CallbackResult {
        self.calls.lock().unwrap().push(place);
        match self.bad {
            Some((way, bad)) if bad == place => way.go(),
            _ => Ok(()),
        }
    }

    fn outputs(weights: &Weights<'_>, batch: &TensorsRef) -> CallbackResult<Vec<f32>> {
        let w = weights.parameter("w")?.data::<f32>()?;
        let b = weights.parameter("b")?.data::<f32>()?[0];
        let inputs = batch.require("input")?.data::<f32>()?;
        Ok(inputs.chunks_exact(2).map(|x| w[0] * x[0] + w[1] * x[1] + b).collect())
    }
}

impl Model for Line {
    fn train_step(
        &mut self,
        weights: &mut Weights<'_>,
        batch: &TensorsRef,
        gradients: &mut Gradients<'_>,
        losses: &mut ScalarsRef,
    ) -> CallbackResult {
        self.at("train_step")?;
        weights.buffer_mut("steps")?.data_mut::<i64>()?[0] += 1;
        assert!(weights.buffer_mut("nothing").is_err());
        let outputs = Line::outputs(weights, batch)?;
        let inputs = batch.require("input")?.data::<f32>()?;
        let targets = batch.require("target")?.data::<f32>()?;
        let n = outputs.len() as f32;
        let mut loss = 0.0;
        let mut slopes = [0.0; 3];
        for ((x, y), t) in inputs.chunks_exact(2).zip(outputs).zip(targets) {
            let d = y - t;
            loss += d * d / n;
            slopes[0] += 2.0 * d * x[0] / n;
            slopes[1] += 2.0 * d * x[1] / n;
            slopes[2] += 2.0 * d / n;
        }
        gradients.insert_zeros::<f32>("w", &[2])?.copy_from_slice(&slopes[..2]);
        gradients.insert_slice("b", &slopes[2..], &[1])?;
        losses.insert("loss", loss.into())?;
        Ok(())
    }

    fn val_step(
        &mut self,
        weights: &mut Weights<'_>,
        batch: &TensorsRef,
        predictions: &mut TensorsRef,
        losses: &mut ScalarsRef,
    ) -> CallbackResult {
        self.at("val_step")?;
        let outputs = Line::outputs(weights, batch)?;
        let shape = [outputs.len(), 1];
        predictions.insert("output", Tensor::from_vec(outputs, &shape)?)?;
        losses.insert("loss", 0.0)?;
        Ok(())
    }

    fn weights_written(&mut self, weights: &mut Weights<'_>) -> CallbackResult {
        let names: Vec<&str> = weights.parameters().map(|(name, _)| name).collect();
        assert_eq!(names, ["w", "b"]);
        assert_eq!(weights.buffers().len(), 1);
        self.at("weights_written")
    }

    fn set_training(&mut self, _training: bool) {
        if let Err(error) = self.at("set_training") {
            panic!("{error}");
        }
    }

    fn export(&mut self, weights: &mut Weights<'_>, path: &std::path::Path) -> CallbackResult {
        self.at("export")?;
        let b = weights.parameter("b")?;
        let mut copied = [0.0f32];
        b.copy_to(&mut copied)?;
        assert_eq!(b.to_tensor()?.data::<f32>()?, copied);
        assert_eq!(weights.buffer("steps")?.dtype(), Some(grapnel::Dtype::Int64));
        assert!(weights.buffer("nothing").is_err());
        assert!(format!("{weights:?} {b:?}").contains("\"steps\""));
        assert_eq!((b.len(), b.is_empty(), b.shape()), (1, false, &[1][..]));
        fs::write(path, format!("{:?}", b.to_vec::<f32>()?))?;
        Ok(())
    }
}

fn parameters() -> Tensors {
    Tensors::from_named([
        ("w", Tensor::zeros::<f32>(&[2]).unwrap()),
        ("b", Tensor::zeros::<f32>(&[1]).unwrap()),
    ])
    .unwrap()
}

fn buffers() -> Tensors {
    Tensors::from_named([("steps", Tensor::zeros::<i64>(&[1]).unwrap())]).unwrap()
}

fn without_model(dir: &TempDir) -> Builder {
    let start = runs::CONFIG.find("model {").unwrap();
    let end = runs::CONFIG.find("train_dataloader").unwrap();
    small(dir).config_text(&format!("{}{}", &runs::CONFIG[..start], &runs::CONFIG[end..]))
}

#[test]
fn a_model_trains_and_goes_into_checkpoints() {
    let dir = TempDir::new();
    let calls = Arc::new(Mutex::new(Vec::new()));
    let mut runner = without_model(&dir)
        .set("optim_wrapper.optimizer.adamw.lr=0.1")
        .model(Line { bad: None, calls: Arc::clone(&calls) }, parameters(), buffers())
        .build()
        .unwrap();
    let before = runner.val().unwrap().get("mse").unwrap();
    runner.train().unwrap();
    assert!(runner.val().unwrap().get("mse").unwrap() < before / 2.0);
    assert_eq!(runner.tensor("steps").unwrap().item::<i64>().unwrap(), ITERS);
    let path = dir.path().join("line.txt");
    runner.export(&path).unwrap();
    assert!(fs::read_to_string(path).unwrap().starts_with('['));
    for place in ["train_step", "val_step", "weights_written", "set_training", "export"] {
        assert!(calls.lock().unwrap().contains(&place), "{place}");
    }
    let checkpoint = Checkpoint::open(Checkpoint::latest(dir.path()).unwrap()).unwrap();
    let saved = checkpoint.tensors("model").unwrap().require("w").unwrap();
    assert_eq!(
        saved.to_vec::<f32>().unwrap(),
        runner.tensor("w").unwrap().to_vec::<f32>().unwrap()
    );
}

#[test]
fn a_model_fails() {
    for place in ["train_step", "val_step", "weights_written"] {
        let add = |builder: Builder, way| {
            let model = Line { bad: Some((way, place)), calls: Arc::default() };
            builder.model(model, parameters(), buffers())
        };
        fails("model callback", add, without_model);
    }
    // A call that can't fail lets the next one do so.
    let dir = TempDir::new();
    let model = Line { bad: Some((Way::Panic, "set_training")), calls: Arc::default() };
    let mut runner = without_model(&dir).model(model, parameters(), buffers()).build().unwrap();
    assert!(runner.train().unwrap_err().is_panic());
    // And an export that there isn't.
    let model = Line { bad: Some((Way::Error, "export")), calls: Arc::default() };
    drop(runner);
    let mut runner = without_model(&dir).model(model, parameters(), buffers()).build().unwrap();
    check(Way::Error, runner.export(dir.path().join("x")).unwrap_err(), "export_model");
}

#[test]
fn a_model_may_do_no_more_than_train() {
    struct Minimal;
    impl Model for Minimal {
        fn train_step(
            &mut self,
            _: &mut Weights<'_>,
            _: &TensorsRef,
            gradients: &mut Gradients<'_>,
            losses: &mut ScalarsRef,
        ) -> CallbackResult {
            gradients.insert("w", Tensor::from_slice(&[1.0f32, 2.0], &[2])?)?;
            losses.insert("loss", 0.5)?;
            Ok(())
        }
    }
    let dir = TempDir::new();
    let parameters = || Tensors::from_named([("w", Tensor::zeros::<f32>(&[2]).unwrap())]).unwrap();
    let none = SharedTensors::none().unwrap();
    assert_eq!(format!("{none:?}"), "{}");
    let mut runner = without_model(&dir).model(Minimal, parameters(), none).build().unwrap();
    let error = runner.val().unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented, "{error}");
    assert_eq!(runner.export(dir.path().join("x")).unwrap_err().code(), Code::Unimplemented);
    runner.step().unwrap();
    drop(runner);

    struct CannotEvaluate;
    impl Model for CannotEvaluate {
        fn train_step(
            &mut self,
            _: &mut Weights<'_>,
            _: &TensorsRef,
            _: &mut Gradients<'_>,
            _: &mut ScalarsRef,
        ) -> CallbackResult {
            Ok(())
        }
        fn can_evaluate(&self) -> bool {
            false
        }
    }
    let none = SharedTensors::none().unwrap();
    let made = without_model(&dir).model(CannotEvaluate, parameters(), none).build();
    let error = made.and_then(|mut runner: Runner| runner.val()).unwrap_err();
    assert!(!error.is_panic(), "{error}");
}
