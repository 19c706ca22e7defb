PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE refinery_schema_history(
             version int4 PRIMARY KEY,
             name VARCHAR(255),
             applied_on VARCHAR(255),
             checksum VARCHAR(255));
INSERT INTO refinery_schema_history VALUES(1,'rockets_and_processed_ranges','2026-11-24T16:58:17.776750555Z','11978494185867116803');
INSERT INTO refinery_schema_history VALUES(2,'note_forgotten_rockets','2026-11-24T16:58:17.776758974Z','6746365936844162084');
INSERT INTO refinery_schema_history VALUES(3,'list_rockets_apart','2026-11-25T15:00:55.790032952Z','8039138247580833930');
INSERT INTO refinery_schema_history VALUES(4,'find_gaps_by_search','2026-11-26T14:31:14.322025028Z','17662152825336902392');
INSERT INTO refinery_schema_history VALUES(5,'drop_the_lists_of_rockets','2026-11-27T00:26:28.765745578Z','2742579556315478710');
INSERT INTO refinery_schema_history VALUES(6,'declare_losses','2026-11-27T04:00:52.269344285Z','10972305111415958490');
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
INSERT INTO rockets VALUES('c0','T36',3162,'é42','R39',36,42,39,'2022-02-02T18:00:00.002101Z','2026-11-24T16:58:17.781192Z',35,4,43);
INSERT INTO rockets VALUES('c1','T36',3152,'é42','R39',36,42,39,'2022-02-02T18:00:00.002108Z','2026-11-24T16:58:17.781192Z',36,7,43);
INSERT INTO rockets VALUES('c2','T41',3142,'é42','R39',41,42,39,'2022-02-02T18:00:00.002115Z','2026-11-24T16:58:17.781192Z',36,2,43);
INSERT INTO rockets VALUES('c3','T41',3127,'é42','R34',41,42,34,'2022-02-02T18:00:00.002122Z','2026-11-24T16:58:17.781192Z',35,2,43);
INSERT INTO rockets VALUES('c4','T41',3123,'M41','R34',41,41,34,'2022-02-02T18:00:00.002129Z','2026-11-24T16:58:17.781192Z',35,5,43);
INSERT INTO rockets VALUES('c5','T41',3108,'M41','R39',41,41,39,'2022-02-02T18:00:00.002136Z','2026-11-24T16:58:17.781192Z',35,0,43);
INSERT INTO rockets VALUES('c6','T41',3242,'é42','R39',41,42,39,'2022-02-02T18:00:00.002093Z','2026-11-24T16:58:17.781192Z',34,0,42);
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
    latest_time     TEXT    NOT NULL, first_received TEXT NOT NULL DEFAULT '0001-01-01T00:00:00.000000Z', -- its greatest messageTime
    PRIMARY KEY (channel, first_msg)
) STRICT, WITHOUT ROWID;
INSERT INTO processed_ranges VALUES('c0',1,4,491,1,'T1',2,'é2',4,'R4','2022-02-02T18:00:00.000151Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c0',6,7,500,6,'T6',7,'é7',NULL,NULL,'2022-02-02T18:00:00.000301Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c0',9,15,486,11,'T11',12,'é12',14,'R14','2022-02-02T18:00:00.000701Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c0',17,18,-54,NULL,NULL,17,'é17',NULL,NULL,'2022-02-02T18:00:00.000851Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c0',20,26,976,26,'T26',26,'M26',24,'R24','2022-02-02T18:00:00.001251Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c0',28,29,-84,NULL,NULL,NULL,NULL,29,'R29','2022-02-02T18:00:00.001401Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c0',31,37,936,36,'T36',37,'é37',34,'R34','2022-02-02T18:00:00.001801Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c0',39,40,40,NULL,NULL,NULL,NULL,39,'R39','2022-02-02T18:00:00.001951Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c0',42,43,-129,NULL,NULL,42,'é42',NULL,NULL,'2022-02-02T18:00:00.002101Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c1',1,7,996,6,'T6',7,'é7',4,'R4','2022-02-02T18:00:00.000308Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c1',9,10,10,NULL,NULL,NULL,NULL,9,'R9','2022-02-02T18:00:00.000458Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c1',12,18,422,16,'T16',17,'é17',14,'R14','2022-02-02T18:00:00.000858Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c1',20,21,520,21,'T21',21,'M21',NULL,NULL,'2022-02-02T18:00:00.001008Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c1',23,29,372,26,'T26',27,'é27',29,'R29','2022-02-02T18:00:00.001408Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c1',31,32,500,31,'T31',32,'é32',NULL,NULL,'2022-02-02T18:00:00.001558Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c1',34,40,461,36,'T36',37,'é37',39,'R39','2022-02-02T18:00:00.001958Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c1',42,43,-129,NULL,NULL,42,'é42',NULL,NULL,'2022-02-02T18:00:00.002108Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c2',1,2,500,1,'T1',2,'é2',NULL,NULL,'2022-02-02T18:00:00.000065Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c2',4,10,491,6,'T6',7,'é7',9,'R9','2022-02-02T18:00:00.000465Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c2',12,13,-39,NULL,NULL,12,'é12',NULL,NULL,'2022-02-02T18:00:00.000615Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c2',15,21,981,21,'T21',21,'M21',19,'R19','2022-02-02T18:00:00.001015Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c2',23,24,-69,NULL,NULL,NULL,NULL,24,'R24','2022-02-02T18:00:00.001165Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c2',26,32,946,31,'T31',32,'é32',29,'R29','2022-02-02T18:00:00.001565Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c2',34,35,35,NULL,NULL,NULL,NULL,34,'R34','2022-02-02T18:00:00.001715Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c2',37,43,297,41,'T41',42,'é42',39,'R39','2022-02-02T18:00:00.002115Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c3',1,2,500,1,'T1',2,'é2',NULL,NULL,'2022-02-02T18:00:00.000072Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c3',4,5,5,NULL,NULL,NULL,NULL,4,'R4','2022-02-02T18:00:00.000222Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c3',7,13,447,11,'T11',12,'é12',9,'R9','2022-02-02T18:00:00.000622Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c3',15,16,515,16,'T16',16,'M16',NULL,NULL,'2022-02-02T18:00:00.000772Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c3',18,24,397,21,'T21',22,'é22',24,'R24','2022-02-02T18:00:00.001172Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c3',26,27,500,26,'T26',27,'é27',NULL,NULL,'2022-02-02T18:00:00.001322Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c3',29,35,466,31,'T31',32,'é32',34,'R34','2022-02-02T18:00:00.001722Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c3',37,38,-114,NULL,NULL,37,'é37',NULL,NULL,'2022-02-02T18:00:00.001872Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c3',40,43,411,41,'T41',42,'é42',NULL,NULL,'2022-02-02T18:00:00.002122Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c4',1,5,496,1,'T1',2,'é2',4,'R4','2022-02-02T18:00:00.000229Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c4',7,8,-24,NULL,NULL,7,'é7',NULL,NULL,'2022-02-02T18:00:00.000379Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c4',10,16,986,16,'T16',16,'M16',14,'R14','2022-02-02T18:00:00.000779Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c4',18,19,-54,NULL,NULL,NULL,NULL,19,'R19','2022-02-02T18:00:00.000929Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c4',21,27,956,26,'T26',27,'é27',24,'R24','2022-02-02T18:00:00.001329Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c4',29,30,30,NULL,NULL,NULL,NULL,29,'R29','2022-02-02T18:00:00.001479Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c4',32,38,322,36,'T36',37,'é37',34,'R34','2022-02-02T18:00:00.001879Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c4',40,41,540,41,'T41',41,'M41',NULL,NULL,'2022-02-02T18:00:00.002029Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c4',43,43,-129,NULL,NULL,NULL,NULL,NULL,NULL,'2022-02-02T18:00:00.002129Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c5',2,8,472,6,'T6',7,'é7',4,'R4','2022-02-02T18:00:00.000386Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c5',10,11,510,11,'T11',11,'M11',NULL,NULL,'2022-02-02T18:00:00.000536Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c5',13,19,422,16,'T16',17,'é17',19,'R19','2022-02-02T18:00:00.000936Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c5',21,22,500,21,'T21',22,'é22',NULL,NULL,'2022-02-02T18:00:00.001086Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c5',24,30,471,26,'T26',27,'é27',29,'R29','2022-02-02T18:00:00.001486Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c5',32,33,-99,NULL,NULL,32,'é32',NULL,NULL,'2022-02-02T18:00:00.001636Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c5',35,41,961,41,'T41',41,'M41',39,'R39','2022-02-02T18:00:00.002036Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c5',43,43,-129,NULL,NULL,NULL,NULL,NULL,NULL,'2022-02-02T18:00:00.002136Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c6',2,3,-9,NULL,NULL,2,'é2',NULL,NULL,'2022-02-02T18:00:00.000143Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c6',5,11,991,11,'T11',11,'M11',9,'R9','2022-02-02T18:00:00.000543Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c6',13,14,-39,NULL,NULL,NULL,NULL,14,'R14','2022-02-02T18:00:00.000693Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c6',16,22,966,21,'T21',22,'é22',19,'R19','2022-02-02T18:00:00.001093Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c6',24,25,25,NULL,NULL,NULL,NULL,24,'R24','2022-02-02T18:00:00.001243Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c6',27,33,347,31,'T31',32,'é32',29,'R29','2022-02-02T18:00:00.001643Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c6',35,36,535,36,'T36',36,'M36',NULL,NULL,'2022-02-02T18:00:00.001793Z','2026-11-27T04:00:52.269000Z');
INSERT INTO processed_ranges VALUES('c6',38,42,426,41,'T41',42,'é42',39,'R39','2022-02-02T18:00:00.002093Z','2026-11-27T04:00:52.269000Z');
CREATE TABLE rockets_forgotten (
    channel      TEXT NOT NULL PRIMARY KEY,
    forgotten_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE losses (
    channel     TEXT    NOT NULL,
    first_msg   INTEGER NOT NULL,
    last_msg    INTEGER NOT NULL,
    reason      TEXT    NOT NULL,
    declared_at TEXT    NOT NULL,
    PRIMARY KEY (channel, first_msg, last_msg)
) STRICT, WITHOUT ROWID;
CREATE VIEW report_missions AS
SELECT mission,
       count(*)                                    AS rockets,
       count(*) FILTER (WHERE status = 'launched') AS launched,
       count(*) FILTER (WHERE status = 'exploded') AS exploded,
       round(avg(speed), 3)                        AS mean_speed,
       max(speed)                                  AS max_speed
FROM rockets
GROUP BY mission;
CREATE VIEW report_types AS
SELECT type,
       count(*)                                    AS rockets,
       count(*) FILTER (WHERE status = 'launched') AS launched,
       count(*) FILTER (WHERE status = 'exploded') AS exploded,
       round(avg(speed), 3)                        AS mean_speed,
       max(speed)                                  AS max_speed
FROM rockets
GROUP BY type;
CREATE VIEW report_explosions AS
SELECT exploded_reason    AS reason,
       count(*)           AS rockets,
       max(latest_update) AS latest_update
FROM rockets
WHERE latest_exploded_msg IS NOT NULL
GROUP BY exploded_reason;
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
      WHERE above.first_msg > 1 + coalesce(below.last_msg, 0)) AS missing
;
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
      GROUP BY reached.channel)
;
COMMIT;
