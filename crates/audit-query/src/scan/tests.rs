use std::io::Write;
use std::path::PathBuf;

use super::*;
use crate::filter::FilterArgs;
use crate::input;
use crate::test_folder::{TestFolder, seekable};

/// Delivers the audit ID and stage of each event.
struct Ids;

impl Visitor for Ids {
    fn visit(&mut self, event: &Event<'_>, _: Place<'_>, records: &mut Records) {
        let text = format!("{}/{}", event.audit_id.decode(), event.stage.decode());
        records.push(|out| out.extend_from_slice(text.as_bytes()));
    }
}

fn scan(paths: &[PathBuf]) -> Scan {
    Scan {
        inputs: input::resolve(paths).unwrap(),
        filter: Filter::default(),
        stages: Stages::All,
        reverse: false,
        threads: 2,
        index: true,
    }
}

fn ids(scan: Scan) -> (Vec<String>, Summary) {
    let mut found = Vec::new();
    let (_, summary) = scan
        .run(
            &Progress::default(),
            || Ids,
            |record| {
                found.push(String::from_utf8(record.to_vec()).unwrap());
                ControlFlow::Continue(())
            },
        )
        .unwrap();
    (found, summary)
}

fn event(id: usize, stage: &str, filler: usize) -> String {
    let time = format!("2026-11-23T10:{:02}:{:02}.000000Z", id / 60 % 60, id % 60);
    let body = "x".repeat(filler);
    format!(
        "{{\"kind\":\"Event\",\"auditID\":\"{id}\",\"stage\":\"{stage}\",\"user\":{{\"username\":\"u{}\"}},\
         \"requestObject\":\"{body}\",\"requestReceivedTimestamp\":\"{time}\"}}\n",
        id % 7
    )
}

fn complete(range: std::ops::Range<usize>, filler: usize) -> String {
    range.map(|id| event(id, "ResponseComplete", filler)).collect()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// A log of 12 MB, half of it in rotated files.
fn folder() -> TestFolder {
    let folder = TestFolder::new();
    let zstd = zstd::encode_all(complete(0..1000, 900).as_bytes(), 1).unwrap();
    folder.write("audit-2026-11-22T00-00-00.000.log.zst", zstd);
    folder.write("audit-2026-11-23T00-00-00.000.log.gz", gzip(&complete(1000..3000, 900)));
    folder.write("audit-2026-11-24T00-00-00.000.log", complete(3000..9000, 900));
    folder.write("audit.log", complete(9000..12_000, 900));
    folder
}

fn expected(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|id| format!("{id}/ResponseComplete")).collect()
}

#[test]
fn events_come_in_the_order_of_the_log() {
    let folder = folder();
    for threads in [1, 2, 5] {
        for stages in [Stages::All, Stages::Last] {
            let scan = Scan { threads, stages, ..scan(&[folder.path("audit.log")]) };
            assert!(ids(scan).0 == expected(0..12_000));
        }
    }
}

#[test]
fn the_reverse_order_is_the_reverse() {
    let folder = folder();
    for threads in [1, 3] {
        for stages in [Stages::All, Stages::Last] {
            let scan = Scan { threads, stages, reverse: true, ..scan(&[folder.path("audit.log")]) };
            let (mut found, _) = ids(scan);
            found.reverse();
            assert!(found == expected(0..12_000));
        }
    }
}

#[test]
fn a_compressed_file_too_large_for_memory_is_read_repeatedly_in_reverse() {
    let folder = TestFolder::new();
    let text = complete(0..12_000, 4000);
    let path = folder.write("a.log.zst", zstd::encode_all(text.as_bytes(), 1).unwrap());
    struct Raw;
    impl Visitor for Raw {
        fn visit(&mut self, event: &Event<'_>, _: Place<'_>, records: &mut Records) {
            records.push(|out| out.extend_from_slice(event.raw));
        }
    }
    let mut found = Vec::new();
    let reversed = Scan { reverse: true, ..scan(&[path]) };
    reversed
        .run(
            &Progress::default(),
            || Raw,
            |record| {
                found.push(Event::parse(record).unwrap().audit_id.decode().into_owned());
                ControlFlow::Continue(())
            },
        )
        .unwrap();
    found.reverse();
    assert!(found == (0..12_000).map(|id| id.to_string()).collect::<Vec<_>>());
}

#[test]
fn a_limit_ends_the_scan() {
    let folder = folder();
    for reverse in [false, true] {
        let progress = Progress::default();
        let mut found = Vec::new();
        let scan = Scan { reverse, ..scan(&[folder.path("audit-2026-11-24T00-00-00.000.log")]) };
        scan.run(
            &progress,
            || Ids,
            |record| {
                found.push(String::from_utf8(record.to_vec()).unwrap());
                if found.len() == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            },
        )
        .unwrap();
        let ids: &[usize] = if reverse { &[8999, 8998, 8997] } else { &[3000, 3001, 3002] };
        let expected: Vec<_> = ids.iter().map(|id| format!("{id}/ResponseComplete")).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn filters_with_and_without_a_needle_agree() {
    let folder = folder();
    let now = "2026-11-23T11:00:00+00:00[UTC]".parse().unwrap();
    let users = |users: &[&str]| FilterArgs {
        user: users.iter().map(|user| (*user).to_owned()).collect(),
        ..FilterArgs::default()
    };
    let found = |args| {
        let filter = Filter::new(&args, &now).unwrap();
        ids(Scan { filter, ..scan(&[folder.path("")]) }).0
    };
    let needle = found(users(&["u3"]));
    assert_eq!(needle.len(), (0..12_000).filter(|id| id % 7 == 3).count());
    assert!(needle == found(users(&["u3", "nobody"])));
}

#[test]
fn a_request_is_its_last_event() {
    let folder = TestFolder::new();
    let mut text = String::new();
    for id in 0..10_000 {
        text += &event(id, "RequestReceived", 700);
        // Watches end a thousand requests later, or never.
        if id % 10 == 0 {
            text += &event(id, "ResponseStarted", 0);
        } else {
            text += &event(id, "ResponseComplete", 0);
        }
        if id >= 1000 && id % 10 == 0 && id % 100 != 0 {
            text += &event(id - 1000, "ResponseComplete", 0);
        }
    }
    // Another request with the same ID, since clients may choose it, and a request without a
    // response.
    text += &event(3, "ResponseComplete", 0);
    text += &event(20_000, "RequestReceived", 0);
    let path = folder.write("audit.log", &text);
    let gz = folder.write("again.log.gz", gzip(&text));
    let mut expected = std::collections::BTreeMap::new();
    for line in text.lines() {
        let event = Event::parse(line.as_bytes()).unwrap();
        expected.insert(event.audit_id.decode().into_owned(), event.stage.decode().into_owned());
    }
    let mut expected: Vec<_> = expected.into_iter().map(|(id, stage)| id + "/" + &stage).collect();
    expected.push("3/ResponseComplete".to_owned());
    expected.sort();
    for (path, reverse) in [(&path, false), (&path, true), (&gz, false), (&gz, true)] {
        let scan = Scan { stages: Stages::Last, reverse, ..scan(std::slice::from_ref(path)) };
        let (mut found, summary) = ids(scan);
        if reverse {
            assert_eq!(found[..2], ["20000/RequestReceived", "3/ResponseComplete"]);
        }
        found.sort();
        assert!(found == expected, "{path:?} {reverse}");
        assert_eq!(summary.assumed_unfinished, 0);
    }
}

#[test]
fn three_events_of_a_request_in_three_places_are_one_request() {
    let folder = TestFolder::new();
    let stages = ["RequestReceived", "ResponseStarted", "ResponseComplete"];
    // The events of the request are in the same chunk, in several chunks, and in several pieces.
    for filler in [[0, 0], [200_000, 0], [0, 200_000], [5_000_000, 5_000_000], [5_000_000, 0]] {
        let mut text = event(1, stages[0], 0);
        for (stage, filler) in stages[1..].iter().zip(filler) {
            let lines = (0..filler / 1000).map(|id| event(id + 10, "ResponseComplete", 1000));
            text.extend(lines);
            text += &event(1, stage, 0);
        }
        let path = folder.write("audit.log", &text);
        let zstd = folder.write("again.log.zst", seekable(text.as_bytes(), 1 << 20));
        for (path, reverse) in [(&path, false), (&path, true), (&zstd, false), (&zstd, true)] {
            let scan = Scan { stages: Stages::Last, reverse, ..scan(std::slice::from_ref(path)) };
            let mut found = ids(scan).0;
            found.retain(|id| id.starts_with("1/"));
            assert_eq!(found, ["1/ResponseComplete"], "{filler:?} {reverse}");
        }
    }
}

#[test]
fn a_first_event_does_not_stand_in_for_a_last_one_that_does_not_match() {
    let folder = TestFolder::new();
    let text = event(1, "RequestReceived", 0)
        + &event(1, "ResponseComplete", 0)
            .replace("\"user\"", "\"annotations\":{\"a\":\"b\"},\"user\"");
    let path = folder.write("audit.log", text);
    let now = "2026-11-23T11:00:00+00:00[UTC]".parse().unwrap();
    let args = FilterArgs { annotation: vec!["!a".to_owned()], ..FilterArgs::default() };
    let filter = Filter::new(&args, &now).unwrap();
    let (found, _) = ids(Scan { filter, stages: Stages::Last, ..scan(&[path]) });
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn only_some_stages() {
    let folder = TestFolder::new();
    let text = event(1, "RequestReceived", 0) + &event(1, "ResponseComplete", 0);
    let path = folder.write("audit.log", text);
    let stages = Stages::Only(vec!["RequestReceived".to_owned()]);
    assert_eq!(ids(Scan { stages, ..scan(&[path]) }).0, ["1/RequestReceived"]);
}

#[test]
fn lists_and_documents_are_their_events() {
    let folder = TestFolder::new();
    let items: Vec<String> = (0..3)
        .map(|id| event(id, "ResponseComplete", 5).trim().replace("\"kind\":\"Event\",", ""))
        .collect();
    let list = format!(
        "{{\"kind\":\"EventList\",\"apiVersion\":\"audit.k8s.io/v1\",\"metadata\":{{}},\"items\":[{}]}}",
        items.join(",")
    );
    let json: serde_json::Value = serde_json::from_str(&list).unwrap();
    let pretty = serde_json::to_string_pretty(&json).unwrap();
    let array = format!("[{}]", items.join(" , "));
    let separate: String = items
        .iter()
        .map(|item| serde_json::from_str::<serde_json::Value>(item).unwrap())
        .map(|item| serde_json::to_string_pretty(&item).unwrap() + "\n")
        .collect();
    for (name, text) in [
        ("list.json", format!("{list}\n")),
        ("pretty.json", pretty),
        ("array.json", array),
        ("separate.json", separate),
    ] {
        let path = folder.write(name, text);
        let (found, summary) = ids(scan(&[path]));
        assert_eq!(found, expected(0..3), "{name}");
        assert!(summary.skipped.is_empty(), "{name}");
    }
    let now = "2026-11-23T11:00:00+00:00[UTC]".parse().unwrap();
    let args = FilterArgs { user: vec!["u2".to_owned()], ..FilterArgs::default() };
    let filter = Filter::new(&args, &now).unwrap();
    let found = ids(Scan { filter, ..scan(&[folder.path("list.json")]) }).0;
    assert_eq!(found, ["2/ResponseComplete"]);
}

#[test]
fn places_are_where_events_begin() {
    let folder = folder();
    struct Offsets;
    impl Visitor for Offsets {
        fn visit(&mut self, event: &Event<'_>, place: Place<'_>, records: &mut Records) {
            let text = format!("{} {}", place.offset, String::from_utf8_lossy(event.raw));
            records.push(|out| out.extend_from_slice(text.as_bytes()));
        }
    }
    let path = folder.path("audit-2026-11-24T00-00-00.000.log");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut count = 0;
    scan(&[path])
        .run(
            &Progress::default(),
            || Offsets,
            |record| {
                let record = std::str::from_utf8(record).unwrap();
                let (offset, raw) = record.split_once(' ').unwrap();
                assert!(text[offset.parse::<usize>().unwrap()..].starts_with(raw));
                count += 1;
                ControlFlow::Continue(())
            },
        )
        .unwrap();
    assert_eq!(count, 6000);
}

#[test]
fn lines_that_are_not_events_are_skipped_and_reported() {
    let folder = TestFolder::new();
    let good = event(1, "ResponseComplete", 3_000_000);
    let mut text = good.clone().into_bytes();
    text.extend_from_slice(b"\n\0\0\0\nnot JSON\n{\"kind\":\"Event\"\n");
    text.extend_from_slice(event(2, "ResponseComplete", 0).replace("u2", "\u{fffd}").as_bytes());
    text.extend_from_slice(b"\xff\xfe\n");
    text.extend_from_slice(&good.as_bytes()[..2_000_000]);
    let path = folder.write("audit.log", &text);
    let empty = folder.write("empty.log", "");
    let (found, summary) = ids(scan(&[path.clone(), empty]));
    assert_eq!(found, ["1/ResponseComplete", "2/ResponseComplete"]);
    let first = good.len() as u64 + 1;
    assert_eq!(summary.skipped, [Skipped { path, lines: 5, first, torn: true }]);
}

#[test]
fn a_truncated_compressed_file_counts_up_to_its_end() {
    let folder = TestFolder::new();
    let whole = gzip(&complete(0..3000, 900));
    let path = folder.write("audit.log.gz", &whole[..whole.len() / 2]);
    let (found, summary) = ids(scan(&[path]));
    assert!(found.len() > 100 && found == expected(0..found.len()));
    assert!(summary.faults[0].to_string().contains("audit.log.gz: "), "{:?}", summary.faults);
}

#[test]
fn frames_are_read_by_themselves() {
    let text = complete(0..12_000, 900);
    let folder = TestFolder::new();
    // Frames of two sizes, which need not end with a line.
    for (name, size) in [("a.log.zst", 1 << 20), ("b.log.zst", 70_001)] {
        let path = folder.write(name, seekable(text.as_bytes(), size));
        for threads in [1, 3] {
            for reverse in [false, true] {
                let scan = Scan { threads, reverse, ..scan(std::slice::from_ref(&path)) };
                let (mut found, summary) = ids(scan);
                if reverse {
                    found.reverse();
                }
                assert!(found == expected(0..12_000), "{name} {threads} {reverse}");
                assert!(summary.skipped.is_empty() && summary.faults.is_empty(), "{summary:?}");
            }
        }
    }
}

#[test]
fn a_damaged_frame_does_not_hide_the_others() {
    let text = complete(0..12_000, 900);
    let folder = TestFolder::new();
    let mut bytes = seekable(text.as_bytes(), 1 << 20);
    bytes[2000..2100].fill(0);
    let path = folder.write("a.log.zst", &bytes);
    let (found, summary) = ids(scan(&[path]));
    assert!(found.len() > 5000 && found.last().unwrap().starts_with("11999"));
    assert!(summary.faults[0].to_string().contains("a.log.zst: "), "{:?}", summary.faults);
}
