//! What works without a runner, and configs.

mod runs;

use std::fs;

use grapnel::pb::{
    AveragedModelConfig, CheckpointHookConfig, DataLoaderConfig, DefaultHooksConfig, EmaHookConfig,
    ExponentialMovingAverageConfig, HookSpec, LayerConfig, LinearLayerConfig, LossConfig,
    ModelConfig, MseLossConfig, OptimWrapperConfig, OptimizerConfig, ParamSchedulerConfig,
    RandomnessConfig, ReduceOnPlateauSchedulerConfig, RunnerConfig, SamplerConfig,
    SequentialConfig, SgdConfig, StepSchedulerConfig, TrainConfig,
};
use grapnel::{safetensors, Average, Checkpoint, Code, Mode, Runner, Scheduler, Tensor, Tensors};

use runs::{small, weights, Plane, TempDir, CONFIG};

// ----------------------------------------------------------------- configs

fn config(dir: &TempDir) -> RunnerConfig {
    let linear = LinearLayerConfig { out_features: Some(1), ..Default::default() };
    let sequential = SequentialConfig {
        layers: vec![linear.into()],
        loss: Some(MseLossConfig {}.into()),
        ..Default::default()
    };
    RunnerConfig {
        model: Some(sequential.into()),
        work_dir: Some(dir.path().to_str().unwrap().to_owned()),
        train_dataloader: Some(DataLoaderConfig {
            batch_size: Some(8),
            sampler: Some(SamplerConfig { shuffle: Some(true), ..Default::default() }),
            ..Default::default()
        }),
        train_cfg: Some(TrainConfig { max_epochs: Some(2), ..Default::default() }),
        optim_wrapper: Some(OptimWrapperConfig {
            optimizer: Some(SgdConfig { lr: Some(0.05), ..Default::default() }.into()),
            ..Default::default()
        }),
        default_hooks: Some(DefaultHooksConfig {
            checkpoint: Some(CheckpointHookConfig { interval: Some(1), ..Default::default() }),
            ..Default::default()
        }),
        custom_hooks: vec![
            EmaHookConfig { momentum: Some(0.1), ..Default::default() }.into(),
            HookSpec::new(&EmaHookConfig { name: Some("two".to_owned()), ..Default::default() })
                .with_priority("LOW"),
        ],
        randomness: Some(RandomnessConfig { seed: Some(1), ..Default::default() }),
        ..Default::default()
    }
}

#[test]
fn a_run_is_made_of_typed_configs_text_json_or_a_file() {
    let dir = TempDir::new();
    let typed = config(&dir);
    let mut runner = Runner::builder().config(&typed).dataset(Mode::Train, Plane).build().unwrap();
    runner.train().unwrap();
    let expected = weights(&runner);
    let (text, json) = (runner.config_text().unwrap(), runner.config_json().unwrap());
    let resolved = runner.config().unwrap();
    assert_eq!(resolved.custom_hooks[0].config, typed.custom_hooks[0].config);
    assert_eq!(
        resolved.custom_hooks[1].config.as_ref().unwrap().type_url,
        "type.googleapis.com/grapnel.hooks.v1.EMAHookConfig"
    );
    drop(runner);
    let sections = Checkpoint::open(Checkpoint::latest(dir.path()).unwrap()).unwrap();
    assert!(sections.sections().unwrap().contains(&"ema_two".to_owned()));

    let other = TempDir::new();
    let file = other.path().join("again.textproto");
    fs::write(&file, &text).unwrap();
    let elsewhere = other.path().join("run");
    for builder in [
        Runner::builder().config_text(&text).base_dir(other.path()),
        Runner::builder().config_json(&json),
        Runner::builder().config_file(&file),
    ] {
        let mut runner = builder
            .work_dir(&elsewhere)
            .log_to_stderr()
            .dataset(Mode::Train, Plane)
            .build()
            .unwrap();
        runner.train().unwrap();
        assert_eq!(weights(&runner), expected);
    }
}

#[test]
fn a_work_dir_may_have_any_name() {
    let dir = TempDir::new();
    for name in ["plain", "a b", "q\"'u", "back\\n", "tab\t1", "gr\u{fc}n", "zero\u{200b}width"] {
        let path = dir.path().join(name);
        let mut runner = small(&dir).work_dir(&path).build().unwrap();
        assert_eq!(runner.work_dir().unwrap(), path);
        runner.step().unwrap();
        runner.save("iter_1").unwrap();
        assert!(path.join("iter_1").is_dir(), "{name:?}");
    }
    // A relative one starts where the config's paths do.
    let runner = small(&dir).base_dir(dir.path()).work_dir("below").build().unwrap();
    assert_eq!(runner.work_dir().unwrap(), dir.path().join("below"));
    let error = small(&dir).work_dir(dir.path().join("a\0b")).build().unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
}

#[test]
fn the_first_mistake_is_the_builders_error() {
    let error = Runner::builder()
        .config_text("modle {}")
        .set("also=wrong")
        .dataset(Mode::Train, Plane)
        .build()
        .unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("modle"), "{error}");
    let builder = Runner::builder().set("train_cfg.max_epoch=3");
    assert!(format!("{builder:?}").contains("max_epoch"), "{builder:?}");
    assert!(builder.build().unwrap_err().message().contains("max_epochs"));
    assert!(Runner::builder().config_json("{").build().is_err());
    let error = Runner::builder().config_file("/nowhere/x.textproto").build().unwrap_err();
    assert_eq!(error.code(), Code::NotFound, "{error}");
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        let path = std::ffi::OsStr::from_bytes(b"\xff");
        for builder in [
            Runner::builder().config_file(path),
            Runner::builder().base_dir(path),
            Runner::builder().work_dir(path),
        ] {
            assert!(builder.build().unwrap_err().message().contains("UTF-8"));
        }
    }
}

#[test]
fn kinds_become_what_they_are_kinds_of() {
    let linear = LinearLayerConfig { out_features: Some(3), ..Default::default() };
    let layer = LayerConfig::from(linear);
    assert_eq!(layer.kind, Some(grapnel::pb::layer_config::Kind::Linear(linear)));
    assert_eq!(layer.name, None);
    let loss = LossConfig::from(MseLossConfig {});
    assert!(matches!(loss.kind, Some(grapnel::pb::loss_config::Kind::Mse(_))));
    let optimizer = OptimizerConfig::from(SgdConfig::default());
    assert!(matches!(optimizer.kind, Some(grapnel::pb::optimizer_config::Kind::Sgd(_))));
    let model = ModelConfig::from(SequentialConfig::default());
    assert!(matches!(model.kind, Some(grapnel::pb::model_config::Kind::Sequential(_))));
    let any = grapnel::pb::any(&SgdConfig { lr: Some(1.0), ..Default::default() });
    assert_eq!(any.type_url, "type.googleapis.com/grapnel.optim.v1.SgdConfig");
}

#[test]
fn the_library_tells_what_it_is() {
    assert_eq!(grapnel::version().major, grapnel::VERSION.major);
    assert!(grapnel::version() >= grapnel::VERSION);
    assert_eq!(grapnel::VERSION.to_string(), "0.1");
    assert!(grapnel::build_info().contains("libtorch 2."), "{}", grapnel::build_info());
    let names = grapnel::registered_configs().unwrap();
    assert!(names.contains(&"grapnel.hooks.v1.EMAHookConfig".to_owned()), "{names:?}");
    assert!(names.is_sorted());
}

// -------------------------------------------------------------- checkpoints

#[test]
fn checkpoints_are_read_and_checked() {
    let dir = TempDir::new();
    let mut runner = small(&dir).build().unwrap();
    runner.train().unwrap();
    let expected = runner.tensor("0.weight").unwrap().to_vec::<f32>().unwrap();
    drop(runner);
    let names = Checkpoint::list(dir.path()).unwrap();
    assert_eq!(names[0], "epoch_3");
    let latest = Checkpoint::latest(dir.path()).unwrap();
    assert_eq!(latest, dir.path().join("epoch_3"));
    Checkpoint::verify(&latest).unwrap();
    let checkpoint = Checkpoint::open(&latest).unwrap();
    assert_eq!((checkpoint.epoch(), checkpoint.iter()), (3, runs::ITERS));
    assert!(format!("{checkpoint:?}").contains("epoch: 3"));
    assert_eq!(checkpoint.manifest().unwrap().name, "epoch_3");
    assert!(checkpoint.sections().unwrap().contains(&"model".to_owned()));
    let weight = checkpoint.tensors("model").unwrap().require("0.weight").unwrap();
    assert_eq!(weight.data::<f32>().unwrap(), expected);
    assert_eq!(checkpoint.tensors("nothing").unwrap_err().code(), Code::NotFound);

    let nowhere = dir.path().join("nowhere");
    assert_eq!(Checkpoint::open(&nowhere).unwrap_err().code(), Code::NotFound);
    assert_eq!(Checkpoint::latest(TempDir::new().path()).unwrap_err().code(), Code::NotFound);
    let file = latest.join("model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::remove_file(&file).unwrap();
    fs::write(&file, bytes).unwrap();
    let error = Checkpoint::verify(&latest).unwrap_err();
    assert_eq!(error.code(), Code::DataLoss);
    assert!(error.message().contains("model.safetensors"), "{error}");
}

#[test]
fn a_run_begins_with_a_pth() {
    let run = |dir: &TempDir, more: &str| {
        Runner::builder()
            .config_text(&format!("{CONFIG} {more}"))
            .work_dir(dir.path())
            .log(|_, _| {})
            .dataset(Mode::Train, Plane)
            .dataset(Mode::Val, Plane)
            .dataset(Mode::Test, Plane)
            .build()
    };
    let saved = TempDir::new();
    let saves = "default_hooks { checkpoint { interval: 1 also_write: 'pth' } }";
    run(&saved, saves).unwrap().train().unwrap();
    let path = saved.path().join("epoch_3.pth");
    let load_from = format!("load_from: '{}'", path.display());

    let dir = TempDir::new();
    let mut runner = run(&dir, &load_from).unwrap();
    runner.test().unwrap();
    // It has the weights that are evaluated: those of the average.
    let checkpoint = Checkpoint::open(saved.path().join("epoch_3")).unwrap();
    let average = checkpoint.tensors("ema").unwrap();
    for name in runner.tensor_names().unwrap() {
        let begun = runner.tensor(&name).unwrap().to_vec::<f32>().unwrap();
        assert_eq!(begun, average.require(&name).unwrap().data::<f32>().unwrap(), "{name}");
    }

    let mut bytes = fs::read(&path).unwrap();
    bytes[100] ^= 1; // Of the pickle.
    fs::write(&path, bytes).unwrap();
    let error = run(&TempDir::new(), &load_from).unwrap_err();
    assert_eq!(error.code(), Code::DataLoss, "{error}");
    assert!(error.message().contains("epoch_3.pth"), "{error}");
}

#[test]
fn safetensors_come_back() {
    let dir = TempDir::new();
    let file = dir.path().join("x.safetensors");
    let tensors = Tensors::from_named([
        ("a", Tensor::from_slice(&[1.0f32, 2.0], &[2]).unwrap()),
        ("b", Tensor::from_slice(&[true], &[]).unwrap()),
    ])
    .unwrap();
    safetensors::write(&file, &tensors).unwrap();
    let mut read = safetensors::read(&file).unwrap();
    assert_eq!(read.require("a").unwrap().data::<f32>().unwrap(), [1.0, 2.0]);
    assert!(read.require("b").unwrap().item::<bool>().unwrap());
    read.get_mut("a").unwrap().data_mut::<f32>().unwrap()[0] = 3.0;
    assert_eq!(safetensors::read(dir.path().join("y")).unwrap_err().code(), Code::NotFound);
    assert!(safetensors::write(dir.path().join("no/z"), &tensors).is_err());
}

// ------------------------------------------------------ schedulers, averages

#[test]
fn a_scheduler_moves_numbers_and_goes_on() {
    let config = StepSchedulerConfig { step_size: Some(2), gamma: Some(0.5), ..Default::default() };
    let config = ParamSchedulerConfig::from(config);
    let new = |values: &[f64]| Scheduler::new(&config, values, Some(10), None).unwrap();
    let mut scheduler = new(&[1.0, 8.0]);
    assert_eq!(scheduler.values(), [1.0, 8.0]);
    scheduler.apply().unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        scheduler.step().unwrap();
        seen.push(scheduler.values()[1]);
    }
    assert_eq!(seen, [8.0, 4.0, 4.0]);
    let mut resumed = new(&[1.0, 8.0]);
    resumed.values_mut().copy_from_slice(scheduler.values());
    resumed.load_state(&scheduler.save_state().unwrap()).unwrap();
    for scheduler in [&mut scheduler, &mut resumed] {
        scheduler.step().unwrap();
        assert_eq!(scheduler.values(), [0.25, 2.0]);
    }
    assert!(format!("{resumed:?}").contains("0.25"));
    assert!(resumed.step_metric(1.0).is_err());
    assert!(resumed.load_state(b"nonsense").is_err());
    assert!(Scheduler::new(&config, &[], None, None).is_err());
    assert!(Scheduler::new(&config, &[f64::NAN], None, None).is_err());
    assert!(Scheduler::new(&config, &[1.0], Some(u64::MAX), None).is_err());
    assert!(Scheduler::new(&ParamSchedulerConfig::default(), &[1.0], None, None).is_err());
}

#[test]
fn a_scheduler_follows_a_metric() {
    let config = ReduceOnPlateauSchedulerConfig {
        monitor: Some("loss".to_owned()),
        patience: Some(0),
        factor: Some(0.1),
        ..Default::default()
    };
    let mut scheduler = Scheduler::new(&config.into(), &[1.0], None, None).unwrap();
    scheduler.apply().unwrap();
    for _ in 0..3 {
        scheduler.step().unwrap();
        scheduler.step_metric(5.0).unwrap();
    }
    assert!(scheduler.values()[0] < 0.5, "{scheduler:?}");
}

#[test]
fn an_average_averages() {
    let config = AveragedModelConfig {
        strategy: Some(
            ExponentialMovingAverageConfig { momentum: Some(0.5), ..Default::default() }.into(),
        ),
        ..Default::default()
    };
    let tensors = |name, value: f32| {
        Tensors::from_named([(name, Tensor::from_slice(&[value], &[1]).unwrap())]).unwrap()
    };
    let mut average = Average::new(&config, tensors("w", 1.0), Some(tensors("seen", 0.0))).unwrap();
    average.update().unwrap();
    average.parameter_mut("w").unwrap().data_mut::<f32>().unwrap()[0] = 3.0;
    average.buffer_mut("seen").unwrap().data_mut::<f32>().unwrap()[0] = 9.0;
    assert!(average.parameter_mut("v").is_none());
    assert!(average.buffer_mut("v").is_none());
    average.update().unwrap();
    assert_eq!(average.steps(), 2);
    let w = |average: &Average| average.parameters().require("w").unwrap().item::<f32>().unwrap();
    assert_eq!(average.buffers().unwrap().require("seen").unwrap().item::<f32>().unwrap(), 9.0);
    assert_eq!(average.state().unwrap().require("w").unwrap().item::<f32>().unwrap(), 2.0);
    assert_eq!(w(&average), 3.0);
    average.swap_in().unwrap();
    assert_eq!(w(&average), 2.0);
    average.swap_out().unwrap();
    assert_eq!(w(&average), 3.0);

    let saved = average.state().unwrap().to_tensors().unwrap();
    let mut other = Average::new(&config, tensors("w", 3.0), Some(tensors("seen", 9.0))).unwrap();
    other.load_state(&saved, 2).unwrap();
    other.update().unwrap();
    average.update().unwrap();
    let state =
        |average: &Average| average.state().unwrap().require("w").unwrap().item::<f32>().unwrap();
    assert_eq!(state(&other), state(&average));
    assert!(format!("{:?} {:?}", average, average.state().unwrap()).contains("steps: 3"));
    average.swap_in().unwrap();
    let (parameters, buffers) = average.into_tensors();
    assert_eq!(parameters.require("w").unwrap().item::<f32>().unwrap(), 3.0);
    assert_eq!(buffers.unwrap().len(), 1);
    assert!(other.load_state(&Tensors::new().unwrap(), u64::MAX).is_err());
    let without = Average::new(&config, tensors("w", 3.0), None).unwrap();
    assert!(without.buffers().is_none());
    assert!(without.into_tensors().1.is_none());
}
