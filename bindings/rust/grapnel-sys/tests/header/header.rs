//! The names in grapnel.h.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

#[derive(Debug, Default)]
pub struct Header {
    pub functions: BTreeSet<String>,
    pub constants: BTreeSet<String>,
    /// Those whose fields it shows.
    pub structs: BTreeSet<String>,
    /// By the struct.
    pub fields: BTreeMap<String, Vec<String>>,
    /// Types that are numbers or functions.
    pub aliases: BTreeSet<String>,
    pub opaque: BTreeSet<String>,
}

impl Header {
    pub fn read(path: &Path) -> Header {
        let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let text = without_comments(&text);
        let mut header = Header::default();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("#define GRAPNEL_VERSION_") {
                let name = rest.split_whitespace().next().unwrap();
                header.constants.insert(format!("GRAPNEL_VERSION_{name}"));
            }
        }
        let code: String =
            text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
        for statement in statements(&code) {
            header.take(&statement);
        }
        header
    }

    fn take(&mut self, statement: &str) {
        let words: Vec<&str> = statement
            .split(|c: char| !(c.is_alphanumeric() || c == '_'))
            .filter(|word| !word.is_empty())
            .collect();
        let Some(first) = words.first() else { return };
        if *first == "GRAPNEL_API" {
            let before = statement.split('(').next().unwrap();
            let name = before.split(|c: char| !(c.is_alphanumeric() || c == '_')).next_back();
            self.functions.insert(name.unwrap().to_owned());
        } else if *first == "enum" {
            let constants = words.iter().filter(|word| word.starts_with("GRAPNEL_"));
            self.constants.extend(constants.map(|&word| word.to_owned()));
        } else if words.starts_with(&["typedef", "struct"]) && statement.contains('{') {
            let name = words[2].to_owned();
            let inside = statement.split_once('{').unwrap().1.rsplit_once('}').unwrap().0;
            let fields = inside.split(';').filter(|field| !field.trim().is_empty());
            self.fields.insert(name.clone(), fields.map(field_name).collect());
            self.structs.insert(name);
        } else if words.starts_with(&["typedef", "struct"]) {
            self.opaque.insert(words[2].to_owned());
        } else if *first == "typedef" {
            let name = match statement.split_once("(*") {
                Some((_, rest)) => rest.split(')').next().unwrap(),
                None => words.last().unwrap(),
            };
            self.aliases.insert(name.to_owned());
        }
    }
}

fn field_name(field: &str) -> String {
    let named = match field.split_once("(*") {
        Some((_, rest)) => rest.split(')').next().unwrap(),
        None => field.trim().rsplit([' ', '*']).next().unwrap(),
    };
    named.to_owned()
}

fn without_comments(text: &str) -> String {
    let mut rest = text;
    let mut code = String::new();
    while let Some((before, comment)) = rest.split_once("/*") {
        code += before;
        rest = comment.split_once("*/").expect("a comment ends").1;
    }
    code + rest
}

/// What ends with a semicolon outside of braces.
fn statements(code: &str) -> Vec<String> {
    let code = code.replace("extern \"C\" {", "");
    let mut found = vec![String::new()];
    let mut depth = 0;
    for c in code.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if c == ';' && depth == 0 {
            found.push(String::new());
        } else {
            found.last_mut().unwrap().push(c);
        }
    }
    found
}
