//! `resend`: sends what a service lacks of a file of messages.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Args;
use indicatif::ProgressBar;

use super::output::{self, print_error, print_line};
use super::{Failure, WriteTokenArgs};
use crate::client::{ClientTokens, ServiceClient, base_url};
use crate::input::InputFile;
use crate::resend::{Progress, Resend, ResendReport, ResendStep};
use crate::terminal::Escaped;
use crate::tokens::Tokens;
use crate::wire::ndjson::BadLine;

/// The maximum number of bad lines that are printed, and of lines that the service rejected.
const MAX_LINES_PRINTED: u64 = 100;

/// Send a service what it lacks of a file of messages
///
/// The file has one message per line (newline-delimited JSON), and may be compressed with gzip or
/// zstd. It is read twice: first to ask the service, in batches, which messages of its channels are
/// missing, then to send exactly these. Then the service is asked again. If the connection breaks
/// or the service can't take the messages now, the command tries again for up to 60 seconds. It can
/// be interrupted and repeated at any time.
///
/// Numbers that the service lacks and the file does not have are counted, and are not a failure.
/// Memory grows with the channels and the missing ranges, not with the messages.
///
/// Exit status: 0 if the service has everything that the file has, 2 if it has that but some lines
/// of the file are not messages (the first 100 are printed on standard error), 1 if something is
/// still missing or the command failed. With --dry-run, 0 or 2, or 1 if the command failed.
#[derive(Clone, Debug, Args)]
pub(super) struct ResendArgs {
    /// The file, one message per line; - is standard input, redirected from a file
    file: PathBuf,

    /// The address of the service, like http://127.0.0.1:8088 (with or without /messages)
    url: String,

    /// Send nothing, and print what is missing of each channel
    #[arg(long, env = "ROCKET_MONITOR_DRY_RUN")]
    dry_run: bool,

    #[command(flatten)]
    token: WriteTokenArgs,
}

pub(super) fn run(args: &ResendArgs) -> Result<ExitCode, Failure> {
    let base = base_url(&args.url)?;
    let file = InputFile::open(&args.file)?;
    let write = args.token.write()?.as_ref().and_then(Tokens::first);
    let tokens = ClientTokens { read: None, write };
    let printer = Arc::new(ProgressPrinter::new(file.bytes()));
    let started = Instant::now();
    let done = actix_web::rt::System::new().block_on(async {
        let progress: Arc<dyn Progress> = printer.clone();
        let service = ServiceClient::new(base, tokens);
        Resend::new(file, service, progress, args.dry_run).run().await
    });
    printer.bar.finish_and_clear();
    let report = done?;
    print_report(&report, args.dry_run, started)?;
    if let Some(error) = report.read_error {
        return Err(format!(
            "{}: the file could not be read to its end; what is before that was treated as the \
             whole: {error}",
            args.file.display()
        )
        .into());
    }
    Ok(match report {
        ResendReport { still_missing: 1.., .. } => ExitCode::from(1),
        ResendReport { bad_lines: 1.., .. } => ExitCode::from(2),
        _ => ExitCode::SUCCESS,
    })
}

fn print_report(report: &ResendReport, dry_run: bool, started: Instant) -> Result<(), Failure> {
    let ResendReport { messages, channels, bad_lines, missing, not_in_file, sent, counts, .. } =
        report;
    for rocket in &report.by_channel {
        let channel = Escaped(&rocket.channel);
        print_line!(
            "{channel}: {} missing, {} of them in the file",
            rocket.missing,
            rocket.in_file
        )?;
    }
    print_line!("read      {messages} messages of {channels} channels; {bad_lines} bad lines")?;
    print_line!(
        "missing   {missing} messages: {} that are in the file, {not_in_file} that are not",
        missing - not_in_file
    )?;
    if dry_run {
        return Ok(());
    }
    print_line!(
        "sent      {sent} messages in {:.1?}: {} applied, {} duplicates, {} rejected",
        started.elapsed(),
        counts.applied,
        counts.duplicates,
        counts.rejected
    )?;
    match report.still_missing {
        0 => print_line!("asked     nothing that the file has is missing now"),
        missing => print_line!("asked     {missing} messages are still missing"),
    }
}

/// Shows how it goes.
struct ProgressPrinter {
    bar: ProgressBar,
    bad_lines: AtomicU64,
    rejected: AtomicU64,
}

impl ProgressPrinter {
    fn new(bytes: u64) -> Self {
        let style = "{msg:8} {wide_bar} {bytes}/{total_bytes} ({bytes_per_sec}, {eta} to go)";
        let bar = output::progress_bar(Some(bytes), style);
        Self { bar, bad_lines: AtomicU64::new(0), rejected: AtomicU64::new(0) }
    }

    /// Prints one of many lines; the first 100, and then that there are more.
    fn print_some(&self, counter: &AtomicU64, line: std::fmt::Arguments<'_>) {
        match counter.fetch_add(1, Ordering::Relaxed) {
            ..MAX_LINES_PRINTED => self.bar.suspend(|| print_error(line)),
            MAX_LINES_PRINTED => self.bar.suspend(|| print_error("and more of them")),
            _ => {}
        }
    }
}

impl Progress for ProgressPrinter {
    fn begin(&self, step: ResendStep) {
        self.bar.reset();
        self.bar.set_message(match step {
            ResendStep::Read => "reading",
            ResendStep::Ask => "asking",
            ResendStep::Send => "sending",
        });
    }

    fn position(&self, bytes: u64) {
        self.bar.set_position(bytes);
    }

    fn bad_line(&self, bad: BadLine) {
        let line = format_args!("line {}: {}", bad.line, Escaped(&bad.detail));
        self.print_some(&self.bad_lines, line);
    }

    fn failure(&self, failure: String) {
        self.bar.suspend(|| print_error(&failure));
    }

    fn rejected(&self, details: Vec<String>) {
        for detail in details {
            let line = format_args!("the service rejected a message: {}", Escaped(&detail));
            self.print_some(&self.rejected, line);
        }
    }
}
