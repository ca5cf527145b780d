//! What is trained, and how: the config, in Grapnel's types.

use grapnel::pb::{
    AccuracyConfig, AdamWConfig, CheckpointHookConfig, Conv2dLayerConfig, CrossEntropyLossConfig,
    DataLoaderConfig, DefaultHooksConfig, DropoutLayerConfig, FlattenLayerConfig, LayerConfig,
    LinearLayerConfig, LinearSchedulerConfig, MaxPool2dLayerConfig, OptimWrapperConfig,
    RandomnessConfig, ReluLayerConfig, RunnerConfig, SamplerConfig, SequentialConfig, TrainConfig,
};

pub fn config(work_dir: &str, resume: bool) -> RunnerConfig {
    RunnerConfig {
        model: Some(network().into()),
        work_dir: Some(work_dir.to_owned()),
        resume: Some(resume),
        train_dataloader: Some(DataLoaderConfig {
            batch_size: Some(64),
            num_workers: Some(2),
            sampler: Some(SamplerConfig { shuffle: Some(true), ..Default::default() }),
            ..Default::default()
        }),
        val_dataloader: Some(DataLoaderConfig { batch_size: Some(90), ..Default::default() }),
        val_evaluator: vec![AccuracyConfig::default().into()],
        train_cfg: Some(TrainConfig { max_epochs: Some(8), ..Default::default() }),
        optim_wrapper: Some(OptimWrapperConfig {
            optimizer: Some(
                AdamWConfig { lr: Some(0.01), weight_decay: Some(0.05), ..Default::default() }
                    .into(),
            ),
            ..Default::default()
        }),
        param_scheduler: vec![warm_up().into()],
        default_hooks: Some(DefaultHooksConfig {
            checkpoint: Some(CheckpointHookConfig {
                interval: Some(1),
                max_keep_ckpts: Some(2),
                ..Default::default()
            }),
            ..Default::default()
        }),
        randomness: Some(RandomnessConfig { seed: Some(0), ..Default::default() }),
        ..Default::default()
    }
}

/// Sizes of inputs follow from the data.
fn network() -> SequentialConfig {
    SequentialConfig {
        layers: vec![
            convolution(16),
            ReluLayerConfig::default().into(),
            MaxPool2dLayerConfig { kernel_size: vec![2], ..Default::default() }.into(),
            convolution(32),
            ReluLayerConfig::default().into(),
            FlattenLayerConfig::default().into(),
            DropoutLayerConfig { p: Some(0.2) }.into(),
            LinearLayerConfig { out_features: Some(10), ..Default::default() }.into(),
        ],
        loss: Some(CrossEntropyLossConfig::default().into()),
        ..Default::default()
    }
}

fn convolution(out_channels: i64) -> LayerConfig {
    Conv2dLayerConfig {
        out_channels: Some(out_channels),
        kernel_size: vec![3],
        padding: vec![1],
        ..Default::default()
    }
    .into()
}

/// The rate grows for 20 iterations.
fn warm_up() -> LinearSchedulerConfig {
    LinearSchedulerConfig {
        start_factor: Some(0.1),
        by_epoch: Some(false),
        end: Some(20),
        ..Default::default()
    }
}
