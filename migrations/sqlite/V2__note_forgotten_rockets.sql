-- Which rockets have been forgotten lately, so that processes that follow changes can tell. Rows are kept for an hour.
CREATE TABLE rockets_forgotten (
    channel      TEXT NOT NULL PRIMARY KEY,
    forgotten_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
