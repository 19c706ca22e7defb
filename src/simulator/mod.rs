//! The simulator: a fleet, the client that sends its messages to a running service, and the
//! comparison of the service's answers with the fleet.
//!
//! Nothing here is used by the service. The expected state of a rocket comes from a fold of its
//! own, because the two are compared.

mod client;
mod fleet;
mod sender;
mod url;
mod verify;

pub use client::ServiceClient;
pub use fleet::{Arrivals, Expected, Fleet};
pub use sender::{Sender, Totals};
pub use url::base_url;
