//! `serve`: the service.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::num::NonZero;
use std::process::ExitCode;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::logging::{self, LogLevel};
use super::{DatabaseArgs, Failure, TokenArgs};
use crate::http::{Access, Capacity};
use crate::ingest::Limits;
use crate::service::{Service, ServiceConfig};
use crate::tokens::Tokens;

/// The accept backlog: the connections that the kernel queues until the service accepts them.
const BACKLOG: i32 = 4_096;

/// The limit on open files to ask the system for. Each connection needs one.
const REQUESTED_OPEN_FILES: u64 = 65_536;

/// Serve the HTTP API and the dashboard (the default command)
///
/// Receives messages on POST /messages and answers queries on GET /rockets and GET
/// /rockets/{channel}. The API is described at /docs, and the dashboard is at /. On SIGTERM or
/// SIGINT, the service answers the requests it has received, commits every message it has accepted,
/// and stops.
///
/// Exit status: 0 if it was stopped by a signal, 1 if it could not start or failed.
#[derive(Clone, Debug, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    database: DatabaseArgs,

    /// The address to listen on; port 0 picks a free port, which is logged
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        env = "ROCKET_MONITOR_LISTEN",
        default_value = "127.0.0.1:8088"
    )]
    listen: String,

    #[command(flatten)]
    tokens: TokenArgs,

    /// Allow listening on an address that other machines can reach without both tokens; anyone
    /// there can then read and write
    #[arg(long, env = "ROCKET_MONITOR_ALLOW_ANONYMOUS")]
    allow_anonymous: bool,

    /// Don't create or change the schema; refuse a database whose schema is out of date
    #[arg(long, env = "ROCKET_MONITOR_NO_MIGRATE")]
    no_migrate: bool,

    /// The minimum severity to log
    #[arg(long, value_name = "LEVEL", env = "ROCKET_MONITOR_LOG_LEVEL", default_value = "info")]
    log_level: LogLevel,
}

pub(super) fn run(args: &ServeArgs) -> Result<ExitCode, Failure> {
    logging::start(args.log_level);
    let access = access(args)?;
    let capacity = capacity_of_system()?;
    let listeners = bind(args, &access)?;
    let store = args.database.open(!args.no_migrate)?;
    let config = ServiceConfig { listeners, access, capacity, limits: Limits::default() };
    let service = Service::start(store, config, stop_signal)?;
    for address in service.addresses() {
        logging::log_ready(address, &args.database.database);
    }
    service.wait()?;
    Ok(ExitCode::SUCCESS)
}

/// Is ready at SIGTERM or SIGINT. The process catches these signals as soon as this function
/// returns.
pub(super) fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
    })
}

/// Files that the threads, the log, the listener and the store hold open without any clients, and
/// those that each worker adds.
const BASE_FILES: usize = 21;
const FILES_PER_WORKER: usize = 6;
/// Files that the store opens for reads: two for each reader, or one connection to a server. If
/// files are scarce, it opens one reader.
const READER_FILES: usize = 64;
const MIN_READER_FILES: usize = 2;
/// Below this limit, files are scarce: run one worker and one reader.
const FEW_FILES: usize = 256;

/// Divides the open files that the system allows among workers, readers and connections. Fails if
/// there are too few.
fn capacity_of_system() -> Result<Capacity, String> {
    let allowed = rlimit::increase_nofile_limit(REQUESTED_OPEN_FILES);
    let allowed =
        allowed.map_err(|error| format!("the limit on open files can't be read: {error}"))?;
    let capacity = capacity_for(usize::try_from(allowed).unwrap_or(usize::MAX))?;
    tracing::debug!(allowed, connections = capacity.connections, "limit on open files");
    Ok(capacity)
}

fn capacity_for(files: usize) -> Result<Capacity, String> {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let (workers, readers) =
        if files < FEW_FILES { (1, MIN_READER_FILES) } else { (cores, READER_FILES) };
    let needed = BASE_FILES + workers * FILES_PER_WORKER + readers;
    let connections = files.saturating_sub(needed);
    if connections == 0 {
        return Err(format!(
            "the system lets this process open {files} files, but it needs at least {}, and one \
             more for each connection: raise the limit (ulimit -n, or LimitNOFILE= in a systemd \
             unit)",
            needed + 1
        ));
    }
    Ok(Capacity { workers, connections })
}

fn access(args: &ServeArgs) -> Result<Access, Failure> {
    Ok(Access {
        write: args.tokens.write()?.map(Tokens::into_watched).transpose()?,
        read: args.tokens.read()?.map(Tokens::into_watched).transpose()?,
        allow_anonymous: args.allow_anonymous,
    })
}

/// Binds the sockets before opening anything else, so that a second instance fails here.
fn bind(args: &ServeArgs, access: &Access) -> Result<Vec<TcpListener>, Failure> {
    // The error doesn't repeat the value, which may be anything, even a URL with a password.
    let invalid = |error| {
        let hint = listen_hint(&args.listen);
        format!("the value of --listen can't be used: {error}; {hint}")
    };
    let addresses: Vec<SocketAddr> = args.listen.to_socket_addrs().map_err(invalid)?.collect();
    let unusable = |reason: String| format!("--listen {}: {reason}", args.listen);
    let protected = access.write.is_some() && access.read.is_some();
    let is_open =
        |address: &&SocketAddr| !address.ip().is_loopback() && !protected && !args.allow_anonymous;
    if let Some(open) = addresses.iter().find(is_open) {
        return Err(unusable(format!(
            "other machines can reach {open}, and could read and write without a token. Listen on \
             127.0.0.1, give both --write-token-file and --read-token-file, or allow this with \
             --allow-anonymous."
        ))
        .into());
    }
    let bind_error = |error: std::io::Error| match error.kind() {
        ErrorKind::AddrInUse => {
            format!("{error}; stop the program that uses the address, or choose another port")
        }
        _ => error.to_string(),
    };
    let bound = addresses
        .iter()
        .map(|address| bind_one(*address).map_err(|error| unusable(bind_error(error))));
    Ok(bound.collect::<Result<_, _>>()?)
}

/// Suggests a correct value for a --listen that can't be used. It repeats only a host name and a
/// port of the value: the rest may be a password, if the value is a URL given by mistake.
fn listen_hint(listen: &str) -> String {
    const DEFAULT_PORT: &str = "8088";
    let address = listen.trim().trim_end_matches('/');
    let address = address.split_once("://").map_or(address, |(_, address)| address);
    let is_port = |text: &str| text.parse::<u16>().is_ok();
    let suggestion = match address.strip_prefix(':').unwrap_or(address) {
        port if is_port(port) => format!("127.0.0.1:{port}"),
        _ if address.parse::<std::net::Ipv6Addr>().is_ok() => format!("[{address}]:{DEFAULT_PORT}"),
        _ => match address.rsplit_once(':').unwrap_or((address, "")) {
            (host, _) if !is_host_name(host) => format!("127.0.0.1:{DEFAULT_PORT}"),
            (host, port) => format!("{host}:{}", if is_port(port) { port } else { DEFAULT_PORT }),
        },
    };
    if suggestion == listen {
        return "the name before the colon can't be resolved; use an address like 127.0.0.1"
            .to_owned();
    }
    format!(
        "give ADDRESS:PORT, for example --listen {suggestion}, or 0.0.0.0:PORT for every address \
         of this machine"
    )
}

fn is_host_name(text: &str) -> bool {
    let is_name_char = |char: char| char.is_ascii_alphanumeric() || "-._".contains(char);
    !text.is_empty() && text.chars().all(is_name_char)
}

fn bind_one(address: SocketAddr) -> std::io::Result<TcpListener> {
    let domain = if address.is_ipv4() { socket2::Domain::IPV4 } else { socket2::Domain::IPV6 };
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    // Lets a restarted process bind while connections of the previous process are in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unusable_listen_value_gets_a_hint_without_passwords() {
        for (listen, suggestion) in [
            ("8088", "127.0.0.1:8088"),
            (":9000", "127.0.0.1:9000"),
            ("", "127.0.0.1:8088"),
            ("0.0.0.0", "0.0.0.0:8088"),
            ("localhost", "localhost:8088"),
            ("127.0.0.1:99999", "127.0.0.1:8088"),
            ("::1", "[::1]:8088"),
            ("http://127.0.0.1:9000/", "127.0.0.1:9000"),
        ] {
            assert!(
                listen_hint(listen).contains(&format!("--listen {suggestion},")),
                "{listen}: {}",
                listen_hint(listen)
            );
        }
        assert!(listen_hint("nowhere.example:8088").contains("can't be resolved"));
        for listen in [
            "u:s3cret@h/d",
            "u:a:s3cret:1",
            "s3cret@h:1",
            "postgres://u:s3cret",
            "postgres://u:a:s3cret@127.0.0.1:5432/rockets",
            "host=h password=s3cret",
        ] {
            assert!(!listen_hint(listen).contains("s3cret"), "{listen}: {}", listen_hint(listen));
        }
    }
}
