//! Finds missing message numbers.

use std::collections::BTreeMap;

use sqlx::{PgConnection, Row};

use super::PostgresStore;
use super::buckets::Buckets;
use crate::domain::missing::{Missing, MissingFinder, Question};
use crate::store::{MAX_MISSING_RANGES, StoreError};

/// The ranges of channels that overlap intervals of numbers, at most $5 and one of each interval.
/// Of those that start at or before the start of an interval, only the last can reach into it.
///
/// The bucket is a constant, so that a cluster runs the statement on the node that has the bucket.
const OVERLAPPING_RANGES: &str = "
    SELECT questions.index, ranges.first_msg, ranges.last_msg
    FROM unnest($2::text[], $3::bigint[], $4::bigint[]) WITH ORDINALITY
        AS questions (channel, first_msg, last_msg, index)
    CROSS JOIN LATERAL (
        (SELECT below.first_msg, below.last_msg FROM processed_ranges AS below
         WHERE below.bucket = $1 AND below.channel = questions.channel
             AND below.first_msg <= questions.first_msg
         ORDER BY below.first_msg DESC LIMIT 1)
        UNION ALL
        (SELECT others.first_msg, others.last_msg FROM processed_ranges AS others
         WHERE others.bucket = $1 AND others.channel = questions.channel
             AND others.first_msg > questions.first_msg
             AND others.first_msg <= questions.last_msg
         ORDER BY others.first_msg LIMIT $5)
    ) AS ranges";

/// How much fewer questions the next statement has, if the first question of the last had more
/// ranges than it read.
const FEWER: usize = 8;

impl PostgresStore {
    /// See [`Store::missing`](crate::store::Store::missing).
    pub async fn missing(&self, questions: Vec<Question>) -> Result<Vec<Missing>, StoreError> {
        let buckets = self.buckets.clone();
        self.read(move |pool| async move {
            let mut connection = pool.acquire().await?;
            let mut count = questions.len();
            loop {
                let some = questions.get(..count).unwrap_or(&questions);
                let answers = missing(&mut connection, &buckets, some).await?;
                if !answers.is_empty() || questions.is_empty() {
                    return Ok(answers);
                }
                // Ranges that don't touch fill the answer to a single question.
                if count == 1 {
                    return Err(StoreError::Damaged("processed_ranges: ranges touch".to_owned()));
                }
                count = (count / FEWER).max(1);
            }
        })
        .await
    }

    /// Like [`missing`](Self::missing), for threads without a runtime.
    pub fn missing_blocking(&self, questions: Vec<Question>) -> Result<Vec<Missing>, StoreError> {
        let runtime = self.runtime.0.as_ref().ok_or(StoreError::BrokenOff)?;
        runtime.block_on(self.missing(questions))
    }
}

/// The answers to the first questions: all up to the first that has more ranges than are read. The
/// only question is always answered.
async fn missing(
    connection: &mut PgConnection,
    buckets: &Buckets,
    questions: &[Question],
) -> Result<Vec<Missing>, StoreError> {
    let max_ranges = match questions.len() {
        // A full answer needs one range more than it has missing ranges.
        1 => MissingFinder::MAX_RANGES + 1,
        count => MAX_MISSING_RANGES / count.max(1),
    };
    let mut by_bucket: BTreeMap<i16, Vec<usize>> = BTreeMap::new();
    for (index, question) in questions.iter().enumerate() {
        by_bucket.entry(buckets.of(&question.channel)).or_default().push(index);
    }
    let mut ranges = Vec::new();
    for (bucket, indexes) in by_bucket {
        let some: Vec<&Question> =
            indexes.iter().filter_map(|index| questions.get(*index)).collect();
        for (place, first, last) in read_ranges(connection, bucket, &some, max_ranges).await? {
            // The server counts from 1.
            let index = usize::try_from(place - 1).ok().and_then(|place| indexes.get(place));
            let Some(index) = index else {
                return Err(StoreError::Damaged(format!("there is no question {place}")));
            };
            ranges.push((*index, first, last));
        }
    }
    ranges.sort_unstable();
    Ok(answer(questions, &ranges, max_ranges))
}

/// Reads the ranges of questions about one bucket: the question's place from 1, first, and last.
async fn read_ranges(
    connection: &mut PgConnection,
    bucket: i16,
    questions: &[&Question],
    max_ranges: usize,
) -> Result<Vec<(i64, i64, i64)>, StoreError> {
    let channels: Vec<&str> = questions.iter().map(|question| question.channel.as_str()).collect();
    let froms: Vec<i64> = questions.iter().map(|question| question.from.get()).collect();
    let throughs: Vec<i64> = questions.iter().map(|question| question.through.get()).collect();
    let found = sqlx::query(OVERLAPPING_RANGES)
        .bind(bucket)
        .bind(channels)
        .bind(froms)
        .bind(throughs)
        .bind(max_ranges as i64)
        .fetch_all(connection)
        .await?;
    found.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))).collect()
}

/// Answers the first questions from their ranges: the question's index, first, and last.
fn answer(questions: &[Question], ranges: &[(usize, i64, i64)], max_ranges: usize) -> Vec<Missing> {
    let mut by_question = ranges.chunk_by(|(a, ..), (b, ..)| a == b).peekable();
    let mut answers = Vec::with_capacity(questions.len());
    for (index, question) in questions.iter().enumerate() {
        let own = by_question.next_if(|ranges| matches!(ranges, [(of, ..), ..] if *of == index));
        // None: no range is near the question.
        let own = own.unwrap_or(&[]);
        let mut finder = MissingFinder::new(question, MissingFinder::MAX_RANGES);
        let is_decided = own.iter().any(|(_, first, last)| finder.add(*first, *last).is_break());
        let others = own.iter().filter(|(_, first, _)| *first > question.from.get()).count();
        // Then there may be further ranges.
        if others >= max_ranges && !is_decided {
            break;
        }
        answers.push(finder.finish());
    }
    answers
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::domain::message::MessageNumber;
    use crate::domain::text::Channel;

    fn question(channel: &str, from: i64, through: i64) -> Question {
        let number = |number| MessageNumber::new(number).unwrap();
        let channel = Channel::new(channel.to_owned()).unwrap();
        Question { channel, from: number(from), through: number(through) }
    }

    #[test]
    fn answers_end_before_the_first_question_with_more_ranges_than_were_read() {
        let questions = ["a", "b", "c", "d"].map(|channel| question(channel, 1, 9));
        let ranges = [(0, 1, 2), (0, 4, 5), (0, 7, 12), (2, 1, 1), (2, 3, 3), (2, 5, 5), (3, 1, 9)];
        let missing = |ranges: &[(u32, u32)]| Missing { ranges: ranges.into(), next_from: None };
        // The ranges of the first question go beyond its end, so no others matter.
        let some = answer(&questions, &ranges, 2);
        assert_eq!(some, [missing(&[(3, 3), (6, 6)]), missing(&[(1, 9)])]);
        let all = answer(&questions, &ranges, 3);
        assert_eq!(all[2..], [missing(&[(2, 2), (4, 4), (6, 9)]), missing(&[])]);
    }
}
