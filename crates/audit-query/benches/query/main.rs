//! How fast logs are searched and summarized, beside DuckDB, chDB, jq, and ripgrep, in CPU time.
//!
//! `cargo bench -p audit-query` makes a log of 1 GB and measures this crate on it, plain, gzip, and
//! zstd. With `-- --peers` it also measures those peers that are there: `rg` and `jq` in the PATH,
//! and `duckdb` and `chdb`, which it installs from PyPI (see README.md beside this file). Each
//! number is the best of three runs; a peer's start-up, measured on an empty log, is subtracted.
//! With `-- --rotated GB` it measures rotated logs of so many GB with and without index files
//! instead.

mod generate;
mod indexed;
mod peers;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use audit_query::event::Event;
use audit_query::filter::{Filter, FilterArgs};
use audit_query::index::Columns;
use audit_query::scan::{Place, Progress, Records, Scan, Stages, Visitor};
use audit_query::{input, output::Field};
use hashbrown::HashMap;

/// Counts events, and those of each group if there are fields to group by.
struct Count {
    events: u64,
    by: &'static [Field],
    groups: HashMap<Vec<u8>, u64>,
    key: Vec<u8>,
}

impl Visitor for Count {
    fn columns(&self) -> Option<Columns> {
        // None of the fields it is used with needs the whole event.
        self.by.iter().try_fold(Columns::default(), |all, field| Some(all.and(field.columns()?)))
    }

    fn visit(&mut self, event: &Event<'_>, place: Place<'_>, _: &mut Records) {
        self.events += 1;
        if self.by.is_empty() {
            return;
        }
        self.key.clear();
        for field in self.by {
            field.push(event, place, &mut self.key);
            self.key.push(0);
        }
        match self.groups.get_mut(&self.key) {
            Some(count) => *count += 1,
            None => {
                self.groups.insert(self.key.clone(), 1);
            }
        }
    }
}

/// Delivers events as they stand in the log.
struct Print;

impl Visitor for Print {
    fn visit(&mut self, event: &Event<'_>, _: Place<'_>, records: &mut Records) {
        records.push(|out| out.extend_from_slice(event.raw));
    }
}

struct Case {
    name: &'static str,
    args: FilterArgs,
    by: &'static [Field],
}

impl Case {
    fn count(&self) -> Count {
        Count { events: 0, by: self.by, groups: HashMap::new(), key: Vec::new() }
    }
}

fn cases() -> Vec<Case> {
    let text = |value: &str| vec![value.to_owned()];
    const GROUPS: &[Field] = &[Field::User, Field::Verb, Field::Resource, Field::Code];
    vec![
        Case {
            name: "a: who deleted one Secret",
            args: FilterArgs {
                verb: text("delete"),
                resource: text("secrets"),
                name: text("stripe-signing-key"),
                ..FilterArgs::default()
            },
            by: &[],
        },
        Case {
            name: "b: one user's failures in an hour",
            args: FilterArgs {
                user: text("alice@example.com"),
                failed: true,
                since: Some("2026-11-01T00:10:00Z".to_owned()),
                until: Some("2026-11-01T01:10:00Z".to_owned()),
                ..FilterArgs::default()
            },
            by: &[],
        },
        Case {
            name: "c: count by user, verb, resource, code",
            args: FilterArgs::default(),
            by: GROUPS,
        },
    ]
}

fn run(path: &Path, case: &Case, threads: usize) -> (f64, u64) {
    let mut best = (f64::MAX, 0);
    for _ in 0..3 {
        let scan = Scan {
            inputs: input::resolve(&[path.to_owned()]).expect("the log was made before"),
            filter: Filter::new(&case.args, &jiff::ZonedDateTime::now())
                .expect("filters are valid"),
            stages: Stages::Last,
            reverse: false,
            threads,
            index: true,
        };
        let before = cpu_seconds();
        let (counts, _) = scan
            .run(&Progress::default(), || case.count(), |_| ControlFlow::Continue(()))
            .expect("the log can be read");
        let seconds = cpu_seconds() - before;
        best = (best.0.min(seconds), counts.iter().map(|count| count.events).sum());
    }
    best
}

/// CPU time of this process and of its children that have ended.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("there is /proc");
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // utime, stime, cutime, cstime, in hundredths of a second.
    fields[11..15].iter().filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Makes the log and its compressed copies, unless they are there.
fn logs(folder: &Path) -> io::Result<[PathBuf; 3]> {
    fs::create_dir_all(folder)?;
    let [plain, gzip, zstd] =
        ["plain.log", "gzip.log.gz", "zstd.log.zst"].map(|name| folder.join(name));
    if !plain.exists() {
        generate::generate(&mut BufWriter::new(File::create(&plain)?), 1_000_000_000, 1)?;
    }
    if !gzip.exists() {
        let mut encoder =
            flate2::write::GzEncoder::new(File::create(&gzip)?, flate2::Compression::default());
        io::copy(&mut File::open(&plain)?, &mut encoder)?;
        encoder.finish()?.flush()?;
    }
    if !zstd.exists() {
        zstd::stream::copy_encode(File::open(&plain)?, File::create(&zstd)?, 3)?;
    }
    Ok([plain, gzip, zstd])
}

fn main() {
    let folder = std::env::temp_dir().join("audit-query-bench");
    let mut arguments = std::env::args().skip_while(|argument| argument != "--rotated").skip(1);
    if let Some(gigabytes) = arguments.next() {
        let size: u64 = gigabytes.parse().expect("--rotated takes a number of GB");
        return indexed::run(&folder, size * 1_000_000_000);
    }
    let logs = logs(&folder).expect("logs can be made in the temporary folder");
    let size = fs::metadata(&logs[0]).expect("it was made").len() as f64;
    println!("{:.2} GB of events; CPU seconds, and GB of events a CPU second", size / 1e9);
    for path in &logs {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        for case in cases() {
            let (seconds, events) = run(path, &case, 1);
            println!(
                "{name:14} {:40} {seconds:6.2} {:6.2}  {events} events",
                case.name,
                size / 1e9 / seconds
            );
        }
    }
    if std::env::args().any(|argument| argument == "--peers") {
        peers::run(&folder, &logs[0]);
    }
}
