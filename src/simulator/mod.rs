//! The simulator: a fleet, a client that sends its messages to a running service, and a comparison
//! of the service's responses with the fleet.
//!
//! The service uses nothing of it. The simulator folds messages with its own code, because the test
//! compares this fold with the service's.

mod client;
mod fleet;
mod sender;
mod verify;

pub use client::SimulatorClient;
pub use fleet::{Arrivals, ExpectedProgress, ExpectedRocket, Fleet};
pub use sender::{SendTotals, Sender};
