//! The sums of a range's speed changes by blocks, which let ranges of different databases be merged
//! exactly.
//!
//! A block has 2^k numbers and starts at a multiple of 2^k. A range consists of its maximal blocks:
//! 1..=11 of 1, 2..=3, 4..=7 and 8..=11. So the same messages have the same blocks, however they
//! arrived. Of two blocks, one contains the other, or they have no number in common. Therefore two
//! ranges that overlap, and neither of which contains the other, have a boundary between blocks in
//! common within their overlap: the sums up to it are taken from one range, and those above it from
//! the other.
//!
//! A range of n numbers has at most 2 log2(n) blocks. Appending a message is like counting in
//! binary: it joins blocks as an increment carries, and takes constant time on average.

use std::ops::RangeInclusive;

use smallvec::SmallVec;

use super::message::MessageNumber;

/// The greatest sum of a block of one number, and the negative of the least: the negative of the
/// least 32-bit integer.
const MAX_SPEED_CHANGE: i64 = 1 << 31;

/// The sums of the maximal blocks of a range, in ascending order, as stored: a byte with the
/// version of the form, 1, and then each sum as a variable-length integer (LEB128) of its zigzag
/// encoding (0, -1, 1, -2 become 0, 1, 2, 3). A byte has seven bits of it, the lowest first, and
/// its highest bit says that more follow. The range itself is kept beside it.
///
/// Most ranges need no memory of their own for it. No sum overflows: there are less than 2^32
/// messages in a channel, and each changes the speed by at most 2^31.
#[derive(Debug, PartialEq, Eq)]
pub struct SpeedBlocks(SmallVec<[u8; 16]>);

impl Clone for SpeedBlocks {
    fn clone(&self) -> Self {
        // Copies bytes, not one at a time.
        Self(SmallVec::from_slice(&self.0))
    }
}

/// A block, and the sum of its speed changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// The first number.
    pub start: i64,
    /// The number after the last.
    pub end: i64,
    pub sum: i64,
}

/// The blocks of messages with consecutive numbers. It takes a message faster than [`SpeedBlocks`],
/// whose sums are encoded.
#[derive(Debug, Default)]
pub struct BlockRun {
    blocks: Vec<Block>,
}

impl BlockRun {
    /// Adds the message with the next number, or the first one.
    pub fn push(&mut self, number: i64, speed_change: i64) {
        let mut block = Block { start: number, end: number + 1, sum: speed_change };
        while let Some(half) = self.blocks.pop_if(|last| last.is_first_half(&block)) {
            block = Block { start: half.start, end: block.end, sum: half.sum + block.sum };
        }
        self.blocks.push(block);
    }

    /// Removes all blocks, in ascending order.
    pub fn drain(&mut self) -> impl Iterator<Item = Block> {
        self.blocks.drain(..)
    }
}

impl Block {
    /// Whether this and the next block are the halves of a block.
    fn is_first_half(&self, next: &Self) -> bool {
        let size = self.end - self.start;
        next.end - next.start == size && self.start & size == 0
    }
}

/// Why bytes are not the blocks of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlocksError {
    #[error("have the unknown version {0}")]
    UnknownVersion(u8),
    #[error("are empty")]
    Empty,
    #[error("have a number that is cut off or too long")]
    BadNumber,
    #[error("have a sum that its messages can't have")]
    BadSum,
    #[error("have fewer or more sums than the range has blocks")]
    BadCount,
    #[error("come to {found}, and not to {total}")]
    BadTotal { found: i64, total: i64 },
    #[error("belong to numbers that are not a range of message numbers")]
    BadRange,
}

impl SpeedBlocks {
    const VERSION: u8 = 1;

    /// The blocks of one message.
    pub fn of(speed_change: i64) -> Self {
        let mut blocks = Self::none();
        blocks.push(speed_change);
        blocks
    }

    /// The blocks of the range that these blocks are a division of, not necessarily into maximal
    /// ones. They are in ascending order, without spaces in between.
    pub fn from_blocks(blocks: impl IntoIterator<Item = Block>) -> Self {
        let mut joined = Self::none();
        let mut first = None;
        for block in blocks {
            joined.append(*first.get_or_insert(block.start), block);
        }
        joined
    }

    /// Adds a block right after the range, which starts at `first`.
    pub fn append(&mut self, first: i64, block: Block) {
        let Block { mut start, end, mut sum } = block;
        let mut size = end - start;
        // If the other half of the next larger block is in the range, it is the last block: no
        // larger one fits before `start`.
        while start & size != 0 && start - size >= first {
            sum += self.pop();
            start -= size;
            size *= 2;
        }
        self.push(sum);
    }

    /// The blocks, of which this is the range.
    pub fn blocks(&self, range: RangeInclusive<i64>) -> impl Iterator<Item = Block> {
        bounds(range).zip(self.sums()).map(|((start, end), sum)| Block { start, end, sum })
    }

    /// The sum of all speed changes.
    pub fn total(&self) -> i64 {
        self.sums().sum()
    }

    /// The stored form.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Reads the stored form of the blocks of a range whose sum is `total`.
    pub fn from_bytes(
        bytes: &[u8],
        range: RangeInclusive<i64>,
        total: i64,
    ) -> Result<Self, BlocksError> {
        let (version, mut rest) = bytes.split_first().ok_or(BlocksError::Empty)?;
        if *version != Self::VERSION {
            return Err(BlocksError::UnknownVersion(*version));
        }
        if *range.start() < MessageNumber::MIN
            || range.is_empty()
            || *range.end() > MessageNumber::MAX
        {
            return Err(BlocksError::BadRange);
        }
        let mut found = 0;
        for (start, end) in bounds(range) {
            if rest.is_empty() {
                return Err(BlocksError::BadCount);
            }
            let sum = take_integer(&mut rest).ok_or(BlocksError::BadNumber)?;
            if sum.unsigned_abs() > ((end - start) * MAX_SPEED_CHANGE) as u64 {
                return Err(BlocksError::BadSum);
            }
            found += sum;
        }
        if !rest.is_empty() {
            return Err(BlocksError::BadCount);
        }
        if found != total {
            return Err(BlocksError::BadTotal { found, total });
        }
        Ok(Self(SmallVec::from_slice(bytes)))
    }

    /// No range has these.
    fn none() -> Self {
        Self(SmallVec::from_slice(&[Self::VERSION]))
    }

    fn sums(&self) -> impl Iterator<Item = i64> {
        let mut rest = &self.0[1..];
        std::iter::from_fn(move || take_integer(&mut rest))
    }

    fn push(&mut self, sum: i64) {
        let mut rest = (sum << 1 ^ sum >> 63) as u64;
        while rest >= 0x80 {
            self.0.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.0.push(rest as u8);
    }

    /// Removes the last sum.
    fn pop(&mut self) -> i64 {
        let (_, others) = self.0.split_last().unwrap_or_else(|| unreachable!("it has a version"));
        // The byte before a sum ends another sum, or is the version.
        let before = others.iter().rposition(|byte| byte & 0x80 == 0);
        let start = before.unwrap_or_else(|| unreachable!("a range has at least one sum")) + 1;
        let sum = take_integer(&mut &self.0[start..]);
        self.0.truncate(start);
        sum.unwrap_or_else(|| unreachable!("sums are checked when they are read"))
    }
}

/// The maximal blocks of a range of message numbers, each as its first number and the one after its
/// last.
fn bounds(range: RangeInclusive<i64>) -> impl Iterator<Item = (i64, i64)> {
    let (mut start, end) = (*range.start(), range.end() + 1);
    std::iter::from_fn(move || {
        let rest = u64::try_from(end - start).ok().filter(|rest| *rest > 0)?;
        let size = 1 << start.trailing_zeros().min(rest.ilog2());
        let block = (start, start + size);
        start += size;
        Some(block)
    })
}

/// Reads an integer, and removes its bytes. There is one encoding of each.
fn take_integer(bytes: &mut &[u8]) -> Option<i64> {
    let length = 1 + bytes.iter().position(|byte| byte & 0x80 == 0)?;
    let (integer, rest) = bytes.split_at(length);
    let (last, first) = integer.split_last()?;
    if length > 10 || length == 10 && *last > 1 || length > 1 && *last == 0 {
        return None;
    }
    let zigzag = first
        .iter()
        .rev()
        .fold(u64::from(*last), |value, byte| value << 7 | u64::from(byte & 0x7F));
    *bytes = rest;
    Some((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    /// The maximal blocks, by their definition: all blocks in the range that are in no larger one.
    fn maximal_blocks(first: i64, last: i64) -> Vec<(i64, i64)> {
        let blocks: Vec<_> = (0..12)
            .flat_map(|power| {
                (0..=last >> power).map(move |index| (index << power, (index + 1) << power))
            })
            .filter(|(start, end)| first <= *start && *end <= last + 1)
            .collect();
        let contains = |outer: &(i64, i64), inner: &(i64, i64)| {
            outer != inner && outer.0 <= inner.0 && inner.1 <= outer.1
        };
        let mut maximal: Vec<_> = blocks
            .iter()
            .filter(|block| !blocks.iter().any(|other| contains(other, block)))
            .copied()
            .collect();
        maximal.sort_unstable();
        maximal
    }

    /// The speed change of a message.
    fn change(number: i64) -> i64 {
        (number * 7_919) % 1_001 - 500
    }

    fn of_sums(sums: &[i64]) -> SpeedBlocks {
        let mut blocks = SpeedBlocks::none();
        sums.iter().for_each(|sum| blocks.push(*sum));
        blocks
    }

    fn expected(first: i64, last: i64) -> SpeedBlocks {
        let sum = |(start, end): (i64, i64)| (start..end).map(change).sum();
        of_sums(&maximal_blocks(first, last).into_iter().map(sum).collect::<Vec<_>>())
    }

    #[test]
    fn a_range_consists_of_its_maximal_blocks() {
        assert_eq!(bounds(1..=11).collect::<Vec<_>>(), [(1, 2), (2, 4), (4, 8), (8, 12)]);
        for first in 1..40 {
            for last in first..80 {
                assert_eq!(bounds(first..=last).collect::<Vec<_>>(), maximal_blocks(first, last));
            }
        }
        assert_eq!(bounds(1..=u32::MAX.into()).count(), 32);
        let longest = (1..2_000).flat_map(|first| [first..=first + 999, 2_000 - first..=3_000]);
        assert!(longest.map(|range| bounds(range).count()).max().unwrap() <= 20);
    }

    #[test]
    fn appending_joins_blocks() {
        for first in 1..70 {
            let mut blocks = SpeedBlocks::of(change(first));
            for number in first + 1..200 {
                let block = Block { start: number, end: number + 1, sum: change(number) };
                blocks.append(first, block);
                assert_eq!(blocks, expected(first, number));
            }
        }
    }

    #[test]
    #[allow(clippy::reversed_empty_ranges)]
    fn the_encoding_is_short_and_as_documented() {
        let blocks = of_sums(&[0, -1, 1, 63, -64, 64, -8_192, i64::from(i32::MAX)]);
        let bytes = [1, 0, 1, 2, 126, 127, 128, 1, 255, 127, 254, 255, 255, 255, 15];
        assert_eq!(blocks.as_bytes(), bytes);
        assert_eq!(SpeedBlocks::from_bytes(&bytes, 1..=255, blocks.total()), Ok(blocks));
        let decode = |bytes: &[u8]| SpeedBlocks::from_bytes(bytes, 1..=3, -2).unwrap_err();
        for range in [0..=3, 2..=1, -5..=-1, 1..=i64::MAX] {
            let blocks = SpeedBlocks::from_bytes(&[1, 1, 1], range, -2);
            assert_eq!(blocks, Err(BlocksError::BadRange));
        }
        assert_eq!(decode(&[]), BlocksError::Empty);
        assert_eq!(decode(&[2, 1, 1]), BlocksError::UnknownVersion(2));
        assert_eq!(decode(&[1, 1]), BlocksError::BadCount);
        assert_eq!(decode(&[1, 1, 1, 1]), BlocksError::BadCount);
        assert_eq!(decode(&[1, 1, 0x81]), BlocksError::BadNumber);
        assert_eq!(decode(&[1, 1, 0x81, 0]), BlocksError::BadNumber);
        assert_eq!(
            decode(&[1, 1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2]),
            BlocksError::BadNumber
        );
        // 1 has room for 2^31, and 2..=3 for 2^32.
        let greatest = of_sums(&[1 << 31, -1 << 32]);
        let total = greatest.total();
        assert_eq!(SpeedBlocks::from_bytes(greatest.as_bytes(), 1..=3, total), Ok(greatest));
        assert_eq!(decode(&[1, 1, 3]), BlocksError::BadTotal { found: -3, total: -2 });
        assert_eq!(decode(of_sums(&[(1 << 31) + 1, 0]).as_bytes()), BlocksError::BadSum);
        assert_eq!(decode(of_sums(&[i64::MIN, 0]).as_bytes()), BlocksError::BadSum);
    }

    proptest! {
        #[test]
        fn blocks_may_be_appended_in_any_division(
            first in 1..500_i64,
            lengths in prop::collection::vec(1..300_i64, 1..6),
        ) {
            let mut blocks = SpeedBlocks::none();
            let mut next = first;
            for length in lengths {
                let part = next..=next + length - 1;
                for block in expected(next, *part.end()).blocks(part.clone()) {
                    blocks.append(first, block);
                }
                next += length;
            }
            let range = first..=next - 1;
            prop_assert_eq!(&blocks, &expected(first, *range.end()));
            prop_assert_eq!(blocks.total(), range.clone().map(change).sum::<i64>());
            let total = blocks.total();
            prop_assert_eq!(SpeedBlocks::from_bytes(blocks.as_bytes(), range, total), Ok(blocks));
        }
    }
}
