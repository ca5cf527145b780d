//! Holds src/*.rs against grapnel.h: nothing is missing and nothing is too many, and a C compiler
//! takes every function, constant, type, size and offset for what it is called here.

mod c;
mod declarations;
mod header;
mod layout;

use std::collections::{BTreeMap, BTreeSet};
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
    fs::remove_dir_all(&dir).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}:\n{said}", file.display());
}

/// What is in one of them only.
fn differences(header: &Header, ours: &Declarations) -> Vec<String> {
    fn compare<'a>(
        what: &str,
        theirs: impl IntoIterator<Item = &'a String>,
        ours: impl IntoIterator<Item = &'a String>,
    ) -> Vec<String> {
        let theirs: BTreeSet<_> = theirs.into_iter().collect();
        let ours: BTreeSet<_> = ours.into_iter().collect();
        let missing = theirs.difference(&ours).map(|name| format!("{what} {name}: is missing"));
        let extra = ours.difference(&theirs).map(|name| format!("{what} {name}: is not there"));
        missing.chain(extra).collect()
    }
    fn starting<'a, T>(
        prefix: &'a str,
        of: &'a BTreeMap<String, T>,
    ) -> impl Iterator<Item = &'a String> {
        of.keys().filter(move |name| name.starts_with(prefix))
    }
    let mut found = compare("function", &header.functions, ours.functions.keys());
    found.extend(compare("constant", &header.constants, starting("GRAPNEL_", &ours.constants)));
    found.extend(compare("struct", &header.structs, starting("grapnel_", &ours.structs)));
    found.extend(compare("type", &header.aliases, starting("grapnel_", &ours.aliases)));
    found.extend(compare("opaque type", &header.opaque, &ours.opaque));
    for (name, fields) in &header.fields {
        let declared = ours.structs.get(name).into_iter().flatten().map(|(field, _)| field);
        if !declared.eq(fields) {
            found.push(format!("struct {name}: has other fields"));
        }
    }
    found
}

fn header() -> Header {
    Header::read(&include_dir().join("grapnel/grapnel.h"))
}

#[test]
fn all_of_the_header_is_declared_and_nothing_else() {
    let header = header();
    assert!(header.functions.len() > 100, "{:?}", header.functions);
    assert!(header.fields.len() > 5, "{:?}", header.fields);
    assert_eq!(differences(&header, &Declarations::read()), Vec::<String>::new());
}

#[test]
fn what_is_missing_or_too_much_is_found() {
    let (header, good) = (header(), Declarations::read());
    let only = |bad: &Declarations, expected: &str| {
        assert_eq!(differences(&header, bad), [expected]);
    };

    let mut bad = good.clone();
    let function = bad.functions.remove("grapnel_tensor_rank").unwrap();
    only(&bad, "function grapnel_tensor_rank: is missing");
    bad.functions.insert("grapnel_tensor_rank".to_owned(), function.clone());
    bad.functions.insert("grapnel_tensor_sum".to_owned(), function);
    only(&bad, "function grapnel_tensor_sum: is not there");

    let mut bad = good.clone();
    bad.constants.remove("GRAPNEL_INT16").unwrap();
    only(&bad, "constant GRAPNEL_INT16: is missing");
    let mut bad = good.clone();
    bad.constants.insert("GRAPNEL_INT4".to_owned(), "11".to_owned());
    only(&bad, "constant GRAPNEL_INT4: is not there");

    let mut bad = good.clone();
    bad.aliases.remove("grapnel_dtype").unwrap();
    only(&bad, "type grapnel_dtype: is missing");

    let mut bad = good.clone();
    bad.opaque.remove("grapnel_runner");
    only(&bad, "opaque type grapnel_runner: is missing");

    let mut bad = good.clone();
    bad.structs.get_mut("grapnel_bytes").unwrap().swap(0, 1);
    only(&bad, "struct grapnel_bytes: has other fields");
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
        source += &c::aliases(declarations, |name| name.starts_with("grapnel_"));
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

    let mut bad = good.clone();
    bad.aliases.insert("grapnel_dtype".to_owned(), "i64".to_owned());
    assert!(fails(&bad, &layout::all()), "a number");

    let mut bad = good.clone();
    let log = bad.aliases.get_mut("grapnel_log_callback").unwrap();
    *log = log.replace("message_size: usize", "message_size: i32");
    assert_ne!(bad.aliases, good.aliases);
    assert!(fails(&bad, &layout::all()), "a callback's argument");

    let mut layouts = layout::all();
    let hook = layouts.iter_mut().find(|l| l.name == "grapnel_hook_callbacks").unwrap();
    hook.offsets[2] += 4;
    assert!(fails(&good, &layouts), "an offset");

    let mut bad = good.clone();
    let hook = bad.structs.get_mut("grapnel_hook_callbacks").unwrap();
    hook[2].1 = "u32".to_owned();
    assert!(fails(&bad, &layout::all()), "a field's type");
}
