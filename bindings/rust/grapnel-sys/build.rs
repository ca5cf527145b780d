//! Finds an installation of Grapnel and links to it; src/lib.rs says where it looks.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io, process};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for name in ["GRAPNEL_PREFIX", "PKG_CONFIG", "PKG_CONFIG_PATH", "DOCS_RS"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    // Documentation needs no library.
    if env::var_os("DOCS_RS").is_some() {
        return;
    }
    if let Err(error) = find().and_then(|installation| emit(&installation)) {
        eprintln!("grapnel-sys: {error}");
        process::exit(1);
    }
}

/// Tells cargo of an installation.
fn emit(installation: &Installation) -> Result<(), String> {
    let Installation { libdir, includedir } = installation;
    println!("cargo:rerun-if-changed={}", libdir.join("libgrapnel.so").display());
    // Cargo puts a folder below OUT_DIR on LD_LIBRARY_PATH, and no other. The library finds
    // LibTorch from where it is, so that its folder comes along.
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for name in ["libgrapnel.so", "libgrapnel.so.0", "grapnel"] {
        link(&libdir.join(name), &out.join(name))
            .map_err(|error| format!("{}: {error}", out.join(name).display()))?;
    }
    println!("cargo:rustc-link-search=native={}", out.display());
    println!("cargo:rustc-link-lib=dylib=grapnel");
    println!("cargo:libdir={}", libdir.display());
    println!("cargo:include={}", includedir.display());
    println!("cargo:rustc-env=GRAPNEL_INCLUDE_DIR={}", includedir.display());
    println!("cargo:rustc-env=GRAPNEL_LIB_DIR={}", libdir.display());
    Ok(())
}

struct Installation {
    libdir: PathBuf,
    includedir: PathBuf,
}

fn find() -> Result<Installation, String> {
    let installation = if let Some(prefix) = env::var_os("GRAPNEL_PREFIX") {
        let prefix = PathBuf::from(prefix);
        Installation { libdir: prefix.join("lib"), includedir: prefix.join("include") }
    } else {
        Installation { libdir: variable("libdir")?, includedir: variable("includedir")? }
    };
    let absolute =
        |path: &Path| path.canonicalize().map_err(|error| format!("{}: {error}", path.display()));
    let installation = Installation {
        libdir: absolute(&installation.libdir)?,
        includedir: absolute(&installation.includedir)?,
    };
    for file in [
        installation.libdir.join("libgrapnel.so"),
        installation.includedir.join("grapnel/grapnel.h"),
    ] {
        if !file.is_file() {
            return Err(format!("{}: there is no such file", file.display()));
        }
    }
    Ok(installation)
}

/// A variable of pkg-config's file for grapnel.
fn variable(name: &str) -> Result<PathBuf, String> {
    let program = env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".to_owned());
    let hint = "set GRAPNEL_PREFIX to where Grapnel is installed, or PKG_CONFIG_PATH to its \
                lib/pkgconfig";
    let output = Command::new(&program)
        .args(["--variable", name, "grapnel"])
        .output()
        .map_err(|error| format!("{program}: {error}; {hint}"))?;
    let value = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() || value.is_empty() {
        return Err(format!("{program} knows no grapnel; {hint}"));
    }
    Ok(PathBuf::from(without_escapes(&value)))
}

/// What pkg-config means: it writes for a shell, with a backslash in front of a space.
fn without_escapes(value: &str) -> String {
    let mut text = String::new();
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        text.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    text
}

/// Makes `to` a link to `from`, if that is there.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    match fs::remove_file(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    if from.exists() {
        std::os::unix::fs::symlink(from, to)?;
    }
    Ok(())
}
