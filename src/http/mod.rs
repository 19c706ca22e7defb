//! The HTTP API: extract, call, answer. No SQL, no fold, no batching here; what a handler needs is in [`State`].
//!
//! `messages` writes, `rockets` and `reports` read, `events` streams; `params`, `cursor` and `body` translate what comes in, `problem`
//! what goes wrong.

mod access;
mod answers;
mod assets;
mod body;
mod cursor;
mod events;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod health;
mod messages;
mod metrics;
mod openapi;
mod params;
mod problem;
mod reports;
mod request_id;
mod rockets;
mod schema;
mod turns;

use std::any::Any;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZero;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::dev::{ServerHandle, Service};
use actix_web::http::header::{self, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::rt::net::TcpStream;
use actix_web::{App, Either, HttpRequest, HttpServer, Resource, ResponseError, Route, guard, web};
use socket2::SockRef;
use tokio::sync::watch;

use crate::feed::Feed;
use crate::ingest::Ingest;
use crate::metrics::{Metrics, StoreOperation};
use crate::store::{Store, StoreError};
pub use access::Access;
use answers::Answers;
use problem::Problem;
use request_id::RequestIds;
use turns::Turns;

/// How long a client may take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may be idle between requests.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// How long a stop waits for requests that are being answered.
const STOP_TIMEOUT_SECONDS: u64 = 6;

/// How long a client may take nothing of what it is sent.
const SILENCE: Duration = Duration::from_secs(30);

/// How many threads of each worker read lists, which can take long.
const LISTING_THREADS: usize = 4;

/// What handlers work with.
pub struct State {
    store: Store,
    ingest: Ingest,
    feed: Feed,
    metrics: Metrics,
    /// Of reads that may take long: as many as there are workers.
    long_reads: Turns,
    /// Becomes true when the service is told to stop.
    stopping: watch::Receiver<bool>,
}

impl State {
    /// What was read from the store, or the answer that it can't be read, which is logged and counted.
    fn read<T>(&self, read: Result<T, StoreError>) -> Result<T, Problem> {
        read.map_err(|error| {
            self.metrics.store_failed(StoreOperation::Read);
            tracing::error!(%error, "a read failed");
            Problem::unavailable(format!("the store can't be read now: {error}"))
        })
    }
}

/// A server that listens.
pub struct Server {
    addresses: Vec<SocketAddr>,
    server: actix_web::dev::Server,
    stop: watch::Sender<bool>,
}

/// Stops a server from elsewhere.
#[derive(Clone)]
pub struct Stopper {
    handle: ServerHandle,
    stop: watch::Sender<bool>,
}

impl Stopper {
    /// Stops accepting, lets the requests under way be answered, and ends the server.
    pub async fn stop(&self) {
        // Streams that could last for ever end themselves.
        self.stop.send_replace(true);
        self.handle.stop(true).await;
    }
}

impl Server {
    /// Makes a server on sockets that are bound already. It answers once [`run`](Self::run) is polled. When it has so many
    /// `connections`, others wait until some of these have ended.
    pub fn new(
        listeners: Vec<TcpListener>,
        store: Store,
        ingest: Ingest,
        feed: Feed,
        metrics: Metrics,
        access: Access,
        connections: usize,
    ) -> std::io::Result<Self> {
        let listening: Arc<[SocketAddr]> =
            listeners.iter().map(TcpListener::local_addr).collect::<std::io::Result<_>>()?;
        let access = web::Data::new(access);
        let (stop, stopping) = watch::channel(false);
        let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
        let state = web::Data::new(State {
            store,
            ingest,
            feed,
            metrics: metrics.clone(),
            long_reads: Turns::new(workers),
            stopping,
        });
        let (ids, answers) = (Arc::new(RequestIds::default()), Answers::default());
        let mut http = HttpServer::new(move || {
            let (ids, metrics, listening) = (Arc::clone(&ids), metrics.clone(), Arc::clone(&listening));
            let (rules, answers) = (access.clone(), answers.clone());
            App::new()
                .app_data(state.clone())
                .app_data(access.clone())
                .wrap_fn(move |request, service| {
                    let (started, metrics, answers) = (Instant::now(), metrics.clone(), answers.clone());
                    let id = request_id::choose(&ids, &request);
                    let allowed = rules.check(request.method(), request.path(), request.headers(), &listening);
                    let response = match allowed {
                        Ok(()) => Either::Left(service.call(request)),
                        Err(problem) => Either::Right(request.into_response(problem.error_response())),
                    };
                    async move {
                        let response = match response {
                            Either::Left(response) => response.await?,
                            Either::Right(response) => response,
                        };
                        let response = answers.bound(response);
                        metrics::count(&metrics, &response, started);
                        Ok(request_id::add(id, access::guard(response)))
                    }
                })
                .configure(routes)
        })
        .workers(workers)
        .max_connections(connections.div_ceil(workers))
        .worker_max_blocking_threads(LISTING_THREADS)
        .on_connect(|stream, _| limit_silence(stream))
        .disable_signals()
        .client_request_timeout(HEAD_TIMEOUT)
        .keep_alive(KEEP_ALIVE)
        .shutdown_timeout(STOP_TIMEOUT_SECONDS);
        for listener in listeners {
            http = http.listen(listener)?;
        }
        let addresses = http.addrs();
        Ok(Self { addresses, server: http.run(), stop })
    }
}

impl Server {
    /// Where it listens; with the port that the system chose if port 0 was asked for.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// A way to stop it.
    pub fn stopper(&self) -> Stopper {
        Stopper { handle: self.server.handle(), stop: self.stop.clone() }
    }

    /// Answers requests until it is stopped.
    pub async fn run(self) -> std::io::Result<()> {
        self.server.await
    }
}

/// Lets the system end a connection whose client takes nothing for too long of what it is sent: nobody here could.
fn limit_silence(stream: &dyn Any) {
    if let Some(stream) = stream.downcast_ref::<TcpStream>()
        && let Err(error) = SockRef::from(stream).set_tcp_user_timeout(Some(SILENCE))
    {
        tracing::debug!(%error, "a connection's silence can't be limited");
    }
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
        .service(resource("/session", "POST", &[Method::POST], web::post().to(access::begin_session)))
        .service(read("/assets/{name}", web::route().to(assets::asset)))
        .service(read("/openapi.json", web::route().to(openapi::description)))
        .service(read("/docs", web::route().to(openapi::docs)))
        .service(read("/docs/{name}", web::route().to(openapi::docs_file)))
        .service(read("/livez", web::route().to(health::live)))
        .service(read("/readyz", web::route().to(health::ready)))
        .default_service(web::to(no_such_resource));
}

/// A resource that is read: whatever answers GET answers HEAD.
fn read(path: &str, route: Route) -> Resource {
    resource(path, "GET, HEAD", &[Method::GET, Method::HEAD], route)
}

fn resource(path: &str, allow: &'static str, methods: &'static [Method], route: Route) -> Resource {
    let allowed = guard::fn_guard(move |context| methods.contains(&context.head().method));
    web::resource(path).route(route.guard(allowed)).default_service(web::to(move |request: HttpRequest| async move {
        let detail = format!("{} is not possible here, only {allow}.", request.method());
        let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail);
        Err::<String, _>(problem.with_header(header::ALLOW, HeaderValue::from_static(allow)))
    }))
}

async fn no_such_resource() -> Result<String, Problem> {
    Err(Problem::not_found("There is nothing at this path."))
}
