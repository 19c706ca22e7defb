-- What is needed to merge databases that have processed different messages of the same rockets.

-- The sums of a range's speed changes by its maximal blocks: a block has 2^k numbers and starts at a multiple of 2^k, so
-- 1 to 11 consists of 1, 2 to 3, 4 to 7 and 8 to 11. A byte with the version of the form, 1, then the sum of each block
-- in ascending order, as a variable-length integer (LEB128) of its zigzag encoding. NULL in ranges with messages that an
-- earlier version has processed.
ALTER TABLE processed_ranges ADD COLUMN speed_blocks BLOB;

-- When a rocket was last changed or removed by a merge, by this database's own clock.
CREATE TABLE rockets_merged (
    channel   TEXT NOT NULL PRIMARY KEY,
    merged_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
