//! What may go to other threads, and what may be used by several; held by the compiler.

use grapnel::*;

const fn is_send<T: Send>() {}
const fn is_sync<T: Sync>() {}

const _: () = {
    is_send::<Runner>();
    is_send::<Builder>();
    is_send::<Tensor>();
    is_send::<Tensors>();
    is_send::<Scalars>();
    is_send::<SharedTensors>();
    is_send::<Checkpoint>();
    is_send::<Scheduler>();
    is_send::<Average>();
    is_send::<DlTensor>();
    is_send::<Predictor>();
    is_sync::<Predictor>();
    is_send::<PredictorHandle>();
    is_sync::<PredictorHandle>();
    is_send::<StopHandle>();
    is_sync::<StopHandle>();
    is_send::<Error>();
    is_sync::<Error>();
};

/// Fails to compile, as two implementations fit, if the type is what it must not be.
macro_rules! is_not {
    ($trait:ident: $($type:ty),* $(,)?) => {$(
        const _: fn() = || {
            trait Ambiguous<A> {
                fn f() {}
            }
            impl<T: ?Sized> Ambiguous<()> for T {}
            struct Invalid;
            impl<T: ?Sized + $trait> Ambiguous<Invalid> for T {}
            let _ = <$type as Ambiguous<_>>::f;
        };
    )*};
}

is_not!(Sync: Runner, Builder, Tensor, Tensors, Scalars, Checkpoint, Scheduler, Average);
is_not!(Send: Run<'static>, &'static TensorRef, &'static TensorsRef, &'static ScalarsRef);
is_not!(Sync: Run<'static>, TensorRef, TensorsRef, ScalarsRef);

#[test]
fn a_tensor_is_dropped_on_another_thread() {
    let tensor = Tensor::from_vec(vec![1.0f32; 8], &[8]).unwrap();
    std::thread::spawn(move || drop(tensor)).join().unwrap();
}
