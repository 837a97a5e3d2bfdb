//! Prints tables, and writes the same figures as JSON.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::load::Sample;
use crate::measure::{Series, Spread};

type Figure = (&'static str, fn(&Sample) -> f64);

/// The figures of a sample that are summarized.
const FIGURES: [Figure; 8] = [
    ("cpu_us", |sample| sample.cpu_us),
    ("user_us", |sample| sample.user_us),
    ("system_us", |sample| sample.system_us),
    ("rate", |sample| sample.rate),
    ("p50_us", |sample| sample.p50_us),
    ("p99_us", |sample| sample.p99_us),
    ("memory_mib", |sample| sample.memory_mib),
    ("waits", |sample| sample.waits),
];

/// All results of a run.
pub struct Report {
    parts: Map<String, Value>,
}

impl Report {
    /// Creates a report with a description of the machine, and prints that.
    pub fn new(about: &[String], scale: Value) -> Report {
        about.iter().for_each(|line| println!("{line}"));
        let mut parts = Map::new();
        parts.insert("about".to_owned(), json!(about));
        parts.insert("scale".to_owned(), scale);
        Report { parts }
    }

    /// Adds results to the JSON.
    pub fn add(&mut self, name: &str, part: impl serde::Serialize) -> Result<()> {
        self.parts.insert(name.to_owned(), serde_json::to_value(part)?);
        Ok(())
    }

    /// Writes the JSON.
    pub fn write(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.parts)?;
        std::fs::write(file, text + "\n")
            .with_context(|| format!("cannot write {}", file.display()))
    }
}

/// Prints rows under a title in aligned columns: the first one left-aligned, the others
/// right-aligned.
pub fn table(title: &str, head: &[&str], rows: &[Vec<String>]) {
    println!("\n{title}");
    let head: Vec<String> = head.iter().map(|&cell| cell.to_owned()).collect();
    let width = |column: usize| {
        let cells = rows.iter().chain([&head]).filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    for row in std::iter::once(&head).chain(rows) {
        let cell = |(column, cell): (usize, &String)| match column {
            0 => format!("{cell:<0$}", widths[0]),
            column => format!("{cell:>0$}", widths[column]),
        };
        let line: Vec<String> = row.iter().enumerate().map(cell).collect();
        println!("  {}", line.join("  ").trim_end());
    }
}

/// Prints the table of servers under the same load. `direct` is without a proxy and has no costs.
pub fn comparison(title: &str, series: &[Series]) {
    let head = [
        "",
        "CPU µs/request",
        "user",
        "sys",
        "× nginx",
        "requests/s",
        "p50 µs",
        "p99 µs",
        "MiB",
        "waits/request",
    ];
    let nginx = series.iter().find(|series| series.name == "nginx");
    let rows: Vec<Vec<String>> = series
        .iter()
        .map(|one| {
            let spread = |figure: fn(&Sample) -> f64, digits| show(one.spread(figure), digits);
            let ratio = nginx.map_or_else(String::new, |nginx| ratio(one, nginx));
            let mut row = vec![
                one.name.clone(),
                spread(|s| s.cpu_us, 1),
                format!("{:.1}", one.median(|s| s.user_us)),
                format!("{:.1}", one.median(|s| s.system_us)),
                ratio,
                spread(|s| s.rate, 0),
                spread(|s| s.p50_us, 0),
                spread(|s| s.p99_us, 0),
                format!("{:.1}", one.median(|s| s.memory_mib)),
                format!("{:.2}", one.median(|s| s.waits)),
            ];
            if one.name == "direct" {
                [1, 2, 3, 4, 8, 9].into_iter().for_each(|cost| row[cost] = String::new());
            }
            row
        })
        .collect();
    table(title, &head, &rows);
}

/// Returns all figures for the JSON: every sample, their spread, and the ratio to nginx.
pub fn figures(series: &[Series]) -> Value {
    let nginx = series.iter().find(|one| one.name.starts_with("nginx"));
    let of = |one: &Series| {
        let figure = |(name, figure): (&str, fn(&Sample) -> f64)| {
            let spread = one.spread(figure);
            let ratio = nginx.map(|nginx| spread.median / nginx.median(figure));
            let Spread { min, median, max } = spread;
            (name.to_owned(), json!({"min": min, "median": median, "max": max, "to_nginx": ratio}))
        };
        let figures: Map<String, Value> = FIGURES.into_iter().map(figure).collect();
        json!({"name": one.name, "figures": figures, "samples": one.samples})
    };
    series.iter().map(of).collect()
}

/// Returns the ratio of the CPU times of two series.
pub fn ratio(one: &Series, other: &Series) -> String {
    format!("{:.2}", one.median(|s| s.cpu_us) / other.median(|s| s.cpu_us))
}

/// Formats a median with its spread.
pub fn show(spread: Spread, digits: usize) -> String {
    let Spread { min, median, max } = spread;
    if min == max {
        return format!("{median:.digits$}");
    }
    format!("{median:.digits$} ({min:.digits$}–{max:.digits$})")
}
