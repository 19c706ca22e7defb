//! Columns that grow by blocks. A full vector would move to twice as much memory. For a million
//! rockets, that would take long, and need the memory of both.

use std::hash::{BuildHasher, RandomState};
use std::ops::{Index, IndexMut};

use hashbrown::HashTable;

use crate::domain::text::Channel;

/// The number of rows in a block.
const BLOCK_ROWS: usize = 1 << 14;
/// The number of hash tables that find a row. Each grows independently.
const TABLES: usize = 64;

/// One value for each row.
#[derive(Debug)]
pub(super) struct Column<T> {
    blocks: Vec<Vec<T>>,
}

impl<T> Default for Column<T> {
    fn default() -> Self {
        Self { blocks: Vec::new() }
    }
}

impl<T> Column<T> {
    pub(super) fn len(&self) -> usize {
        self.blocks.last().map_or(0, |last| (self.blocks.len() - 1) * BLOCK_ROWS + last.len())
    }

    pub(super) fn push(&mut self, value: T) {
        match self.blocks.last_mut() {
            Some(last) if last.len() < BLOCK_ROWS => last.push(value),
            _ => {
                let mut block = Vec::with_capacity(BLOCK_ROWS);
                block.push(value);
                self.blocks.push(block);
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.blocks.iter().flatten()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.blocks.iter_mut().flatten()
    }
}

impl<T> Index<usize> for Column<T> {
    type Output = T;

    fn index(&self, row: usize) -> &T {
        &self.blocks[row / BLOCK_ROWS][row % BLOCK_ROWS]
    }
}

impl<T> IndexMut<usize> for Column<T> {
    fn index_mut(&mut self, row: usize) -> &mut T {
        &mut self.blocks[row / BLOCK_ROWS][row % BLOCK_ROWS]
    }
}

/// The channel of each row, and the row of each channel.
#[derive(Debug)]
pub(super) struct Channels {
    /// A string for each block: its names, one after the other.
    names: Vec<String>,
    /// The end of each name in its block.
    ends: Column<u32>,
    tables: Vec<HashTable<u32>>,
    hasher: RandomState,
}

impl Default for Channels {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            ends: Column::default(),
            tables: vec![HashTable::new(); TABLES],
            // Senders choose the channels, so the hash must resist collisions.
            hasher: RandomState::new(),
        }
    }
}

impl Channels {
    pub(super) fn find(&self, channel: &str) -> Option<usize> {
        let hash = self.hasher.hash_one(channel);
        let found = self.tables[table(hash)].find(hash, |row| self.name(*row as usize) == channel);
        found.map(|row| *row as usize)
    }

    pub(super) fn name(&self, row: usize) -> &str {
        name(&self.names, &self.ends, row)
    }

    /// Adds a row for a channel that has none.
    pub(super) fn push(&mut self, channel: &Channel) -> usize {
        let Self { names, ends, tables, hasher } = self;
        let row = ends.len();
        if row.is_multiple_of(BLOCK_ROWS) {
            if let Some(full) = names.last_mut() {
                full.shrink_to_fit();
            }
            names.push(String::new());
        }
        let block = &mut names[row / BLOCK_ROWS];
        block.push_str(channel.as_str());
        ends.push(super::index(block.len()));
        let hash = hasher.hash_one(channel.as_str());
        let hash_of = |row: &u32| hasher.hash_one(name(names, ends, *row as usize));
        tables[table(hash)].insert_unique(hash, super::index(row), hash_of);
        row
    }
}

fn name<'n>(names: &'n [String], ends: &Column<u32>, row: usize) -> &'n str {
    let start = if row.is_multiple_of(BLOCK_ROWS) { 0 } else { ends[row - 1] };
    &names[row / BLOCK_ROWS][start as usize..ends[row] as usize]
}

/// The index of the hash table, from bits of the hash that the table itself hardly uses.
fn table(hash: u64) -> usize {
    (hash >> 32) as usize % TABLES
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn rows_of_several_blocks_are_found() {
        let (mut channels, mut column) = (Channels::default(), Column::default());
        let name = |row: usize| "é".repeat(row % 5 + 1) + &row.to_string();
        let rows = 2 * BLOCK_ROWS + 3;
        for row in 0..rows {
            assert_eq!((channels.find(&name(row)), column.len()), (None, row));
            assert_eq!(channels.push(&Channel::new(name(row)).unwrap()), row);
            column.push(row);
        }
        for row in 0..rows {
            assert_eq!(
                (channels.find(&name(row)), channels.name(row)),
                (Some(row), name(row).as_str())
            );
            column[row] += 1;
        }
        assert!(column.iter().copied().eq(1..=rows));
        column.iter_mut().for_each(|value| *value = 0);
        assert!(column.iter().all(|value| *value == 0) && column.len() == rows);
    }
}
