//! The service's metrics, in Prometheus's text format.
//!
//! Names and units follow Prometheus's conventions
//! (<https://prometheus.io/docs/practices/naming/>). No label has the channel, because labels must
//! have few values. Counters on the request path are allocated in advance, so that counting is one
//! atomic addition. The fleet's gauges are read on demand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::domain::batch::Outcome;
use crate::domain::message::{EventType, Message};
use crate::domain::query::GapTotals;
use crate::domain::timestamp::Timestamp;
use crate::store::report::{ReportRows, Value};
use crate::wire::message::RejectionKind;

const REJECTION_REASONS: [(RejectionKind, &str); 3] = [
    (RejectionKind::NotJson, "not_json"),
    (RejectionKind::Invalid, "invalid"),
    (RejectionKind::TooLarge, "too_large"),
];

/// The kinds of store failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreOperation {
    /// Committing a batch, or probing whether a commit is possible.
    Commit,
    /// Reading.
    Read,
}

const OUTCOMES: [&str; 2] = ["applied", "duplicate"];

/// The route label of requests that match no route.
const UNMATCHED_ROUTE: &str = "other";

/// The prefix of all names.
const PREFIX: &str = "rocket_monitor";

/// Status codes are 100 to 599.
const STATUS_CODES: usize = 500;

/// The metrics of the service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    collectors: Arc<Collectors>,
}

/// The metrics of one route.
#[derive(Debug)]
struct RouteMetrics {
    path: &'static str,
    seconds: Histogram,
    /// The number of requests by status code, from 100. The text omits zeros.
    requests: [AtomicU64; STATUS_CODES],
}

#[derive(Debug)]
struct Collectors {
    registry: Registry,
    /// By outcome and type.
    messages: [[IntCounter; EventType::ALL.len()]; OUTCOMES.len()],
    rejected: [IntCounter; REJECTION_REASONS.len()],
    questions: IntCounter,
    batch_messages: Histogram,
    commit_seconds: Histogram,
    queue_wait_seconds: Histogram,
    store_errors: [IntCounter; 2],
    /// The first entry counts requests that match no route.
    routes: Vec<RouteMetrics>,
}

/// Upper bounds of durations, in seconds: 0.1 ms to 10 s.
const DURATION_BUCKETS: [f64; 16] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];
/// Upper bounds of batch sizes, in messages.
const BATCH_SIZE_BUCKETS: [f64; 8] = [1.0, 4.0, 16.0, 64.0, 256.0, 1_024.0, 4_096.0, 16_384.0];

impl Metrics {
    /// Creates all metrics, at zero. Counts requests by these routes. Fails only if two metrics
    /// have one name.
    pub fn new(routes: impl IntoIterator<Item = &'static str>) -> prometheus::Result<Self> {
        let registry = Registry::new_custom(Some(PREFIX.to_owned()), None)?;
        let messages = counters(
            &registry,
            "messages_total",
            "Messages processed, by outcome and type.",
            &["outcome", "type"],
        )?;
        let rejected = counters(
            &registry,
            "messages_rejected_total",
            "Rejected bodies and lines, by reason.",
            &["reason"],
        )?;
        let store_errors = counters(
            &registry,
            "store_errors_total",
            "Store failures, by operation.",
            &["operation"],
        )?;
        let request_seconds = HistogramVec::new(
            HistogramOpts::new(
                "http_request_duration_seconds",
                "Time until the response started, by route.",
            )
            .buckets(DURATION_BUCKETS.to_vec()),
            &["route"],
        )?;
        registry.register(Box::new(request_seconds.clone()))?;
        register_process(&registry)?;
        let collectors = Collectors {
            messages: OUTCOMES.map(|outcome| {
                EventType::ALL
                    .map(|event_type| messages.with_label_values(&[outcome, event_type.name()]))
            }),
            rejected: REJECTION_REASONS.map(|(_, reason)| rejected.with_label_values(&[reason])),
            questions: counter(&registry, QUESTIONS)?,
            batch_messages: histogram(
                &registry,
                "batch_messages",
                "Messages per batch.",
                &BATCH_SIZE_BUCKETS,
            )?,
            commit_seconds: histogram(
                &registry,
                "commit_duration_seconds",
                "Time to commit a batch, including failed attempts.",
                &DURATION_BUCKETS,
            )?,
            queue_wait_seconds: histogram(
                &registry,
                "queue_wait_seconds",
                "Time that messages waited for their batch.",
                &DURATION_BUCKETS,
            )?,
            store_errors: ["commit", "read"]
                .map(|operation| store_errors.with_label_values(&[operation])),
            routes: std::iter::once(UNMATCHED_ROUTE)
                .chain(routes)
                .map(|path| RouteMetrics {
                    path,
                    seconds: request_seconds.with_label_values(&[path]),
                    requests: [const { AtomicU64::new(0) }; STATUS_CODES],
                })
                .collect(),
            registry,
        };
        Ok(Self { collectors: Arc::new(collectors) })
    }

    /// Records a committed batch, or a failed attempt, which has no outcomes.
    pub fn committed(
        &self,
        messages: &[Message],
        outcomes: Option<&[Outcome]>,
        duration: Duration,
    ) {
        let collectors = &self.collectors;
        collectors.commit_seconds.observe(duration.as_secs_f64());
        let Some(outcomes) = outcomes else { return };
        collectors.batch_messages.observe(messages.len() as f64);
        // Sum in plain integers first: one atomic addition per message would cost more than all
        // else here.
        let mut sums = [[0_u64; EventType::ALL.len()]; OUTCOMES.len()];
        for (message, outcome) in messages.iter().zip(outcomes) {
            sums[usize::from(*outcome == Outcome::Duplicate)]
                [message.event.event_type() as usize] += 1;
        }
        for (counters, sums) in collectors.messages.iter().zip(sums) {
            for (counter, sum) in counters.iter().zip(sums) {
                counter.inc_by(sum);
            }
        }
    }

    /// Records how long messages waited for their batch.
    pub fn waited(&self, since: Instant) {
        self.collectors.queue_wait_seconds.observe(since.elapsed().as_secs_f64());
    }

    /// Records an input that is not a valid message.
    pub fn rejected(&self, rejection: RejectionKind) {
        for ((kind, _), counter) in REJECTION_REASONS.iter().zip(&self.collectors.rejected) {
            if *kind == rejection {
                counter.inc();
            }
        }
    }

    /// Records answered questions about missing messages.
    pub fn asked(&self, questions: usize) {
        self.collectors.questions.inc_by(questions as u64);
    }

    pub fn store_failed(&self, operation: StoreOperation) {
        self.collectors.store_errors[usize::from(operation == StoreOperation::Read)].inc();
    }

    /// Records the response to a request, and how long it took to start. `route` is `None` for a
    /// path that matches no route.
    #[expect(clippy::expect_used, reason = "the constructor adds an entry before all routes")]
    pub fn responded(&self, route: Option<&str>, status: u16, duration: Duration) {
        let routes = &self.collectors.routes;
        let matched = route.and_then(|path| routes.iter().find(|route| route.path == path));
        let route =
            matched.or(routes.first()).expect("the constructor adds an entry before all routes");
        route.seconds.observe(duration.as_secs_f64());
        let index = usize::from(status).checked_sub(100);
        if let Some(count) = index.and_then(|index| route.requests.get(index)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Encodes all metrics as text, with the current state of the service and the fleet. Without
    /// `fleet`, the text lacks the fleet's gauges, and without `gaps` (and the time), those of the
    /// gaps.
    pub fn encode(
        &self,
        queue_bytes: i64,
        subscribers: i64,
        fleet: Option<&ReportRows>,
        gaps: Option<(GapTotals, Timestamp)>,
    ) -> prometheus::Result<String> {
        let now = Registry::new_custom(Some(PREFIX.to_owned()), None)?;
        now.register(Box::new(self.requests()?))?;
        register_gauge(
            &now,
            "queue_bytes",
            "Bytes of input that are queued or being committed.",
            queue_bytes,
        )?;
        register_gauge(&now, "event_subscribers", "Open event streams.", subscribers)?;
        if let Some(fleet) = fleet {
            register_fleet(&now, fleet)?;
        }
        if let Some((gaps, time)) = gaps {
            register_gaps(&now, gaps, time)?;
        }
        let mut families = self.collectors.registry.gather();
        families.extend(now.gather());
        families.sort_by(|a, b| a.name().cmp(b.name()));
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }

    fn requests(&self) -> prometheus::Result<IntCounterVec> {
        let requests = IntCounterVec::new(
            Opts::new("http_requests_total", "Answered requests, by route and status."),
            &["route", "status"],
        )?;
        for route in &self.collectors.routes {
            for (status, count) in (100..).zip(&route.requests) {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    requests.with_label_values(&[route.path, &format!("{status}")]).inc_by(count);
                }
            }
        }
        Ok(requests)
    }
}

fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<IntCounterVec> {
    let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(counters.clone()))?;
    Ok(counters)
}

/// The name and the description of a counter.
const QUESTIONS: (&str, &str) =
    ("missing_questions_total", "Answered questions about missing messages.");

fn counter(registry: &Registry, (name, help): (&str, &str)) -> prometheus::Result<IntCounter> {
    let counter = IntCounter::new(name, help)?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}

fn histogram(
    registry: &Registry,
    name: &str,
    help: &str,
    buckets: &[f64],
) -> prometheus::Result<Histogram> {
    let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?;
    registry.register(Box::new(histogram.clone()))?;
    Ok(histogram)
}

fn register_gauge(
    registry: &Registry,
    name: &str,
    help: &str,
    value: i64,
) -> prometheus::Result<()> {
    let gauge = IntGauge::new(name, help)?;
    gauge.set(value);
    registry.register(Box::new(gauge))
}

/// Registers the metrics that don't change while the process runs.
fn register_process(registry: &Registry) -> prometheus::Result<()> {
    let started = Gauge::new(
        "process_start_time_seconds",
        "Start time of the service, in seconds since 1970.",
    )?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    started.set(now.as_secs_f64());
    registry.register(Box::new(started))?;
    let build = Opts::new("build_info", "Always 1; labelled with the program's version.");
    let build = IntGaugeVec::new(build, &["version"])?;
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    registry.register(Box::new(build))
}

/// Registers the gauges of the fleet, from its report.
fn register_fleet(registry: &Registry, fleet: &ReportRows) -> prometheus::Result<()> {
    let rockets = IntGaugeVec::new(Opts::new("rockets", "Rockets, by status."), &["status"])?;
    for (status, column) in
        [("awaitingLaunch", "awaiting_launch"), ("launched", "launched"), ("exploded", "exploded")]
    {
        rockets.with_label_values(&[status]).set(total(fleet, column));
    }
    registry.register(Box::new(rockets))?;
    for (name, help, column) in [
        (
            "rockets_with_gaps",
            "Rockets with messages missing below their highest.",
            "rockets_with_gaps",
        ),
        ("missing_messages", "Messages missing below their rockets' highest.", "missing"),
        ("processed_messages", "Processed messages of the rockets in the database.", "processed"),
    ] {
        register_gauge(registry, name, help, total(fleet, column))?;
    }
    Ok(())
}

/// Registers the gauges of the gaps, at this time.
fn register_gaps(registry: &Registry, gaps: GapTotals, time: Timestamp) -> prometheus::Result<()> {
    let oldest = Gauge::new(
        "oldest_gap_seconds",
        "Time since the oldest gap that is not wholly declared lost was noticed; 0 without gaps.",
    )?;
    // Another instance's clock may be ahead.
    let micros = gaps.oldest.map_or(0, |since| time.unix_micros() - since.unix_micros()).max(0);
    oldest.set(Duration::from_micros(micros.unsigned_abs()).as_secs_f64());
    registry.register(Box::new(oldest))?;
    register_gauge(registry, "lost_messages", "Missing messages declared lost.", gaps.lost)
}

/// An integer column of the fleet's totals. None of them is null: the view counts rows, or replaces
/// the null sum of no rows by 0.
fn total(fleet: &ReportRows, column: &str) -> i64 {
    let [totals] = &*fleet.rows else {
        unreachable!("the view aggregates without grouping, so it is one row")
    };
    let index = fleet.report.columns().iter().position(|(name, _)| *name == column);
    match index.and_then(|index| totals.get(index)) {
        Some(Value::Integer(total)) => *total,
        other => unreachable!("the report `fleet` has the integer column {column}, not {other:?}"),
    }
}
