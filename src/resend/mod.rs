//! Sends a file of messages again, but only what the service lacks.
//!
//! 1. `scan` reads the file. Meanwhile, `client` asks the service what it lacks of each channel
//!    that was found.
//! 2. The file is read again; the lines that are missing are sent.
//! 3. The service is asked again.
//!
//! `plan` holds what is missing, as ranges. If they are too many for the memory, several rounds
//! of these steps each do a part.

mod client;
mod plan;
mod scan;

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::mpsc;

use client::RetryingClient;
pub use client::SendCounts;
use plan::{FileChannels, ResendPlan};

use crate::client::ServiceClient;
use crate::domain::missing::Question;
use crate::domain::text::Channel;
use crate::input::InputFile;
use crate::wire::ndjson::BadLine;

/// The maximum number of bytes and lines that are sent in one request.
const MAX_BATCH_BYTES: usize = 1024 * 1024;
const MAX_BATCH_LINES: usize = 8_192;
/// How many questions wait while the file is read: about as many as fit into a request.
const MAX_BATCH_QUESTIONS: usize = 750;
/// How often lines are sent that the service says are stored, and then that they are missing.
const MAX_ATTEMPTS: usize = 3;

/// Is told how it goes, also by other threads.
pub trait Progress: Send + Sync {
    /// The next step begins.
    fn begin(&self, step: ResendStep);
    /// This many bytes of the file were read in this step.
    fn position(&self, bytes: u64);
    /// A line of the file is not a message.
    fn bad_line(&self, bad: BadLine);
    /// A request failed, and is sent again.
    fn failure(&self, failure: String);
    /// The service rejected lines of the file.
    fn rejected(&self, details: Vec<String>);
}

/// The steps that take long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResendStep {
    Read,
    Ask,
    Send,
}

/// What was found and done.
#[derive(Debug, Default)]
pub struct ResendReport {
    /// The messages in the file, with repetitions.
    pub messages: u64,
    /// The lines that are not messages.
    pub bad_lines: u64,
    pub channels: usize,
    /// The numbers that the service lacked, up to the highest of the file in each channel.
    pub missing: u64,
    /// How many of them the file does not have.
    pub not_in_file: u64,
    /// The lines that were sent, and what the service did with them.
    pub sent: u64,
    pub counts: SendCounts,
    /// The numbers that the file has and the service still lacks.
    pub still_missing: u64,
    /// For a dry run: each channel that the service lacks messages of.
    pub by_channel: Vec<ChannelReport>,
    /// Why the file could not be read to its end.
    pub read_error: Option<io::Error>,
}

/// What a service lacks of one channel.
#[derive(Debug)]
pub struct ChannelReport {
    pub channel: Channel,
    /// The missing numbers.
    pub missing: u64,
    /// How many of them the file has.
    pub in_file: u64,
}

/// Sends a file of messages again. It must run inside an actix system.
pub struct Resend {
    file: Arc<InputFile>,
    service: RetryingClient,
    progress: Arc<dyn Progress>,
    /// Whether nothing is sent.
    is_dry: bool,
    report: ResendReport,
}

impl Resend {
    pub fn new(
        file: InputFile,
        service: ServiceClient,
        progress: Arc<dyn Progress>,
        is_dry: bool,
    ) -> Self {
        let service = RetryingClient::new(service, Arc::clone(&progress));
        Self { file: Arc::new(file), service, progress, is_dry, report: ResendReport::default() }
    }

    /// Does everything. The error is a sentence for the user.
    pub async fn run(mut self) -> Result<ResendReport, String> {
        let mut plan = self.read_and_ask().await?;
        loop {
            self.progress.begin(ResendStep::Ask);
            let questions = plan.questions();
            self.service.ask(questions, &mut |question, answer| plan.add(question, answer)).await?;
            self.report.missing += plan.missing();
            if !plan.is_empty() {
                plan = self.resend(plan).await?;
            }
            if !plan.begin_round() {
                break;
            }
        }
        self.report.by_channel.sort_unstable_by(|a, b| a.channel.cmp(&b.channel));
        Ok(self.report)
    }

    /// Reads the file for the first time, and asks about its channels as they are found.
    async fn read_and_ask(&mut self) -> Result<ResendPlan, String> {
        self.progress.begin(ResendStep::Read);
        // One batch waits while one is asked.
        let (sender, mut batches) = mpsc::channel(1);
        let (file, progress) = (Arc::clone(&self.file), Arc::clone(&self.progress));
        let reading = on_a_thread(move || read(&file, &*progress, &sender));
        let mut plan = ResendPlan::default();
        while let Some(questions) = batches.recv().await {
            let add = &mut |question: &_, answer| plan.add_first(question, answer);
            self.service.ask(questions, add).await?;
        }
        let (channels, report) = reading.await?;
        self.report = report;
        plan.end_file(&channels);
        Ok(plan)
    }

    /// Sends what the plan says is missing, and asks whether it is there.
    async fn resend(&mut self, mut plan: ResendPlan) -> Result<ResendPlan, String> {
        let (mut still_missing, mut not_in_file) = (0, 0);
        for _ in 0..MAX_ATTEMPTS {
            self.progress.begin(ResendStep::Send);
            plan = self.send(plan).await?;
            if self.is_dry {
                self.report.not_in_file += plan.missing();
                self.report.by_channel.extend(plan.end_dry_round());
                return Ok(plan);
            }
            self.progress.begin(ResendStep::Ask);
            let questions = plan.questions_again();
            let add = &mut |question: &_, answer| plan.add_again(question, answer);
            self.service.ask(questions, add).await?;
            (still_missing, not_in_file) = plan.compare();
            if still_missing == 0 {
                break;
            }
            plan.retry();
        }
        self.report.still_missing += still_missing;
        self.report.not_in_file += not_in_file;
        Ok(plan)
    }

    /// Reads the file again, and sends the lines that are missing. Removes them from the plan.
    async fn send(&mut self, mut plan: ResendPlan) -> Result<ResendPlan, String> {
        let (file, progress) = (Arc::clone(&self.file), Arc::clone(&self.progress));
        // One batch waits while one is sent.
        let (sender, mut batches) = mpsc::channel(1);
        let reading = on_a_thread(move || {
            let mut batch = LineBatch::default();
            // How far the file can be read is known from the first time.
            let _ = scan::scan(&file, &*progress, |line| {
                let Ok(message) = &line.message else { return ControlFlow::Continue(()) };
                if !plan.take(&message.channel, message.number) {
                    return ControlFlow::Continue(());
                }
                batch.add(&line.text);
                if batch.is_full() && sender.blocking_send(std::mem::take(&mut batch)).is_err() {
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            });
            // The receiver is gone only after a failure.
            let _ = sender.blocking_send(batch);
            plan
        });
        while let Some(batch) = batches.recv().await {
            self.send_batch(batch).await?;
        }
        reading.await
    }

    async fn send_batch(&mut self, LineBatch { text, lines }: LineBatch) -> Result<(), String> {
        if lines == 0 || self.is_dry {
            return Ok(());
        }
        let (counts, details) = self.service.send(text.freeze()).await?;
        self.report.sent += lines as u64;
        self.report.counts.add(&counts);
        if !details.is_empty() {
            self.progress.rejected(details);
        }
        Ok(())
    }
}

/// Reads a file, and passes on the questions about its channels.
fn read(
    file: &InputFile,
    progress: &dyn Progress,
    batches: &mpsc::Sender<Vec<Question>>,
) -> (FileChannels, ResendReport) {
    let (mut channels, mut report) = (FileChannels::default(), ResendReport::default());
    let mut questions = Vec::new();
    let read = scan::scan(file, progress, |line| {
        match line.message {
            Ok(message) => {
                report.messages += 1;
                questions.extend(channels.add(&message.channel, message.number));
            }
            Err(bad) => {
                report.bad_lines += 1;
                progress.bad_line(bad);
            }
        }
        let is_due = questions.len() >= MAX_BATCH_QUESTIONS
            || report.messages % MAX_BATCH_LINES as u64 == 0 && !questions.is_empty();
        if is_due {
            // It fails only if the receiver is gone, which ends the scan.
            let _ = batches.blocking_send(std::mem::take(&mut questions));
        }
        if batches.is_closed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let _ = batches.blocking_send(questions);
    report.channels = channels.len();
    report.read_error = read.err();
    (channels, report)
}

/// Lines to send.
#[derive(Default)]
struct LineBatch {
    text: BytesMut,
    lines: usize,
}

impl LineBatch {
    fn add(&mut self, line: &Bytes) {
        self.text.put_slice(line);
        self.text.put_u8(b'\n');
        self.lines += 1;
    }

    fn is_full(&self) -> bool {
        self.text.len() >= MAX_BATCH_BYTES || self.lines >= MAX_BATCH_LINES
    }
}

/// Starts work on another thread at once.
fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = Result<T, String>> {
    let working = actix_web::rt::task::spawn_blocking(work);
    async { working.await.map_err(|_| "the thread that reads the file panicked".to_owned()) }
}
