//! Properties that must hold for any cursor and any query string; see [`crate::fuzzing`].
#![allow(clippy::unwrap_used, clippy::panic)]

use actix_web::ResponseError;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytestring::ByteString;

use super::{cursor as cursors, query as query_strings};
use crate::domain::message::MessageNumber;
use crate::domain::query::{Filters, Order, RocketQuery, Sort, SortKey};
use crate::domain::rocket::{Status, View};
use crate::domain::text::Text;
use crate::domain::timestamp::Timestamp;
use crate::store::report::{Report, ReportPosition};

/// The largest response to a bad query.
const MAX_RESPONSE_BYTES: usize = 16 * 1024;

/// A cursor: rejected, or a position that a store can start from, and whose encoding decodes to the
/// same position. The first byte selects the query; the rest is the cursor, or what it encodes.
pub fn cursor(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else { return };
    let sort = *Sort::ALL.get(usize::from(first % 6)).unwrap();
    let order = if first & 0x40 == 0 { Order::Asc } else { Order::Desc };
    let view = if first & 0x80 == 0 { View::BestEffort } else { View::Exact };
    let (filters, now) = (Filters::default(), Timestamp::FIRST);
    let query = RocketQuery {
        view,
        sort,
        order,
        filters,
        now,
        received_after: None,
        after: None,
        limit: 1,
        with_total: false,
    };
    let raw = std::str::from_utf8(rest).map(str::to_owned).unwrap_or_default();
    for cursor in [&raw, &URL_SAFE_NO_PAD.encode(rest)] {
        let Ok(position) = cursors::decode(cursor, &query) else { continue };
        let is_valid = match (&position.key, sort) {
            (SortKey::Null, sort) => sort.nullable(view),
            (SortKey::Integer(_), sort) => sort == Sort::Speed,
            (SortKey::Text(text), Sort::LatestUpdate) => Timestamp::parse(text).is_ok(),
            (SortKey::Text(text), Sort::Status) => {
                Status::ALL.iter().any(|status| status.name() == text)
            }
            (SortKey::Text(text), Sort::Channel) => text == position.channel.as_str(),
            (SortKey::Text(text), _) => Text::new(ByteString::from(text.as_str())).is_ok(),
        };
        assert!(is_valid, "{sort:?} {position:?}");
        assert_eq!(cursors::decode(&cursors::encode(&query, &position), &query), Ok(position));
    }
    for cursor in [raw, URL_SAFE_NO_PAD.encode(rest)] {
        Report::ALL.into_iter().for_each(|report| report_cursor(&cursor, report));
    }
}

/// A cursor of a report.
fn report_cursor(cursor: &str, report: Report) {
    let Ok(position) = cursors::decode_report(cursor, report) else { return };
    match &position {
        ReportPosition::Text(_) => assert!(![Report::Gaps, Report::Fleet].contains(&report)),
        ReportPosition::Gap { last, .. } => {
            assert_eq!(report, Report::Gaps);
            assert!(MessageNumber::new(*last).is_some(), "{last}");
        }
    }
    let encoded = cursors::encode_report(report, &position);
    assert_eq!(cursors::decode_report(&encoded, report), Ok(position));
}

/// A query string: accepted, or rejected with a response of bounded size.
pub fn query(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match query_strings::rockets(text, Timestamp::FIRST) {
        Ok(query) => {
            assert!((1..=1_000).contains(&query.limit));
            assert!(query.after.is_none() || text.contains('='));
        }
        Err(problem) => assert_bounded_problem(&problem),
    }
    query_strings::events(text).err().iter().for_each(assert_bounded_problem);
    for report in Report::ALL {
        match query_strings::report(text, report) {
            Ok(query) => assert!((1..=10_000).contains(&query.limit)),
            Err(problem) => assert_bounded_problem(&problem),
        }
    }
    query_strings::rocket(text).err().iter().for_each(assert_bounded_problem);
    query_strings::expect_none(text).err().iter().for_each(assert_bounded_problem);
}

fn assert_bounded_problem(problem: &crate::http::problem::Problem) {
    let response = problem.error_response();
    assert_eq!(response.status(), 400);
    let body = actix_web::body::to_bytes(response.into_body());
    let body = futures_util::FutureExt::now_or_never(body).unwrap().unwrap();
    assert!(body.len() <= MAX_RESPONSE_BYTES, "{} bytes", body.len());
    assert!(serde_json::from_slice::<serde_json::Value>(&body).is_ok());
}
