//! Nothing to build; the rpath lets the program find Grapnel and LibTorch when it is started by
//! itself.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for name in ["DEP_GRAPNEL_LIBDIR", "DEP_TCH_LIBTORCH_LIB"] {
        if let Ok(libdir) = std::env::var(name) {
            println!("cargo:rustc-link-arg-bins=-Wl,-rpath,{libdir}");
        }
    }
}
