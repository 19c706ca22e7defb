//! The service: the only place that starts its parts, and stops them in the right order.
//!
//! `serve`, the tests and the benchmarks start the same parts here: the committers and the feed
//! ([`Pipeline`]), and before them the HTTP server ([`Service`]).

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::feed::Feed;
use crate::http::{self, Access, Capacity, Server, Stopper};
use crate::ingest::{Committers, Ingest, Limits};
use crate::metrics::Metrics;
use crate::store::{Store, StoreError};

/// How long a hung store may delay the stop, once all requests are answered or abandoned.
const COMMIT_PATIENCE: Duration = Duration::from_secs(3);
/// The deadline for closing the store, counted from the last request. The process must end within
/// ten seconds of the signal.
const CLOSE_BY: Duration = Duration::from_millis(3_500);

/// Why the service can't start, or failed.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The server failed.
    #[error(transparent)]
    Server(#[from] io::Error),
    /// Two metrics have the same name.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
}

/// What takes messages and distributes changes: the committers, and the feed.
#[derive(Debug)]
pub struct Pipeline {
    /// The entrance for messages.
    pub ingest: Ingest,
    feed: Feed,
    committers: Committers,
    feed_thread: JoinHandle<()>,
}

impl Pipeline {
    /// Starts the threads.
    pub fn start(store: &Store, metrics: &Metrics, limits: Limits) -> Result<Self, StoreError> {
        // Committers report to the feed.
        let (feed, feed_thread) = Feed::start(store)?;
        let (ingest, committers) = Ingest::start(store, &feed, metrics, limits)?;
        Ok(Self { ingest, feed, committers, feed_thread })
    }

    /// Commits everything that is queued, and ends the threads. The error says why not everything
    /// was committed in time; then the threads are left behind.
    pub fn stop(self, patience: Duration) -> Result<(), &'static str> {
        self.ingest.stop();
        let committed = self.committers.wait(patience);
        self.feed.stop();
        committed?;
        // A panic has been logged. Nothing depends on the feed any more.
        let _ = self.feed_thread.join();
        Ok(())
    }
}

/// How a service serves.
#[derive(Debug)]
pub struct ServiceConfig {
    /// Bound sockets.
    pub listeners: Vec<TcpListener>,
    /// Who may read and write.
    pub access: Access,
    /// The number of threads and connections.
    pub capacity: Capacity,
    /// The bounds of the queue.
    pub limits: Limits,
}

/// A running service.
#[derive(Debug)]
pub struct Service {
    addresses: Vec<SocketAddr>,
    stopper: Stopper,
    server: JoinHandle<io::Result<()>>,
    pipeline: Pipeline,
    store: Store,
}

impl Service {
    /// Starts all parts. Requests are answered from now on, until [`stop`](Self::stop), or until
    /// the future that `until` returns is ready. It is created on the server's thread, inside a
    /// tokio runtime, before this returns.
    pub fn start<F>(
        store: Store,
        config: ServiceConfig,
        until: impl FnOnce() -> io::Result<F> + Send + 'static,
    ) -> Result<Self, ServiceError>
    where
        F: Future<Output = ()> + 'static,
    {
        let metrics = Metrics::new(http::paths())?;
        let pipeline = Pipeline::start(&store, &metrics, config.limits)?;
        let (ingest, feed, served) =
            (pipeline.ingest.clone(), pipeline.feed.clone(), store.clone());
        let ServiceConfig { listeners, access, capacity, .. } = config;
        let (started, starting) = mpsc::channel();
        let serve = async move {
            let until = until()?;
            let server = Server::new(listeners, served, ingest, feed, metrics, access, capacity)?;
            let stopper = server.stopper();
            // The caller waits for this.
            let _ = started.send((server.addresses().to_vec(), stopper.clone()));
            actix_web::rt::spawn(async move {
                until.await;
                stopper.stop().await;
            });
            server.run().await
        };
        let thread = std::thread::Builder::new().name("server".to_owned());
        let server = thread.spawn(|| actix_web::rt::System::new().block_on(serve))?;
        match starting.recv() {
            Ok((addresses, stopper)) => Ok(Self { addresses, stopper, server, pipeline, store }),
            // The thread has ended without starting.
            Err(_) => {
                let failed = joined(server);
                // Nothing was queued, so nothing can be lost.
                let _ = pipeline.stop(COMMIT_PATIENCE);
                failed?;
                unreachable!("the server ends before it starts only if it fails")
            }
        }
    }

    /// The addresses that it listens on, with the actual port for port 0.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Stops accepting, answers the requests in progress, commits every message that was accepted,
    /// and closes the store. That takes at most ten seconds.
    pub fn stop(self) -> Result<(), ServiceError> {
        tokio::runtime::Builder::new_current_thread().build()?.block_on(self.stopper.stop());
        self.wait()
    }

    /// Waits until the server has ended, and stops everything else like [`stop`](Self::stop).
    pub fn wait(self) -> Result<(), ServiceError> {
        let served = joined(self.server);
        let ended = Instant::now();
        match self.pipeline.stop(COMMIT_PATIENCE) {
            Ok(()) => {
                close(self.store, (ended + CLOSE_BY).saturating_duration_since(Instant::now()));
                tracing::info!("stopped; every message that was accepted is committed");
            }
            Err(reason) => tracing::warn!(
                reason,
                "stopped; messages that could not be committed were not acknowledged"
            ),
        }
        Ok(served?)
    }
}

fn joined(server: JoinHandle<io::Result<()>>) -> io::Result<()> {
    server.join().unwrap_or_else(|_| Err(io::Error::other("the server's thread panicked")))
}

/// Closes the store, unless that takes too long. Committed data is safe either way; closing only
/// moves it into one file.
fn close(store: Store, patience: Duration) {
    let (closed, closing) = mpsc::channel();
    std::thread::spawn(move || {
        // The receiver is gone if this took too long.
        let _ = closed.send(store.close());
    });
    match closing.recv_timeout(patience) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the database could not be closed cleanly"),
        Err(_) => tracing::warn!("the database could not be closed in time"),
    }
}
