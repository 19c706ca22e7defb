-- Missing numbers can be declared lost, and it is known since when they are missing.

-- Numbers of a channel that are declared lost, both ends inclusive. A channel's losses don't overlap. They may include
-- numbers that were processed, which are not lost. processed_ranges and rockets don't depend on them.
CREATE TABLE losses (
    channel     TEXT    NOT NULL,
    first_msg   INTEGER NOT NULL,
    last_msg    INTEGER NOT NULL,
    reason      TEXT    NOT NULL,
    declared_at TEXT    NOT NULL,
    PRIMARY KEY (channel, first_msg, last_msg)
) STRICT, WITHOUT ROWID;

-- The service's own time when it first took a message of the range. Of older ranges it is not known; they have the time
-- of this migration, which is later.
ALTER TABLE processed_ranges ADD COLUMN first_received TEXT NOT NULL DEFAULT '0001-01-01T00:00:00.000000Z';
UPDATE processed_ranges SET first_received = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now');

-- since is when the service first took a message of the range above the gap. lost is how many of the gap's numbers are
-- declared lost.
DROP VIEW gaps;
CREATE VIEW gaps AS
SELECT channel, first_missing, last_missing, after_time, since,
       (SELECT coalesce(sum(min(last_msg, last_missing) - max(first_msg, first_missing) + 1), 0) FROM losses
        WHERE losses.channel = missing.channel AND first_msg <= last_missing AND last_msg >= first_missing
          -- Losses don't overlap: only the last one that starts below the gap can reach into it.
          AND first_msg >= coalesce((SELECT max(first_msg) FROM losses
                                     WHERE losses.channel = missing.channel AND first_msg <= first_missing), 0)) AS lost
FROM (SELECT above.channel                   AS channel,
             1 + coalesce(below.last_msg, 0) AS first_missing,
             above.first_msg - 1             AS last_missing,
             below.latest_time               AS after_time,
             above.first_received            AS since
      FROM processed_ranges AS above
      LEFT JOIN processed_ranges AS below
             ON below.channel = above.channel
            AND below.first_msg = (SELECT max(others.first_msg) FROM processed_ranges AS others
                                   WHERE others.channel = above.channel AND others.first_msg < above.first_msg)
      WHERE above.first_msg > 1 + coalesce(below.last_msg, 0)) AS missing;

-- The columns of rockets, for every channel, as the fold of the messages up to exact_through: the highest number up to
-- which every number is processed or declared lost. Without losses that is the range that starts at 1, or nothing.
DROP VIEW rockets_exact;
CREATE VIEW rockets_exact AS
SELECT rocket.channel,
       CASE WHEN sequence.exploded_msg IS NOT NULL THEN 'exploded'
            WHEN sequence.launch_msg   IS NOT NULL THEN 'launched'
            ELSE 'awaitingLaunch' END       AS status,
       sequence.launch_type                 AS type,
       coalesce(sequence.speed_change, 0)   AS speed,
       sequence.mission                     AS mission,
       sequence.exploded_reason             AS exploded_reason,
       sequence.launch_msg                  AS latest_launch_msg,
       sequence.mission_msg                 AS latest_mission_msg,
       sequence.exploded_msg                AS latest_exploded_msg,
       sequence.latest_time                 AS latest_update,
       rocket.last_received,
       rocket.processed,
       rocket.complete_through,
       rocket.highest,
       rocket.complete_through              AS exact_through
FROM rockets AS rocket
LEFT JOIN processed_ranges AS sequence ON sequence.channel = rocket.channel AND sequence.first_msg = 1
WHERE NOT EXISTS (SELECT 1 FROM losses WHERE losses.channel = rocket.channel)
UNION ALL
-- With casts, because the columns of both parts must have the same affinities: only then does SQLite merge the parts in
-- the order of their channels, and reads no more than a page of them needs.
SELECT channel,
       CASE WHEN exploded_msg IS NOT NULL THEN 'exploded'
            WHEN launch_msg   IS NOT NULL THEN 'launched'
            ELSE 'awaitingLaunch' END,
       CAST(substr(numbered_type, 11) AS TEXT),
       coalesce(speed_change, 0),
       CAST(substr(numbered_mission, 11) AS TEXT),
       CAST(substr(numbered_reason, 11) AS TEXT),
       CAST(launch_msg AS INTEGER),
       CAST(mission_msg AS INTEGER),
       CAST(exploded_msg AS INTEGER),
       CAST(latest_time AS TEXT),
       last_received,
       processed,
       complete_through,
       highest,
       CAST(exact_through AS INTEGER)
FROM (SELECT reached.channel, last_received, processed, complete_through, highest, exact_through,
             max(launch_msg) AS launch_msg, max(mission_msg) AS mission_msg, max(exploded_msg) AS exploded_msg,
             sum(speed_change) AS speed_change, max(latest_time) AS latest_time,
             -- A text is preceded by its number, in ten digits, so that the latest is the greatest.
             max(printf('%010d', launch_msg) || launch_type)       AS numbered_type,
             max(printf('%010d', mission_msg) || mission)          AS numbered_mission,
             max(printf('%010d', exploded_msg) || exploded_reason) AS numbered_reason
      FROM (SELECT channel, last_received, processed, complete_through, highest,
                   -- The number after it is 1, or follows a range or a loss, and is in neither.
                   (SELECT min(number) - 1
                    FROM (SELECT 1 AS number
                          UNION ALL
                          SELECT last_msg + 1 FROM processed_ranges WHERE channel = rocket.channel
                          UNION ALL
                          SELECT last_msg + 1 FROM losses WHERE channel = rocket.channel)
                    WHERE number > coalesce((SELECT last_msg FROM processed_ranges
                                             WHERE channel = rocket.channel AND first_msg <= number
                                             ORDER BY first_msg DESC LIMIT 1), 0)
                      AND number > coalesce((SELECT last_msg FROM losses
                                             WHERE channel = rocket.channel AND first_msg <= number
                                             ORDER BY first_msg DESC LIMIT 1), 0)) AS exact_through
            FROM rockets AS rocket
            WHERE channel IN (SELECT channel FROM losses)) AS reached
      LEFT JOIN processed_ranges AS range ON range.channel = reached.channel AND range.first_msg <= exact_through
      GROUP BY reached.channel);
