//! Values in protobuf's text format.

use std::fmt::Write;

/// A text in quotes.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            // Octal, of three digits, so that a digit behind it is none of them.
            letter if letter.is_ascii_control() => {
                write!(quoted, "\\{:03o}", u32::from(letter)).expect("a string takes it");
            }
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_a_text_is_escaped_and_letters_are_not() {
        assert_eq!(quoted("/plain"), "\"/plain\"");
        assert_eq!(quoted("a\"b\\c"), r#""a\"b\\c""#);
        assert_eq!(quoted("tab\t1 line\n"), r#""tab\0111 line\012""#);
        assert_eq!(quoted("gr\u{fc}n\u{200b}"), "\"gr\u{fc}n\u{200b}\"");
    }
}
