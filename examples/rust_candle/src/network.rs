//! A network of Candle's.

use candle_core::{DType, Device, Result, Tensor, Var, D};
use grapnel::{CallbackResult, Gradients, Model, ScalarsRef, TensorsRef, Weights};

use crate::host;

/// Names and shapes of the parameters.
const SHAPES: [(&str, &[usize]); 6] = [
    ("hidden.weight", &[32, 2]),
    ("hidden.bias", &[32]),
    ("hidden2.weight", &[32, 32]),
    ("hidden2.bias", &[32]),
    ("output.weight", &[2, 32]),
    ("output.bias", &[2]),
];

/// Three layers. The variables are copies of the run's parameters.
pub struct Network {
    variables: Vec<Var>,
}

impl Network {
    pub fn new() -> Result<Network> {
        let variable = |(_, shape): &(&str, &[usize])| Var::zeros(*shape, DType::F32, &Device::Cpu);
        Ok(Network { variables: SHAPES.iter().map(variable).collect::<Result<_>>()? })
    }

    /// The parameters to begin with: small numbers, the same in every run.
    pub fn parameters() -> grapnel::Result<grapnel::Tensors> {
        let mut parameters = grapnel::Tensors::new()?;
        let mut state = 1u32;
        for (name, shape) in SHAPES {
            let scale = if shape.len() == 2 { (shape[1] as f32).sqrt().recip() } else { 0.0 };
            let numbers = std::iter::repeat_with(|| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                2.0 * scale * ((state >> 8) as f32 / (1 << 24) as f32 - 0.5)
            });
            parameters.insert_from_iter(name, shape, numbers)?;
        }
        Ok(parameters)
    }

    fn forward(&self, inputs: &Tensor) -> Result<Tensor> {
        let mut outputs = inputs.clone();
        for (index, layer) in self.variables.chunks_exact(2).enumerate() {
            outputs = outputs.matmul(&layer[0].t()?)?.broadcast_add(&layer[1])?;
            if index < 2 {
                outputs = outputs.tanh()?;
            }
        }
        Ok(outputs)
    }
}

/// Inputs and targets of a batch.
fn candle_batch(batch: &TensorsRef) -> CallbackResult<(Tensor, Tensor)> {
    let (input, target) = (batch.require("input")?, batch.require("target")?);
    Ok((
        Tensor::from_slice(input.data::<f32>()?, input.shape(), &Device::Cpu)?,
        Tensor::from_slice(target.data::<i64>()?, target.shape(), &Device::Cpu)?,
    ))
}

/// The mean cross entropy.
fn loss_of(outputs: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let shifted = outputs.broadcast_sub(&outputs.max_keepdim(D::Minus1)?.detach())?;
    let log_sums = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
    let logs = shifted.broadcast_sub(&log_sums)?;
    logs.gather(&targets.unsqueeze(1)?, 1)?.mean_all()?.neg()
}

impl Model for Network {
    fn train_step(
        &mut self,
        _weights: &mut Weights<'_>,
        batch: &TensorsRef,
        gradients: &mut Gradients<'_>,
        losses: &mut ScalarsRef,
    ) -> CallbackResult {
        let (inputs, targets) = candle_batch(batch)?;
        let loss = loss_of(&self.forward(&inputs)?, &targets)?;
        let computed = loss.backward()?;
        for ((name, shape), variable) in SHAPES.iter().zip(&self.variables) {
            let gradient = computed.get(variable).ok_or_else(|| format!("{name}: no gradient"))?;
            host::read(gradient, |elements| gradients.insert_slice(name, elements, shape))??;
        }
        losses.insert("loss", loss.to_scalar::<f32>()?.into())?;
        Ok(())
    }

    fn val_step(
        &mut self,
        _weights: &mut Weights<'_>,
        batch: &TensorsRef,
        predictions: &mut TensorsRef,
        losses: &mut ScalarsRef,
    ) -> CallbackResult {
        let (inputs, targets) = candle_batch(batch)?;
        let outputs = self.forward(&inputs)?;
        losses.insert("loss", loss_of(&outputs, &targets)?.to_scalar::<f32>()?.into())?;
        let shape = outputs.dims().to_vec();
        host::read(&outputs, |elements| predictions.insert_slice("output", elements, &shape))??;
        Ok(())
    }

    fn weights_written(&mut self, weights: &mut Weights<'_>) -> CallbackResult {
        for ((name, _), variable) in SHAPES.iter().zip(&self.variables) {
            host::write(variable, weights.parameter(name)?.data()?)?;
        }
        Ok(())
    }
}
