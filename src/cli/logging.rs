//! Logging to stderr: as text on a terminal, as JSON otherwise.

use std::fmt::{Debug, Display};
use std::io::{IsTerminal, Write, stderr};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use clap::ValueEnum;
use tracing::field::Field;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::fmt::{self, FormatFields};
use tracing_subscriber::prelude::*;

use super::output::terminal_has_colours;
use crate::terminal::{escape, escape_json};

/// The minimum severity that is logged.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum LogLevel {
    Off,
    Error,
    #[value(alias = "warning")]
    Warn,
    Info,
    Debug,
    Trace,
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Off => Self::OFF,
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

/// Starts logging. May be called only once.
pub(super) fn start(level: LogLevel) {
    // If stderr is closed, the log is lost: reporting the error on stderr would panic the logging
    // thread.
    let layer = fmt::layer().log_internal_errors(false);
    let layer = if logs_to_terminal() {
        let text = layer.with_writer(stderr).with_ansi(terminal_has_colours()).with_target(false);
        text.fmt_fields(escaped_text_fields()).boxed()
    } else {
        layer
            .with_writer(|| EscapedJson(stderr()))
            .json()
            .flatten_event(true)
            .with_ansi(false)
            .boxed()
    };
    tracing_subscriber::registry().with(layer.with_filter(target_filter(level.into()))).init();
    // Logs panics like other events: a log collector may not understand the standard text.
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let place = panic.location().map(ToString::to_string);
        let reason = panic.payload_as_str().unwrap_or("unknown");
        tracing::error!(thread = thread.name(), place, reason, "a thread panicked");
    }));
}

/// Which events are logged. The INFO events of libraries help only with debugging, so they need
/// level DEBUG.
fn target_filter(level: LevelFilter) -> Targets {
    let libraries = if level > LevelFilter::INFO { level } else { level.min(LevelFilter::WARN) };
    // The pool warns about every closed connection, and then replaces it.
    let pool = if level > LevelFilter::INFO { level } else { level.min(LevelFilter::ERROR) };
    let targets = Targets::new().with_default(libraries).with_target("rocket_monitor", level);
    targets.with_target("sqlx_core::pool", pool)
}

/// Logs that the service is listening on this address.
pub(super) fn log_ready(address: &SocketAddr, database: &dyn Display) {
    let url = url(*address);
    if logs_to_terminal() {
        tracing::info!(%database, "Rocket Monitor is ready: open {url}");
    } else {
        tracing::info!(%address, %database, url, "listening");
    }
}

/// The URL to open in a browser on this machine.
fn url(mut address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    format!("http://{address}/")
}

fn logs_to_terminal() -> bool {
    stderr().is_terminal()
}

/// Formats the message and the fields as text. Escapes unsafe text of senders in them.
fn escaped_text_fields() -> impl for<'w> FormatFields<'w> + Send + Sync + 'static {
    let write = |writer: &mut Writer<'_>, field: &Field, value: &dyn Debug| {
        let value = format!("{value:?}");
        let value = escape(&value);
        match field.name() {
            "message" => writer.write_str(&value),
            name if writer.has_ansi_escapes() => {
                write!(writer, "\u{1b}[3m{name}\u{1b}[0m\u{1b}[2m=\u{1b}[0m{value}")
            }
            name => write!(writer, "{name}={value}"),
        }
    };
    debug_fn(write).delimited(" ")
}

/// Writes lines of JSON, escaped so that they are safe to view on a terminal.
struct EscapedJson<W>(W);

impl<W: Write> Write for EscapedJson<W> {
    /// Takes one whole event at a time.
    fn write(&mut self, event: &[u8]) -> std::io::Result<usize> {
        self.0.write_all(escape_json(&String::from_utf8_lossy(event)).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct CapturedLog(Arc<Mutex<Vec<u8>>>);

    impl Write for CapturedLog {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().map_or(Ok(0), |mut log| log.write(bytes))
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The log, if a sender's text is the message, a field, and a displayed field.
    fn log_hostile_text(
        layer: impl Fn(CapturedLog) -> Box<dyn Layer<tracing_subscriber::Registry> + Send + Sync>,
    ) -> String {
        let log = CapturedLog::default();
        let hostile = "\u{1b}[2J\n2026 INFO forged\u{202e}\u{200b}\u{9b}é";
        tracing::subscriber::with_default(
            tracing_subscriber::registry().with(layer(log.clone())),
            || {
                tracing::warn!(hostile, shown = %hostile, "{hostile}");
            },
        );
        let bytes = log.0.lock().map(|log| log.clone()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[test]
    fn text_from_senders_can_neither_control_the_terminal_nor_forge_lines() {
        let text = log_hostile_text(|log| {
            let layer = fmt::layer().with_writer(move || log.clone()).with_ansi(false);
            layer.fmt_fields(escaped_text_fields()).boxed()
        });
        let json = log_hostile_text(|log| {
            fmt::layer().json().with_writer(move || EscapedJson(log.clone())).boxed()
        });
        for (log, times) in [(&text, 3), (&json, 3)] {
            assert_eq!(log.matches("forged").count(), times, "{log}");
            assert_eq!(log.matches('é').count(), times, "{log}");
            assert_eq!(crate::terminal::escape_lines(log), log.as_str());
            assert_eq!(log.lines().count(), 1, "{log}");
        }
        assert!(text.contains(r"\u{1b}[2J\n2026 INFO forged\u{202e}\u{200b}\u{9b}é"), "{text}");
        let event: serde_json::Value = serde_json::from_str(&json).unwrap_or_default();
        assert_eq!(
            event["fields"]["message"],
            "\u{1b}[2J\n2026 INFO forged\u{202e}\u{200b}\u{9b}é"
        );
    }

    #[test]
    fn libraries_log_warnings_and_at_level_debug_everything() {
        for (level, actix, own) in [
            (LogLevel::Off, LevelFilter::OFF, LevelFilter::OFF),
            (LogLevel::Error, LevelFilter::ERROR, LevelFilter::ERROR),
            (LogLevel::Info, LevelFilter::WARN, LevelFilter::INFO),
            (LogLevel::Debug, LevelFilter::DEBUG, LevelFilter::DEBUG),
            (LogLevel::Trace, LevelFilter::TRACE, LevelFilter::TRACE),
        ] {
            let targets = target_filter(level.into());
            for severity in [
                tracing::Level::ERROR,
                tracing::Level::WARN,
                tracing::Level::INFO,
                tracing::Level::DEBUG,
            ] {
                assert_eq!(
                    targets.would_enable("actix_server::builder", &severity),
                    actix >= severity,
                    "{level:?} {severity}"
                );
                assert_eq!(
                    targets.would_enable("rocket_monitor::cli", &severity),
                    own >= severity,
                    "{level:?} {severity}"
                );
            }
        }
    }

    #[test]
    fn unspecified_addresses_become_loopback_urls() {
        for (address, opened) in [
            ("127.0.0.1:8088", "http://127.0.0.1:8088/"),
            ("0.0.0.0:80", "http://127.0.0.1:80/"),
            ("[::]:8088", "http://[::1]:8088/"),
            ("192.0.2.7:9", "http://192.0.2.7:9/"),
        ] {
            assert_eq!(address.parse().map(url), Ok(opened.to_owned()));
        }
    }
}
