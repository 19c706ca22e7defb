//! The HTTP API: what it answers, and what clients can do to the service.

mod access;
mod described;
mod events;
mod forgetting;
mod headers;
mod hostile;
mod limits;
mod listing;
mod messages;
mod metrics;
mod overload;
mod report_pages;
mod reports;
