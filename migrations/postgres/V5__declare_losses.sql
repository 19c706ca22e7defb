-- Missing numbers can be declared lost, and it is known since when they are missing.

-- processed_ranges and rockets don't depend on them.
CREATE TABLE losses (
    channel     text COLLATE "C" NOT NULL,
    bucket      smallint NOT NULL,
    first_msg   bigint NOT NULL,
    last_msg    bigint NOT NULL,
    reason      text COLLATE "C" NOT NULL,
    declared_at timestamptz NOT NULL,
    PRIMARY KEY (channel, bucket, first_msg, last_msg)
);

COMMENT ON TABLE losses IS
    'Numbers of a channel that are declared lost, both ends inclusive. A channel''s losses don''t overlap. They may include numbers that were processed, which are not lost.';
COMMENT ON COLUMN losses.bucket IS 'The channel''s bucket, see rocket_buckets.';

-- Of older ranges it is not known; they have the time of this migration, which is later.
ALTER TABLE processed_ranges ADD COLUMN first_received timestamptz NOT NULL DEFAULT now();
ALTER TABLE processed_ranges ALTER COLUMN first_received DROP DEFAULT;

COMMENT ON COLUMN processed_ranges.first_received IS
    'The service''s own time when it first took a message of the range.';

-- On a cluster, losses are distributed like the other tables.
DO $$
DECLARE
    distributed boolean := false;
BEGIN
    IF to_regclass('pg_dist_partition') IS NOT NULL THEN
        EXECUTE 'SELECT EXISTS (SELECT FROM pg_dist_partition WHERE logicalrelid = ''rocket_buckets''::regclass)'
            INTO distributed;
    END IF;
    IF distributed THEN
        EXECUTE 'SELECT create_distributed_table(''losses'', ''bucket'', colocate_with => ''rocket_buckets'')';
    END IF;
END
$$;

-- since is when the service first took a message of the range above the gap. lost is how many of the gap's numbers are
-- declared lost.
DROP VIEW gaps;
CREATE VIEW gaps AS
SELECT missing.channel, first_missing, last_missing, after_time, since,
       (SELECT coalesce(sum(least(last_msg, last_missing) - greatest(first_msg, first_missing) + 1), 0)::bigint
        FROM losses
        WHERE losses.channel = missing.channel AND losses.bucket = missing.bucket
          AND first_msg <= last_missing AND last_msg >= first_missing
          -- Losses don't overlap: only the last one that starts below the gap can reach into it.
          AND first_msg >= coalesce((SELECT max(below.first_msg) FROM losses AS below
                                     WHERE below.channel = missing.channel AND below.bucket = missing.bucket
                                       AND below.first_msg <= first_missing), 0)) AS lost
FROM (SELECT channel, bucket, first_received AS since,
             1 + coalesce(lag(last_msg) OVER below, 0) AS first_missing,
             first_msg - 1                             AS last_missing,
             lag(latest_time) OVER below               AS after_time
      FROM processed_ranges
      WINDOW below AS (PARTITION BY channel, bucket ORDER BY first_msg)) AS missing
WHERE first_missing <= last_missing;

-- The columns of rockets, for every channel, as the fold of the messages up to exact_through: the highest number up to
-- which every number is processed or declared lost. Without losses that is the range that starts at 1, or nothing.
DROP VIEW rockets_exact;
CREATE VIEW rockets_exact AS
SELECT rocket.channel,
       CASE WHEN coalesce(across.exploded_msg, sequence.exploded_msg) IS NOT NULL THEN 'exploded'
            WHEN coalesce(across.launch_msg, sequence.launch_msg)     IS NOT NULL THEN 'launched'
            ELSE 'awaitingLaunch' END COLLATE "C"                            AS status,
       coalesce(substr(across.numbered_type, 11), sequence.launch_type)      AS type,
       coalesce(across.speed_change, sequence.speed_change, 0)::bigint       AS speed,
       coalesce(substr(across.numbered_mission, 11), sequence.mission)       AS mission,
       coalesce(substr(across.numbered_reason, 11), sequence.exploded_reason) AS exploded_reason,
       coalesce(across.launch_msg, sequence.launch_msg)                      AS latest_launch_msg,
       coalesce(across.mission_msg, sequence.mission_msg)                    AS latest_mission_msg,
       coalesce(across.exploded_msg, sequence.exploded_msg)                  AS latest_exploded_msg,
       coalesce(across.latest_time, sequence.latest_time)                    AS latest_update,
       rocket.last_received,
       rocket.processed,
       rocket.complete_through,
       rocket.highest,
       coalesce(across.exact_through, rocket.complete_through)               AS exact_through,
       rocket.bucket
FROM rockets AS rocket
LEFT JOIN processed_ranges AS sequence
    ON sequence.channel = rocket.channel AND sequence.bucket = rocket.bucket AND sequence.first_msg = 1
-- For channels with losses, all ranges up to exact_through; the first of them is the sequence, if it exists.
LEFT JOIN (
    SELECT reached.channel, reached.bucket, exact_through,
           max(launch_msg) AS launch_msg, max(mission_msg) AS mission_msg, max(exploded_msg) AS exploded_msg,
           sum(speed_change) AS speed_change, max(latest_time) AS latest_time,
           -- A text is preceded by its number, in ten digits, so that the latest is the greatest.
           max(lpad(launch_msg::text, 10, '0') || launch_type)       AS numbered_type,
           max(lpad(mission_msg::text, 10, '0') || mission)          AS numbered_mission,
           max(lpad(exploded_msg::text, 10, '0') || exploded_reason) AS numbered_reason
    -- The number after exact_through follows a range or a loss, or is 1, and is in neither. (A cluster can't run a
    -- UNION here.)
    FROM (SELECT channel, bucket, least(
                     (SELECT min(last_msg + 1) FROM processed_ranges AS range
                      WHERE range.channel = declared.channel AND range.bucket = declared.bucket
                        AND last_msg + 1 > coalesce((
                            SELECT loss.last_msg FROM losses AS loss
                            WHERE loss.channel = declared.channel AND loss.bucket = declared.bucket
                              AND loss.first_msg <= range.last_msg + 1
                            ORDER BY loss.first_msg DESC LIMIT 1), 0)),
                     (SELECT min(last_msg + 1) FROM losses AS loss
                      WHERE loss.channel = declared.channel AND loss.bucket = declared.bucket
                        AND last_msg + 1 > coalesce((
                            SELECT range.last_msg FROM processed_ranges AS range
                            WHERE range.channel = declared.channel AND range.bucket = declared.bucket
                              AND range.first_msg <= loss.last_msg + 1
                            ORDER BY range.first_msg DESC LIMIT 1), 0)
                        AND NOT EXISTS (
                            SELECT FROM losses AS next
                            WHERE next.channel = declared.channel AND next.bucket = declared.bucket
                              AND next.first_msg = loss.last_msg + 1)),
                     CASE WHEN min(first_msg) > 1 AND NOT EXISTS (
                              SELECT FROM processed_ranges AS range
                              WHERE range.channel = declared.channel AND range.bucket = declared.bucket
                                AND range.first_msg = 1)
                          THEN 1 END) - 1 AS exact_through
          FROM losses AS declared GROUP BY channel, bucket) AS reached
    LEFT JOIN processed_ranges AS range
        ON range.channel = reached.channel AND range.bucket = reached.bucket AND range.first_msg <= exact_through
    GROUP BY reached.channel, reached.bucket, exact_through) AS across
    ON across.channel = rocket.channel AND across.bucket = rocket.bucket;
