//! Errors as `application/problem+json` (RFC 9457). This is the only place where an error becomes a
//! response.

use std::fmt;

use actix_web::body::BoxBody;
use actix_web::dev::ServiceResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;
use utoipa::ToSchema;

use crate::ingest::IngestError;
use crate::wire::message::Rejection;

/// How long a client should wait before it retries, in seconds.
const RETRY_AFTER_SECONDS: &str = "1";

/// An error, as shown to the client.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
    errors: Vec<FieldError>,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Extension members (RFC 9457, section 3.2).
    members: serde_json::Map<String, serde_json::Value>,
    /// The cause of a server error. Only the log has it: clients must not see the database's
    /// errors.
    reason: Option<Box<str>>,
}

/// An extension of a response: the cause of its error, for the log.
pub(super) struct LoggedReason(pub(super) String);

/// A fault in one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum FieldError {
    /// A member of the body.
    Member {
        /// A JSON Pointer.
        pointer: String,
        /// The fault.
        detail: String,
    },
    /// A parameter of the query.
    Parameter {
        /// Its name.
        parameter: String,
        /// The fault.
        detail: String,
    },
}

impl FieldError {
    /// Whether it is about this parameter.
    pub(super) fn is_about(&self, name: &str) -> bool {
        matches!(self, Self::Parameter { parameter, .. } if parameter == name)
    }
}

impl Problem {
    /// The detail is a sentence for people.
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
            errors: Vec::new(),
            headers: Vec::new(),
            members: serde_json::Map::new(),
            reason: None,
        }
    }

    /// Adds the cause of a server error, only for the log.
    pub(super) fn with_reason(mut self, reason: impl fmt::Display) -> Self {
        self.reason = Some(reason.to_string().into());
        self
    }

    /// What the log says about a server error.
    pub(super) fn logged_reason(&self) -> &str {
        self.reason.as_deref().unwrap_or(&self.detail)
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// 400, with the faults of a query string.
    pub(super) fn bad_query(errors: Vec<FieldError>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "The query string is not valid for this resource.")
            .with_errors(errors)
    }

    /// 400 or 422: the body is not a question about missing messages.
    pub(super) fn bad_question(rejection: Rejection) -> Self {
        Self::rejected(rejection, "question", NDJSON_HINT_FOR_QUESTIONS)
    }

    /// 400 or 422: the body is not a declaration of lost numbers.
    pub(super) fn bad_declaration(rejection: Rejection) -> Self {
        Self::rejected(rejection, "declaration of lost numbers", "")
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 500: a handler has panicked.
    pub(super) fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "The service failed unexpectedly; its log has the details.",
        )
    }

    /// 503 with Retry-After. The detail continues "This is not possible now: ".
    pub(super) fn unavailable(detail: impl fmt::Display) -> Self {
        let detail = format!(
            "This is not possible now: {detail}. It is safe to send the request again later."
        );
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail).with_retry_after()
    }

    pub(super) fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self
    }

    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Adds the members of an object to the problem.
    pub(super) fn with_members(mut self, object: &impl Serialize) -> Self {
        match serde_json::to_value(object) {
            Ok(serde_json::Value::Object(members)) => self.members = members,
            other => unreachable!("a struct with text keys is a JSON object, not {other:?}"),
        }
        self
    }

    pub(super) fn to_json(&self) -> String {
        let json = ProblemJson {
            // With this type, RFC 9457 requires the status's phrase as the title.
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            errors: &self.errors,
            members: &self.members,
        };
        serde_json::to_string(&json)
            .unwrap_or_else(|error| unreachable!("a problem is plain JSON: {error}"))
    }

    fn with_retry_after(self) -> Self {
        self.with_header(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS))
    }
}

/// A problem according to RFC 9457.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem, example = json!({
    "type": "about:blank", "title": "Unprocessable Entity", "status": 422,
    "detail": "The body is JSON, but not a valid message.",
    "errors": [{
        "pointer": "/metadata/messageNumber", "detail": "must be an integer from 1 to 4294967295"
    }]
}))]
pub(super) struct ProblemJson<'p> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    detail: &'p str,
    /// The faulty fields, if any.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(value_type = Option<Vec<FieldError>>)]
    errors: &'p [FieldError],
    #[serde(flatten)]
    #[schema(ignore)]
    members: &'p serde_json::Map<String, serde_json::Value>,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.status, self.detail)
    }
}

impl std::error::Error for Problem {}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        let mut response = HttpResponse::build(self.status);
        response.content_type("application/problem+json");
        for header in &self.headers {
            response.append_header(header.clone());
        }
        if self.status.is_server_error() {
            response.extensions_mut().insert(LoggedReason(self.logged_reason().to_owned()));
        }
        response.body(self.to_json())
    }
}

/// A hint for clients that send several messages as one JSON text.
pub(super) const NDJSON_HINT: &str = "To send many messages, one per line, use Content-Type: \
                                       application/x-ndjson.";

/// The same for questions.
const NDJSON_HINT_FOR_QUESTIONS: &str = "To ask many questions, one per line, use Content-Type: \
                                         application/x-ndjson.";

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        Self::rejected(rejection, "message", NDJSON_HINT)
    }
}

impl Problem {
    /// 400 or 422 for a body that should have been a `kind`. The hint is for several as one body.
    fn rejected(rejection: Rejection, kind: &str, ndjson_hint: &str) -> Self {
        match rejection {
            Rejection::NotJson(reason) => {
                let hint = if reason.starts_with("trailing characters") { ndjson_hint } else { "" };
                let detail = format!("The body is not one JSON text in UTF-8: {reason}. {hint}");
                Self::new(StatusCode::BAD_REQUEST, detail.trim_end())
            }
            Rejection::Invalid(faults) => {
                let is_array = faults
                    .iter()
                    .any(|fault| fault.pointer.is_empty() && fault.detail.ends_with("an array"));
                let hint = if is_array { ndjson_hint } else { "" };
                let detail = format!("The body is JSON, but not a valid {kind}. {hint}");
                let member = |fault: crate::wire::message::Fault| FieldError::Member {
                    pointer: fault.pointer,
                    detail: fault.detail,
                };
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail.trim_end())
                    .with_errors(faults.into_iter().map(member).collect())
            }
        }
    }
}

impl From<IngestError> for Problem {
    fn from(error: IngestError) -> Self {
        let problem = Self::unavailable(&error);
        match error {
            IngestError::Store(reason) => problem.with_reason(reason),
            IngestError::Overloaded | IngestError::Stalled | IngestError::Stopping => problem,
        }
    }
}

/// Replaces the responses of other errors, such as those of extractors, by problems.
pub(super) fn replace_foreign_errors(
    response: ServiceResponse<BoxBody>,
) -> ServiceResponse<BoxBody> {
    match response.response().error() {
        Some(error) if error.as_error::<Problem>().is_none() => {
            let problem =
                Problem::new(response.status(), format!("The request can't be read: {error}."));
            response.into_response(problem.error_response())
        }
        _ => response,
    }
}

#[cfg(test)]
mod tests {
    use actix_web::error::PayloadError;
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn errors_of_extractors_become_problems() {
        let response = HttpResponse::from_error(PayloadError::Overflow);
        let response = replace_foreign_errors(ServiceResponse::new(
            TestRequest::default().to_http_request(),
            response,
        ));
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(
            response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes),
            Some(&b"application/problem+json"[..])
        );
    }
}
