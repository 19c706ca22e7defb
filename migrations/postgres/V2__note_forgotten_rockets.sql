-- Which rockets have been forgotten lately, so that instances that follow changes can tell. Rows are kept for an hour.
CREATE TABLE rockets_forgotten (
    channel      text COLLATE "C" NOT NULL PRIMARY KEY,
    forgotten_at timestamptz NOT NULL
);

COMMENT ON TABLE rockets_forgotten IS 'Which rockets have been forgotten lately; rows are kept for an hour.';
