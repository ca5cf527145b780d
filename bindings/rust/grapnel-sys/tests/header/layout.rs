//! Sizes and offsets as Rust has them.

use std::mem::{offset_of, size_of};

use grapnel_sys::*;

#[derive(Debug, Clone)]
pub struct Layout {
    pub name: &'static str,
    pub size: usize,
    pub fields: Vec<&'static str>,
    pub offsets: Vec<usize>,
}

macro_rules! layouts {
    ($($name:ident { $($field:ident),* $(,)? })*) => {
        vec![$(Layout {
            name: stringify!($name),
            size: size_of::<$name>(),
            fields: vec![$(stringify!($field)),*],
            offsets: vec![$(offset_of!($name, $field)),*],
        }),*]
    };
}

pub fn all() -> Vec<Layout> {
    layouts! {
        grapnel_bytes { data, size }
        grapnel_hook_callbacks {
            struct_size, stages, priority, on_stage, save_state, load_state, destroy,
        }
        grapnel_dataset_callbacks { struct_size, size, thread_safe, get, get_batch, destroy }
        grapnel_stream_callbacks {
            struct_size, begin_pass, next, save_state, load_state, destroy,
        }
        grapnel_model_callbacks {
            struct_size, train_step, val_step, tensors_written, set_training, export_model, destroy,
        }
        grapnel_loss_callbacks { struct_size, compute, destroy }
        grapnel_metric_callbacks { struct_size, reset, process, compute, destroy }
        DLPackVersion { major, minor }
        DLDevice { device_type, device_id }
        DLDataType { code, bits, lanes }
        DLTensor { data, device, ndim, dtype, shape, strides, byte_offset }
        DLManagedTensorVersioned { version, manager_ctx, deleter, flags, dl_tensor }
    }
}
