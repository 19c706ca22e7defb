//! Ingests a file of messages straight into the database: one thread parses, another commits.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

use super::Tally;
use crate::domain::message::Message;
use crate::domain::timestamp::Timestamp;
use crate::input::read_some;
use crate::store::{Notifier, Store, StoreError, Writer};
use crate::wire::ndjson::{BadLine, LineReader, Lines};

/// The size of a read.
const BLOCK_BYTES: usize = 1024 * 1024;
/// The most bytes of lines in one transaction.
const MAX_BATCH_BYTES: usize = 32 * 1024 * 1024;
/// The pause between transactions, in which another process can take the write lock.
const WRITE_PAUSE: Duration = Duration::from_micros(500);
/// The shortest time between two notifications of other instances.
const NOTIFY_INTERVAL: Duration = Duration::from_millis(500);

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

/// Ingests all of `input`. Reports each bad line, and calls `progress` after each commit.
pub fn ingest(
    input: impl Read + Send,
    store: &Store,
    mut bad_line: impl FnMut(BadLine),
    mut progress: impl FnMut(),
) -> Result<FileSummary, FileError> {
    let mut writer = store.writer()?;
    let mut notifications = Notifications { notifier: store.notifier(), last: Instant::now() };
    let ingested = std::thread::scope(|scope| {
        // Without a buffer: batches in it would need memory of their own.
        let (batches, receiver) = sync_channel(0);
        let (returned, reusable) = channel();
        let max_batch = writer.max_batch();
        let parser = scope.spawn(move || parse(input, max_batch, &batches, &reusable));
        let mut report = || {
            progress();
            notifications.send_if_due();
        };
        let committed = commit(&receiver, &returned, &mut writer, &mut bad_line, &mut report);
        // A parser that still has batches ends when it can't send them.
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
    fn send_if_due(&mut self) {
        if self.last.elapsed() > NOTIFY_INTERVAL {
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

/// Buffers for reuse: for most of a large file, the system would take longer to map new pages than
/// to read into them.
#[derive(Default)]
struct Buffers {
    messages: Vec<Message>,
    blocks: Vec<Bytes>,
}

impl LineBatch {
    /// The buffers of a committed batch.
    fn into_buffers(self) -> Buffers {
        let mut messages = self.lines.messages;
        // The messages refer to the blocks.
        messages.clear();
        Buffers { messages, blocks: self.blocks }
    }
}

fn parse(
    mut input: impl Read,
    batch_messages: usize,
    batches: &SyncSender<LineBatch>,
    reusable: &Receiver<Buffers>,
) -> io::Result<()> {
    let mut reader = LineReader::default();
    let (mut batch, mut blocks) = (LineBatch::default(), Vec::new());
    loop {
        let block = read_block(&mut input, blocks.pop())?;
        let is_last = block.is_empty();
        reader.feed(&block, &mut batch.lines);
        batch.blocks.push(block);
        if is_last {
            reader.finish(&mut batch.lines);
        }
        let is_full =
            batch.lines.messages.len() >= batch_messages || batch.lines.bytes >= MAX_BATCH_BYTES;
        if is_full || is_last {
            let messages = batch.lines.messages.len();
            if batches.send(std::mem::take(&mut batch)).is_err() || is_last {
                break;
            }
            // The committer has received this batch, so it has finished the previous one and
            // returned its buffers. The first batch has no previous one.
            let buffers = reusable.try_recv().unwrap_or_default();
            blocks.extend(buffers.blocks);
            batch.lines.messages = buffers.messages;
            batch.lines.messages.reserve(messages);
        }
    }
    Ok(())
}

/// The next block, in a reused buffer if possible; empty at the end.
fn read_block(input: &mut impl Read, reusable: Option<Bytes>) -> io::Result<Bytes> {
    let mut block = reusable.and_then(|block| block.try_into_mut().ok()).unwrap_or_default();
    block.resize(BLOCK_BYTES, 0);
    let length = read_some(input, &mut block)?;
    block.truncate(length);
    Ok(block.freeze())
}

fn commit(
    batches: &Receiver<LineBatch>,
    returned: &Sender<Buffers>,
    writer: &mut Writer,
    bad_line: &mut impl FnMut(BadLine),
    progress: &mut impl FnMut(),
) -> Result<FileSummary, StoreError> {
    let mut summary = FileSummary::default();
    for mut batch in batches {
        let lines = &mut batch.lines;
        summary.rejected += lines.bad.len() as u64;
        lines.bad.drain(..).for_each(&mut *bad_line);
        if !lines.messages.is_empty() {
            let now = Timestamp::from_system_time(SystemTime::now());
            summary.tally.add(Tally::of(&writer.commit(&lines.messages, now)?));
            std::thread::sleep(WRITE_PAUSE);
        }
        progress();
        // A parser that has reached the end needs no more buffers.
        let _ = returned.send(batch.into_buffers());
    }
    Ok(summary)
}
