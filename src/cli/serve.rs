//! `serve`: the service.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::logging::{self, LogLevel};
use super::{DatabaseArgs, Failure, Finished, TokenArgs};
use crate::access::Tokens;
use crate::feed::Feed;
use crate::http::{Access, Server, Stopper};
use crate::ingest::{Ingest, Limits};
use crate::metrics::Metrics;

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 4_096;

/// How many files to ask the system for: each connection is one.
const FILES_WANTED: u64 = 65_536;
/// How many the store's connections, the standard streams and the like take at most.
const FILES_OF_OUR_OWN: usize = 512;
/// Where the system allows hardly any file.
const FEWEST_CONNECTIONS: usize = 64;

/// How long a store that does not answer may hold up the end, once all requests are answered or given up.
const COMMIT_PATIENCE: Duration = Duration::from_secs(3);

/// Serve the HTTP API (this is what happens without a command)
///
/// Takes messages on POST /messages and answers questions on GET /rockets and GET /rockets/{channel}. SIGTERM and
/// SIGINT stop it: requests under way are answered, everything taken is committed.
#[derive(Clone, Debug, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    database: DatabaseArgs,

    /// The address to listen on; port 0 takes any free port and logs which
    #[arg(long, value_name = "ADDRESS:PORT", env = "ROCKET_MONITOR_LISTEN", default_value = "127.0.0.1:8088")]
    listen: String,

    #[command(flatten)]
    tokens: TokenArgs,

    /// Listen on an address that other machines can reach without both tokens, though anybody there may then read and write
    #[arg(long, env = "ROCKET_MONITOR_ALLOW_ANONYMOUS")]
    allow_anonymous: bool,

    /// Don't make or change the schema; refuse a database whose schema is not up to date
    #[arg(long, env = "ROCKET_MONITOR_NO_MIGRATE")]
    no_migrate: bool,

    /// From which severity on events are logged
    #[arg(long, value_name = "LEVEL", env = "ROCKET_MONITOR_LOG_LEVEL", default_value = "info")]
    log_level: LogLevel,
}

pub(super) fn run(args: &ServeArgs) -> Result<Finished, Failure> {
    logging::start(args.log_level);
    let access = access(args)?;
    let listeners = bind(args, &access)?;
    let store = args.database.open(!args.no_migrate)?;
    let (feed, feeding) = Feed::start(&store)?;
    let metrics = Metrics::new()?;
    let (ingest, committers) = Ingest::start(&store, &feed, &metrics, Limits::default())?;
    let connections = most_connections();
    let server = || Server::new(listeners, store, ingest.clone(), feed.clone(), metrics, access, connections);
    let served = actix_web::rt::System::new().block_on(async { serve(args, server()?).await });
    ingest.stop();
    let committed = committers.wait(COMMIT_PATIENCE);
    feed.stop();
    // It may be waiting for a store that does not answer, and holds nothing that could be lost.
    drop(feeding);
    served?;
    match committed {
        Ok(()) => tracing::info!("stopped; everything that was taken is committed"),
        Err(reason) => tracing::warn!(reason, "stopped; what could not be committed was not acknowledged"),
    }
    Ok(Finished::Well)
}

async fn serve(args: &ServeArgs, server: Server) -> Result<(), Failure> {
    for address in server.addresses() {
        tracing::info!(%address, database = %args.database.database, "listening");
    }
    // Watched before the first request is answered, so that no signal is missed.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stopper: Stopper = server.stopper();
    actix_web::rt::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        stopper.stop().await;
    });
    Ok(server.run().await?)
}

/// As many as the system allows files to be open, but for those that the store needs.
fn most_connections() -> usize {
    let allowed = rlimit::increase_nofile_limit(FILES_WANTED);
    let allowed = allowed.ok().and_then(|files| usize::try_from(files).ok()).unwrap_or(FEWEST_CONNECTIONS);
    let connections = allowed.saturating_sub(FILES_OF_OUR_OWN).max(FEWEST_CONNECTIONS);
    tracing::debug!(connections, "connections at a time");
    connections
}

fn access(args: &ServeArgs) -> Result<Access, Failure> {
    Ok(Access {
        write: args.tokens.write()?.map(Tokens::watched).transpose()?,
        read: args.tokens.read()?.map(Tokens::watched).transpose()?,
        allow_anonymous: args.allow_anonymous,
    })
}

/// Binds the sockets before anything else is touched: a second instance ends here.
fn bind(args: &ServeArgs, access: &Access) -> Result<Vec<TcpListener>, Failure> {
    let unusable = |reason: String| format!("--listen {}: {reason}", args.listen);
    let addresses: Vec<SocketAddr> =
        args.listen.to_socket_addrs().map_err(|error| unusable(error.to_string()))?.collect();
    let protected = access.write.is_some() && access.read.is_some();
    let is_open = |address: &&SocketAddr| !address.ip().is_loopback() && !protected && !args.allow_anonymous;
    if let Some(open) = addresses.iter().find(is_open) {
        return Err(unusable(format!(
            "{open} can be reached from other machines, and whoever reaches it may read and write. Listen on 127.0.0.1, \
             give --write-token-file and --read-token-file, or say --allow-anonymous if that is what you want."
        ))
        .into());
    }
    let bound = addresses.iter().map(|address| bind_one(*address).map_err(|error| unusable(error.to_string())));
    Ok(bound.collect::<Result<_, _>>()?)
}

fn bind_one(address: SocketAddr) -> std::io::Result<TcpListener> {
    let domain = if address.is_ipv4() { socket2::Domain::IPV4 } else { socket2::Domain::IPV6 };
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    // A restart need not wait until the connections of the process before have timed out.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
