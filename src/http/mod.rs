//! The HTTP API: extract, call, answer. No SQL and no fold here; what handlers need is in
//! [`State`].
//!
//! `connection` and `middleware` handle every request. `messages` writes, `rockets` (through
//! `coalesced_reads`) and `reports` read, `events` streams. `params`, `cursor` and `body` parse
//! requests, `problem` formats errors.

mod assets;
mod auth;
mod body;
mod coalesced_reads;
mod connection;
mod cursor;
mod events;
mod framing;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod health;
mod messages;
mod metrics;
mod middleware;
mod openapi;
mod params;
mod problem;
mod read_limit;
mod reports;
mod request_id;
mod response_budget;
mod rockets;
mod schema;
mod upgrade;

use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::HttpService;
use actix_server::{Server as Listening, ServerHandle};
use actix_service::{ServiceFactory, ServiceFactoryExt, fn_service, map_config};
use actix_web::body::MessageBody;
use actix_web::dev::{AppConfig, ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::{App, HttpRequest, Resource, Route, guard, web};
use tokio::sync::watch;

use crate::feed::Feed;
use crate::ingest::Ingest;
use crate::metrics::{Metrics, StoreOperation};
use crate::store::{Store, StoreError};
pub use auth::Access;
use coalesced_reads::CoalescedReads;
use connection::{Connection, ConnectionTimers, KEEP_ALIVE};
use health::Readiness;
use middleware::Middleware;
use problem::Problem;
use read_limit::ReadLimit;
use response_budget::ResponseBudget;

/// How long a stop waits for requests in progress.
const STOP_TIMEOUT_SECONDS: u64 = 6;

/// The number of a worker's threads that are left for fast lists while as many slow reads run as
/// may, all on this worker.
const FAST_LISTING_THREADS: usize = 4;
/// Slow reads are of these kinds: reports and large pages, other pages, totals, and snapshots.
const SLOW_READS: usize = 4;

/// The state that handlers share.
pub struct State {
    store: Store,
    ingest: Ingest,
    feed: Feed,
    metrics: Metrics,
    /// The limit for slow reads: as many as there are workers.
    long_reads: ReadLimit,
    /// The limit for pages for which all rockets may be searched. They are much faster, so they
    /// never wait for slow reads.
    searches: ReadLimit,
    /// The limit for reads of the fleet's totals, which never wait for slow reads.
    totals: ReadLimit,
    /// The limit for the pages of snapshots.
    snapshots: ReadLimit,
    readiness: Readiness,
    /// Becomes true when the service stops.
    stopping: watch::Receiver<bool>,
}

impl State {
    /// Maps a failed read to a 503, and counts it.
    fn read<T>(&self, read: Result<T, StoreError>) -> Result<T, Problem> {
        read.map_err(|error| {
            self.metrics.store_failed(StoreOperation::Read);
            Problem::unavailable("the database can't be read now").because(error)
        })
    }
}

/// The concurrency of a server.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// The number of threads that answer requests.
    pub workers: usize,
    /// The most connected clients; others wait until some of these disconnect.
    pub connections: usize,
}

/// A listening server.
pub struct Server {
    addresses: Vec<SocketAddr>,
    server: Listening,
    stop: watch::Sender<bool>,
}

/// Stops a server from another task.
#[derive(Clone)]
pub struct Stopper {
    handle: ServerHandle,
    stop: watch::Sender<bool>,
}

impl Stopper {
    /// Stops accepting, lets requests in progress finish, and ends the server.
    pub async fn stop(&self) {
        // Endless streams end themselves.
        self.stop.send_replace(true);
        self.handle.stop(true).await;
    }
}

impl Server {
    /// Creates a server on bound sockets. It answers once [`run`](Self::run) is polled.
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
        let around = Middleware {
            access: web::Data::new(access),
            listening: listening.into(),
            ids: Arc::default(),
            answers: ResponseBudget::default(),
            metrics: metrics.clone(),
        };
        let slow_reads = || ReadLimit::new(workers);
        let state = web::Data::new(State {
            store,
            ingest,
            feed,
            metrics,
            long_reads: slow_reads(),
            searches: slow_reads(),
            totals: slow_reads(),
            snapshots: slow_reads(),
            readiness: Readiness::default(),
            stopping,
        });
        let ids = Arc::clone(&around.ids);
        let app = move || application(state.clone(), around.clone());
        let mut server = Listening::build()
            .workers(workers)
            .max_concurrent_connections(connections.div_ceil(workers))
            .worker_max_blocking_threads(SLOW_READS * workers + FAST_LISTING_THREADS)
            .disable_signals()
            .shutdown_timeout(STOP_TIMEOUT_SECONDS);
        for listener in listeners {
            let (app, stopping) = (app.clone(), server.graceful_shutdown_signal());
            let ids = Arc::clone(&ids);
            server = server.listen("http", listener, move || {
                let (connections, stopping) =
                    (Rc::new(ConnectionTimers::new(Arc::clone(&ids))), stopping.clone());
                let http = HttpService::build()
                    .graceful_shutdown_signal(move || {
                        let stopping = stopping.clone();
                        async move { stopping.notified().await }
                    })
                    .client_request_timeout(Duration::ZERO)
                    .keep_alive(KEEP_ALIVE)
                    .on_connect_ext(Connection::introduce)
                    .h1(map_config(app(), |()| AppConfig::default()));
                fn_service(move |stream| std::future::ready(Ok(connections.accept(stream))))
                    .and_then(http)
            })?;
        }
        Ok(Self { addresses, server: server.run(), stop })
    }

    /// The addresses that it listens on, with the actual port for port 0.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Returns a handle to stop it.
    pub fn stopper(&self) -> Stopper {
        Stopper { handle: self.server.handle(), stop: self.stop.clone() }
    }

    /// Answers requests until it is stopped.
    pub async fn run(self) -> std::io::Result<()> {
        self.server.await
    }
}

/// The application of one worker.
fn application(
    state: web::Data<State>,
    around: Middleware,
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
        .app_data(web::Data::new(CoalescedReads::new(state.store.clone())))
        .app_data(around.access.clone())
        .app_data(state)
        .wrap_fn(move |request, service| around.answer(request, service))
        .configure(routes)
}

fn routes(config: &mut web::ServiceConfig) {
    config
        .service(resource("/messages", "POST", &[Method::POST], web::post().to(messages::post)))
        .service(read("/rockets", web::route().to(rockets::list)))
        .service(read("/rockets/{channel}", web::route().to(rockets::one)))
        .service(read("/events", web::route().to(events::follow)))
        .service(read("/stats", web::route().to(reports::stats)))
        .service(read("/reports", web::route().to(reports::list)))
        .service(read("/reports/{name}", web::route().to(reports::one)))
        .service(read("/metrics", web::route().to(metrics::show)))
        .service(read("/", web::route().to(assets::page)))
        .service(
            resource(
                "/session",
                "POST, DELETE",
                &[Method::POST, Method::DELETE],
                web::post().to(auth::begin_session),
            )
            .route(web::delete().to(auth::end_session)),
        )
        .service(read("/assets/{name}", web::route().to(assets::asset)))
        .service(read("/openapi.json", web::route().to(openapi::description)))
        .service(read("/docs", web::route().to(openapi::docs)))
        .service(read("/docs/{name}", web::route().to(openapi::docs_file)))
        .service(read("/livez", web::route().to(health::live)))
        .service(read("/readyz", web::route().to(health::ready)))
        .default_service(web::to(no_such_resource));
}

/// A read-only resource: it answers GET and HEAD.
fn read(path: &str, route: Route) -> Resource {
    resource(path, "GET, HEAD", &[Method::GET, Method::HEAD], route)
}

fn resource(path: &str, allow: &'static str, methods: &'static [Method], route: Route) -> Resource {
    let allowed = guard::fn_guard(move |context| methods.contains(&context.head().method));
    let others = web::to(move |request: HttpRequest, payload: web::Payload| async move {
        Err::<String, _>(refuse(&request, payload, method_not_allowed(allow)).await)
    });
    web::resource(path).route(route.guard(allowed)).default_service(others)
}

fn method_not_allowed(allow: &'static str) -> Problem {
    let problem =
        Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("This path supports only {allow}."));
    problem.with_header(header::ALLOW, HeaderValue::from_static(allow))
}

async fn no_such_resource(request: HttpRequest, payload: web::Payload) -> Result<String, Problem> {
    Err(refuse(&request, payload, Problem::not_found("There is nothing at this path.")).await)
}

/// Refuses a request whose body nobody reads.
async fn refuse(request: &HttpRequest, mut payload: web::Payload, problem: Problem) -> Problem {
    body::discard(body::announced_length(request.headers()), &mut payload).await;
    problem
}
