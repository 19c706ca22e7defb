//! The text type of messages, and the channel, which is such a text.

use std::fmt;

use bytestring::ByteString;

/// A text of 1 to 255 Unicode scalar values, none of them a control character (category Cc).
///
/// Compared and sorted by its UTF-8 bytes, never normalised. Cloning is cheap: the bytes are
/// shared, often with the buffer that the message arrived in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(ByteString);

impl Text {
    /// The maximum number of Unicode scalar values.
    pub const MAX_CHARS: usize = 255;

    /// Makes a text. The error is the second half of a sentence ("must …") that names the broken
    /// bound.
    pub fn new(value: impl Into<ByteString>) -> Result<Self, String> {
        let value = value.into();
        check(&value)?;
        Ok(Self(value))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A copy that doesn't keep the message's input buffer in memory.
    pub fn detached(&self) -> Self {
        Self(self.as_str().into())
    }
}

fn check(value: &str) -> Result<(), String> {
    // Almost every text is short ASCII, which one pass over its bytes can check.
    let is_plain = |byte: &u8| (0x20..0x7f).contains(byte);
    if (1..=Text::MAX_CHARS).contains(&value.len()) && value.as_bytes().iter().all(is_plain) {
        return Ok(());
    }
    let chars = value.chars().count();
    if !(1..=Text::MAX_CHARS).contains(&chars) {
        return Err(format!("must hold 1 to {} characters, not {chars}", Text::MAX_CHARS));
    }
    match value.chars().enumerate().find(|(_, char)| char.is_control()) {
        Some((index, char)) => Err(format!(
            "must not hold control characters, but character {} is U+{:04X}",
            index + 1,
            u32::from(char)
        )),
        None => Ok(()),
    }
}

impl fmt::Display for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A rocket's radio channel, which is its identity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel(Text);

impl Channel {
    /// Makes a channel from a text within the bounds of [`Text`]. The error names the broken bound.
    pub fn new(value: impl Into<ByteString>) -> Result<Self, String> {
        Text::new(value).map(Self)
    }

    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// A copy that doesn't keep the message's input buffer in memory.
    pub fn detached(&self) -> Self {
        Self(self.0.detached())
    }
}

impl From<Text> for Channel {
    fn from(text: Text) -> Self {
        Self(text)
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn bounds_count_characters_and_not_bytes() {
        for valid in ["a", " ", "é", "\u{e000}", &"x".repeat(255), &"🚀".repeat(255)] {
            assert_eq!(Text::new(valid.to_owned()).unwrap().as_str(), valid);
        }
        for (broken, why) in [
            (String::new(), "1 to 255 characters, not 0"),
            ("x".repeat(256), "1 to 255 characters, not 256"),
            ("🚀".repeat(256), "1 to 255 characters, not 256"),
            ("a\u{0}".to_owned(), "character 2 is U+0000"),
            ("\n".to_owned(), "character 1 is U+000A"),
            ("é\u{7f}".to_owned(), "character 2 is U+007F"),
            ("\u{85}".to_owned(), "character 1 is U+0085"),
        ] {
            let error = Text::new(broken).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn sorts_by_utf8_bytes() {
        let [z, e_acute, decomposed] = ["z", "é", "e\u{301}"].map(|text| Text::new(text).unwrap());
        assert!(decomposed < z && z < e_acute && decomposed != e_acute);
    }
}
