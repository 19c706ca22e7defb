//! Makes text from senders and files safe to print: on a terminal, control characters move the
//! cursor and forge lines, and invisible characters make different texts look alike.

use std::borrow::Cow;
use std::fmt;

use icu_properties::props::{
    DefaultIgnorableCodePoint, ExtendedPictographic, GeneralCategory, PrependedConcatenationMark,
};
use icu_properties::{CodePointMapData, CodePointSetData};

const ZERO_WIDTH_JOINER: char = '\u{200d}';
/// Shows the digit before it as a key.
const ENCLOSING_KEYCAP: char = '\u{20e3}';

/// Escapes every character that acts on the terminal or is invisible, as `\n` or `\u{202e}`.
///
/// These are controls (C0, DEL and C1), line and paragraph separators, and invisible characters:
/// direction marks, zero-width spaces and joiners, tags, variation selectors, fillers. Visible text
/// of every script stays, and so do parts of emoji: the joiners and the variation selectors inside
/// `👩‍🚀` and `❤️`. Joiners between letters and the tags of regional flags are escaped, because they
/// can hide text. A backslash stays a single backslash.
pub fn escape(text: &str) -> Cow<'_, str> {
    escape_unsafe(text, |char, output| output.extend(char.escape_default()))
}

/// Escapes a text of several lines that the program itself wrote, but keeps its line ends.
pub fn escape_lines(text: &str) -> Cow<'_, str> {
    if matches!(escape(text), Cow::Borrowed(_)) {
        return Cow::Borrowed(text);
    }
    let lines = text.split_inclusive('\n').map(|line| {
        let content =
            line.strip_suffix('\n').map_or(line, |line| line.strip_suffix('\r').unwrap_or(line));
        escape(content).into_owned() + &line[content.len()..]
    });
    Cow::Owned(lines.collect())
}

/// Escapes JSON with JSON's own escapes, so that it still parses to the same value.
///
/// C0 controls stay: inside strings, JSON has already escaped them, and between tokens they are
/// white space.
pub fn escape_json(json: &str) -> Cow<'_, str> {
    escape_unsafe(json, |char, output| {
        if u32::from(char) < 0x20 {
            output.push(char);
        } else {
            let units = char.encode_utf16(&mut [0; 2]).to_vec();
            output.extend(units.iter().map(|unit| format!("\\u{unit:04x}")));
        }
    })
}

/// Displays its content with [`escape`].
#[derive(Clone, Copy, Debug)]
pub struct Escaped<T>(pub T);

impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&escape(&self.0.to_string()))
    }
}

/// Replaces each unsafe character by what `escape_char` appends.
fn escape_unsafe(text: &str, escape_char: impl Fn(char, &mut String)) -> Cow<'_, str> {
    if text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    let (mut previous, mut in_emoji) = (None, false);
    while let Some(char) = chars.next() {
        let in_sequence =
            belongs_to_emoji(previous.filter(|_| in_emoji), char, chars.peek().copied());
        if in_sequence || !is_hidden(char) {
            escaped.push(char);
        } else {
            escape_char(char, &mut escaped);
        }
        (previous, in_emoji) = (Some(char), in_sequence || is_pictographic(char));
    }
    if escaped == text { Cow::Borrowed(text) } else { Cow::Owned(escaped) }
}

fn is_hidden(char: char) -> bool {
    match CodePointMapData::<GeneralCategory>::new().get(char) {
        GeneralCategory::Control
        | GeneralCategory::LineSeparator
        | GeneralCategory::ParagraphSeparator => true,
        // In some scripts, signs of this category surround the digits that follow them.
        GeneralCategory::Format => {
            !CodePointSetData::new::<PrependedConcatenationMark>().contains(char)
        }
        _ => CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(char),
    }
}

fn is_pictographic(char: char) -> bool {
    CodePointSetData::new::<ExtendedPictographic>().contains(char)
}

/// Whether a character continues the emoji that the previous character belongs to.
fn belongs_to_emoji(previous: Option<char>, char: char, next: Option<char>) -> bool {
    match char {
        '\u{fe0e}' | '\u{fe0f}' => {
            previous.is_some_and(is_pictographic) || next == Some(ENCLOSING_KEYCAP)
        }
        ZERO_WIDTH_JOINER => previous.is_some() && next.is_some_and(is_pictographic),
        // Skin tones.
        '\u{1f3fb}'..='\u{1f3ff}' => previous.is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visible_text_of_every_script_stays() {
        for text in [
            "",
            "Falcon-9 \\ 'quoted' \"twice\" {x}",
            "Ariane 6 – été, Öl, ß, e\u{301}",
            "Союз-2 神舟 長征 はやぶさ 천리안 مركبة חללית यान ยาน",
            "🚀👍🏽 ❤️ ☎︎ 1️⃣ #️⃣ 🇪🇺",
            "👩‍🚀 👩🏽‍🚀 👨‍👩‍👧 🏳️‍🌈 🧑‍⚕️",
            "\u{600}12 a\u{a0}b",
        ] {
            assert!(
                matches!(escape(text), Cow::Borrowed(same) if same == text),
                "{}",
                escape(text)
            );
            assert!(matches!(escape_json(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn control_and_invisible_characters_are_escaped() {
        for (text, escaped) in [
            ("\0\u{7}\u{1b}[2J\u{7f}", r"\u{0}\u{7}\u{1b}[2J\u{7f}"),
            ("one\r\nline 99:\ttwo", r"one\r\nline 99:\ttwo"),
            ("\u{80}\u{85}\u{9b}31m\u{9f}", r"\u{80}\u{85}\u{9b}31m\u{9f}"),
            ("a\u{2028}b\u{2029}", r"a\u{2028}b\u{2029}"),
            (
                "\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}",
                r"\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}",
            ),
            (
                "\u{2066}\u{2067}\u{2068}\u{2069}\u{200e}\u{200f}\u{61c}",
                r"\u{2066}\u{2067}\u{2068}\u{2069}\u{200e}\u{200f}\u{61c}",
            ),
            (
                "A\u{200b}B\u{200c}C\u{200d}D\u{2060}\u{feff}",
                r"A\u{200b}B\u{200c}C\u{200d}D\u{2060}\u{feff}",
            ),
            (
                "so\u{ad}ft\u{34f}\u{3164}\u{180e}\u{fff9}",
                r"so\u{ad}ft\u{34f}\u{3164}\u{180e}\u{fff9}",
            ),
            ("a\u{fe0f}1\u{fe0f}\u{e0100}", r"a\u{fe0f}1\u{fe0f}\u{e0100}"),
            ("🏴\u{e0067}\u{e007f}", r"🏴\u{e0067}\u{e007f}"),
            ("🚀\u{200d}", r"🚀\u{200d}"),
            (
                "a\u{200d}🚀\u{fe0f}\u{fe0f}\u{200d}\u{200d}🚀",
                "a\\u{200d}🚀\u{fe0f}\\u{fe0f}\\u{200d}\\u{200d}🚀",
            ),
        ] {
            assert_eq!(escape(text), escaped);
            assert_eq!(Escaped(text).to_string(), escaped);
        }
    }

    #[test]
    fn line_ends_are_kept() {
        assert_eq!(escape_lines("a\u{1b}\r\nb\n\rc"), "a\\u{1b}\r\nb\n\\rc");
        assert!(matches!(escape_lines("plain"), Cow::Borrowed(_)));
    }

    #[test]
    fn escaped_json_parses_to_the_same_value() {
        let json = "{\n \"a\u{202e}\": \"\u{7f}\u{e0067}🚀\\n\"\n}";
        let escaped = escape_json(json);
        assert_eq!(escaped, "{\n \"a\\u202e\": \"\\u007f\\udb40\\udc67🚀\\n\"\n}");
        let value = |json| serde_json::from_str::<serde_json::Value>(json).ok();
        assert_eq!(value(json), value(&escaped));
    }
}
