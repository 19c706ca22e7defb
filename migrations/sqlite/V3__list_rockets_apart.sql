-- All orders that rockets are listed in are kept apart from the rockets now, not only those by speed and latest update: an
-- entry in an order is at another place of the file for each rocket, and three of them cost a fleet of millions more than
-- the rockets themselves.

DROP INDEX rockets_by_type;
DROP INDEX rockets_by_mission;
DROP INDEX rockets_by_status;
DROP TABLE rockets_listed;
DROP TABLE rockets_unlisted;

-- A rocket as it is listed: as of when the lists were last brought up to date for it. Not meant for other programs.
CREATE TABLE rockets_listed (
    channel       TEXT    NOT NULL PRIMARY KEY,
    status        TEXT    NOT NULL,
    type          TEXT,
    speed         INTEGER NOT NULL,
    mission       TEXT,
    latest_update TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX rockets_listed_by_status ON rockets_listed (status, channel);
CREATE INDEX rockets_listed_by_type ON rockets_listed (type, channel);
CREATE INDEX rockets_listed_by_speed ON rockets_listed (speed, channel);
CREATE INDEX rockets_listed_by_mission ON rockets_listed (mission, channel);
CREATE INDEX rockets_listed_by_latest_update ON rockets_listed (latest_update, channel);

-- The rockets that have changed since, in the order in which they did; some may be here more than once.
CREATE TABLE rockets_unlisted (
    id      INTEGER PRIMARY KEY,
    channel TEXT NOT NULL
) STRICT;

-- How far the lists go: one row. Where listed_through is null, every rocket is in them; else those up to that channel,
-- for the lists are being made anew, in the order of the channels.
CREATE TABLE rockets_listing (
    id             INTEGER PRIMARY KEY CHECK (id = 1),
    listed_through TEXT
) STRICT;

INSERT INTO rockets_listing (id, listed_through)
VALUES (1, CASE WHEN EXISTS (SELECT 1 FROM rockets) THEN '' END);
