//! Comments of .proto files as comments of Rust.

/// Puts a fence around what is indented in a comment: an example in the text format, which rustdoc
/// would compile as Rust otherwise.
pub fn fence(source: &str) -> String {
    let mut fenced = String::with_capacity(source.len());
    let mut inside: Option<String> = None;
    for line in source.lines() {
        let comment = line.trim_start();
        let indent = &line[..line.len() - comment.len()];
        let is_example = comment.starts_with("///     ");
        match &inside {
            None if is_example => {
                fenced += &format!("{indent}/// ```text\n");
                inside = Some(indent.to_owned());
            }
            Some(of) if !is_example => {
                fenced += &format!("{of}/// ```\n");
                inside = None;
            }
            _ => {}
        }
        if is_example {
            fenced += &format!("{indent}/// {}\n", &comment["///     ".len()..]);
        } else {
            fenced += line;
            fenced.push('\n');
        }
    }
    fenced
}

#[cfg(test)]
mod tests {
    use super::fence;

    #[test]
    fn what_is_indented_gets_a_fence() {
        let source = "  /// A:\n  ///\n  ///     x: 1\n  ///     y: 2\n  pub z: i32,\n";
        let expected =
            "  /// A:\n  ///\n  /// ```text\n  /// x: 1\n  /// y: 2\n  /// ```\n  pub z: i32,\n";
        assert_eq!(fence(source), expected);
    }

    #[test]
    fn what_is_not_stays() {
        let source = "/// One.\n/// Two.\nstruct X;\n    let y = 1;\n";
        assert_eq!(fence(source), source);
    }
}
