//! The server: its sockets, its workers, and the application of each worker.

use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::HttpService;
use actix_server::{Server as ActixServer, ServerHandle};
use actix_service::{ServiceFactory, ServiceFactoryExt, fn_service, map_config};
use actix_web::body::MessageBody;
use actix_web::dev::{AppConfig, ServiceRequest, ServiceResponse};
use actix_web::{App, web};
use tokio::sync::watch;

use super::access::Access;
use super::concurrency_limit::ConcurrencyLimit;
use super::extract::read_ahead::ReadAheadBudget;
use super::gap_totals::GapTotalsCache;
use super::middleware::Middleware;
use super::middleware::connection::{Connection, ConnectionTimers, KEEP_ALIVE};
use super::middleware::response_budget::ResponseBudget;
use super::readiness::Readiness;
use super::routes;
use super::state::State;
use crate::feed::Feed;
use crate::ingest::Ingest;
use crate::metrics::Metrics;
use crate::store::Store;

/// How long a stop waits for requests in progress.
const STOP_TIMEOUT_SECONDS: u64 = 6;

/// Blocking threads of a worker that stay free for fast reads while it runs all the slow reads that
/// the limits allow.
const FREE_BLOCKING_THREADS: usize = 4;
/// The kinds of slow requests, each with a limit: reports and large pages, other pages, totals,
/// snapshots, missing messages, and changes by operators.
const SLOW_REQUEST_KINDS: usize = 6;
/// The maximum number of exports at a time, and of merges.
const MAX_EXCHANGE_STREAMS: usize = 4;
/// The maximum number of streams of questions: each may hold a megabyte of answers.
const MAX_MISSING_STREAMS: usize = 64;
/// The maximum number of streams in zstd: each may have a window of 8 MiB.
const MAX_ZSTD_STREAMS: usize = 16;

/// The concurrency of a server.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// The number of threads that handle requests.
    pub workers: usize,
    /// The maximum number of connections. Further clients wait in the accept backlog.
    pub connections: usize,
}

/// A listening server.
pub struct Server {
    addresses: Vec<SocketAddr>,
    server: ActixServer,
    stop: watch::Sender<bool>,
}

/// Stops a server from another task.
#[derive(Clone, Debug)]
pub struct Stopper {
    handle: ServerHandle,
    stop: watch::Sender<bool>,
}

impl Stopper {
    /// Stops accepting connections, lets requests in progress finish, and ends the server.
    pub async fn stop(&self) {
        // Event streams watch this value, and end themselves.
        self.stop.send_replace(true);
        self.handle.stop(true).await;
    }
}

impl Server {
    /// Creates a server on bound sockets. It serves requests while [`run`](Self::run) is polled.
    pub fn new(
        listeners: Vec<TcpListener>,
        store: Store,
        ingest: Ingest,
        feed: Feed,
        metrics: Metrics,
        access: Access,
        capacity: Capacity,
    ) -> std::io::Result<Self> {
        let Capacity { workers, connections } = capacity;
        let listening: Vec<_> =
            listeners.iter().map(TcpListener::local_addr).collect::<std::io::Result<_>>()?;
        let addresses = listening.clone();
        let (stop, stopping) = watch::channel(false);
        let middleware = Middleware {
            access: web::Data::new(access),
            listening: listening.into(),
            ids: Arc::default(),
            response_budget: ResponseBudget::default(),
            metrics: metrics.clone(),
        };
        let read_limit = || ConcurrencyLimit::new(workers);
        let state = web::Data::new(State {
            store,
            ingest,
            feed,
            metrics,
            long_read_limit: read_limit(),
            search_limit: read_limit(),
            totals_limit: read_limit(),
            gap_totals: GapTotalsCache::default(),
            change_limit: read_limit(),
            snapshot_limit: read_limit(),
            missing_limit: read_limit(),
            missing_streams: ConcurrencyLimit::new(MAX_MISSING_STREAMS),
            zstd_streams: ConcurrencyLimit::new(MAX_ZSTD_STREAMS),
            export_streams: ConcurrencyLimit::new(MAX_EXCHANGE_STREAMS),
            merge_streams: ConcurrencyLimit::new(MAX_EXCHANGE_STREAMS),
            read_ahead: ReadAheadBudget::default(),
            readiness: Readiness::default(),
            stopping,
        });
        let ids = Arc::clone(&middleware.ids);
        let app = move || application(state.clone(), middleware.clone());
        let mut server = ActixServer::build()
            .workers(workers)
            .max_concurrent_connections(connections.div_ceil(workers))
            .worker_max_blocking_threads(SLOW_REQUEST_KINDS * workers + FREE_BLOCKING_THREADS)
            .disable_signals()
            .shutdown_timeout(STOP_TIMEOUT_SECONDS);
        for listener in listeners {
            let (app, stopping) = (app.clone(), server.graceful_shutdown_signal());
            let ids = Arc::clone(&ids);
            server = server.listen("http", listener, move || {
                let timers = Rc::new(ConnectionTimers::new(Arc::clone(&ids)));
                let stopping = stopping.clone();
                let http = HttpService::build()
                    .graceful_shutdown_signal(move || {
                        let stopping = stopping.clone();
                        async move { stopping.notified().await }
                    })
                    .client_request_timeout(Duration::ZERO)
                    .keep_alive(KEEP_ALIVE)
                    .on_connect_ext(Connection::share_state)
                    .h1(map_config(app(), |()| AppConfig::default()));
                fn_service(move |stream| std::future::ready(Ok(timers.accept(stream))))
                    .and_then(http)
            })?;
        }
        Ok(Self { addresses, server: server.run(), stop })
    }

    /// The addresses that it listens on, with the actual port for port 0.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub fn stopper(&self) -> Stopper {
        Stopper { handle: self.server.handle(), stop: self.stop.clone() }
    }

    /// Serves requests until a [`Stopper`] stops it.
    pub async fn run(self) -> std::io::Result<()> {
        self.server.await
    }
}

/// The application of one worker.
fn application(
    state: web::Data<State>,
    middleware: Middleware,
) -> App<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<impl MessageBody>,
        Error = actix_web::Error,
        InitError = (),
    >,
> {
    App::new()
        .app_data(web::Data::new(state.store.reader()))
        .app_data(middleware.access.clone())
        .app_data(state)
        .wrap_fn(move |request, service| middleware.handle(request, service))
        .configure(routes::configure)
}
