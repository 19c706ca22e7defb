//! What ingesting a file would do, without doing it and without the write lock.

use std::collections::HashMap;
use std::io::Read;

use bytes::Bytes;

use super::Tally;
use super::file::{FileError, FileSummary};
use crate::domain::message::MessageNumber;
use crate::domain::missing::Question;
use crate::domain::numbers::NumberSet;
use crate::domain::text::Channel;
use crate::input::read_some;
use crate::store::{Store, StoreError};
use crate::wire::ndjson::{BadLine, LineReader, Lines};

/// The size of a read.
const BLOCK_BYTES: usize = 1024 * 1024;
/// How many channels are looked up at a time.
const MAX_QUESTIONS: usize = 256;

/// Counts what ingesting all of `input` would do now. Reports each bad line, and calls `progress`
/// while it reads.
///
/// It keeps the numbers of each channel as ranges, so its memory grows with the file's channels and
/// gaps.
pub fn preview(
    mut input: impl Read,
    store: &Store,
    mut bad_line: impl FnMut(BadLine),
    mut progress: impl FnMut(),
) -> Result<FileSummary, FileError> {
    let mut summary = FileSummary::default();
    let mut channels: HashMap<Channel, NumberSet> = HashMap::new();
    let (mut reader, mut lines) = (LineReader::default(), Lines::default());
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        let read = read_some(&mut input, &mut block)?;
        if read == 0 {
            reader.finish(&mut lines);
        } else {
            let part = Bytes::copy_from_slice(&block[..read]);
            reader.feed(&part, &mut lines);
        }
        for message in lines.messages.drain(..) {
            let is_new = match channels.get_mut(&message.channel) {
                Some(numbers) => numbers.insert(message.number),
                None => {
                    let numbers = channels.entry(message.channel.detached()).or_default();
                    numbers.insert(message.number)
                }
            };
            summary.tally.duplicates += u64::from(!is_new);
        }
        summary.rejected += lines.bad.len() as u64;
        lines.bad.drain(..).for_each(&mut bad_line);
        progress();
        if read == 0 {
            break;
        }
    }
    summary.tally.add(compare(&channels, store)?);
    Ok(summary)
}

/// How many of the numbers are new to the store.
fn compare(channels: &HashMap<Channel, NumberSet>, store: &Store) -> Result<Tally, StoreError> {
    let mut tally = Tally::default();
    let mut channels = channels.iter();
    let mut open: Vec<(Question, &NumberSet)> = Vec::new();
    loop {
        let more = MAX_QUESTIONS.saturating_sub(open.len());
        open.extend(channels.by_ref().take(more).filter_map(|(channel, numbers)| {
            let (from, through) = (numbers.lowest()?, numbers.highest()?);
            Some((Question { channel: channel.clone(), from, through }, numbers))
        }));
        if open.is_empty() {
            return Ok(tally);
        }
        let questions = open.iter().map(|(question, _)| question.clone()).collect();
        let answers = store.missing_blocking(questions)?;
        assert!(!answers.is_empty(), "a store answers at least one question");
        let rest = open.split_off(answers.len());
        let answered = std::mem::replace(&mut open, rest);
        for ((question, numbers), answer) in answered.into_iter().zip(answers) {
            let new: u64 =
                answer.ranges.iter().map(|(first, last)| numbers.count_within(*first, *last)).sum();
            let next = answer.next_from.and_then(|next| MessageNumber::new(next.into()));
            // The last number that this answer is about.
            let end = next.map_or(question.through.as_u32(), |next| next.as_u32() - 1);
            let asked = numbers.count_within(question.from.as_u32(), end);
            tally.applied += new;
            tally.duplicates += asked - new;
            open.extend(next.map(|from| (Question { from, ..question }, numbers)));
        }
    }
}
