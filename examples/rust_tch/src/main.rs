//! Trains a network of tch's on two spirals, and prints how well it tells them apart.
//!
//! tch computes outputs and gradients; Grapnel has the loop, the optimizer, the schedule, the
//! average and the checkpoints. Parameters are shared, not copied: what the optimizer moves is
//! tch's own.

mod spirals;

use std::path::Path;
use std::process::ExitCode;

use grapnel::{
    CallbackResult, Gradients, Mode, Model, Runner, ScalarsRef, SharedTensors, Tensor, TensorsRef,
    Weights,
};
use tch::nn::{self, Module};
use tch::{Device, Kind};

const CONFIG: &str = r#"
    train_dataloader { batch_size: 32 sampler { shuffle: true } }
    val_dataloader { batch_size: 100 }
    val_evaluator { accuracy { topk: 1 } }
    train_cfg { max_epochs: 150 }
    optim_wrapper { optimizer { adamw { lr: 0.02 } } }
    param_scheduler { cosine_annealing { eta_min: 0.0002 } }
    custom_hooks { config { [hooks/EMAHook] { momentum: 0.02 } } }
    default_hooks { checkpoint { interval: 50 } }
    randomness { seed: 1 }
"#;

/// The network, and the variables that it is made of.
struct Network {
    layers: nn::Sequential,
    variables: Vec<(String, tch::Tensor)>,
}

impl Network {
    fn new(store: &nn::VarStore) -> Network {
        let root = store.root();
        let layers = nn::seq()
            .add(nn::linear(&root / "hidden", 2, 32, Default::default()))
            .add_fn(tch::Tensor::tanh)
            .add(nn::linear(&root / "hidden2", 32, 32, Default::default()))
            .add_fn(tch::Tensor::tanh)
            .add(nn::linear(&root / "output", 32, 2, Default::default()));
        Network { layers, variables: store.variables().into_iter().collect() }
    }
}

impl Model for Network {
    fn train_step(
        &mut self,
        _weights: &mut Weights<'_>,
        batch: &TensorsRef,
        gradients: &mut Gradients<'_>,
        losses: &mut ScalarsRef,
    ) -> CallbackResult {
        for (_, variable) in &mut self.variables {
            variable.zero_grad();
        }
        let inputs = tch::Tensor::try_from(batch.require("input")?)?;
        let targets = tch::Tensor::try_from(batch.require("target")?)?;
        let loss = self.layers.forward(&inputs).cross_entropy_for_logits(&targets);
        loss.f_backward()?;
        for (name, variable) in &self.variables {
            gradients.insert_tch(name, &variable.grad())?;
        }
        losses.insert("loss", loss.f_double_value(&[])?)?;
        Ok(())
    }

    fn val_step(
        &mut self,
        _weights: &mut Weights<'_>,
        batch: &TensorsRef,
        predictions: &mut TensorsRef,
        losses: &mut ScalarsRef,
    ) -> CallbackResult {
        let inputs = tch::Tensor::try_from(batch.require("input")?)?;
        let targets = tch::Tensor::try_from(batch.require("target")?)?;
        let outputs = tch::no_grad(|| self.layers.forward(&inputs));
        let loss = outputs.cross_entropy_for_logits(&targets);
        losses.insert("loss", loss.f_double_value(&[])?)?;
        predictions.insert("output", Tensor::try_from(&outputs)?)?;
        Ok(())
    }
}

fn train(work_dir: &Path) -> CallbackResult<f64> {
    tch::manual_seed(1);
    let store = nn::VarStore::new(Device::Cpu);
    let network = Network::new(&store);
    // SAFETY: the run and the network are used by this thread only, and nobody resizes a variable.
    let (parameters, buffers) = unsafe { SharedTensors::from_var_store(&store)? };
    let before = store.variables()["output.weight"].copy();
    let mut runner = Runner::builder()
        .config_text(CONFIG)
        .work_dir(work_dir)
        .tensors(Mode::Train, spirals::spirals(0)?)
        .tensors(Mode::Val, spirals::spirals(1)?)
        .model(network, parameters, buffers)
        .log_to_stderr()
        .build()?;
    runner.train()?;
    let accuracy = runner.val()?.get("accuracy/top1").ok_or("there is no accuracy")?;

    // tch's own tensors are those that were trained.
    let after = &store.variables()["output.weight"];
    let trained = runner.tensor("output.weight")?.to_vec::<f32>()?;
    if after.eq_tensor(&before).all().f_int64_value(&[])? != 0 {
        return Err("tch's weights have not moved".into());
    }
    if Vec::<f32>::try_from(after.f_to_kind(Kind::Float)?.f_flatten(0, -1)?)? != trained {
        return Err("tch's weights are not the run's".into());
    }
    Ok(accuracy)
}

fn main() -> ExitCode {
    let Some(work_dir) = std::env::args_os().nth(1) else {
        eprintln!("usage: rust_tch WORK_DIR");
        return ExitCode::from(2);
    };
    match train(Path::new(&work_dir)) {
        Ok(accuracy) => {
            println!("accuracy/top1 {accuracy:.4}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("rust_tch: {error}");
            ExitCode::FAILURE
        }
    }
}
