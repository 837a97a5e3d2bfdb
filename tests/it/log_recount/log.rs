//! The log that all tests read, and comparisons of reports on it.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use serde_json::{Map, Value as Json, json};

use super::generate;
use super::model::{self, Event, field};
use crate::log_query::misleading;
use crate::support::proxy::BINARY;

pub struct Log {
    pub folder: PathBuf,
    /// All events, in order.
    pub events: Vec<Event>,
}

/// Recorded events and misleading lines, and generated events.
pub static LOG: LazyLock<Log> = LazyLock::new(|| {
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("log-recount-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let mut recorded = Vec::new();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/exchanges");
    for name in ["all-metadata", "all-requestresponse", "mixed", "narrow"] {
        let path = corpus.join(name).with_extension("jsonl");
        for line in std::fs::read_to_string(path).unwrap().lines() {
            let exchange: Json = serde_json::from_str(line).unwrap();
            let events = exchange["events"].as_array().unwrap().iter();
            recorded.extend(events.map(|event| event.as_str().unwrap().to_owned()));
        }
    }
    let generated = generate::lines(3000);
    let (half, quarter) = (recorded.len() / 2, generated.len() / 4);
    let bytes = |lines: &[String]| {
        lines.iter().flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect::<Vec<u8>>()
    };
    let mut live = misleading(&recorded[half..]).join(&b'\n');
    live.push(b'\n');
    live.extend(bytes(&generated[3 * quarter..]));
    // A line that is being written.
    live.extend_from_slice(&generated[0].as_bytes()[..200]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&bytes(&generated[2 * quarter..3 * quarter])).unwrap();
    let files = [
        ("audit-2026-11-20T00-00-00.000.log", bytes(&recorded[..half]), None),
        ("audit-2026-11-21T00-00-00.000.log", Vec::new(), None),
        ("audit-2026-11-22T00-00-00.000.log", bytes(&generated[..quarter]), None),
        ("audit-2026-11-23T00-00-00.000.log.zst", bytes(&generated[quarter..2 * quarter]), {
            Some(zstd::encode_all(&bytes(&generated[quarter..2 * quarter])[..], 1).unwrap())
        }),
        ("audit-2026-11-24T00-00-00.000.log.gz", bytes(&generated[2 * quarter..3 * quarter]), {
            Some(gzip.finish().unwrap())
        }),
        (
            "audit-2026-11-25T00-00-00.000.log",
            [bytes(&recorded[half..]), misleading(&recorded).join(&b'\n'), b"\n".to_vec()].concat(),
            None,
        ),
        ("audit.log", live, None),
    ];
    let mut events = Vec::new();
    for (name, text, compressed) in files {
        std::fs::write(folder.join(name), compressed.as_ref().unwrap_or(&text)).unwrap();
        text.split(|byte| *byte == b'\n').for_each(|line| model::parse(line, &mut events));
    }
    let indexed = Command::new(BINARY).args(["log", "index"]).arg(&folder).output().unwrap();
    assert!(indexed.status.success(), "{indexed:?}");
    assert!(folder.join("audit-2026-11-24T00-00-00.000.log.parquet").exists());
    Log { folder, events }
});

/// Returns the JSON output of a report.
pub fn report(arguments: &[&str]) -> Json {
    let output = Command::new(BINARY)
        .args(["log", "report"])
        .args(arguments)
        .args(["-o", "json"])
        .arg(LOG.folder.join("audit.log"))
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(matches!(output.status.code(), Some(0 | 1)), "{arguments:?}: {error}");
    assert!(!error.contains("index file"), "{arguments:?}: {error}");
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|problem| panic!("{arguments:?}: {problem}: {error}"))
}

/// Compares a report with rows in any order, with index files and without.
pub fn compare(arguments: &[&str], expected: &[Json]) {
    let order = |rows: &[Json]| {
        let mut rows: Vec<String> = rows.iter().map(Json::to_string).collect();
        rows.sort_unstable();
        rows
    };
    let expected = order(expected);
    for extra in [&[][..], &["--no-index"], &["--threads", "1"]] {
        let found = report(&[arguments, extra].concat());
        let found = order(found["rows"].as_array().unwrap());
        let differs = found.iter().zip(&expected).find(|(found, expected)| found != expected);
        if let Some((found, expected)) = differs {
            panic!("{arguments:?} {extra:?}: {:.2000}\n{:.2000}", found, expected);
        }
        assert_eq!(found.len(), expected.len(), "{arguments:?} {extra:?}");
    }
}

/// Counts events by fields.
pub fn groups<'a>(
    events: impl IntoIterator<Item = &'a Event>,
    fields: &[&str],
    measures: &[&str],
) -> Vec<Json> {
    let mut groups: BTreeMap<String, (Map<String, Json>, Vec<&Event>)> = BTreeMap::new();
    for event in events {
        let row: Map<String, Json> =
            fields.iter().map(|name| ((*name).to_owned(), field(event, name))).collect();
        let key = Json::from(row.clone()).to_string();
        groups.entry(key).or_insert((row, Vec::new())).1.push(event);
    }
    let measured = |(mut row, events): (Map<String, Json>, Vec<&Event>)| {
        let times = || events.iter().map(|event| event.time());
        for measure in measures {
            let value = match *measure {
                "count" => json!(events.len()),
                "failed" => json!(events.iter().filter(|event| event.code() >= 400).count()),
                "bytes" => json!(events.iter().map(|event| event.length + 1).sum::<usize>()),
                "first" => json!(times().min()),
                "last" => json!(times().max()),
                other => panic!("{other}"),
            };
            row.insert((*measure).to_owned(), value);
        }
        Json::from(row)
    };
    groups.into_values().map(measured).collect()
}
