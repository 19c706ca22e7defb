//! Arrays as SQL literals, for messages of several statements, which take no parameters.
//!
//! A literal is safe whatever the text holds: inside the array, quotation marks and backslashes are
//! escaped; inside the SQL string around it, apostrophes are doubled (with
//! `standard_conforming_strings`, no other character is special).

use std::fmt::Write;

use crate::domain::timestamp::Timestamp;

/// A value of an array.
pub(super) trait Element {
    /// Writes it as an element of an array literal inside an SQL string.
    fn write(&self, literal: &mut String);
}

impl Element for i64 {
    fn write(&self, literal: &mut String) {
        // Writing to memory can't fail.
        let _ = write!(literal, "{self}");
    }
}

impl Element for &str {
    fn write(&self, literal: &mut String) {
        literal.push('"');
        for char in self.chars() {
            match char {
                '"' | '\\' => literal.extend(['\\', char]),
                '\'' => literal.push_str("''"),
                _ => literal.push(char),
            }
        }
        literal.push('"');
    }
}

/// In hexadecimal, which Postgres reads whatever its settings are.
impl Element for &[u8] {
    fn write(&self, literal: &mut String) {
        literal.push_str(r#""\\x"#);
        for byte in *self {
            let _ = write!(literal, "{byte:02x}");
        }
        literal.push('"');
    }
}

impl Element for Timestamp {
    fn write(&self, literal: &mut String) {
        let _ = write!(literal, "\"{self}\"");
    }
}

impl<T: Element> Element for Option<T> {
    fn write(&self, literal: &mut String) {
        match self {
            Some(value) => value.write(literal),
            None => literal.push_str("NULL"),
        }
    }
}

/// An array of values, as an SQL string.
pub(super) fn array<T: Element>(values: impl IntoIterator<Item = T>) -> String {
    let mut literal = "'{".to_owned();
    for (index, value) in values.into_iter().enumerate() {
        if index > 0 {
            literal.push(',');
        }
        value.write(&mut literal);
    }
    literal.push_str("}'");
    literal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_escaped() {
        let special = r#"'";\{},"#;
        let texts = [Some("a"), None, Some("NULL"), Some(""), Some(special), Some("$1 -- 🚀")];
        assert_eq!(array(texts), r#"'{"a",NULL,"NULL","","''\";\\{},","$1 -- 🚀"}'"#);
        assert_eq!(array([1, -2]), "'{1,-2}'");
        assert_eq!(array([Some(&[1, 0xFE][..]), None]), r#"'{"\\x01fe",NULL}'"#);
        assert_eq!(array(Vec::<i64>::new()), "'{}'");
        assert_eq!(array(Timestamp::from_unix_micros(-1)), "'{\"1969-12-31T23:59:59.999999Z\"}'");
    }
}
