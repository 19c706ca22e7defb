//! The types of the domain in the API's description: enums by the names of their variants, numbers
//! and texts with their bounds.

use std::borrow::Cow;

use utoipa::openapi::{KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::domain::message::{MessageNumber, SpeedChange};
use crate::domain::query::{Order, Sort};
use crate::domain::rocket::{Status, View, Views};
use crate::domain::text::{Channel, Text};
use crate::domain::timestamp::Timestamp;
use crate::store::report::Report;

/// Describes each type as a string that is one of some names: its schema's name, the names, and a
/// description.
macro_rules! names {
    ($($type:ty: $schema:expr, $names:expr $(, $description:literal)?;)*) => {
        $(
            impl PartialSchema for $type {
                fn schema() -> RefOr<Schema> {
                    ObjectBuilder::new()
                        .schema_type(Type::String)
                        $(.description(Some($description)))?
                        .enum_values(Some($names))
                        .into()
                }
            }

            impl ToSchema for $type {
                fn name() -> Cow<'static, str> {
                    Cow::Borrowed($schema)
                }
            }
        )*
    };
}

pub(super) use names;

names! {
    Status: "Status", Status::ALL.map(Status::name),
        "The phase of a rocket's life. An exploded rocket stays exploded.";
    View: "View", View::ALL.map(View::name),
        "Which messages count: all that were processed, or the unbroken sequence from message 1.";
    Views: "Views", Views::ALL.map(Views::name),
        "Which messages count; `both` returns both views.";
    Sort: "Sort", Sort::ALL.map(Sort::name), "The sort key of rockets.";
    Order: "Order", Order::ALL.map(Order::name), "Ascending or descending.";
    Report: "ReportName", Report::ALL.map(Report::name), "The name of a report.";
}

/// A text, with what [`Text::new`] accepts.
fn text() -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(Text::MAX_CHARS))
        .pattern(Some(r"^[^\u0000-\u001f\u007f-\u009f]+$"))
}

impl PartialSchema for Text {
    fn schema() -> RefOr<Schema> {
        text().into()
    }
}

impl ToSchema for Text {}

impl PartialSchema for Channel {
    fn schema() -> RefOr<Schema> {
        text().description(Some("The rocket's radio channel, which is its identity.")).into()
    }
}

impl ToSchema for Channel {}

fn integer(minimum: i64, maximum: i64) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int32)))
        .minimum(Some(minimum))
        .maximum(Some(maximum))
}

impl PartialSchema for MessageNumber {
    fn schema() -> RefOr<Schema> {
        integer(Self::MIN, Self::MAX)
            .description(Some("The message's place in the channel's order."))
            .into()
    }
}

impl ToSchema for MessageNumber {}

impl PartialSchema for SpeedChange {
    fn schema() -> RefOr<Schema> {
        integer(Self::MIN, Self::MAX).into()
    }
}

impl ToSchema for SpeedChange {}

/// A date that exists, in the years 0001 to 9999, and a time of RFC 3339.
const TIME_PATTERN: &str = concat!(
    "^(?!0000)(",
    "[0-9]{4}-(",
    "(0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])",
    "|(0[469]|11)-(0[1-9]|[12][0-9]|30)",
    "|02-(0[1-9]|1[0-9]|2[0-8])",
    ")",
    "|([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29",
    r")[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?",
    "([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$",
);

/// Describes a time as messages have it.
impl PartialSchema for Timestamp {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .pattern(Some(TIME_PATTERN))
            .description(Some(
                "When it was sent. Digits after the sixth decimal of a second are dropped. Second \
                 60 is accepted, and means the first second of the next minute.",
            ))
            .into()
    }
}

impl ToSchema for Timestamp {}
