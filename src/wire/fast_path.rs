//! A fast path for the JSON of usual messages: finds the texts of their members.
//!
//! It accepts only the JSON that messages usually consist of: objects of known members that are
//! plain strings or integers. It returns `None` for anything else: an escape, an unknown or
//! repeated member, a fraction, a syntax error. Then [`parse`](super::message::parse) uses
//! serde_json, which finds the same members where both succeed, and describes errors. No rules
//! about messages belong here.

/// The JSON texts of the members of `metadata` and of `message`, in the order of their names;
/// `None` where one is missing.
pub(super) struct ScannedMembers<'j, const M: usize, const N: usize> {
    pub(super) metadata: [Option<&'j str>; M],
    pub(super) message: [Option<&'j str>; N],
}

/// Finds the members with these names, if the text is a message of the usual form.
pub(super) fn scan<'j, const M: usize, const N: usize>(
    json: &'j str,
    metadata_names: &[&str; M],
    message_names: &[&str; N],
) -> Option<ScannedMembers<'j, M, N>> {
    let mut scanner = Scanner { json, at: 0 };
    let (mut metadata, mut message) = (None, None);
    scanner.expect_byte(b'{')?;
    loop {
        match scanner.name()? {
            "metadata" if metadata.is_none() => metadata = Some(scanner.object(metadata_names)?),
            "message" if message.is_none() => message = Some(scanner.object(message_names)?),
            _ => return None,
        }
        if !scanner.has_next_member()? {
            break;
        }
    }
    scanner.skip_space();
    (scanner.at == json.len()).then_some(ScannedMembers { metadata: metadata?, message: message? })
}

struct Scanner<'j> {
    json: &'j str,
    at: usize,
}

impl<'j> Scanner<'j> {
    fn peek(&self) -> Option<u8> {
        self.json.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// Skips white space and this byte. `None` if another byte is next.
    fn expect_byte(&mut self, byte: u8) -> Option<()> {
        self.skip_space();
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// Skips the comma or the brace after a member. Whether another member follows.
    fn has_next_member(&mut self) -> Option<bool> {
        self.skip_space();
        let next = self.peek()?;
        self.at += 1;
        match next {
            b',' => Some(true),
            b'}' => Some(false),
            _ => None,
        }
    }

    fn object<const N: usize>(&mut self, names: &[&str; N]) -> Option<[Option<&'j str>; N]> {
        let mut members = [None; N];
        self.expect_byte(b'{')?;
        loop {
            let name = self.name()?;
            let member = members.get_mut(names.iter().position(|expected| *expected == name)?)?;
            if member.is_some() {
                return None;
            }
            *member = Some(self.value()?);
            if !self.has_next_member()? {
                return Some(members);
            }
        }
    }

    /// A member's name and the colon after it.
    fn name(&mut self) -> Option<&'j str> {
        self.skip_space();
        let quoted = self.string()?;
        self.expect_byte(b':')?;
        quoted.get(1..quoted.len() - 1)
    }

    fn value(&mut self) -> Option<&'j str> {
        self.skip_space();
        match self.peek()? {
            b'"' => self.string(),
            b'-' | b'0'..=b'9' => self.integer(),
            _ => None,
        }
    }

    /// A string without escapes, with its quotes.
    fn string(&mut self) -> Option<&'j str> {
        let start = self.at;
        let inside = self.json.as_bytes().get(start + 1..).filter(|_| self.peek() == Some(b'"'))?;
        let end = start + 1 + first_special(inside)?;
        self.at = end;
        (self.peek()? == b'"').then(|| self.at += 1)?;
        self.json.get(start..self.at)
    }

    fn integer(&mut self) -> Option<&'j str> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let digits = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        let is_well_formed = match self.json.as_bytes().get(digits)? {
            b'0' => self.at == digits + 1,
            _ => self.at > digits,
        };
        (is_well_formed && !matches!(self.peek(), Some(b'.' | b'e' | b'E')))
            .then(|| self.json.get(start..self.at))?
    }
}

/// The index of the first byte that ends a plain string: a quote, a backslash or a control
/// character. Checks eight bytes at a time, as in "Bit Twiddling Hacks" (hasless, haszero): only
/// the lowest mark in a word is reliable.
fn first_special(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES << 7;
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let mut chunks = bytes.chunks_exact(8);
    let mut index = 0;
    for chunk in &mut chunks {
        let word = u64::from_le_bytes(chunk.try_into().ok()?);
        let controls = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
        let marks = controls
            | zeros(word ^ (ONES * u64::from(b'"')))
            | zeros(word ^ (ONES * u64::from(b'\\')));
        if marks != 0 {
            return Some(index + marks.trailing_zeros() as usize / 8);
        }
        index += 8;
    }
    let rest = chunks.remainder().iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20))?;
    Some(index + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_special_byte_is_found_at_every_index() {
        for length in 0..40 {
            for (at, special) in (0..length)
                .flat_map(|at| [(at, b'"'), (at, b'\\'), (at, 0), (at, 0x1f), (at, b'\n')])
            {
                let mut bytes = vec![b'a'; length];
                // Neither later quotes nor bytes that differ by one bit from a special byte count.
                bytes.iter_mut().skip(at).for_each(|byte| *byte = b'"');
                bytes
                    .iter_mut()
                    .take(at)
                    .zip([b'!', b'#', 0xa2, 0xdc, b' ', b']', b'[', 0x7f].iter().cycle())
                    .for_each(|(byte, similar)| *byte = *similar);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = special;
                }
                assert_eq!(first_special(&bytes), Some(at), "{bytes:?}");
            }
            assert_eq!(first_special(&vec![0xc3; length]), None);
        }
    }

    fn scan_a_and_b(json: &str) -> Option<[Option<&str>; 2]> {
        scan(json, &["a"], &["b"]).map(|ScannedMembers { metadata: [a], message: [b] }| [a, b])
    }

    #[test]
    fn members_are_found_in_the_usual_form() {
        assert_eq!(
            scan_a_and_b(r#"{"metadata":{"a":"x"},"message":{"b":-12}}"#),
            Some([Some(r#""x""#), Some("-12")])
        );
        let spaced = "\r\n { \"message\" : {\t\"b\" : 0 } , \"metadata\": { \"a\" :\"é}\" }\n} ";
        assert_eq!(scan_a_and_b(spaced), Some([Some("\"é}\""), Some("0")]));
    }

    #[test]
    fn any_other_form_is_rejected() {
        for json in [
            "",
            "{}",
            r#"{"metadata":{"a":1}}"#,
            r#"{"metadata":{},"message":{"b":1}}"#,
            r#"{"metadata":{"a":1},"message":{"b":1},"message":{"b":1}}"#,
            r#"{"metadata":{"a":1,"a":1},"message":{"b":1}}"#,
            r#"{"metadata":{"a":1,"c":1},"message":{"b":1}}"#,
            r#"{"metadata":{"a":1,},"message":{"b":1}}"#,
            r#"{"metadata":{"a":01},"message":{"b":1}}"#,
            r#"{"metadata":{"a":-},"message":{"b":1}}"#,
            r#"{"metadata":{"a":1.0},"message":{"b":1}}"#,
            r#"{"metadata":{"a":1e3},"message":{"b":1}}"#,
            r#"{"metadata":{"a":null},"message":{"b":1}}"#,
            r#"{"metadata":{"a":"\n"},"message":{"b":1}}"#,
            "{\"metadata\":{\"a\":\"\n\"},\"message\":{\"b\":1}}",
            r#"{"metadata":{"a":1},"message":{"b":1}}x"#,
            r#"{"metadata":{"a":1},"message":{"b":1}"#,
            r#"{"metadata":{"a":1} "message":{"b":1}}"#,
            r#"["metadata",{"a":1}]"#,
        ] {
            assert_eq!(scan_a_and_b(json), None, "{json}");
        }
    }
}
