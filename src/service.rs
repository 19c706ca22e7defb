//! The service: the only module that starts its parts, and stops them in the right order.
//!
//! [`Pipeline`] is the committers and the feed; [`Service`] adds the HTTP server. `serve` and the
//! tests start the same parts here.

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

/// How long a stop waits for the last commits, once all requests are answered or abandoned.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(3);
/// The deadline for closing the store, counted from the end of the server. The process must end
/// within ten seconds of the signal.
const CLOSE_DEADLINE: Duration = Duration::from_millis(3_500);

/// Why the service can't start, or failed.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Server(#[from] io::Error),
    /// Two metrics have the same name.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
}

/// The committers, which store messages, and the feed, which distributes changes.
#[derive(Debug)]
pub struct Pipeline {
    /// Queues messages for the committers.
    pub ingest: Ingest,
    feed: Feed,
    committers: Committers,
    feed_thread: JoinHandle<()>,
}

impl Pipeline {
    /// Starts the threads of the feed and of the committers.
    pub fn start(store: &Store, metrics: &Metrics, limits: Limits) -> Result<Self, StoreError> {
        // Committers report to the feed.
        let (feed, feed_thread) = Feed::start(store)?;
        let (ingest, committers) = Ingest::start(store, &feed, metrics, limits)?;
        Ok(Self { ingest, feed, committers, feed_thread })
    }

    /// Commits everything that is queued, and ends the threads. If that takes longer than the
    /// timeout, the error says why, and the threads keep running.
    pub fn stop(self, timeout: Duration) -> Result<(), &'static str> {
        self.ingest.stop();
        let committed = self.committers.wait(timeout);
        self.feed.stop();
        committed?;
        // The panic hook has logged a panic of the thread. Nothing depends on the feed any more.
        let _ = self.feed_thread.join();
        Ok(())
    }
}

/// The configuration of a service.
#[derive(Debug)]
pub struct ServiceConfig {
    /// Bound sockets.
    pub listeners: Vec<TcpListener>,
    /// The access rules.
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
    /// Starts all parts. The service answers requests until [`stop`](Self::stop), or until the
    /// future that `shutdown_signal` creates is ready. It is created on the server's thread, inside
    /// a tokio runtime, before this function returns.
    pub fn start<F>(
        store: Store,
        config: ServiceConfig,
        shutdown_signal: impl FnOnce() -> io::Result<F> + Send + 'static,
    ) -> Result<Self, ServiceError>
    where
        F: Future<Output = ()> + 'static,
    {
        let metrics = Metrics::new(http::paths())?;
        let pipeline = Pipeline::start(&store, &metrics, config.limits)?;
        let (ingest, feed, server_store) =
            (pipeline.ingest.clone(), pipeline.feed.clone(), store.clone());
        let ServiceConfig { listeners, access, capacity, .. } = config;
        let (started_sender, started_receiver) = mpsc::channel();
        let serve = async move {
            let shutdown_signal = shutdown_signal()?;
            let server =
                Server::new(listeners, server_store, ingest, feed, metrics, access, capacity)?;
            let stopper = server.stopper();
            // The caller waits for this value, so the receiver exists.
            let _ = started_sender.send((server.addresses().to_vec(), stopper.clone()));
            actix_web::rt::spawn(async move {
                shutdown_signal.await;
                stopper.stop().await;
            });
            server.run().await
        };
        let thread = std::thread::Builder::new().name("server".to_owned());
        let server = thread.spawn(|| actix_web::rt::System::new().block_on(serve))?;
        match started_receiver.recv() {
            Ok((addresses, stopper)) => Ok(Self { addresses, stopper, server, pipeline, store }),
            // The thread has ended without a running server.
            Err(_) => {
                let ended = join_server(server);
                // Nothing was queued, so nothing can be lost.
                let _ = pipeline.stop(COMMIT_TIMEOUT);
                ended?;
                unreachable!("the thread drops its sender without a value only if it fails")
            }
        }
    }

    /// The addresses that it listens on, with the actual port for port 0.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Stops accepting connections, answers the requests in progress, commits every accepted
    /// message, and closes the store, within ten seconds.
    pub fn stop(self) -> Result<(), ServiceError> {
        tokio::runtime::Builder::new_current_thread().build()?.block_on(self.stopper.stop());
        self.wait()
    }

    /// Waits until the server has ended, and stops everything else like [`stop`](Self::stop).
    pub fn wait(self) -> Result<(), ServiceError> {
        let served = join_server(self.server);
        let ended = Instant::now();
        match self.pipeline.stop(COMMIT_TIMEOUT) {
            Ok(()) => {
                close(
                    self.store,
                    (ended + CLOSE_DEADLINE).saturating_duration_since(Instant::now()),
                );
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

fn join_server(server: JoinHandle<io::Result<()>>) -> io::Result<()> {
    server.join().unwrap_or_else(|_| Err(io::Error::other("the server's thread panicked")))
}

/// Closes the store, or gives up after the timeout. Committed data is on disk either way; closing
/// only moves it into one file.
fn close(store: Store, timeout: Duration) {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        // The receiver is gone after the timeout.
        let _ = sender.send(store.close());
    });
    match receiver.recv_timeout(timeout) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the database could not be closed cleanly"),
        Err(_) => tracing::warn!("the database could not be closed in time"),
    }
}
