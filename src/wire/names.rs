//! The names that the API gives to the variants of enums, as OpenAPI schemas. The names themselves
//! are methods of the enums.

use std::borrow::Cow;

use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::domain::query::{Order, Sort};
use crate::domain::rocket::{Status, View, Views};
use crate::store::report::Report;

/// Describes each type as a string that is one of these names.
macro_rules! names {
    ($($type:ty: $schema:literal, $names:expr, $description:literal;)*) => {
        $(
            impl PartialSchema for $type {
                fn schema() -> RefOr<Schema> {
                    ObjectBuilder::new()
                        .schema_type(Type::String)
                        .description(Some($description))
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
