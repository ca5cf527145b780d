//! Losses and metrics of callbacks.

mod runs;

use grapnel::{
    Builder, CallbackResult, Code, Loss, Metric, Mode, ScalarsRef, Tensor, TensorRef, TensorsRef,
};

use runs::failing::{fails, Way};
use runs::{small, TempDir, SAMPLES};

struct SquaredError {
    way: Option<Way>,
}

impl Loss for SquaredError {
    fn loss(&mut self, output: &TensorRef, batch: &TensorsRef) -> CallbackResult<f64> {
        Ok(self.loss_and_gradient(output, batch)?.0)
    }

    fn loss_and_gradient(
        &mut self,
        output: &TensorRef,
        batch: &TensorsRef,
    ) -> CallbackResult<(f64, Tensor)> {
        if let Some(way) = self.way {
            way.go()?;
        }
        let targets = batch.require("target")?.data::<f32>()?;
        let outputs = output.data::<f32>()?;
        let n = outputs.len() as f32;
        let differences: Vec<f32> = outputs.iter().zip(targets).map(|(o, t)| o - t).collect();
        let loss = differences.iter().map(|d| d * d / n).sum::<f32>();
        let gradient = differences.iter().map(|d| 2.0 * d / n).collect();
        Ok((loss.into(), Tensor::from_vec(gradient, output.shape())?))
    }
}

fn without_loss(dir: &TempDir) -> Builder {
    small(dir).config_text(&runs::CONFIG.replace("loss { mse {} }", ""))
}

#[test]
fn a_loss_trains() {
    let dir = TempDir::new();
    let mut runner = without_loss(&dir).loss(SquaredError { way: None }).build().unwrap();
    let before = runner.val().unwrap().get("mse").unwrap();
    runner.train().unwrap();
    assert!(runner.val().unwrap().get("mse").unwrap() < before);
}

#[test]
fn a_loss_fails() {
    let add = |builder: Builder, way| builder.loss(SquaredError { way: Some(way) });
    fails("loss callback", add, without_loss);
}

struct Count {
    samples: usize,
    bad: Option<(Way, &'static str)>,
}

impl Count {
    fn at(&self, place: &str) -> CallbackResult {
        match self.bad {
            Some((way, bad)) if bad == place => way.go(),
            _ => Ok(()),
        }
    }
}

impl Metric for Count {
    fn reset(&mut self) -> CallbackResult {
        self.samples = 0;
        self.at("reset")
    }
    fn process(&mut self, predictions: &TensorsRef, batch: &TensorsRef) -> CallbackResult {
        assert_eq!(predictions.require("output")?.shape()[0], batch.require("target")?.shape()[0]);
        self.samples += batch.require("input")?.shape()[0];
        self.at("process")
    }
    fn compute(&mut self, metrics: &mut ScalarsRef) -> CallbackResult {
        metrics.insert("samples", self.samples as f64)?;
        assert_eq!(metrics.insert("samples", 1.0).unwrap_err().code(), Code::AlreadyExists);
        self.at("compute")
    }
}

#[test]
fn a_metric_measures() {
    let dir = TempDir::new();
    let count = || Count { samples: 0, bad: None };
    let mut runner =
        small(&dir).metric(Mode::Val, count()).metric(Mode::Test, count()).build().unwrap();
    let metrics = runner.val().unwrap();
    assert_eq!(metrics.get("samples"), Some(SAMPLES as f64));
    assert!(metrics.iter().any(|(name, _)| name == "mse"), "{metrics:?}");
    assert_eq!(runner.test().unwrap().get("samples"), Some(SAMPLES as f64));
    let error = small(&dir).metric(Mode::Train, count()).build().unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
}

#[test]
fn a_metric_fails() {
    for place in ["reset", "process", "compute"] {
        let add = |builder: Builder, way| {
            builder.metric(Mode::Val, Count { samples: 0, bad: Some((way, place)) })
        };
        fails("metric", add, small);
    }
}
