//! The declarations in src/*.rs, read as text.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

#[derive(Debug, Clone)]
pub struct Function {
    /// Types, in Rust's words.
    pub arguments: Vec<String>,
    pub result: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub struct Declarations {
    pub functions: BTreeMap<String, Function>,
    /// Values as they are written.
    pub constants: BTreeMap<String, String>,
    /// Fields and their types.
    pub structs: BTreeMap<String, Vec<(String, String)>>,
    /// What a type is another name of.
    pub aliases: BTreeMap<String, String>,
    pub opaque: BTreeSet<String>,
}

impl Declarations {
    pub fn read() -> Declarations {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut declarations = Declarations::default();
        for entry in fs::read_dir(dir).unwrap() {
            let text = fs::read_to_string(entry.unwrap().path()).unwrap();
            let code = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .collect::<Vec<_>>()
                .join(" ");
            declarations.take(&code);
        }
        declarations
    }

    fn take(&mut self, code: &str) {
        for piece in code.split("pub fn ").skip(1) {
            let (name, rest) = piece.split_once('(').unwrap();
            let (arguments, rest) = rest.split_once(')').unwrap();
            let result = rest.split(';').next().unwrap().trim().strip_prefix("->");
            let function = Function {
                arguments: list(arguments).iter().map(|a| type_of(a)).collect(),
                result: result.map(normal),
            };
            self.functions.insert(name.to_owned(), function);
        }
        for piece in code.split("pub const ").skip(1) {
            let (name, rest) = piece.split_once(':').unwrap();
            let value = rest.split_once('=').unwrap().1.split(';').next().unwrap();
            self.constants.insert(name.to_owned(), normal(value));
        }
        for piece in code.split("pub type ").skip(1) {
            let (name, rest) = piece.split_once('=').unwrap();
            self.aliases.insert(normal(name), normal(rest.split(';').next().unwrap()));
        }
        for piece in code.split("pub struct ").skip(1) {
            let (name, rest) = piece.split_once('{').unwrap();
            if name.contains('$') {
                continue;
            }
            let inside = rest.split('}').next().unwrap();
            let declared = list(inside);
            let fields = declared.iter().map(|field| {
                let name = field.split(':').next().unwrap().trim().trim_start_matches("pub ");
                (name.to_owned(), type_of(field))
            });
            self.structs.insert(normal(name), fields.collect());
        }
        for piece in code.split("opaque!(").skip(1) {
            let names = piece.split(')').next().unwrap();
            self.opaque.extend(list(names).iter().map(|name| normal(name)));
        }
    }
}

/// Of "name: type".
fn type_of(declaration: &str) -> String {
    normal(declaration.split_once(':').unwrap().1)
}

/// With one blank where there are several, and none before a bracket's end.
fn normal(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.replace("( ", "(").replace(", )", ")").replace("< ", "<").replace(", >", ">")
}

/// Parts between commas that are in no brackets.
pub fn list(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut depth = 0;
    let mut previous = ' ';
    for c in text.chars() {
        match c {
            '(' | '<' => depth += 1,
            ')' => depth -= 1,
            '>' if previous != '-' => depth -= 1,
            _ => {}
        }
        if c == ',' && depth == 0 {
            parts.push(String::new());
        } else {
            parts.last_mut().unwrap().push(c);
        }
        previous = c;
    }
    parts.retain(|part| !part.trim().is_empty());
    parts
}
