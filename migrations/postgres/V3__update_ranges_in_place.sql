-- No index holds a column anymore that every message changes, so that mostly a row of either table is updated in its place: no
-- index is written, and what is dead is cleared away by the next update of the page.
--
-- Ranges are found by their first numbers. A cluster can't do that for many channels at once, and keeps the index by the last
-- ones (`migrate --distribute` makes it).
DO $$
DECLARE
    distributed boolean := false;
BEGIN
    IF to_regclass('pg_dist_partition') IS NOT NULL THEN
        EXECUTE 'SELECT EXISTS (SELECT FROM pg_dist_partition WHERE logicalrelid = ''processed_ranges''::regclass)'
            INTO distributed;
    END IF;
    IF NOT distributed THEN
        DROP INDEX processed_ranges_by_last;
        -- A row's next version finds room beside it.
        ALTER TABLE processed_ranges SET (fillfactor = 75);
    END IF;
END
$$;
