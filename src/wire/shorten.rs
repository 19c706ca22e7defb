//! Shortens quotations of what senders and clients wrote, in responses and logs.

use std::borrow::Cow;

/// The text, or its beginning with an ellipsis if it is longer than this many bytes.
pub(crate) fn shorten(text: &str, most_bytes: usize) -> Cow<'_, str> {
    const ELLIPSIS: char = '…';
    if text.len() <= most_bytes {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(most_bytes.saturating_sub(ELLIPSIS.len_utf8()));
    let (kept, _) = text.split_at(end);
    let mut short = kept.to_owned();
    short.push(ELLIPSIS);
    Cow::Owned(short)
}

#[cfg(test)]
mod tests {
    use super::shorten;

    #[test]
    fn a_short_text_stays_and_of_a_long_one_the_beginning() {
        for (text, most, short) in [
            ("", 3, ""),
            ("abcdef", 6, "abcdef"),
            ("abcdefg", 6, "abc…"),
            ("éééé", 7, "éé…"),
            ("🚀🚀", 7, "🚀…"),
        ] {
            assert_eq!(shorten(text, most), short);
        }
    }
}
