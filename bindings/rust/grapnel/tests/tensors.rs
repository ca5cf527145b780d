//! Tensors, named tensors and named numbers.

use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use grapnel::{Bfloat16, Code, DlTensor, Dtype, Element, Float16, Scalars, Tensor, Tensors};
use grapnel_sys as sys;

fn round_trip<T: Element + PartialEq + std::fmt::Debug>(elements: &[T], dtype: Dtype) {
    let shape = [1, elements.len()];
    let copied = Tensor::from_slice(elements, &shape).unwrap();
    let taken = Tensor::from_vec(elements.to_vec(), &shape).unwrap();
    for tensor in [copied.try_clone().unwrap(), copied, taken] {
        assert_eq!(tensor.dtype(), Some(dtype));
        assert_eq!(tensor.shape(), shape);
        assert_eq!(tensor.data::<T>().unwrap(), elements);
        assert_eq!(tensor.to_vec::<T>().unwrap(), elements);
        let mut out = elements.to_vec();
        tensor.copy_to(&mut out).unwrap();
        assert_eq!(out, elements);
    }
    let mut zeros = Tensor::zeros::<T>(&shape).unwrap();
    zeros.copy_from(elements).unwrap();
    assert_eq!(zeros.data::<T>().unwrap(), elements);
    assert_eq!(Tensor::from_scalar(elements[0]).unwrap().item::<T>().unwrap(), elements[0]);
}

#[test]
fn elements_come_out_as_they_went_in() {
    round_trip(&[true, false, true], Dtype::Bool);
    round_trip(&[1u8, 255], Dtype::Uint8);
    round_trip(&[-1i8, 127], Dtype::Int8);
    round_trip(&[-1i16, 300], Dtype::Int16);
    round_trip(&[-1i32, 70000], Dtype::Int32);
    round_trip(&[-1i64, 1 << 40], Dtype::Int64);
    round_trip(&[Float16(0x3c00), Float16(0xc000)], Dtype::Float16);
    round_trip(&[Bfloat16(0x3f80)], Dtype::Bfloat16);
    round_trip(&[1.5f32, -2.0], Dtype::Float32);
    round_trip(&[1.5f64, f64::MIN_POSITIVE], Dtype::Float64);
}

#[test]
fn what_does_not_fit_is_an_error_that_says_so() {
    let mut tensor = Tensor::from_slice(&[1.0f32, 2.0], &[2]).unwrap();
    let error = tensor.data::<f64>().unwrap_err();
    assert_eq!(error.message(), "tensor [2]: is of Float32, not of Float64");
    assert!(tensor.data_mut::<i32>().is_err());
    assert!(tensor.to_vec::<i64>().is_err());
    assert!(tensor.copy_from(&[1.0f64, 2.0]).is_err());
    assert_eq!(tensor.copy_from(&[1.0f32]).unwrap_err().code(), Code::InvalidArgument);
    assert!(tensor.copy_to(&mut [0.0f32; 3]).is_err());
    let error = tensor.item::<f32>().unwrap_err();
    assert_eq!(error.message(), "tensor [2]: must have one element, has 2");

    assert!(Tensor::from_slice(&[1.0f32], &[2]).is_err());
    let error = Tensor::from_vec(vec![1.0f32], &[2]).unwrap_err();
    assert_eq!(error.message(), "shape [2]: must have 1 elements");
    for shape in [&[usize::MAX][..], &[1 << 40, 1 << 40], &[1; 65], &[1 << 62, 2]] {
        assert!(Tensor::from_slice(&[0u8; 0], shape).is_err(), "{shape:?}");
        assert!(Tensor::from_vec(vec![0u8; 0], shape).is_err(), "{shape:?}");
    }
    assert!(Tensor::zeros::<f64>(&[1 << 61]).is_err());
    assert!(Tensor::zeros::<f64>(&[1 << 61, 8]).is_err());
}

#[test]
fn there_may_be_no_elements() {
    let mut tensor = Tensor::from_vec(Vec::<f32>::new(), &[3, 0]).unwrap();
    assert!(tensor.is_empty());
    assert_eq!(tensor.shape(), [3, 0]);
    assert!(tensor.data::<f32>().unwrap().is_empty());
    assert!(tensor.data_mut::<f32>().unwrap().is_empty());
    assert!(tensor.to_vec::<f32>().unwrap().is_empty());
    assert_eq!(tensor.try_clone().unwrap().shape(), [3, 0]);
    assert!(tensor.data::<f64>().is_err());
}

#[test]
fn a_vector_is_not_copied() {
    let elements = vec![1.0f32; 1000];
    let before = elements.as_ptr();
    let mut tensor = Tensor::from_vec(elements, &[10, 100]).unwrap();
    assert_eq!(tensor.data::<f32>().unwrap().as_ptr(), before);
    tensor.data_mut::<f32>().unwrap()[999] = 2.0;
    // Nor on its way to another library and back.
    let shared: DlTensor = tensor.into_dlpack().unwrap();
    assert_eq!(shared.as_raw().dl_tensor.data.cast_const().cast(), before);
    assert!(format!("{shared:?}").contains("ndim: 2"));
    let tensor = shared.into_tensor().unwrap();
    let elements = tensor.data::<f32>().unwrap();
    assert_eq!((elements.as_ptr(), elements[999]), (before, 2.0));
}

#[test]
fn a_foreign_struct_is_taken_and_deleted_once() {
    use grapnel_sys as sys;
    #[repr(C)]
    struct Foreign {
        managed: sys::DLManagedTensorVersioned,
        shape: [i64; 2],
        strides: [i64; 2],
        data: [i32; 6],
        deleted: Arc<AtomicUsize>,
    }
    unsafe extern "C" fn delete(managed: *mut sys::DLManagedTensorVersioned) {
        // SAFETY: the struct is the first field of what it was made of.
        let foreign = unsafe { Box::from_raw(managed.cast::<Foreign>()) };
        foreign.deleted.fetch_add(1, Ordering::Relaxed);
    }
    let new = |flags, deleted: &Arc<AtomicUsize>| {
        let mut foreign = Box::new(Foreign {
            managed: sys::DLManagedTensorVersioned {
                version: sys::DLPackVersion { major: 1, minor: 1 },
                manager_ctx: std::ptr::null_mut(),
                deleter: Some(delete),
                flags,
                dl_tensor: sys::DLTensor {
                    data: std::ptr::null_mut(),
                    device: sys::DLDevice { device_type: sys::kDLCPU, device_id: 0 },
                    ndim: 2,
                    dtype: sys::DLDataType { code: sys::kDLInt, bits: 32, lanes: 1 },
                    shape: std::ptr::null_mut(),
                    strides: std::ptr::null_mut(),
                    byte_offset: 0,
                },
            },
            shape: [2, 3],
            strides: [1, 2],
            data: [0, 1, 2, 3, 4, 5],
            deleted: Arc::clone(deleted),
        });
        foreign.managed.dl_tensor.data = foreign.data.as_mut_ptr().cast();
        foreign.managed.dl_tensor.shape = foreign.shape.as_mut_ptr();
        foreign.managed.dl_tensor.strides = foreign.strides.as_mut_ptr();
        let managed = std::ptr::NonNull::from(Box::leak(foreign)).cast();
        // SAFETY: it is as DLPack says, and nobody else has it.
        unsafe { DlTensor::from_raw(managed) }
    };
    let deleted = Arc::new(AtomicUsize::new(0));
    let tensor = new(0, &deleted).into_tensor().unwrap();
    // Columns lie one behind the other.
    assert_eq!(tensor.data::<i32>().unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(tensor.to_vec::<i32>().unwrap(), [0, 2, 4, 1, 3, 5]);
    assert_eq!(deleted.load(Ordering::Relaxed), 0);
    drop(tensor);
    assert_eq!(deleted.load(Ordering::Relaxed), 1);
    drop(new(0, &deleted));
    assert_eq!(deleted.load(Ordering::Relaxed), 2);
    let read_only = new(sys::DLPACK_FLAG_BITMASK_READ_ONLY, &deleted).into_tensor();
    assert!(read_only.unwrap_err().message().contains("read-only"));
    assert_eq!(deleted.load(Ordering::Relaxed), 3);
    let unknown = new(1 << 40, &deleted).into_tensor();
    assert_eq!(unknown.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(deleted.load(Ordering::Relaxed), 4);
}

#[test]
fn a_bool_is_0_or_1() {
    use grapnel_sys as sys;
    let shared = Tensor::from_slice(&[0u8, 1, 2], &[3]).unwrap().into_dlpack().unwrap();
    let raw = shared.into_raw();
    // SAFETY: it is ours, and its elements are bytes either way.
    let tensor = unsafe {
        (*raw).dl_tensor.dtype = sys::DLDataType { code: sys::kDLBool, bits: 8, lanes: 1 };
        DlTensor::from_raw(std::ptr::NonNull::new(raw).unwrap()).into_tensor().unwrap()
    };
    let error = tensor.data::<bool>().unwrap_err();
    assert_eq!(error.message(), "tensor: element 2 of Bool must be 0 or 1, is 2");
    assert_eq!(tensor.to_vec::<bool>().unwrap(), [false, true, true]);
    let mut copied = [false; 3];
    tensor.copy_to(&mut copied).unwrap();
    assert_eq!(copied, [false, true, true]);
    assert_eq!(tensor.to_tensor().unwrap().data::<bool>().unwrap(), [false, true, true]);
}

#[test]
fn raw_tensors_go_out_and_come_back() {
    let raw = Tensor::from_slice(&[7i64], &[1]).unwrap().into_raw();
    // SAFETY: it is ours.
    let tensor = unsafe { Tensor::from_raw(raw) };
    assert_eq!(tensor.item::<i64>().unwrap(), 7);
    assert_eq!(tensor.as_ref().len(), 1);
}

#[test]
fn named_tensors_keep_their_order() {
    let mut tensors = Tensors::new().unwrap();
    assert!(tensors.is_empty());
    tensors.insert("a", Tensor::from_scalar(1.0f32).unwrap()).unwrap();
    tensors.insert_slice("b", &[1u8, 2], &[2]).unwrap();
    tensors.insert_zeros::<i64>("c", &[2, 2]).unwrap()[3] = 9;
    tensors.insert_from_iter("d", &[3], (0..).map(|i| i as f64)).unwrap();
    let names: Vec<&str> = tensors.iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["a", "b", "c", "d"]);
    assert_eq!(tensors.iter().len(), 4);
    assert_eq!(tensors.require("c").unwrap().data::<i64>().unwrap(), [0, 0, 0, 9]);
    assert_eq!(tensors.get("d").unwrap().data::<f64>().unwrap(), [0.0, 1.0, 2.0]);
    tensors.get_mut("a").unwrap().data_mut::<f32>().unwrap()[0] = 4.0;
    let copy = tensors.to_tensors().unwrap();
    tensors.get_mut("a").unwrap().data_mut::<f32>().unwrap()[0] = 5.0;
    assert_eq!(copy.get("a").unwrap().item::<f32>().unwrap(), 4.0);
    assert!(tensors.get("e").is_none());
    assert!(tensors.get_mut("e").is_none());
    let error = tensors.require("e").unwrap_err();
    assert_eq!(error.message(), "there is no tensor \"e\" among [\"a\", \"b\", \"c\", \"d\"]");
    assert!(format!("{tensors:?}").contains("\"b\": Tensor"), "{tensors:?}");
    for (name, tensor) in &*tensors {
        assert_eq!(tensors.get(name).unwrap().len(), tensor.len());
    }
    tensors.clear();
    assert_eq!(tensors.len(), 0);
}

#[test]
fn a_name_is_there_once() {
    let mut tensors = Tensors::new().unwrap();
    tensors.insert_slice("a", &[1u8], &[1]).unwrap();
    let again = Tensor::from_scalar(2u8).unwrap();
    assert_eq!(tensors.insert("a", again).unwrap_err().code(), Code::AlreadyExists);
    assert!(tensors.insert_slice("a", &[2u8], &[1]).is_err());
    assert!(tensors.insert_zeros::<u8>("a", &[1]).is_err());
    assert!(tensors.insert_from_iter("a", &[1], [3u8]).is_err());
    assert_eq!(tensors.get("a").unwrap().item::<u8>().unwrap(), 1);
}

#[test]
fn rows_stand_one_behind_the_other() {
    let mut tensors = Tensors::new().unwrap();
    tensors.insert_rows("a", &[2, 3], [vec![1i64, 2, 3], vec![4, 5, 6]]).unwrap();
    assert_eq!(tensors.require("a").unwrap().data::<i64>().unwrap(), [1, 2, 3, 4, 5, 6]);
    // They need not be of one length, and there need be none.
    tensors.insert_rows("b", &[4], [&[1u8][..], &[], &[2, 3, 4]]).unwrap();
    assert_eq!(tensors.require("b").unwrap().data::<u8>().unwrap(), [1, 2, 3, 4]);
    tensors.insert_rows::<f32, [f32; 0]>("c", &[0, 9], []).unwrap();

    let error = tensors.insert_rows("d", &[2, 2], [[1.0f32, 2.0]]).unwrap_err();
    assert!(error.message().contains("\"d\": 2 of 4 elements are missing"), "{error}");
    assert_eq!(tensors.require("d").unwrap().data::<f32>().unwrap(), [1.0, 2.0, 0.0, 0.0]);
    let error = tensors.insert_rows("e", &[2], [vec![1.0f32], vec![2.0, 3.0]]).unwrap_err();
    assert!(error.message().contains("\"e\": row 1 goes beyond its 2 elements"), "{error}");
    assert_eq!(tensors.require("e").unwrap().data::<f32>().unwrap(), [1.0, 0.0]);
    assert!(tensors.insert_rows("a", &[1], [[1u8]]).is_err());
}

#[test]
fn too_few_elements_are_an_error_and_add_nothing_or_zeros() {
    let mut tensors = Tensors::new().unwrap();
    let missing = "tensor \"a\": 2 of 4 elements are missing";
    let error = tensors.insert_from_iter("a", &[4], [1.0f32, 2.0]).unwrap_err();
    assert_eq!(error.message(), missing);
    assert!(tensors.get("a").is_none());
    // Of one that can't tell.
    let odd = (1u8..5).filter(|i| i % 2 == 1).map(f32::from);
    let error = tensors.insert_from_iter("a", &[4], odd).unwrap_err();
    assert_eq!(error.message(), missing);
    assert_eq!(tensors.get("a").unwrap().data::<f32>().unwrap(), [1.0, 3.0, 0.0, 0.0]);
    let panics = std::panic::AssertUnwindSafe(|| {
        let bad = (0..4).map(|i| if i < 2 { i } else { panic!("no {i}") });
        let _ = tensors.insert_from_iter("b", &[4], bad);
    });
    assert!(std::panic::catch_unwind(panics).is_err());
    assert_eq!(tensors.get("b").unwrap().data::<i32>().unwrap(), [0, 1, 0, 0]);
    assert!(tensors.insert_zeros::<f32>("c", &[0, 1 << 50]).unwrap().is_empty());
    tensors.insert_from_iter::<f32>("d", &[0], []).unwrap();
    assert!(tensors.insert_zeros::<f32>("e", &[usize::MAX]).is_err());
}

#[test]
fn scalars_keep_their_order() {
    let mut scalars = Scalars::new().unwrap();
    assert!(scalars.is_empty());
    scalars.insert("b", 1.0).unwrap();
    scalars.insert("a", f64::NAN).unwrap();
    assert_eq!(scalars.get("b"), Some(1.0));
    assert!(scalars.get("a").unwrap().is_nan());
    assert_eq!(scalars.get("c"), None);
    assert_eq!(scalars.iter().len(), 2);
    assert_eq!((&*scalars).into_iter().next(), Some(("b", 1.0)));
    assert_eq!(format!("{scalars:?}"), "{\"b\": 1.0, \"a\": NaN}");
    assert_eq!(scalars.insert("a", 0.0).unwrap_err().code(), Code::AlreadyExists);
    scalars.clear();
    assert_eq!(scalars.len(), 0);
}

#[test]
fn memory_that_there_is_not_is_an_error() {
    // More than a process can address.
    const LEN: usize = 1 << 45;
    let mut tensors = Tensors::new().unwrap();
    for error in [
        Tensor::zeros::<f64>(&[LEN]).unwrap_err(),
        Tensor::zeros::<u8>(&[1 << 20, LEN >> 16]).unwrap_err(),
        tensors.insert_zeros::<f64>("a", &[LEN]).map(|_| ()).unwrap_err(),
    ] {
        assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
    }
    let wide = repeated(7.0, LEN);
    assert_eq!(wide.len(), LEN);
    for error in [
        wide.to_vec::<f64>().unwrap_err(),
        wide.to_tensor().unwrap_err(),
        wide.try_clone().unwrap_err(),
    ] {
        assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
        assert!(error.message().contains("35184372088832 elements of Float64"), "{error}");
    }
    assert_eq!(repeated(7.0, 3).to_vec::<f64>().unwrap(), [7.0; 3]);
}

/// A tensor whose elements are one, by a stride of 0.
fn repeated(value: f64, len: usize) -> Tensor {
    struct Owner {
        managed: sys::DLManagedTensorVersioned,
        value: f64,
        shape: i64,
        stride: i64,
    }
    unsafe extern "C" fn delete(managed: *mut sys::DLManagedTensorVersioned) {
        // SAFETY: the context is the box that it was made of.
        drop(unsafe { Box::from_raw((*managed).manager_ctx.cast::<Owner>()) });
    }
    let mut owner = Box::new(Owner {
        managed: sys::DLManagedTensorVersioned {
            version: sys::DLPackVersion { major: sys::DLPACK_MAJOR_VERSION, minor: 0 },
            manager_ctx: ptr::null_mut(),
            deleter: Some(delete),
            flags: 0,
            dl_tensor: sys::DLTensor {
                data: ptr::null_mut(),
                device: sys::DLDevice { device_type: sys::kDLCPU, device_id: 0 },
                ndim: 1,
                dtype: sys::DLDataType { code: sys::kDLFloat, bits: 64, lanes: 1 },
                shape: ptr::null_mut(),
                strides: ptr::null_mut(),
                byte_offset: 0,
            },
        },
        value,
        shape: len as i64,
        stride: 0,
    });
    owner.managed.dl_tensor.data = ptr::addr_of_mut!(owner.value).cast();
    owner.managed.dl_tensor.shape = ptr::addr_of_mut!(owner.shape);
    owner.managed.dl_tensor.strides = ptr::addr_of_mut!(owner.stride);
    let owner = Box::into_raw(owner);
    // SAFETY: the struct is whole, and its memory is nobody else's.
    unsafe {
        (*owner).managed.manager_ctx = owner.cast();
        let managed = ptr::addr_of_mut!((*owner).managed);
        DlTensor::from_raw(NonNull::new_unchecked(managed)).into_tensor().unwrap()
    }
}
