//! Ingests a file of messages straight into the database: one thread parses, another commits.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

use super::Tally;
use crate::domain::message::Message;
use crate::domain::timestamp::Timestamp;
use crate::store::{Notifier, Store, StoreError, Writer};
use crate::wire::ndjson::{BadLine, LineReader, Lines};

/// The size of a read.
const BLOCK_BYTES: usize = 1024 * 1024;
/// The most bytes of lines in one transaction.
const BATCH_BYTES: usize = 32 * 1024 * 1024;
/// The pause between transactions, so that another process that waits for the write lock gets it.
const LET_OTHERS_WRITE: Duration = Duration::from_micros(500);
/// How often other instances are notified, at most.
const NOTIFY_EVERY: Duration = Duration::from_millis(500);

/// Why a file was not ingested to its end. It is safe to ingest it again.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file can't be read.
    #[error("reading failed: {0}")]
    Read(#[from] io::Error),
    /// The store failed.
    #[error("storing failed: {0}")]
    Store(#[from] StoreError),
}

/// The totals of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileSummary {
    /// The outcomes of the committed messages.
    pub tally: Tally,
    /// The number of lines that are not valid messages.
    pub rejected: u64,
}

/// Ingests all of `input`. Reports each bad line, and the number of bytes as they are committed.
pub fn ingest(
    input: impl Read + Send,
    store: &Store,
    mut bad_line: impl FnMut(BadLine),
    mut committed_bytes: impl FnMut(usize),
) -> Result<FileSummary, FileError> {
    let mut writer = store.writer()?;
    let mut notifications = Notifications { notifier: store.notifier(), last: Instant::now() };
    let ingested = std::thread::scope(|scope| {
        // No buffer: batches in it would need memory of their own.
        let (batches, receiver) = sync_channel(0);
        let (used, again) = channel();
        let most = writer.max_batch();
        let parser = scope.spawn(move || parse(input, most, &batches, &again));
        let mut report = |bytes| {
            committed_bytes(bytes);
            notifications.send_sometimes();
        };
        let committed = commit(&receiver, &used, &mut writer, &mut bad_line, &mut report);
        // Without the receiver, a parser that still has batches ends.
        drop(receiver);
        match parser.join() {
            Ok(parsed) => {
                let summary = committed?;
                parsed?;
                Ok(summary)
            }
            Err(_) => Err(FileError::Store(StoreError::BrokenOff)),
        }
    });
    notifications.send();
    ingested
}

/// Notifies other instances that there are new messages.
struct Notifications {
    notifier: Option<Notifier>,
    last: Instant,
}

impl Notifications {
    fn send_sometimes(&mut self) {
        if self.last.elapsed() > NOTIFY_EVERY {
            self.send();
            self.last = Instant::now();
        }
    }

    fn send(&self) {
        if let Some(Err(error)) = self.notifier.as_ref().map(|it| it.notify_blocking(None)) {
            // They also poll.
            tracing::debug!(%error, "could not notify other instances");
        }
    }
}

/// Lines, and the blocks that they were read from.
#[derive(Default)]
struct LineBatch {
    lines: Lines,
    blocks: Vec<Bytes>,
}

/// Memory for reuse: for most of a large file, getting new pages from the system would take longer
/// than reading into them.
#[derive(Default)]
struct Used {
    messages: Vec<Message>,
    blocks: Vec<Bytes>,
}

impl LineBatch {
    /// The reusable memory of a committed batch.
    fn into_used(self) -> Used {
        let mut messages = self.lines.messages;
        // The messages refer to the blocks.
        messages.clear();
        Used { messages, blocks: self.blocks }
    }
}

fn parse(
    mut input: impl Read,
    batch_messages: usize,
    batches: &SyncSender<LineBatch>,
    again: &Receiver<Used>,
) -> io::Result<()> {
    let mut reader = LineReader::default();
    let (mut batch, mut blocks) = (LineBatch::default(), Vec::new());
    loop {
        let block = read_block(&mut input, blocks.pop())?;
        let ended = block.is_empty();
        reader.feed(&block, &mut batch.lines);
        batch.blocks.push(block);
        if ended {
            reader.finish(&mut batch.lines);
        }
        let full = batch.lines.messages.len() >= batch_messages || batch.lines.bytes >= BATCH_BYTES;
        if full || ended {
            let messages = batch.lines.messages.len();
            if batches.send(std::mem::take(&mut batch)).is_err() || ended {
                break;
            }
            // The receiver of this batch has finished the previous one.
            let used = again.try_recv().unwrap_or_default();
            blocks.extend(used.blocks);
            batch.lines.messages = used.messages;
            batch.lines.messages.reserve(messages);
        }
    }
    Ok(())
}

/// The next block, in reused memory if possible; empty at the end.
fn read_block(input: &mut impl Read, used: Option<Bytes>) -> io::Result<Bytes> {
    let mut block = used.and_then(|used| used.try_into_mut().ok()).unwrap_or_default();
    block.resize(BLOCK_BYTES, 0);
    loop {
        match input.read(&mut block) {
            Ok(length) => {
                block.truncate(length);
                return Ok(block.freeze());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn commit(
    batches: &Receiver<LineBatch>,
    used: &Sender<Used>,
    writer: &mut Writer,
    bad_line: &mut impl FnMut(BadLine),
    committed_bytes: &mut impl FnMut(usize),
) -> Result<FileSummary, StoreError> {
    let mut summary = FileSummary::default();
    for mut batch in batches {
        let lines = &mut batch.lines;
        summary.rejected += lines.bad.len() as u64;
        lines.bad.drain(..).for_each(&mut *bad_line);
        if !lines.messages.is_empty() {
            let now = Timestamp::from_system_time(SystemTime::now());
            summary.tally.add(Tally::of(&writer.commit(&lines.messages, now)?));
            std::thread::sleep(LET_OTHERS_WRITE);
        }
        committed_bytes(lines.bytes);
        // A parser that has reached the end needs no more memory.
        let _ = used.send(batch.into_used());
    }
    Ok(summary)
}
