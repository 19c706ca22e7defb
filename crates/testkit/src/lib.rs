//! What the tests and the benchmarks of Rocket Monitor share. `tests/README.md` says how to use it.
//!
//! | module | contents |
//! |---|---|
//! | [`app`] | a service in the test's own process, on each [`Backend`](app::Backend) |
//! | [`process`] | the program in a process of its own: a command to its end, or a service |
//! | [`client`], [`chunked`] | an HTTP client, and the lines of a streamed response |
//! | [`events`] | a client of event streams |
//! | [`browser`] | a headless Chromium |
//! | [`message`] | makers of messages |
//! | [`oracle`] | the fold that results are compared with, and messages in any order to fold |
//! | [`sqlite`], [`postgres`] | databases as another program sees them; a private Postgres server |
//! | [`faults`] | how often faults are injected, and the table of `./run faults` |
//! | [`wait`] | polling with a deadline |
//!
//! It panics where something is not as expected, because that fails the test.

pub mod app;
pub mod browser;
pub mod chunked;
pub mod client;
pub mod events;
pub mod faults;
pub mod message;
pub mod oracle;
pub mod postgres;
pub mod process;
pub mod sqlite;
pub mod wait;
