//! C that compiles if declarations in Rust are those of a header.

use std::fmt::Write;

use crate::declarations::{list, Declarations};
use crate::layout::Layout;

/// The C type of a type of Rust's, as a declaration of `name`.
fn declaration(rust: &str, name: &str) -> String {
    let pointed = [("*const ", "const "), ("*mut ", "")];
    for (prefix, qualifier) in pointed {
        let Some(inner) = rust.strip_prefix(prefix) else {
            continue;
        };
        return if inner.starts_with('*') {
            declaration(inner, &format!("{qualifier}*{name}"))
        } else {
            format!("{qualifier}{}", declaration(inner, &format!("*{name}")))
        };
    }
    if let Some(function) = rust.strip_prefix("Option<unsafe extern \"C\" fn(") {
        let (arguments, result) = function.rsplit_once(')').unwrap();
        let result = result.trim_end_matches('>').trim().strip_prefix("->").map(str::trim);
        let arguments: Vec<String> = list(arguments)
            .iter()
            .map(|argument| declaration(argument.split_once(':').unwrap().1.trim(), ""))
            .collect();
        let inner = format!("(*{name})({})", arguments.join(", "));
        return declaration(result.unwrap_or("c_void"), &inner);
    }
    let base = match rust {
        "i32" => "int32_t",
        "i64" => "int64_t",
        "u8" => "uint8_t",
        "u16" => "uint16_t",
        "u32" => "uint32_t",
        "u64" => "uint64_t",
        "usize" => "size_t",
        "f64" => "double",
        "c_char" => "char",
        "c_void" => "void",
        "DLManagedTensorVersioned" => "struct DLManagedTensorVersioned",
        named => named,
    };
    assert!(base.chars().all(|c| c.is_alphanumeric() || c == '_' || c == ' '), "{rust}");
    format!("{base} {name}")
}

/// A pointer of the declared type to each function.
pub fn functions(declarations: &Declarations) -> String {
    let mut text = String::new();
    for (name, function) in &declarations.functions {
        let arguments = if function.arguments.is_empty() {
            "void".to_owned()
        } else {
            function.arguments.iter().map(|a| declaration(a, "")).collect::<Vec<_>>().join(", ")
        };
        let result = function.result.as_deref().unwrap_or("c_void");
        let pointer = declaration(result, &format!("(*const check_{name})({arguments})"));
        writeln!(text, "extern {pointer};\n{pointer} = &{name};").unwrap();
    }
    text
}

pub fn constants(declarations: &Declarations, which: fn(&str) -> bool) -> String {
    let mut text = String::new();
    for (name, value) in declarations.constants.iter().filter(|(name, _)| which(name)) {
        writeln!(text, "_Static_assert({name} == {value}, \"{name}\");").unwrap();
    }
    text
}

/// Numbers of the same type, functions of the same signature.
pub fn aliases(declarations: &Declarations, which: fn(&str) -> bool) -> String {
    let mut text = String::new();
    for (name, rust) in declarations.aliases.iter().filter(|(name, _)| which(name)) {
        // Of a function's, the star is inside of its brackets.
        let pointer = declaration(rust, "*");
        writeln!(text, "{}", same_type(&format!("({name}*)0"), &pointer, name)).unwrap();
    }
    text
}

/// Sizes, offsets and types of fields.
pub fn structs(declarations: &Declarations, layouts: &[Layout], which: fn(&str) -> bool) -> String {
    let mut text = String::new();
    for (name, fields) in declarations.structs.iter().filter(|(name, _)| which(name)) {
        let c_name = if name == "DLManagedTensorVersioned" {
            format!("struct {name}")
        } else {
            name.clone()
        };
        let layout = layouts
            .iter()
            .find(|layout| layout.name == name)
            .unwrap_or_else(|| panic!("tests/header/layout.rs has no {name}"));
        let names: Vec<&str> = fields.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(layout.fields, names, "{name}");
        writeln!(text, "_Static_assert(sizeof({c_name}) == {}, \"{name}\");", layout.size).unwrap();
        for ((field, rust), offset) in fields.iter().zip(&layout.offsets) {
            let what = format!("{name}.{field}");
            writeln!(text, "_Static_assert(offsetof({c_name}, {field}) == {offset}, \"{what}\");")
                .unwrap();
            if name.starts_with("grapnel_") {
                let address = format!("&(({c_name}*)0)->{field}");
                writeln!(text, "{}", same_type(&address, &declaration(rust, "*"), &what)).unwrap();
            }
        }
    }
    text
}

fn same_type(expression: &str, pointer: &str, what: &str) -> String {
    format!("_Static_assert(_Generic({expression}, {pointer}: 1, default: 0), \"type of {what}\");")
}
