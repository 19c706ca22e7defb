//! The HTTP API: what it answers, and what clients can do to the service.

mod access;
mod activity;
mod described;
mod encodings;
mod events;
mod forgetting;
mod headers;
mod hostile;
mod limits;
mod listing;
mod losses;
mod merging;
mod messages;
mod metrics;
mod missing;
mod overload;
mod report_pages;
mod reports;
