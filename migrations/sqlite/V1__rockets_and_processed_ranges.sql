-- The whole state of the service. A released migration is never edited: the next change is the next file.

-- One row a channel: the best-effort view, the fold of every message processed so far. Text compares by its bytes
-- (SQLite's BINARY collation). Times are UTC text of fixed width (YYYY-MM-DDTHH:MM:SS.ffffffZ), so that they sort and
-- compare as text and work with SQLite's date functions. The table is clustered by its key: a channel is found, and
-- its row rewritten, with one search.
CREATE TABLE rockets (
    channel             TEXT    NOT NULL PRIMARY KEY,
    status              TEXT    NOT NULL GENERATED ALWAYS AS (
        CASE WHEN latest_exploded_msg IS NOT NULL THEN 'exploded'
             WHEN latest_launch_msg   IS NOT NULL THEN 'launched'
             ELSE 'awaitingLaunch' END) VIRTUAL,
    type                TEXT,             -- set by the launch with the number latest_launch_msg
    speed               INTEGER NOT NULL, -- the sum of all speed changes
    mission             TEXT,             -- set by the message with the number latest_mission_msg
    exploded_reason     TEXT,             -- given by the explosion with the number latest_exploded_msg
    latest_launch_msg   INTEGER,
    latest_mission_msg  INTEGER,
    latest_exploded_msg INTEGER,
    latest_update       TEXT    NOT NULL, -- the greatest messageTime
    last_received       TEXT    NOT NULL, -- the service's own time when it last took a new message of the rocket
    processed           INTEGER NOT NULL, -- how many messages are processed
    complete_through    INTEGER NOT NULL, -- the highest number up to which the sequence from 1 is complete, or 0
    highest             INTEGER NOT NULL  -- the highest processed number
) STRICT, WITHOUT ROWID;

-- One index for each order that rockets are listed in, if it is by a column that few messages change; the channel
-- breaks ties. Rows whose key is null are found by them too.
CREATE INDEX rockets_by_type ON rockets (type, channel);
CREATE INDEX rockets_by_mission ON rockets (mission, channel);
CREATE INDEX rockets_by_status ON rockets (status, channel);

-- The orders by speed and by latest update, which every message changes. An index of rockets would have to be written
-- with every message, and cost more than all else that is written. So these orders are kept apart, and brought up to
-- date for many rockets at a time, when the service has nothing else to do: a rocket's row here is as of then, unless
-- the rocket is in rockets_unlisted, because it has changed since. Not meant for other programs.
CREATE TABLE rockets_listed (
    channel       TEXT    NOT NULL PRIMARY KEY,
    speed         INTEGER NOT NULL,
    latest_update TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX rockets_listed_by_latest_update ON rockets_listed (latest_update, channel);
CREATE INDEX rockets_listed_by_speed ON rockets_listed (speed, channel);

CREATE TABLE rockets_unlisted (
    channel TEXT NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- The processed message numbers as ranges, both ends inclusive, that neither overlap nor touch; each with the summary
-- of its messages, so that the state of any union of ranges is the combination of their summaries. It grows with the
-- gaps, not with the messages.
CREATE TABLE processed_ranges (
    channel         TEXT    NOT NULL,
    first_msg       INTEGER NOT NULL,
    last_msg        INTEGER NOT NULL,
    speed_change    INTEGER NOT NULL, -- the sum of the range's speed changes
    launch_msg      INTEGER,          -- the number of its latest launch, and the type that it set
    launch_type     TEXT,
    mission_msg     INTEGER,          -- the number of its latest launch or change of mission, and the mission it set
    mission         TEXT,
    exploded_msg    INTEGER,          -- the number of its latest explosion, and the reason it gave
    exploded_reason TEXT,
    latest_time     TEXT    NOT NULL, -- its greatest messageTime
    PRIMARY KEY (channel, first_msg)
) STRICT, WITHOUT ROWID;

-- The columns of rockets, for every channel, as the fold of the unbroken sequence from message 1 only: the range that
-- starts at 1. A rocket without message 1 awaits its launch at speed 0.
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
      WINDOW below AS (PARTITION BY channel ORDER BY first_msg))
WHERE first_missing <= last_missing;

-- Rockets by mission; the row without a mission counts the rockets whose mission is unknown.
CREATE VIEW report_missions AS
SELECT mission,
       count(*)                                    AS rockets,
       count(*) FILTER (WHERE status = 'launched') AS launched,
       count(*) FILTER (WHERE status = 'exploded') AS exploded,
       round(avg(speed), 3)                        AS mean_speed,
       max(speed)                                  AS max_speed
FROM rockets
GROUP BY mission;

-- Rockets by type; the row without a type counts the rockets whose type is unknown.
CREATE VIEW report_types AS
SELECT type,
       count(*)                                    AS rockets,
       count(*) FILTER (WHERE status = 'launched') AS launched,
       count(*) FILTER (WHERE status = 'exploded') AS exploded,
       round(avg(speed), 3)                        AS mean_speed,
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
SELECT count(*)                                                              AS rockets,
       count(*) FILTER (WHERE status = 'awaitingLaunch')                     AS awaiting_launch,
       count(*) FILTER (WHERE status = 'launched')                           AS launched,
       count(*) FILTER (WHERE status = 'exploded')                           AS exploded,
       coalesce(sum(processed), 0)                                           AS processed,
       coalesce(sum(highest - processed), 0)                                 AS missing,
       count(*) FILTER (WHERE highest > processed)                           AS rockets_with_gaps,
       max(latest_update)                                                    AS latest_update
FROM rockets;
