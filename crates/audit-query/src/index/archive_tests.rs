use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use super::archive::WITH_EVENTS;
use super::tests::{filters, request, run, run_inputs};
use crate::event::Event;
use crate::filter::{Filter, FilterArgs};
use crate::index::Table;
use crate::input;
use crate::objects::Stores;
use crate::objects::tests::FolderStores;
use crate::scan::{Scan, Stages};
use crate::test_folder::TestFolder;

/// Writes a Parquet file with complete events, `rows` per row group.
pub(crate) fn archive(text: &str, rows: usize) -> Vec<u8> {
    let mut table = Table::new(Vec::new(), &WITH_EVENTS).unwrap();
    for (number, line) in text.lines().filter(|line| !line.trim().is_empty()).enumerate() {
        if number > 0 && number % rows == 0 {
            table.finish_rows().unwrap();
        }
        match Event::parse(line.as_bytes()) {
            Some(mut event) => {
                event.raw = line.as_bytes();
                table.push(&event, 0);
            }
            None => table.push_other(line.as_bytes()),
        }
    }
    table.finish_rows().unwrap();
    table.writer.into_inner().unwrap()
}

fn text(range: std::ops::Range<usize>) -> String {
    let mut text = String::new();
    range.for_each(|index| request(index, &mut text));
    text
}

/// Removes the offsets of the events, which depend on the file format.
fn without_offsets(found: Vec<String>) -> Vec<String> {
    let without = |record: String| {
        let (before, length) = record.rsplit_once(' ').unwrap();
        let (before, _) = before.rsplit_once('|').unwrap();
        format!("{before} {length}")
    };
    found.into_iter().map(without).collect()
}

/// A log, and the same events in a bucket as two Parquet files and one file of JSON lines.
fn folder() -> (TestFolder, Arc<FolderStores>) {
    let folder = TestFolder::new();
    let [first, second, third] = [text(0..500), text(500..800), text(800..900)];
    folder.write("audit.log", [&*first, &second, &third].concat());
    std::fs::create_dir_all(folder.path("bucket/logs/hour=01")).unwrap();
    folder.write("bucket/logs/hour=01/a-1.parquet", archive(&first, 97));
    folder.write("bucket/logs/hour=01/a-2.parquet", archive(&second, 1000));
    let zstd = zstd::encode_all(third.as_bytes(), 1).unwrap();
    folder.write("bucket/logs/hour=01/a-3.json.zst", zstd);
    let stores = Arc::new(FolderStores::new(&folder));
    (folder, stores)
}

#[test]
fn objects_have_what_the_log_has() {
    let (folder, stores) = folder();
    let now = "2026-11-23T11:00:00+00:00[UTC]".parse().unwrap();
    for args in filters() {
        let filter = Filter::new(&args, &now).unwrap();
        for stages in [Stages::Last, Stages::All, Stages::Only(vec!["ResponseStarted".to_owned()])]
        {
            for reverse in [false, true] {
                if reverse && stages != Stages::Last {
                    continue;
                }
                let scan = || Scan {
                    inputs: Vec::new(),
                    filter: filter.clone(),
                    stages: stages.clone(),
                    reverse,
                    threads: 2,
                    index: true,
                };
                let (expected, summary) = run(&folder.path("audit.log"), &scan, false);
                let expected = without_offsets(expected);
                for columns in [false, true] {
                    let paths = [PathBuf::from("s3://bucket/logs")];
                    let stores: &dyn Stores = &*stores;
                    let inputs = input::resolve_all(&paths, Some(stores), (None, None)).unwrap();
                    let (found, with) = run_inputs(inputs, &scan, columns);
                    let context = format!("{args:?} {stages:?} {reverse} {columns}");
                    assert_eq!(with.faults.len(), 0, "{:?}", with.faults);
                    let found = without_offsets(found);
                    let differs = found.iter().zip(&expected).find(|(a, b)| a != b);
                    assert_eq!(differs, None, "{context}");
                    assert_eq!(found.len(), expected.len(), "{context}");
                    let skipped = |all: &crate::scan::Summary| {
                        all.skipped.iter().map(|skipped| skipped.lines).sum::<u64>()
                    };
                    if filter.needle().is_none() {
                        assert_eq!(skipped(&with), skipped(&summary), "{context}");
                    }
                }
            }
        }
    }
}

#[test]
fn only_what_is_needed_is_read_of_an_object() {
    let folder = TestFolder::new();
    let mut text = String::new();
    for index in 0..20_000_u32 {
        let (hour, minute, second) = (index / 3600, index / 60 % 60, index % 60);
        let time = format!("2026-11-23T{hour:02}:{minute:02}:{second:02}.000000Z");
        let body =
            format!("{:032x}", u128::from(index).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060));
        let name = if index == 11_111 { "needle" } else { "hay" };
        writeln!(
            text,
            "{{\"kind\":\"Event\",\"auditID\":\"{index:08x}-0000-4000-8000-000000000000\",\
             \"stage\":\"ResponseComplete\",\"verb\":\"get\",\"objectRef\":{{\"name\":\"{name}\"}},\
             \"requestObject\":{{\"x\":\"{body}{body}{body}\"}},\
             \"requestReceivedTimestamp\":\"{time}\",\"stageTimestamp\":\"{time}\"}}"
        )
        .unwrap();
    }
    let object = archive(&text, 4000);
    std::fs::create_dir(folder.path("bucket")).unwrap();
    folder.write("bucket/a.parquet", &object);
    let stores = FolderStores::new(&folder);
    let read = |args: FilterArgs, columns: bool| {
        let now = "2026-11-23T11:00:00+00:00[UTC]".parse().unwrap();
        let filter = Filter::new(&args, &now).unwrap();
        let scan = || Scan {
            inputs: Vec::new(),
            filter: filter.clone(),
            stages: Stages::All,
            reverse: false,
            threads: 1,
            index: true,
        };
        let paths = [PathBuf::from("s3://bucket")];
        let inputs = input::resolve_all(&paths, Some(&stores), (None, None)).unwrap();
        let (found, summary) = run_inputs(inputs, &scan, columns);
        assert_eq!(summary.faults.len(), 0, "{:?}", summary.faults);
        let reads = std::mem::take(&mut *stores.reads.lock().unwrap());
        (found.len(), reads.iter().map(|(_, range)| range.end - range.start).sum::<u64>())
    };
    let all = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
    let (size, none) = (object.len() as u64, FilterArgs::default);
    assert!(size > 500_000, "{size}");
    let (found, bytes) = read(FilterArgs { name: all(&["needle"]), ..none() }, false);
    assert!(found == 1 && bytes < size / 3, "{found} events, {bytes} bytes of {size}");
    let (found, bytes) = read(FilterArgs { name: all(&["nothing"]), ..none() }, false);
    assert!(found == 0 && bytes < size / 8, "{found} events, {bytes} bytes of {size}");
    let hours = FilterArgs { since: Some("2026-11-23T05:20:00Z".to_owned()), ..none() };
    let (found, bytes) = read(hours, false);
    assert!(found == 800 && bytes < size / 3, "{found} events, {bytes} bytes of {size}");
    let hours = FilterArgs { until: Some("2026-11-23T00:00:00Z".to_owned()), ..none() };
    let (found, bytes) = read(hours, false);
    assert!(found == 0 && bytes < size / 8, "{found} events, {bytes} bytes of {size}");
    // Reads all columns that an index has, but not the events.
    let (found, bytes) = read(none(), true);
    assert!(found == 20_000 && bytes < size / 3, "{found} events, {bytes} bytes of {size}");
}

#[test]
fn a_parquet_file_without_events_is_reported_with_its_remedy() {
    let folder = TestFolder::new();
    let table = Table::new(Vec::new(), &super::Column::EXPORT).unwrap();
    let path = folder.write("events-0.parquet", table.writer.into_inner().unwrap());
    let scan = || Scan {
        inputs: Vec::new(),
        filter: Filter::default(),
        stages: Stages::All,
        reverse: false,
        threads: 1,
        index: true,
    };
    let (found, summary) = run(&path, &scan, false);
    assert_eq!(found.len(), 0);
    let fault = summary.faults[0].to_string();
    assert!(fault.contains("no column \"event\"") && fault.contains("--events"), "{fault}");
}
