-- What is needed to merge databases that have processed different messages of the same rockets.

ALTER TABLE processed_ranges ADD COLUMN speed_blocks bytea;

COMMENT ON COLUMN processed_ranges.speed_blocks IS
    'The sums of the range''s speed changes by its maximal blocks: a block has 2^k numbers and starts at a multiple of 2^k, so 1 to 11 consists of 1, 2 to 3, 4 to 7 and 8 to 11. A byte with the version of the form, 1, then the sum of each block in ascending order, as a variable-length integer (LEB128) of its zigzag encoding. Null in ranges with messages that an earlier version has processed.';

CREATE TABLE rockets_merged (
    channel   text COLLATE "C" NOT NULL,
    bucket    smallint NOT NULL,
    merged_at timestamptz NOT NULL,
    PRIMARY KEY (channel, bucket)
);

COMMENT ON TABLE rockets_merged IS 'When a rocket was last changed or removed by a merge, by this database''s own clock.';
COMMENT ON COLUMN rockets_merged.bucket IS 'The channel''s bucket, see rocket_buckets.';

COMMENT ON TABLE rockets_forgotten IS 'Which rockets have been forgotten; rows are kept for 30 days.';

-- On a cluster, the new table is distributed like the others.
DO $$
DECLARE
    distributed boolean := false;
BEGIN
    IF to_regclass('pg_dist_partition') IS NOT NULL THEN
        EXECUTE 'SELECT EXISTS (SELECT FROM pg_dist_partition WHERE logicalrelid = ''rocket_buckets''::regclass)'
            INTO distributed;
    END IF;
    IF distributed THEN
        EXECUTE 'SELECT create_distributed_table(''rockets_merged'', ''bucket'', colocate_with => ''rocket_buckets'')';
    END IF;
END
$$;
