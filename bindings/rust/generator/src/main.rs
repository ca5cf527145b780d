//! Makes Rust of Grapnel's configs: `generator PROTO_DIR OUT_DIR`.
//!
//! PROTO_DIR is an installation's share/grapnel/proto. OUT_DIR gets a file for each package, and
//! `conversions.rs`. Needs `protoc` on the PATH.

mod conversions;
mod docs;

use std::path::{Path, PathBuf};
use std::{env, error, fs, process};

/// Files that no user's config or checkpoint is made of.
const LEFT_OUT: [&str; 3] = [
    "grapnel/hooks/conformance.proto",
    "grapnel/loggers/wandb_record.proto",
    "grapnel/loggers/tensorboard_event.proto",
];

fn main() {
    let arguments: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [protos, out] = &arguments[..] else {
        eprintln!("usage: generator PROTO_DIR OUT_DIR");
        process::exit(2);
    };
    if let Err(error) = generate(protos, out) {
        eprintln!("generator: {error}");
        process::exit(1);
    }
}

fn generate(protos: &Path, out: &Path) -> Result<(), Box<dyn error::Error>> {
    let mut files = Vec::new();
    find_protos(protos, &mut files)?;
    files.retain(|file| !LEFT_OUT.iter().any(|name| file == &protos.join(name)));
    files.sort();

    let mut config = prost_build::Config::new();
    config.out_dir(out);
    // Any holds the URL of a message that it is made of.
    config.enable_type_names();
    config.type_name_domain(["."], "type.googleapis.com");
    // The same file, whichever run made it.
    config.btree_map(["."]);
    let descriptors = config.load_fds(&files, &[protos])?;
    let conversions = conversions::write(&descriptors);
    config.compile_fds(descriptors)?;

    for entry in fs::read_dir(out)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name != "conversions.rs") {
            fs::write(&path, docs::fence(&fs::read_to_string(&path)?))?;
        }
    }
    fs::write(out.join("conversions.rs"), conversions)?;
    Ok(())
}

fn find_protos(dir: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            find_protos(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
