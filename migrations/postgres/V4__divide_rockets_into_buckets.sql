-- Over a cluster, rockets are distributed by a small hash of the channel, their bucket, so that a batch of messages for one
-- bucket is one transaction on one node. On a single server there is only the bucket 0.
--
-- Primary keys start with the channel, so that a query by channel alone can use them. Adding the column doesn't rewrite the
-- tables; only the indexes of the primary keys are rebuilt.
CREATE TABLE rocket_buckets (
    bucket smallint NOT NULL PRIMARY KEY
);
INSERT INTO rocket_buckets VALUES (0);

COMMENT ON TABLE rocket_buckets IS
    'The buckets of the database. With n of them, a channel''s bucket is the one with the index b mod n in ascending order, where b is the first byte of SHA-256 of the channel in UTF-8.';

-- A cluster of an earlier version still had it.
DROP INDEX IF EXISTS processed_ranges_by_last;
ALTER TABLE processed_ranges SET (fillfactor = 75);

ALTER TABLE rockets ADD COLUMN bucket smallint NOT NULL DEFAULT 0;
ALTER TABLE rockets ALTER COLUMN bucket DROP DEFAULT;
ALTER TABLE rockets DROP CONSTRAINT rockets_pkey;
ALTER TABLE rockets ADD CONSTRAINT rockets_pkey PRIMARY KEY (channel, bucket);

ALTER TABLE processed_ranges ADD COLUMN bucket smallint NOT NULL DEFAULT 0;
ALTER TABLE processed_ranges ALTER COLUMN bucket DROP DEFAULT;
ALTER TABLE processed_ranges DROP CONSTRAINT processed_ranges_pkey;
ALTER TABLE processed_ranges ADD CONSTRAINT processed_ranges_pkey PRIMARY KEY (channel, bucket, first_msg);

ALTER TABLE rockets_forgotten ADD COLUMN bucket smallint NOT NULL DEFAULT 0;
ALTER TABLE rockets_forgotten ALTER COLUMN bucket DROP DEFAULT;
ALTER TABLE rockets_forgotten DROP CONSTRAINT rockets_forgotten_pkey;
ALTER TABLE rockets_forgotten ADD CONSTRAINT rockets_forgotten_pkey PRIMARY KEY (channel, bucket);

COMMENT ON COLUMN rockets.bucket IS 'The channel''s bucket, see rocket_buckets.';
COMMENT ON COLUMN processed_ranges.bucket IS 'The channel''s bucket, see rocket_buckets.';
COMMENT ON COLUMN rockets_forgotten.bucket IS 'The channel''s bucket, see rocket_buckets.';

-- As before, within each bucket.
CREATE OR REPLACE VIEW rockets_exact AS
SELECT rocket.channel,
       CASE WHEN sequence.exploded_msg IS NOT NULL THEN 'exploded'
            WHEN sequence.launch_msg   IS NOT NULL THEN 'launched'
            ELSE 'awaitingLaunch' END COLLATE "C" AS status,
       sequence.launch_type                       AS type,
       coalesce(sequence.speed_change, 0)         AS speed,
       sequence.mission                           AS mission,
       sequence.exploded_reason                   AS exploded_reason,
       sequence.launch_msg                        AS latest_launch_msg,
       sequence.mission_msg                       AS latest_mission_msg,
       sequence.exploded_msg                      AS latest_exploded_msg,
       sequence.latest_time                       AS latest_update,
       rocket.last_received,
       rocket.processed,
       rocket.complete_through,
       rocket.highest,
       rocket.bucket
FROM rockets AS rocket
LEFT JOIN processed_ranges AS sequence
    ON sequence.channel = rocket.channel AND sequence.bucket = rocket.bucket AND sequence.first_msg = 1;

CREATE OR REPLACE VIEW gaps AS
SELECT channel, first_missing, last_missing, after_time
FROM (SELECT channel,
             1 + coalesce(lag(last_msg) OVER below, 0) AS first_missing,
             first_msg - 1                             AS last_missing,
             lag(latest_time) OVER below               AS after_time
      FROM processed_ranges
      WINDOW below AS (PARTITION BY channel, bucket ORDER BY first_msg)) AS neighbours
WHERE first_missing <= last_missing;
