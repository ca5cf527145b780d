//! Holds src/*.rs against grapnel.h: nothing is missing and nothing is too many, and a C compiler
//! takes every function, constant, type, size and offset for what it is called here.

mod c;
mod declarations;
mod header;
mod layout;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

use declarations::Declarations;
use header::Header;

fn include_dir() -> PathBuf {
    PathBuf::from(env!("GRAPNEL_INCLUDE_DIR"))
}

fn torch_include_dir() -> PathBuf {
    PathBuf::from(env!("GRAPNEL_LIB_DIR")).join("grapnel/torch/include")
}

/// Compiles C without a warning.
fn compile(name: &str, source: &str, includes: &[PathBuf]) {
    let dir = env::temp_dir().join(format!("grapnel_sys_{name}_{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let file = dir.join(format!("{name}.c"));
    fs::write(&file, source).unwrap();
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let mut command = Command::new(&compiler);
    command.args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"]);
    for include in includes {
        command.arg("-isystem").arg(include);
    }
    let output = command.arg(&file).output().unwrap_or_else(|e| panic!("{compiler}: {e}"));
    assert!(
        output.status.success(),
        "{}:\n{}",
        file.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    fs::remove_dir_all(&dir).unwrap();
}

fn names<T>(of: &BTreeMap<String, T>) -> Vec<&String> {
    of.keys().collect()
}

#[test]
fn all_of_the_header_is_declared_and_nothing_else() {
    let header = Header::read(&include_dir().join("grapnel/grapnel.h"));
    let ours = Declarations::read();
    assert!(header.functions.len() > 100, "{:?}", header.functions);
    assert_eq!(names(&ours.functions), header.functions.iter().collect::<Vec<_>>());
    let constants: Vec<_> =
        ours.constants.keys().filter(|name| name.starts_with("GRAPNEL_")).collect();
    assert_eq!(constants, header.constants.iter().collect::<Vec<_>>());
    let structs: Vec<_> = ours.structs.keys().filter(|name| name.starts_with("grapnel_")).collect();
    assert_eq!(structs, header.structs.iter().collect::<Vec<_>>());
    let types: Vec<_> = ours.aliases.keys().filter(|name| name.starts_with("grapnel_")).collect();
    assert_eq!(types, header.aliases.iter().collect::<Vec<_>>());
    assert_eq!(ours.opaque, header.opaque);
}

#[test]
fn fields_are_those_of_the_header() {
    let header = Header::read(&include_dir().join("grapnel/grapnel.h"));
    let ours = Declarations::read();
    for (name, fields) in &header.fields {
        let declared: Vec<&String> = ours.structs[name].iter().map(|(field, _)| field).collect();
        assert_eq!(declared, fields.iter().collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn a_c_compiler_takes_every_declaration() {
    let ours = Declarations::read();
    let mut source = String::from("#include <stddef.h>\n#include \"grapnel/grapnel.h\"\n");
    source += &c::functions(&ours);
    source += &c::constants(&ours, |name| name.starts_with("GRAPNEL_"));
    source += &c::aliases(&ours, |name| name.starts_with("grapnel_"));
    source += &c::structs(&ours, &layout::all(), |name| name.starts_with("grapnel_"));
    compile("grapnel", &source, &[include_dir()]);
}

#[test]
fn dlpack_is_that_of_libtorch() {
    let ours = Declarations::read();
    let mut source = String::from("#include <stddef.h>\n#include \"ATen/dlpack.h\"\n");
    source += &c::constants(&ours, |name| name.starts_with("DLPACK") || name.starts_with("kDL"));
    source += &c::structs(&ours, &layout::all(), |name| name.starts_with("DL"));
    compile("dlpack", &source, &[torch_include_dir()]);
}

/// What the checks are worth: each of these mistakes is found.
#[test]
fn a_mistake_is_found() {
    let good = Declarations::read();
    let fails = |declarations: &Declarations, layouts: &[layout::Layout]| {
        let mut source = String::from("#include <stddef.h>\n#include \"grapnel/grapnel.h\"\n");
        source += &c::functions(declarations);
        source += &c::constants(declarations, |name| name.starts_with("GRAPNEL_"));
        source += &c::structs(declarations, layouts, |name| name.starts_with("grapnel_"));
        let includes = [include_dir()];
        std::panic::catch_unwind(|| compile("mistake", &source, &includes)).is_err()
    };
    assert!(!fails(&good, &layout::all()));

    let mut bad = good.clone();
    bad.functions.get_mut("grapnel_tensor_rank").unwrap().result = Some("i64".to_owned());
    assert!(fails(&bad, &layout::all()), "a result");

    let mut bad = good.clone();
    bad.functions.get_mut("grapnel_tensors_add").unwrap().arguments[1] = "*mut c_char".to_owned();
    assert!(fails(&bad, &layout::all()), "an argument");

    let mut bad = good.clone();
    bad.constants.insert("GRAPNEL_INT16".to_owned(), "11".to_owned());
    assert!(fails(&bad, &layout::all()), "a constant");

    let mut layouts = layout::all();
    let hook = layouts.iter_mut().find(|l| l.name == "grapnel_hook_callbacks").unwrap();
    hook.offsets[2] += 4;
    assert!(fails(&good, &layouts), "an offset");

    let mut bad = good.clone();
    let hook = bad.structs.get_mut("grapnel_hook_callbacks").unwrap();
    hook[2].1 = "u32".to_owned();
    assert!(fails(&bad, &layout::all()), "a field's type");
}
