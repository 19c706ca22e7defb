//! Instants with microseconds: the formats that are read, and the one that is written.

use std::fmt;

use time::{Date, Month};

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;
/// The Julian day of 1970-01-01.
const JULIAN_DAY_OF_EPOCH: i64 = 2_440_588;
/// 0001-01-01T00:00:00.000000Z and 9999-12-31T23:59:59.999999Z, in microseconds since 1970.
const FIRST: i64 = -62_135_596_800 * MICROS_PER_SECOND;
const LAST: i64 = 253_402_300_800 * MICROS_PER_SECOND - 1;

/// An instant in UTC with microseconds, in the years 0001 to 9999.
///
/// It displays as `YYYY-MM-DDTHH:MM:SS.ffffffZ`, always 27 characters, so that the text sorts like
/// the instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    micros: i64,
}

impl Timestamp {
    /// 0001-01-01T00:00:00.000000Z.
    pub const FIRST: Self = Self { micros: FIRST };

    /// From microseconds since 1970-01-01T00:00:00Z; none outside the years 0001 to 9999.
    pub fn from_unix_micros(micros: i64) -> Option<Self> {
        (FIRST..=LAST).contains(&micros).then_some(Self { micros })
    }

    /// From the system clock, clamped to the years 0001 to 9999.
    pub fn from_system_time(now: std::time::SystemTime) -> Self {
        let micros = match now.duration_since(std::time::UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_micros()).unwrap_or(LAST),
            Err(before) => {
                i64::try_from(before.duration().as_micros()).map_or(FIRST, |micros| -micros)
            }
        };
        Self { micros: micros.clamp(FIRST, LAST) }
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    pub fn unix_micros(self) -> i64 {
        self.micros
    }

    /// The instant earlier by this duration, but not before the year 0001.
    pub fn minus(self, duration: std::time::Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self { micros: self.micros.saturating_sub(micros).max(FIRST) }
    }

    /// The instant later by this duration, but not after the year 9999.
    pub fn plus(self, duration: std::time::Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self { micros: self.micros.saturating_add(micros).min(LAST) }
    }

    /// The next microsecond.
    pub fn next(self) -> Self {
        Self { micros: (self.micros + 1).min(LAST) }
    }

    /// Reads `YYYY-MM-DD`, `T` or `t`, `HH:MM:SS`, optionally `.` and digits, then `Z`, `z` or
    /// `±HH:MM`.
    ///
    /// Digits after the sixth are dropped. Second 60 is the first second of the next minute. The
    /// error is the second half of a sentence ("must …").
    pub fn parse(text: &str) -> Result<Self, String> {
        let bytes = text.as_bytes();
        let (date_time, rest) = bytes.split_at_checked(19).ok_or_else(wrong_shape)?;
        let seconds = parse_date_time(date_time)?;
        let (micros, zone) = parse_fraction(rest)?;
        let offset_seconds = parse_zone(zone)?;
        Self::from_unix_micros((seconds - offset_seconds) * MICROS_PER_SECOND + micros)
            .ok_or_else(|| "must lie in the years 0001 to 9999 in UTC".to_owned())
    }

    /// The 27 characters that [`Display`](fmt::Display) writes.
    pub fn to_text(self) -> [u8; 27] {
        let days = self.micros.div_euclid(SECONDS_PER_DAY * MICROS_PER_SECOND);
        let micros_of_day = self.micros.rem_euclid(SECONDS_PER_DAY * MICROS_PER_SECOND);
        let (year, month, day) = i32::try_from(days + JULIAN_DAY_OF_EPOCH)
            .ok()
            .and_then(|julian_day| Date::from_julian_day(julian_day).ok())
            .unwrap_or_else(|| unreachable!("a timestamp lies in the years 0001 to 9999"))
            .to_calendar_date();
        // Less than 86,400 and 1,000,000.
        let seconds = (micros_of_day / MICROS_PER_SECOND) as u32;
        let micros = (micros_of_day % MICROS_PER_SECOND) as u32;
        let mut text = *b"YYYY-MM-DDTHH:MM:SS.ffffffZ";
        write_digits(&mut text[0..4], year.unsigned_abs());
        write_digits(&mut text[5..7], u8::from(month).into());
        write_digits(&mut text[8..10], day.into());
        write_digits(&mut text[11..13], seconds / 3_600);
        write_digits(&mut text[14..16], seconds / 60 % 60);
        write_digits(&mut text[17..19], seconds % 60);
        write_digits(&mut text[20..26], micros);
        text
    }
}

fn wrong_shape() -> String {
    "must be written like 2022-02-02T19:39:05.86337+01:00 or 2022-02-02T18:39:05Z".to_owned()
}

/// The seconds since 1970 of the 19 characters `YYYY-MM-DDTHH:MM:SS`, read as UTC.
fn parse_date_time(text: &[u8]) -> Result<i64, String> {
    let separators = [(4, b"--"), (7, b"--"), (10, b"Tt"), (13, b"::"), (16, b"::")];
    if !separators.iter().all(|&(at, either)| either.contains(&text[at])) {
        return Err(wrong_shape());
    }
    let field = |from: usize, to: usize| digits(&text[from..to]).ok_or_else(wrong_shape);
    let (year, month, day) = (field(0, 4)?, field(5, 7)?, field(8, 10)?);
    let (hour, minute, second) = (field(11, 13)?, field(14, 16)?, field(17, 19)?);
    let julian_day = calendar_date(year, month, day)
        .ok_or_else(|| "must be a date that exists".to_owned())?
        .to_julian_day();
    if hour > 23 || minute > 59 || second > 60 {
        return Err("must be a time of day from 00:00:00 to 23:59:60".to_owned());
    }
    let days = i64::from(julian_day) - JULIAN_DAY_OF_EPOCH;
    Ok(days * SECONDS_PER_DAY + hour * 3_600 + minute * 60 + second)
}

fn calendar_date(year: i64, month: i64, day: i64) -> Option<Date> {
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    Date::from_calendar_date(i32::try_from(year).ok()?, month, u8::try_from(day).ok()?).ok()
}

/// The microseconds of an optional `.` and digits, and the rest of the text.
fn parse_fraction(text: &[u8]) -> Result<(i64, &[u8]), String> {
    let Some(fraction) = text.strip_prefix(b".") else {
        return Ok((0, text));
    };
    let length = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if length == 0 {
        return Err(wrong_shape());
    }
    let (fraction, rest) = fraction.split_at(length);
    let digit = |place: usize| fraction.get(place).map_or(0, |byte| i64::from(byte - b'0'));
    Ok(((0..6).fold(0, |micros, place| micros * 10 + digit(place)), rest))
}

/// The seconds by which the zone is ahead of UTC.
fn parse_zone(text: &[u8]) -> Result<i64, String> {
    let sign = match text {
        b"Z" | b"z" => return Ok(0),
        [b'+', _, _, b':', _, _] => 1,
        [b'-', _, _, b':', _, _] => -1,
        _ => return Err(wrong_shape()),
    };
    let field = |from: usize, to: usize| digits(&text[from..to]).ok_or_else(wrong_shape);
    let (hours, minutes) = (field(1, 3)?, field(4, 6)?);
    if hours > 23 || minutes > 59 {
        return Err("must have a UTC offset of at most 23:59".to_owned());
    }
    Ok(sign * (hours * 3_600 + minutes * 60))
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |number, byte| {
        byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0'))
    })
}

fn write_digits(field: &mut [u8], number: u32) {
    let mut rest = number;
    for byte in field.iter_mut().rev() {
        *byte = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.to_text();
        let text = std::str::from_utf8(&text);
        formatter.write_str(text.unwrap_or_else(|_| unreachable!("digits and signs are ASCII")))
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reads_every_allowed_shape() {
        for (text, utc) in [
            ("2022-02-02T19:39:05.86337+01:00", "2022-02-02T18:39:05.863370Z"),
            ("2022-02-02t19:39:05z", "2022-02-02T19:39:05.000000Z"),
            ("2022-02-02T19:39:05.1234569Z", "2022-02-02T19:39:05.123456Z"),
            ("2022-02-02T19:39:05.000000999999999999999999999Z", "2022-02-02T19:39:05.000000Z"),
            ("1969-12-31T23:59:59.9999999Z", "1969-12-31T23:59:59.999999Z"),
            ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00.000000Z"),
            ("2022-02-02T19:39:60.5Z", "2022-02-02T19:40:00.500000Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000Z"),
            ("0000-12-31T00:01:00-23:59", "0001-01-01T00:00:00.000000Z"),
            ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
            ("2024-02-29T00:00:00-00:00", "2024-02-29T00:00:00.000000Z"),
            ("2022-01-01T00:00:00+23:59", "2021-12-31T00:01:00.000000Z"),
        ] {
            assert_eq!(Timestamp::parse(text).unwrap().to_string(), utc, "{text}");
        }
    }

    #[test]
    fn rejects_every_other_shape() {
        for text in [
            "",
            "2022-02-02",
            "2022-02-02T19:39:05",
            "2022-02-02 19:39:05Z",
            "20220202T193905Z",
            "2022-02-02T19:39Z",
            "2022-02-02T19:39:05,5Z",
            "2022-02-02T19:39:05.Z",
            "2022-02-02T19:39:05+01",
            "2022-02-02T19:39:05+0100",
            "2022-02-02T19:39:05+24:00",
            "2022-02-02T19:39:05+00:60",
            "2022-02-02T24:00:00Z",
            "2022-02-02T19:60:05Z",
            "2022-02-02T19:39:61Z",
            "2022-02-30T00:00:00Z",
            "2023-02-29T00:00:00Z",
            "2022-00-01T00:00:00Z",
            "2022-13-01T00:00:00Z",
            "2022-01-00T00:00:00Z",
            "2022-01-32T00:00:00Z",
            "2022-02-02T19:39:05ZZ",
            "2022-02-02T19:39:05Z ",
            " 2022-02-02T19:39:05Z",
            "+022-02-02T19:39:05Z",
            "2022-02-02T19:39:05[UTC]",
            "0001-01-01T00:00:00+00:01",
            "9999-12-31T23:59:60Z",
            "9999-12-31T23:59:59-00:01",
            "0000-06-01T00:00:00Z",
            "２022-02-02T19:39:05Z",
            "2022-02-02T19:39:0é5Z",
            "12022-02-02T19:39:05Z",
            "2022-02-02T19:39:05\u{2212}01:00",
        ] {
            assert!(Timestamp::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn is_read_as_it_was_written_and_sorts_like_its_text() {
        let mut last = None;
        for micros in [FIRST, FIRST + 1, -1, 0, 1, 951_782_400_000_000, LAST - 1, LAST] {
            let time = Timestamp::from_unix_micros(micros).unwrap();
            let text = time.to_string();
            assert_eq!(Timestamp::parse(&text), Ok(time));
            assert!(last < Some(text.clone()));
            last = Some(text);
        }
        assert_eq!(Timestamp::from_unix_micros(LAST + 1), None);
        assert_eq!(Timestamp::from_unix_micros(FIRST - 1), None);
    }
}
