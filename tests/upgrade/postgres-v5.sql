--
-- PostgreSQL database dump
--


-- Dumped from database version 15.20 (Debian 15.20-0+deb12u1)
-- Dumped by pg_dump version 15.20 (Debian 15.20-0+deb12u1)

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: losses; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.losses (
    channel text NOT NULL COLLATE pg_catalog."C",
    bucket smallint NOT NULL,
    first_msg bigint NOT NULL,
    last_msg bigint NOT NULL,
    reason text NOT NULL COLLATE pg_catalog."C",
    declared_at timestamp with time zone NOT NULL
);


--
-- Name: TABLE losses; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.losses IS 'Numbers of a channel that are declared lost, both ends inclusive. A channel''s losses don''t overlap. They may include numbers that were processed, which are not lost.';


--
-- Name: COLUMN losses.bucket; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.losses.bucket IS 'The channel''s bucket, see rocket_buckets.';


--
-- Name: processed_ranges; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.processed_ranges (
    channel text NOT NULL COLLATE pg_catalog."C",
    first_msg bigint NOT NULL,
    last_msg bigint NOT NULL,
    speed_change bigint NOT NULL,
    launch_msg bigint,
    launch_type text COLLATE pg_catalog."C",
    mission_msg bigint,
    mission text COLLATE pg_catalog."C",
    exploded_msg bigint,
    exploded_reason text COLLATE pg_catalog."C",
    latest_time timestamp with time zone NOT NULL,
    bucket smallint NOT NULL,
    first_received timestamp with time zone NOT NULL
)
WITH (fillfactor='75');


--
-- Name: TABLE processed_ranges; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.processed_ranges IS 'The processed message numbers as ranges, both ends inclusive, that neither overlap nor touch; each with the summary of its messages.';


--
-- Name: COLUMN processed_ranges.speed_change; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.processed_ranges.speed_change IS 'The sum of the range''s speed changes.';


--
-- Name: COLUMN processed_ranges.launch_msg; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.processed_ranges.launch_msg IS 'The number of its latest launch, which set launch_type.';


--
-- Name: COLUMN processed_ranges.mission_msg; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.processed_ranges.mission_msg IS 'The number of its latest launch or change of mission, which set mission.';


--
-- Name: COLUMN processed_ranges.exploded_msg; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.processed_ranges.exploded_msg IS 'The number of its latest explosion, which gave exploded_reason.';


--
-- Name: COLUMN processed_ranges.latest_time; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.processed_ranges.latest_time IS 'Its greatest messageTime.';


--
-- Name: COLUMN processed_ranges.bucket; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.processed_ranges.bucket IS 'The channel''s bucket, see rocket_buckets.';


--
-- Name: COLUMN processed_ranges.first_received; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.processed_ranges.first_received IS 'The service''s own time when it first took a message of the range.';


--
-- Name: gaps; Type: VIEW; Schema: public; Owner: -
--

CREATE VIEW public.gaps AS
 SELECT missing.channel,
    missing.first_missing,
    missing.last_missing,
    missing.after_time,
    missing.since,
    ( SELECT (COALESCE(sum(((LEAST(losses.last_msg, missing.last_missing) - GREATEST(losses.first_msg, missing.first_missing)) + 1)), (0)::numeric))::bigint AS "coalesce"
           FROM public.losses
          WHERE ((losses.channel = missing.channel) AND (losses.bucket = missing.bucket) AND (losses.first_msg <= missing.last_missing) AND (losses.last_msg >= missing.first_missing) AND (losses.first_msg >= COALESCE(( SELECT max(below.first_msg) AS max
                   FROM public.losses below
                  WHERE ((below.channel = missing.channel) AND (below.bucket = missing.bucket) AND (below.first_msg <= missing.first_missing))), (0)::bigint)))) AS lost
   FROM ( SELECT processed_ranges.channel,
            processed_ranges.bucket,
            processed_ranges.first_received AS since,
            (1 + COALESCE(lag(processed_ranges.last_msg) OVER below, (0)::bigint)) AS first_missing,
            (processed_ranges.first_msg - 1) AS last_missing,
            lag(processed_ranges.latest_time) OVER below AS after_time
           FROM public.processed_ranges
          WINDOW below AS (PARTITION BY processed_ranges.channel, processed_ranges.bucket ORDER BY processed_ranges.first_msg)) missing
  WHERE (missing.first_missing <= missing.last_missing);


--
-- Name: rockets; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.rockets (
    channel text NOT NULL COLLATE pg_catalog."C",
    status text GENERATED ALWAYS AS (
CASE
    WHEN (latest_exploded_msg IS NOT NULL) THEN 'exploded'::text
    WHEN (latest_launch_msg IS NOT NULL) THEN 'launched'::text
    ELSE 'awaitingLaunch'::text
END) STORED NOT NULL COLLATE pg_catalog."C",
    type text COLLATE pg_catalog."C",
    speed bigint NOT NULL,
    mission text COLLATE pg_catalog."C",
    exploded_reason text COLLATE pg_catalog."C",
    latest_launch_msg bigint,
    latest_mission_msg bigint,
    latest_exploded_msg bigint,
    latest_update timestamp with time zone NOT NULL,
    last_received timestamp with time zone NOT NULL,
    processed bigint NOT NULL,
    complete_through bigint NOT NULL,
    highest bigint NOT NULL,
    bucket smallint NOT NULL
)
WITH (fillfactor='50');


--
-- Name: TABLE rockets; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.rockets IS 'One row a channel: the best-effort view, the fold of every message processed so far.';


--
-- Name: COLUMN rockets.type; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.rockets.type IS 'Set by the launch with the number latest_launch_msg.';


--
-- Name: COLUMN rockets.speed; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.rockets.speed IS 'The sum of all speed changes.';


--
-- Name: COLUMN rockets.mission; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.rockets.mission IS 'Set by the message with the number latest_mission_msg.';


--
-- Name: COLUMN rockets.exploded_reason; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.rockets.exploded_reason IS 'Given by the explosion with the number latest_exploded_msg.';


--
-- Name: COLUMN rockets.latest_update; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.rockets.latest_update IS 'The greatest messageTime.';


--
-- Name: COLUMN rockets.last_received; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.rockets.last_received IS 'The service''s own time when it last took a new message of the rocket.';


--
-- Name: COLUMN rockets.processed; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.rockets.processed IS 'How many messages are processed.';


--
-- Name: COLUMN rockets.complete_through; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.rockets.complete_through IS 'The highest number up to which the sequence from 1 is complete, or 0.';


--
-- Name: COLUMN rockets.highest; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.rockets.highest IS 'The highest processed number.';


--
-- Name: COLUMN rockets.bucket; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.rockets.bucket IS 'The channel''s bucket, see rocket_buckets.';


--
-- Name: report_explosions; Type: VIEW; Schema: public; Owner: -
--

CREATE VIEW public.report_explosions AS
 SELECT rockets.exploded_reason AS reason,
    count(*) AS rockets,
    max(rockets.latest_update) AS latest_update
   FROM public.rockets
  WHERE (rockets.latest_exploded_msg IS NOT NULL)
  GROUP BY rockets.exploded_reason;


--
-- Name: report_fleet; Type: VIEW; Schema: public; Owner: -
--

CREATE VIEW public.report_fleet AS
 SELECT count(*) AS rockets,
    count(*) FILTER (WHERE (rockets.status = 'awaitingLaunch'::text)) AS awaiting_launch,
    count(*) FILTER (WHERE (rockets.status = 'launched'::text)) AS launched,
    count(*) FILTER (WHERE (rockets.status = 'exploded'::text)) AS exploded,
    (COALESCE(sum(rockets.processed), (0)::numeric))::bigint AS processed,
    (COALESCE(sum((rockets.highest - rockets.processed)), (0)::numeric))::bigint AS missing,
    count(*) FILTER (WHERE (rockets.highest > rockets.processed)) AS rockets_with_gaps,
    max(rockets.latest_update) AS latest_update
   FROM public.rockets;


--
-- Name: report_missions; Type: VIEW; Schema: public; Owner: -
--

CREATE VIEW public.report_missions AS
 SELECT rockets.mission,
    count(*) AS rockets,
    count(*) FILTER (WHERE (rockets.status = 'launched'::text)) AS launched,
    count(*) FILTER (WHERE (rockets.status = 'exploded'::text)) AS exploded,
    (round(avg(rockets.speed), 3))::double precision AS mean_speed,
    max(rockets.speed) AS max_speed
   FROM public.rockets
  GROUP BY rockets.mission;


--
-- Name: report_types; Type: VIEW; Schema: public; Owner: -
--

CREATE VIEW public.report_types AS
 SELECT rockets.type,
    count(*) AS rockets,
    count(*) FILTER (WHERE (rockets.status = 'launched'::text)) AS launched,
    count(*) FILTER (WHERE (rockets.status = 'exploded'::text)) AS exploded,
    (round(avg(rockets.speed), 3))::double precision AS mean_speed,
    max(rockets.speed) AS max_speed
   FROM public.rockets
  GROUP BY rockets.type;


--
-- Name: rocket_buckets; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.rocket_buckets (
    bucket smallint NOT NULL
);


--
-- Name: TABLE rocket_buckets; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.rocket_buckets IS 'The buckets of the database. With n of them, a channel''s bucket is the one with the index b mod n in ascending order, where b is the first byte of SHA-256 of the channel in UTF-8.';


--
-- Name: rocket_monitor_schema_history; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.rocket_monitor_schema_history (
    version integer NOT NULL,
    name character varying(255),
    applied_on character varying(255),
    checksum character varying(255)
);


--
-- Name: rockets_exact; Type: VIEW; Schema: public; Owner: -
--

CREATE VIEW public.rockets_exact AS
 SELECT rocket.channel,
    (
        CASE
            WHEN (COALESCE(across.exploded_msg, sequence.exploded_msg) IS NOT NULL) THEN 'exploded'::text
            WHEN (COALESCE(across.launch_msg, sequence.launch_msg) IS NOT NULL) THEN 'launched'::text
            ELSE 'awaitingLaunch'::text
        END COLLATE "C") AS status,
    COALESCE(substr(across.numbered_type, 11), sequence.launch_type) AS type,
    (COALESCE(across.speed_change, (sequence.speed_change)::numeric, (0)::numeric))::bigint AS speed,
    COALESCE(substr(across.numbered_mission, 11), sequence.mission) AS mission,
    COALESCE(substr(across.numbered_reason, 11), sequence.exploded_reason) AS exploded_reason,
    COALESCE(across.launch_msg, sequence.launch_msg) AS latest_launch_msg,
    COALESCE(across.mission_msg, sequence.mission_msg) AS latest_mission_msg,
    COALESCE(across.exploded_msg, sequence.exploded_msg) AS latest_exploded_msg,
    COALESCE(across.latest_time, sequence.latest_time) AS latest_update,
    rocket.last_received,
    rocket.processed,
    rocket.complete_through,
    rocket.highest,
    COALESCE(across.exact_through, rocket.complete_through) AS exact_through,
    rocket.bucket
   FROM ((public.rockets rocket
     LEFT JOIN public.processed_ranges sequence ON (((sequence.channel = rocket.channel) AND (sequence.bucket = rocket.bucket) AND (sequence.first_msg = 1))))
     LEFT JOIN ( SELECT reached.channel,
            reached.bucket,
            reached.exact_through,
            max(range.launch_msg) AS launch_msg,
            max(range.mission_msg) AS mission_msg,
            max(range.exploded_msg) AS exploded_msg,
            sum(range.speed_change) AS speed_change,
            max(range.latest_time) AS latest_time,
            max((lpad((range.launch_msg)::text, 10, '0'::text) || range.launch_type)) AS numbered_type,
            max((lpad((range.mission_msg)::text, 10, '0'::text) || range.mission)) AS numbered_mission,
            max((lpad((range.exploded_msg)::text, 10, '0'::text) || range.exploded_reason)) AS numbered_reason
           FROM (( SELECT declared.channel,
                    declared.bucket,
                    (LEAST(( SELECT min((range_1.last_msg + 1)) AS min
                           FROM public.processed_ranges range_1
                          WHERE ((range_1.channel = declared.channel) AND (range_1.bucket = declared.bucket) AND ((range_1.last_msg + 1) > COALESCE(( SELECT loss.last_msg
                                   FROM public.losses loss
                                  WHERE ((loss.channel = declared.channel) AND (loss.bucket = declared.bucket) AND (loss.first_msg <= (range_1.last_msg + 1)))
                                  ORDER BY loss.first_msg DESC
                                 LIMIT 1), (0)::bigint)))), ( SELECT min((loss.last_msg + 1)) AS min
                           FROM public.losses loss
                          WHERE ((loss.channel = declared.channel) AND (loss.bucket = declared.bucket) AND ((loss.last_msg + 1) > COALESCE(( SELECT range_1.last_msg
                                   FROM public.processed_ranges range_1
                                  WHERE ((range_1.channel = declared.channel) AND (range_1.bucket = declared.bucket) AND (range_1.first_msg <= (loss.last_msg + 1)))
                                  ORDER BY range_1.first_msg DESC
                                 LIMIT 1), (0)::bigint)) AND (NOT (EXISTS ( SELECT
                                   FROM public.losses next
                                  WHERE ((next.channel = declared.channel) AND (next.bucket = declared.bucket) AND (next.first_msg = (loss.last_msg + 1)))))))), (
                        CASE
                            WHEN ((min(declared.first_msg) > 1) AND (NOT (EXISTS ( SELECT
                               FROM public.processed_ranges range_1
                              WHERE ((range_1.channel = declared.channel) AND (range_1.bucket = declared.bucket) AND (range_1.first_msg = 1)))))) THEN 1
                            ELSE NULL::integer
                        END)::bigint) - 1) AS exact_through
                   FROM public.losses declared
                  GROUP BY declared.channel, declared.bucket) reached
             LEFT JOIN public.processed_ranges range ON (((range.channel = reached.channel) AND (range.bucket = reached.bucket) AND (range.first_msg <= reached.exact_through))))
          GROUP BY reached.channel, reached.bucket, reached.exact_through) across ON (((across.channel = rocket.channel) AND (across.bucket = rocket.bucket))));


--
-- Name: rockets_forgotten; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.rockets_forgotten (
    channel text NOT NULL COLLATE pg_catalog."C",
    forgotten_at timestamp with time zone NOT NULL,
    bucket smallint NOT NULL
);


--
-- Name: TABLE rockets_forgotten; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.rockets_forgotten IS 'Which rockets have been forgotten lately; rows are kept for an hour.';


--
-- Name: COLUMN rockets_forgotten.bucket; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.rockets_forgotten.bucket IS 'The channel''s bucket, see rocket_buckets.';


--
-- Data for Name: losses; Type: TABLE DATA; Schema: public; Owner: -
--



--
-- Data for Name: processed_ranges; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.processed_ranges VALUES ('c0', 1, 4, 491, 1, 'T1', 2, 'é2', 4, 'R4', '2022-02-02 18:00:00.000151+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c0', 6, 7, 500, 6, 'T6', 7, 'é7', NULL, NULL, '2022-02-02 18:00:00.000301+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c0', 9, 15, 486, 11, 'T11', 12, 'é12', 14, 'R14', '2022-02-02 18:00:00.000701+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c0', 17, 18, -54, NULL, NULL, 17, 'é17', NULL, NULL, '2022-02-02 18:00:00.000851+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c0', 20, 26, 976, 26, 'T26', 26, 'M26', 24, 'R24', '2022-02-02 18:00:00.001251+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c0', 28, 29, -84, NULL, NULL, NULL, NULL, 29, 'R29', '2022-02-02 18:00:00.001401+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c0', 31, 37, 936, 36, 'T36', 37, 'é37', 34, 'R34', '2022-02-02 18:00:00.001801+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c0', 39, 40, 40, NULL, NULL, NULL, NULL, 39, 'R39', '2022-02-02 18:00:00.001951+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c0', 42, 43, -129, NULL, NULL, 42, 'é42', NULL, NULL, '2022-02-02 18:00:00.002101+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c1', 1, 7, 996, 6, 'T6', 7, 'é7', 4, 'R4', '2022-02-02 18:00:00.000308+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c1', 9, 10, 10, NULL, NULL, NULL, NULL, 9, 'R9', '2022-02-02 18:00:00.000458+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c1', 12, 18, 422, 16, 'T16', 17, 'é17', 14, 'R14', '2022-02-02 18:00:00.000858+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c1', 20, 21, 520, 21, 'T21', 21, 'M21', NULL, NULL, '2022-02-02 18:00:00.001008+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c1', 23, 29, 372, 26, 'T26', 27, 'é27', 29, 'R29', '2022-02-02 18:00:00.001408+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c1', 31, 32, 500, 31, 'T31', 32, 'é32', NULL, NULL, '2022-02-02 18:00:00.001558+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c1', 34, 40, 461, 36, 'T36', 37, 'é37', 39, 'R39', '2022-02-02 18:00:00.001958+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c1', 42, 43, -129, NULL, NULL, 42, 'é42', NULL, NULL, '2022-02-02 18:00:00.002108+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c2', 1, 2, 500, 1, 'T1', 2, 'é2', NULL, NULL, '2022-02-02 18:00:00.000065+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c2', 4, 10, 491, 6, 'T6', 7, 'é7', 9, 'R9', '2022-02-02 18:00:00.000465+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c2', 12, 13, -39, NULL, NULL, 12, 'é12', NULL, NULL, '2022-02-02 18:00:00.000615+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c2', 15, 21, 981, 21, 'T21', 21, 'M21', 19, 'R19', '2022-02-02 18:00:00.001015+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c2', 23, 24, -69, NULL, NULL, NULL, NULL, 24, 'R24', '2022-02-02 18:00:00.001165+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c2', 26, 32, 946, 31, 'T31', 32, 'é32', 29, 'R29', '2022-02-02 18:00:00.001565+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c2', 34, 35, 35, NULL, NULL, NULL, NULL, 34, 'R34', '2022-02-02 18:00:00.001715+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c2', 37, 43, 297, 41, 'T41', 42, 'é42', 39, 'R39', '2022-02-02 18:00:00.002115+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c3', 1, 2, 500, 1, 'T1', 2, 'é2', NULL, NULL, '2022-02-02 18:00:00.000072+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c3', 4, 5, 5, NULL, NULL, NULL, NULL, 4, 'R4', '2022-02-02 18:00:00.000222+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c3', 7, 13, 447, 11, 'T11', 12, 'é12', 9, 'R9', '2022-02-02 18:00:00.000622+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c3', 15, 16, 515, 16, 'T16', 16, 'M16', NULL, NULL, '2022-02-02 18:00:00.000772+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c3', 18, 24, 397, 21, 'T21', 22, 'é22', 24, 'R24', '2022-02-02 18:00:00.001172+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c3', 26, 27, 500, 26, 'T26', 27, 'é27', NULL, NULL, '2022-02-02 18:00:00.001322+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c3', 29, 35, 466, 31, 'T31', 32, 'é32', 34, 'R34', '2022-02-02 18:00:00.001722+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c3', 37, 38, -114, NULL, NULL, 37, 'é37', NULL, NULL, '2022-02-02 18:00:00.001872+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c3', 40, 43, 411, 41, 'T41', 42, 'é42', NULL, NULL, '2022-02-02 18:00:00.002122+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c4', 1, 5, 496, 1, 'T1', 2, 'é2', 4, 'R4', '2022-02-02 18:00:00.000229+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c4', 7, 8, -24, NULL, NULL, 7, 'é7', NULL, NULL, '2022-02-02 18:00:00.000379+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c4', 10, 16, 986, 16, 'T16', 16, 'M16', 14, 'R14', '2022-02-02 18:00:00.000779+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c4', 18, 19, -54, NULL, NULL, NULL, NULL, 19, 'R19', '2022-02-02 18:00:00.000929+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c4', 21, 27, 956, 26, 'T26', 27, 'é27', 24, 'R24', '2022-02-02 18:00:00.001329+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c4', 29, 30, 30, NULL, NULL, NULL, NULL, 29, 'R29', '2022-02-02 18:00:00.001479+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c4', 32, 38, 322, 36, 'T36', 37, 'é37', 34, 'R34', '2022-02-02 18:00:00.001879+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c4', 40, 41, 540, 41, 'T41', 41, 'M41', NULL, NULL, '2022-02-02 18:00:00.002029+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c4', 43, 43, -129, NULL, NULL, NULL, NULL, NULL, NULL, '2022-02-02 18:00:00.002129+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c5', 2, 8, 472, 6, 'T6', 7, 'é7', 4, 'R4', '2022-02-02 18:00:00.000386+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c5', 10, 11, 510, 11, 'T11', 11, 'M11', NULL, NULL, '2022-02-02 18:00:00.000536+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c5', 13, 19, 422, 16, 'T16', 17, 'é17', 19, 'R19', '2022-02-02 18:00:00.000936+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c5', 21, 22, 500, 21, 'T21', 22, 'é22', NULL, NULL, '2022-02-02 18:00:00.001086+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c5', 24, 30, 471, 26, 'T26', 27, 'é27', 29, 'R29', '2022-02-02 18:00:00.001486+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c5', 32, 33, -99, NULL, NULL, 32, 'é32', NULL, NULL, '2022-02-02 18:00:00.001636+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c5', 35, 41, 961, 41, 'T41', 41, 'M41', 39, 'R39', '2022-02-02 18:00:00.002036+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c5', 43, 43, -129, NULL, NULL, NULL, NULL, NULL, NULL, '2022-02-02 18:00:00.002136+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c6', 2, 3, -9, NULL, NULL, 2, 'é2', NULL, NULL, '2022-02-02 18:00:00.000143+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c6', 5, 11, 991, 11, 'T11', 11, 'M11', 9, 'R9', '2022-02-02 18:00:00.000543+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c6', 13, 14, -39, NULL, NULL, NULL, NULL, 14, 'R14', '2022-02-02 18:00:00.000693+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c6', 16, 22, 966, 21, 'T21', 22, 'é22', 19, 'R19', '2022-02-02 18:00:00.001093+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c6', 24, 25, 25, NULL, NULL, NULL, NULL, 24, 'R24', '2022-02-02 18:00:00.001243+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c6', 27, 33, 347, 31, 'T31', 32, 'é32', 29, 'R29', '2022-02-02 18:00:00.001643+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c6', 35, 36, 535, 36, 'T36', 36, 'M36', NULL, NULL, '2022-02-02 18:00:00.001793+00', 0, '2026-11-27 04:00:53.015158+00');
INSERT INTO public.processed_ranges VALUES ('c6', 38, 42, 426, 41, 'T41', 42, 'é42', 39, 'R39', '2022-02-02 18:00:00.002093+00', 0, '2026-11-27 04:00:53.015158+00');


--
-- Data for Name: rocket_buckets; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.rocket_buckets VALUES (0);


--
-- Data for Name: rocket_monitor_schema_history; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.rocket_monitor_schema_history VALUES (1, 'rockets_and_processed_ranges', '2026-11-26T14:34:44.741993814Z', '9281253207150619700');
INSERT INTO public.rocket_monitor_schema_history VALUES (2, 'note_forgotten_rockets', '2026-11-26T14:34:44.742000664Z', '14652527550540129797');
INSERT INTO public.rocket_monitor_schema_history VALUES (3, 'update_ranges_in_place', '2026-11-26T14:34:44.742001265Z', '3431571400224162321');
INSERT INTO public.rocket_monitor_schema_history VALUES (4, 'divide_rockets_into_buckets', '2026-11-27T00:26:29.036039292Z', '9341934244361987975');
INSERT INTO public.rocket_monitor_schema_history VALUES (5, 'declare_losses', '2026-11-27T04:00:53.01513878Z', '2353466080202676269');


--
-- Data for Name: rockets; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.rockets VALUES ('c0', DEFAULT, 'T36', 3162, 'é42', 'R39', 36, 42, 39, '2022-02-02 18:00:00.002101+00', '2026-11-26 14:34:44.816081+00', 35, 4, 43, 0);
INSERT INTO public.rockets VALUES ('c1', DEFAULT, 'T36', 3152, 'é42', 'R39', 36, 42, 39, '2022-02-02 18:00:00.002108+00', '2026-11-26 14:34:44.816081+00', 36, 7, 43, 0);
INSERT INTO public.rockets VALUES ('c2', DEFAULT, 'T41', 3142, 'é42', 'R39', 41, 42, 39, '2022-02-02 18:00:00.002115+00', '2026-11-26 14:34:44.816081+00', 36, 2, 43, 0);
INSERT INTO public.rockets VALUES ('c3', DEFAULT, 'T41', 3127, 'é42', 'R34', 41, 42, 34, '2022-02-02 18:00:00.002122+00', '2026-11-26 14:34:44.816081+00', 35, 2, 43, 0);
INSERT INTO public.rockets VALUES ('c4', DEFAULT, 'T41', 3123, 'M41', 'R34', 41, 41, 34, '2022-02-02 18:00:00.002129+00', '2026-11-26 14:34:44.816081+00', 35, 5, 43, 0);
INSERT INTO public.rockets VALUES ('c5', DEFAULT, 'T41', 3108, 'M41', 'R39', 41, 41, 39, '2022-02-02 18:00:00.002136+00', '2026-11-26 14:34:44.816081+00', 35, 0, 43, 0);
INSERT INTO public.rockets VALUES ('c6', DEFAULT, 'T41', 3242, 'é42', 'R39', 41, 42, 39, '2022-02-02 18:00:00.002093+00', '2026-11-26 14:34:44.816081+00', 34, 0, 42, 0);


--
-- Data for Name: rockets_forgotten; Type: TABLE DATA; Schema: public; Owner: -
--



--
-- Name: losses losses_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.losses
    ADD CONSTRAINT losses_pkey PRIMARY KEY (channel, bucket, first_msg, last_msg);


--
-- Name: processed_ranges processed_ranges_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.processed_ranges
    ADD CONSTRAINT processed_ranges_pkey PRIMARY KEY (channel, bucket, first_msg);


--
-- Name: rocket_buckets rocket_buckets_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.rocket_buckets
    ADD CONSTRAINT rocket_buckets_pkey PRIMARY KEY (bucket);


--
-- Name: rocket_monitor_schema_history rocket_monitor_schema_history_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.rocket_monitor_schema_history
    ADD CONSTRAINT rocket_monitor_schema_history_pkey PRIMARY KEY (version);


--
-- Name: rockets_forgotten rockets_forgotten_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.rockets_forgotten
    ADD CONSTRAINT rockets_forgotten_pkey PRIMARY KEY (channel, bucket);


--
-- Name: rockets rockets_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.rockets
    ADD CONSTRAINT rockets_pkey PRIMARY KEY (channel, bucket);


--
-- Name: rockets_by_mission; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX rockets_by_mission ON public.rockets USING btree (mission, channel);


--
-- Name: rockets_by_status; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX rockets_by_status ON public.rockets USING btree (status, channel);


--
-- Name: rockets_by_type; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX rockets_by_type ON public.rockets USING btree (type, channel);


--
-- PostgreSQL database dump complete
--


