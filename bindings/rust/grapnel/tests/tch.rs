//! Models of tch's tensors. Built by `--features tch`, over the same LibTorch.
#![cfg(feature = "tch")]

mod runs;

use grapnel::{
    hook_fn, CallbackResult, Code, Gradients, Mode, Model, Runner, ScalarsRef, SharedTensors,
    Stage, Tensor, TensorsRef, Weights,
};
use tch::{Device, Kind};

use runs::{Plane, TempDir};

#[test]
fn tensors_are_copied_both_ways() {
    for kind in [
        Kind::Bool,
        Kind::Uint8,
        Kind::Int8,
        Kind::Int16,
        Kind::Int,
        Kind::Int64,
        Kind::Half,
        Kind::BFloat16,
        Kind::Float,
        Kind::Double,
    ] {
        let theirs = tch::Tensor::from_slice(&[0i64, 1, 1, 0, 1, 0]).to_kind(kind).view([2, 3]);
        // Turned round, so that it has gaps.
        for theirs in [theirs.copy(), theirs.t_copy().transpose(0, 1)] {
            let ours = Tensor::try_from(&theirs).unwrap();
            assert_eq!(ours.shape(), [2, 3]);
            let again = tch::Tensor::try_from(&*ours).unwrap();
            assert_eq!(again.kind(), kind);
            assert!(again.equal(&theirs), "{kind:?}");
        }
    }
    let complex = tch::Tensor::zeros([2], (Kind::ComplexFloat, Device::Cpu));
    assert_eq!(Tensor::try_from(&complex).unwrap_err().code(), Code::Unimplemented);
}

#[test]
fn what_can_not_be_shared_is_refused() {
    let mut shared = SharedTensors::none().unwrap();
    // SAFETY: it is refused; here and below.
    let error = unsafe { shared.insert_tch("w", &tch::Tensor::new()) }.unwrap_err();
    assert!(error.message().contains("undefined"), "{error}");
    let sparse = tch::Tensor::eye(2, (Kind::Float, Device::Cpu)).to_sparse(None, None::<i64>, None);
    // SAFETY: as above.
    let error = unsafe { shared.insert_tch("w", &sparse) }.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
}

/// y = x w.
struct Linear {
    w: tch::Tensor,
}

impl Model for Linear {
    fn train_step(
        &mut self,
        weights: &mut Weights<'_>,
        batch: &TensorsRef,
        gradients: &mut Gradients<'_>,
        losses: &mut ScalarsRef,
    ) -> CallbackResult {
        // No slices of what tch may write; copies are fine, and are what tch has.
        let seen = weights.parameter("w")?;
        assert_eq!(seen.data::<f32>().unwrap_err().code(), Code::FailedPrecondition);
        assert_eq!(seen.to_vec::<f32>()?, Vec::<f32>::try_from(&self.w.flatten(0, -1))?);
        self.w.zero_grad();
        let inputs = tch::Tensor::try_from(batch.require("input")?)?;
        let targets = tch::Tensor::try_from(batch.require("target")?)?;
        let loss = (inputs.matmul(&self.w) - targets).square().mean(Kind::Float);
        loss.backward();
        let mut gradient = self.w.grad();
        gradients.insert_tch("w", &gradient)?;
        // It was copied: what becomes of it is of no interest.
        let _ = gradient.fill_(f64::NAN);
        let _ = gradient.detach().resize_([1 << 20]);
        losses.insert("loss", loss.double_value(&[]))?;
        Ok(())
    }

    fn can_evaluate(&self) -> bool {
        false
    }
}

#[test]
fn training_moves_tchs_own_tensor() {
    let dir = TempDir::new();
    let w = tch::Tensor::zeros([2, 1], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let mut parameters = SharedTensors::none().unwrap();
    // SAFETY: the model and this thread have it, one after the other.
    unsafe { parameters.insert_tch("w", &w) }.unwrap();
    let hook = hook_fn(Stage::AfterTrainIter, |_, run| {
        let mut w = run.tensor("w")?;
        assert!(w.data::<f32>().is_err() && w.data_mut::<f32>().is_err());
        let values = w.to_vec::<f32>()?;
        w.copy_from(&values)?;
        Ok(())
    });
    let mut runner = Runner::builder()
        .config_text(
            "train_dataloader { batch_size: 8 sampler { shuffle: true } }
             train_cfg { max_epochs: 20 }
             optim_wrapper { optimizer { sgd { lr: 0.2 } } accumulative_counts: 2 }
             randomness { seed: 1 }",
        )
        .work_dir(dir.path())
        .log(|_, _| {})
        .dataset(Mode::Train, Plane)
        .model(Linear { w: w.shallow_clone() }, parameters, SharedTensors::none().unwrap())
        .hook("look", hook)
        .build()
        .unwrap();
    runner.train().unwrap();
    let theirs = Vec::<f32>::try_from(&w.detach().flatten(0, -1)).unwrap();
    assert_eq!(theirs, runner.tensor("w").unwrap().to_vec::<f32>().unwrap());
    assert!((theirs[0] - 1.0).abs() < 0.3 && (theirs[1] - 2.0).abs() < 0.1, "{theirs:?}");
    drop(runner);
    // The memory is tch's still.
    assert_eq!(Vec::<f32>::try_from(&w.detach().flatten(0, -1)).unwrap(), theirs);
}

#[test]
fn a_store_is_parameters_and_buffers() {
    let store = tch::nn::VarStore::new(Device::Cpu);
    let _ = store.root().zeros("b", &[1]);
    let _ = store.root().zeros("a", &[2]);
    let _ = store.root().zeros_no_train("seen", &[3]);
    // SAFETY: nobody writes them.
    let (parameters, buffers) = unsafe { SharedTensors::from_var_store(&store) }.unwrap();
    let text = format!("{parameters:?} {buffers:?}");
    assert!(text.find("\"a\"") < text.find("\"b\""), "{text}");
    assert!(text.ends_with("shape: [3], .. }}"), "{text}");
}
