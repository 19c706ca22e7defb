-- The whole state of the service. A released migration is never edited: the next change is the next file.
--
-- Every key includes the channel, and there are no triggers, procedures or sequences, so that both tables can be
-- distributed by channel over a cluster. Text compares by its bytes (COLLATE "C"), as it does in SQLite.

CREATE TABLE rockets (
    channel             text COLLATE "C" NOT NULL PRIMARY KEY,
    status              text COLLATE "C" NOT NULL GENERATED ALWAYS AS (
        CASE WHEN latest_exploded_msg IS NOT NULL THEN 'exploded'
             WHEN latest_launch_msg   IS NOT NULL THEN 'launched'
             ELSE 'awaitingLaunch' END) STORED,
    type                text COLLATE "C",
    speed               bigint NOT NULL,
    mission             text COLLATE "C",
    exploded_reason     text COLLATE "C",
    latest_launch_msg   bigint,
    latest_mission_msg  bigint,
    latest_exploded_msg bigint,
    latest_update       timestamptz NOT NULL,
    last_received       timestamptz NOT NULL,
    processed           bigint NOT NULL,
    complete_through    bigint NOT NULL,
    highest             bigint NOT NULL
) WITH (fillfactor = 50); -- A row's next version finds room beside it.

COMMENT ON TABLE rockets IS 'One row a channel: the best-effort view, the fold of every message processed so far.';
COMMENT ON COLUMN rockets.type IS 'Set by the launch with the number latest_launch_msg.';
COMMENT ON COLUMN rockets.speed IS 'The sum of all speed changes.';
COMMENT ON COLUMN rockets.mission IS 'Set by the message with the number latest_mission_msg.';
COMMENT ON COLUMN rockets.exploded_reason IS 'Given by the explosion with the number latest_exploded_msg.';
COMMENT ON COLUMN rockets.latest_update IS 'The greatest messageTime.';
COMMENT ON COLUMN rockets.last_received IS 'The service''s own time when it last took a new message of the rocket.';
COMMENT ON COLUMN rockets.processed IS 'How many messages are processed.';
COMMENT ON COLUMN rockets.complete_through IS 'The highest number up to which the sequence from 1 is complete, or 0.';
COMMENT ON COLUMN rockets.highest IS 'The highest processed number.';

-- One index for each order that rockets are listed in, if it is by a column that few messages change; the channel breaks
-- ties. Rows whose key is null are found by them too. The orders by speed and latest update have none: every message
-- would have to write to every index of the row.
CREATE INDEX rockets_by_type ON rockets (type, channel);
CREATE INDEX rockets_by_mission ON rockets (mission, channel);
CREATE INDEX rockets_by_status ON rockets (status, channel);

CREATE TABLE processed_ranges (
    channel         text COLLATE "C" NOT NULL,
    first_msg       bigint NOT NULL,
    last_msg        bigint NOT NULL,
    speed_change    bigint NOT NULL,
    launch_msg      bigint,
    launch_type     text COLLATE "C",
    mission_msg     bigint,
    mission         text COLLATE "C",
    exploded_msg    bigint,
    exploded_reason text COLLATE "C",
    latest_time     timestamptz NOT NULL,
    PRIMARY KEY (channel, first_msg)
);

-- With the primary key it finds the neighbours of a number from either side.
CREATE INDEX processed_ranges_by_last ON processed_ranges (channel, last_msg);

COMMENT ON TABLE processed_ranges IS
    'The processed message numbers as ranges, both ends inclusive, that neither overlap nor touch; each with the summary of its messages.';
COMMENT ON COLUMN processed_ranges.speed_change IS 'The sum of the range''s speed changes.';
COMMENT ON COLUMN processed_ranges.launch_msg IS 'The number of its latest launch, which set launch_type.';
COMMENT ON COLUMN processed_ranges.mission_msg IS 'The number of its latest launch or change of mission, which set mission.';
COMMENT ON COLUMN processed_ranges.exploded_msg IS 'The number of its latest explosion, which gave exploded_reason.';
COMMENT ON COLUMN processed_ranges.latest_time IS 'Its greatest messageTime.';

-- The columns of rockets, for every channel, as the fold of the unbroken sequence from message 1 only: the range that
-- starts at 1. A rocket without message 1 awaits its launch at speed 0.
CREATE VIEW rockets_exact AS
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
       rocket.highest
FROM rockets AS rocket
LEFT JOIN processed_ranges AS sequence ON sequence.channel = rocket.channel AND sequence.first_msg = 1;

-- The missing message numbers below each channel's highest, as ranges with both ends inclusive. after_time is the
-- greatest messageTime of the range below the gap; null for a gap at the start.
CREATE VIEW gaps AS
SELECT channel, first_missing, last_missing, after_time
FROM (SELECT channel,
             1 + coalesce(lag(last_msg) OVER below, 0) AS first_missing,
             first_msg - 1                             AS last_missing,
             lag(latest_time) OVER below               AS after_time
      FROM processed_ranges
      WINDOW below AS (PARTITION BY channel ORDER BY first_msg)) AS neighbours
WHERE first_missing <= last_missing;

-- Rockets by mission; the row without a mission counts the rockets whose mission is unknown.
CREATE VIEW report_missions AS
SELECT mission,
       count(*)                                    AS rockets,
       count(*) FILTER (WHERE status = 'launched') AS launched,
       count(*) FILTER (WHERE status = 'exploded') AS exploded,
       round(avg(speed), 3)::double precision      AS mean_speed,
       max(speed)                                  AS max_speed
FROM rockets
GROUP BY mission;

-- Rockets by type; the row without a type counts the rockets whose type is unknown.
CREATE VIEW report_types AS
SELECT type,
       count(*)                                    AS rockets,
       count(*) FILTER (WHERE status = 'launched') AS launched,
       count(*) FILTER (WHERE status = 'exploded') AS exploded,
       round(avg(speed), 3)::double precision      AS mean_speed,
       max(speed)                                  AS max_speed
FROM rockets
GROUP BY type;

-- Exploded rockets by the reason.
CREATE VIEW report_explosions AS
SELECT exploded_reason    AS reason,
       count(*)           AS rockets,
       max(latest_update) AS latest_update
FROM rockets
WHERE latest_exploded_msg IS NOT NULL
GROUP BY exploded_reason;

-- The whole fleet in one row.
CREATE VIEW report_fleet AS
SELECT count(*)                                           AS rockets,
       count(*) FILTER (WHERE status = 'awaitingLaunch')  AS awaiting_launch,
       count(*) FILTER (WHERE status = 'launched')        AS launched,
       count(*) FILTER (WHERE status = 'exploded')        AS exploded,
       coalesce(sum(processed), 0)::bigint                AS processed,
       coalesce(sum(highest - processed), 0)::bigint      AS missing,
       count(*) FILTER (WHERE highest > processed)        AS rockets_with_gaps,
       max(latest_update)                                 AS latest_update
FROM rockets;
