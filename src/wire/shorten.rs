//! Shortens text from senders and clients, for responses and logs.

use std::borrow::Cow;

/// Returns the text, or its beginning and an ellipsis if it is longer than `max_bytes`.
pub(crate) fn shorten(text: &str, max_bytes: usize) -> Cow<'_, str> {
    const ELLIPSIS: char = '…';
    if text.len() <= max_bytes {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(max_bytes.saturating_sub(ELLIPSIS.len_utf8()));
    let (kept, _) = text.split_at(end);
    let mut short = kept.to_owned();
    short.push(ELLIPSIS);
    Cow::Owned(short)
}

#[cfg(test)]
mod tests {
    use super::shorten;

    #[test]
    fn only_texts_above_the_limit_are_cut_at_a_char_boundary() {
        for (text, max_bytes, short) in [
            ("", 3, ""),
            ("abcdef", 6, "abcdef"),
            ("abcdefg", 6, "abc…"),
            ("éééé", 7, "éé…"),
            ("🚀🚀", 7, "🚀…"),
        ] {
            assert_eq!(shorten(text, max_bytes), short);
        }
    }
}
