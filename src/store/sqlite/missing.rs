//! Finds missing message numbers.

use rusqlite::{CachedStatement, params};

use super::SqliteStore;
use crate::domain::missing::{Missing, MissingFinder, Question};
use crate::store::{MAX_MISSING_RANGES, StoreError};

/// The ranges of a channel that overlap an interval of numbers. Of those that start at or before
/// its start, only the last can reach into it.
const OVERLAPPING_RANGES: &str = "
    SELECT first_msg, last_msg FROM processed_ranges
    WHERE channel = ?1
      AND first_msg >= coalesce((SELECT max(first_msg) FROM processed_ranges
                                 WHERE channel = ?1 AND first_msg <= ?2), ?2)
      AND first_msg <= ?3
    ORDER BY first_msg";

impl SqliteStore {
    /// See [`Store::missing`](crate::store::Store::missing). The snapshot is as short as one call.
    pub fn missing(&self, questions: &[Question]) -> Result<Vec<Missing>, StoreError> {
        self.with_reader(|connection| {
            let snapshot = connection.unchecked_transaction()?;
            let mut statement = snapshot.prepare_cached(OVERLAPPING_RANGES)?;
            let (mut answers, mut ranges) = (Vec::with_capacity(questions.len()), 0);
            for question in questions {
                let answer = missing(&mut statement, question)?;
                ranges += answer.ranges.len();
                answers.push(answer);
                if ranges >= MAX_MISSING_RANGES {
                    break;
                }
            }
            Ok(answers)
        })
    }
}

fn missing(
    statement: &mut CachedStatement<'_>,
    question: &Question,
) -> Result<Missing, StoreError> {
    let mut finder = MissingFinder::new(question, MissingFinder::MAX_RANGES);
    let Question { channel, from, through } = question;
    let mut found = statement.query(params![channel.as_str(), from.get(), through.get()])?;
    while let Some(row) = found.next()? {
        if finder.add(row.get(0)?, row.get(1)?).is_break() {
            break;
        }
    }
    Ok(finder.finish())
}
