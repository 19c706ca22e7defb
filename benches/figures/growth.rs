//! What grows with channels, messages and gaps: the same figures at several sizes, as tables and as
//! a plot in `docs/growth.svg`.

use std::fmt::Write as _;
use std::io::{BufWriter, Write as _};
use std::ops::Range;
use std::path::Path;

use plotters::prelude::*;
use rocket_monitor::simulator::Fleet;

use crate::dashboard;
use crate::input::{get_request, post_request};
use crate::measure::{drive, drive_over};
use crate::servers::{Server, program};

pub const FLEET: Fleet = Fleet {
    seed: 6,
    rockets: 1_000_000,
    messages: 0,
    duplicate_percent: 0.0,
    lossy_percent: 0.0,
    displacement: 0,
};
/// How often each figure but `ingest` is measured. The median counts.
const TIMES: usize = 3;
const POSTS: usize = 30_000;
const GETS: usize = 30_000;
const PAGES: usize = 300;
const FIRST_PAGES: usize = 20;
/// The most messages that are written to a file at a time.
const PART: u64 = 10_000_000;

/// Its name, and the rate at each size.
struct Curve {
    name: &'static str,
    rates: Vec<f64>,
}

/// The curves for one dimension.
struct Growth {
    what: &'static str,
    sizes: Vec<u64>,
    curves: Vec<Curve>,
    /// The size of the database, at each size.
    bytes: Vec<u64>,
}

impl Growth {
    fn new(what: &'static str) -> Self {
        Self { what, sizes: Vec::new(), curves: Vec::new(), bytes: Vec::new() }
    }

    fn begin(&mut self, size: u64, database: &Path) {
        self.sizes.push(size);
        self.bytes.push(std::fs::metadata(database).unwrap().len());
    }

    fn add(&mut self, name: &'static str, rate: f64) {
        match self.curves.iter_mut().find(|curve| curve.name == name) {
            Some(curve) => curve.rates.push(rate),
            None => self.curves.push(Curve { name, rates: vec![rate] }),
        }
    }

    fn table(&self) -> String {
        let mut table = String::new();
        let sizes: Vec<String> = self.sizes.iter().map(|size| size.to_string()).collect();
        writeln!(
            table,
            "| {} | {} |\n|---{}|",
            self.what,
            sizes.join(" | "),
            "|---".repeat(sizes.len())
        )
        .unwrap();
        for Curve { name, rates } in &self.curves {
            let rates: Vec<String> =
                rates.iter().map(|rate| format!("{rate:.0}/s ({:.2})", rate / rates[0])).collect();
            writeln!(table, "| {name} | {} |", rates.join(" | ")).unwrap();
        }
        let bytes: Vec<String> =
            self.bytes.iter().map(|bytes| format!("{} KiB", bytes / 1024)).collect();
        writeln!(table, "| the database | {} |\n", bytes.join(" | ")).unwrap();
        table
    }
}

/// The rate of the median run.
fn median(mut run: impl FnMut() -> f64) -> f64 {
    let mut rates: Vec<f64> = (0..TIMES).map(|_| run()).collect();
    rates.sort_by(f64::total_cmp);
    rates[TIMES / 2]
}

/// Writes and ingests messages, part by part. Returns the total rate.
pub fn ingest(directory: &Path, messages: impl IntoIterator<Item = (u32, u32)>, count: u64) -> f64 {
    let (file, database) = (directory.join("messages.ndjson"), directory.join("rockets.db"));
    let mut messages = messages.into_iter();
    let (mut seconds, mut left) = (0.0, count);
    let mut channels = Channels::default();
    while left > 0 {
        let part = left.min(PART);
        let mut out = BufWriter::new(std::fs::File::create(&file).unwrap());
        let mut line = Vec::new();
        for (rocket, number) in messages.by_ref().take(part as usize) {
            line.clear();
            FLEET.write_message(channels.of(rocket), rocket, number, &mut line);
            line.push(b'\n');
            out.write_all(&line).unwrap();
        }
        out.flush().unwrap();
        let started = std::time::Instant::now();
        let ingested =
            program(&["ingest", file.to_str().unwrap(), "--database", database.to_str().unwrap()])
                .status();
        assert!(ingested.unwrap().success());
        seconds += started.elapsed().as_secs_f64();
        left -= part;
    }
    std::fs::remove_file(&file).unwrap();
    count as f64 / seconds
}

/// Channels by rocket, because generating one takes longer than looking it up.
#[derive(Default)]
struct Channels(Vec<String>);

impl Channels {
    fn of(&mut self, rocket: u32) -> &str {
        while self.0.len() <= rocket as usize {
            self.0.push(FLEET.channel(self.0.len() as u32));
        }
        &self.0[rocket as usize]
    }
}

/// Pseudo-random numbers below a bound, the same each time.
pub fn scattered(bound: u32) -> impl Iterator<Item = u32> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(move || {
        // xorshift64, from Marsaglia's "Xorshift RNGs" (2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((u128::from(state) * u128::from(bound)) >> 64) as u32
    })
}

/// Measures requests to a database with `rockets` rockets, each with `sent` messages.
fn ask(growth: &mut Growth, directory: &Path, rockets: u32, sent: u32) {
    let (server, mut channels) = (Server::ours(directory), Channels::default());
    let mut gets = scattered(rockets);
    let mut next: Vec<u32> = vec![sent; rockets as usize];
    let rate = median(|| {
        let requests: Vec<_> = gets
            .by_ref()
            .take(GETS)
            .map(|rocket| get_request(&format!("/rockets/{}", channels.of(rocket))))
            .collect();
        drive(server.address, &requests)
    });
    growth.add("GET /rockets/{channel}", rate);
    // The service reads the rockets into memory while the first pages are answered from the file.
    // More readers than may do that at a time would get 503.
    drive_over(1, server.address, &vec![get_request("/rockets"); FIRST_PAGES]);
    growth.add(
        "first page of GET /rockets",
        median(|| drive(server.address, &vec![get_request("/rockets"); PAGES])),
    );
    let mut posts = scattered(rockets);
    let rate = median(|| {
        let requests: Vec<_> = posts
            .by_ref()
            .take(POSTS)
            .map(|rocket| {
                next[rocket as usize] += 1;
                post_request(&FLEET, channels.of(rocket), rocket, next[rocket as usize])
            })
            .collect();
        drive(server.address, &requests)
    });
    growth.add("POST", rate);
}

fn by_channels(directory: &Path) -> Growth {
    const MESSAGES: u32 = 1_000_000;
    let mut growth = Growth::new("channels, with a million messages in all");
    for rockets in [1_000, 10_000, 100_000, 1_000_000] {
        let directory = folder(directory, &format!("channels-{rockets}"));
        let each = MESSAGES / rockets;
        let messages =
            (1..=each).flat_map(|number| (0..rockets).map(move |rocket| (rocket, number)));
        let rate = ingest(&directory, messages, MESSAGES.into());
        growth.begin(rockets.into(), &directory.join("rockets.db"));
        growth.add("ingest", rate);
        ask(&mut growth, &directory, rockets, each);
        std::fs::remove_dir_all(directory).unwrap();
    }
    growth
}

fn by_messages(directory: &Path) -> Growth {
    const ROCKETS: u32 = 1_000;
    let mut growth = Growth::new("messages, of a thousand channels");
    let (directory, mut sent) = (folder(directory, "messages"), 0);
    for messages in [100_000, 1_000_000, 10_000_000, 100_000_000] {
        let each = (messages / u64::from(ROCKETS)) as u32;
        let new: Range<u32> = sent + 1..each + 1;
        let count = new.len() as u64 * u64::from(ROCKETS);
        let rate = ingest(
            &directory,
            new.flat_map(|number| (0..ROCKETS).map(move |rocket| (rocket, number))),
            count,
        );
        growth.begin(messages, &directory.join("rockets.db"));
        growth.add("ingest", rate);
        // What is posted here are the first of the next messages, and duplicates when those are
        // ingested.
        ask(&mut growth, &directory, ROCKETS, each);
        sent = each;
    }
    growth
}

fn by_gaps(directory: &Path) -> Growth {
    const ROCKETS: u32 = 10;
    let mut growth = Growth::new("gaps of each of ten channels");
    for gaps in [0_u32, 1_000, 100_000] {
        let directory = folder(directory, &format!("gaps-{gaps}"));
        // All odd numbers up to the last, and a hundred more of each channel, so that there is also
        // a part without gaps.
        let last = 2 * gaps + 100;
        let numbers = (1..=last).filter(move |number| *number > 2 * gaps || number % 2 == 1);
        let messages = numbers.flat_map(|number| (0..ROCKETS).map(move |rocket| (rocket, number)));
        ingest(&directory, messages, u64::from(ROCKETS) * u64::from(gaps + 100));
        growth.begin(gaps.into(), &directory.join("rockets.db"));
        ask(&mut growth, &directory, ROCKETS, last);
        let (server, mut channels) = (Server::ours(&directory), Channels::default());
        // Late messages, in any order; where there are no gaps, they are duplicates.
        let mut late = scattered(gaps.max(50));
        let late_posts = median(|| {
            let requests: Vec<_> = late
                .by_ref()
                .take(3_000)
                .map(|place| {
                    post_request(
                        &FLEET,
                        channels.of(place % ROCKETS),
                        place % ROCKETS,
                        2 * place + 2,
                    )
                })
                .collect();
            drive(server.address, &requests)
        });
        growth.add("POST of late messages", late_posts);
        std::fs::remove_dir_all(directory).unwrap();
    }
    growth
}

fn folder(directory: &Path, name: &str) -> std::path::PathBuf {
    let folder = directory.join(name);
    std::fs::create_dir(&folder).unwrap();
    folder
}

/// A figure has the same colour everywhere.
fn colour(name: &str) -> RGBColor {
    match name {
        "POST" => RGBColor(0, 90, 160),
        "ingest" => RGBColor(200, 80, 0),
        "GET /rockets/{channel}" => RGBColor(0, 130, 80),
        "first page of GET /rockets" => RGBColor(130, 50, 140),
        _ => RGBColor(90, 90, 90),
    }
}

/// Plots all of them side by side: each rate relative to the smallest size.
fn plot(path: &Path, growths: &[Growth]) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::new(path, (1_200, 420)).into_drawing_area();
    root.fill(&WHITE)?;
    for (growth, area) in growths.iter().zip(root.split_evenly((1, growths.len()))) {
        // A logarithmic axis has no zero, so zero gaps are plotted at one.
        let place = |size: u64| (size.max(1)) as f64;
        let (first, last) = (place(growth.sizes[0]), place(growth.sizes[growth.sizes.len() - 1]));
        let mut chart = ChartBuilder::on(&area)
            .caption(growth.what, ("sans-serif", 16))
            .margin(12)
            .x_label_area_size(32)
            .y_label_area_size(44)
            .build_cartesian_2d((first..last * 1.2).log_scale(), (0.01..4.0).log_scale())?;
        chart
            .configure_mesh()
            .y_desc("rate, over that at the smallest")
            .x_label_formatter(&|size| {
                if *size < 2.0 { "none".to_owned() } else { format!("{size:e}") }
            })
            .y_label_formatter(&|ratio| format!("{ratio:.2}"))
            .y_labels(6)
            .light_line_style(WHITE)
            .draw()?;
        for curve in &growth.curves {
            let colour = colour(curve.name);
            let points = || {
                let rates = curve.rates.iter().map(|rate| rate / curve.rates[0]);
                growth.sizes.iter().map(|size| place(*size)).zip(rates)
            };
            chart
                .draw_series(LineSeries::new(points(), colour.stroke_width(2)))?
                .label(curve.name)
                .legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2))
                });
            chart.draw_series(points().map(|point| Circle::new(point, 3, colour.filled())))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerLeft)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.2))
            .draw()?;
    }
    root.present()?;
    Ok(())
}

/// The tables of all, and the plot.
pub fn growth(directory: &Path) -> String {
    let growths = [by_channels(directory), by_messages(directory), by_gaps(directory)];
    let beside = dashboard::growth(directory);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/growth.svg");
    plot(&path, &growths).unwrap();
    let tables: String = growths.iter().map(Growth::table).collect();
    format!("\n{tables}The plot of these is in {}.\n{beside}", path.display())
}
