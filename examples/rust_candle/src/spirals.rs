//! Two spirals, one inside the other.

use std::f32::consts::TAU;

use grapnel::{Result, Tensor, Tensors};

/// Points of each spiral.
const POINTS: usize = 200;

/// Points and the spirals that they are of; other points for another `part`.
pub fn spirals(part: usize) -> Result<Tensors> {
    let mut points = Vec::with_capacity(4 * POINTS);
    let mut labels = Vec::with_capacity(2 * POINTS);
    for index in 0..POINTS {
        let radius = 0.1 + 0.9 * (index as f32 + 0.5 * part as f32) / POINTS as f32;
        let angle = TAU * radius;
        for label in 0..2i64 {
            let turned = angle + 0.5 * TAU * label as f32;
            points.extend([radius * turned.cos(), radius * turned.sin()]);
            labels.push(label);
        }
    }
    let input = Tensor::from_vec(points, &[2 * POINTS, 2])?;
    let target = Tensor::from_vec(labels, &[2 * POINTS])?;
    Tensors::from_named([("input", input), ("target", target)])
}
