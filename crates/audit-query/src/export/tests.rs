use std::collections::BTreeMap;

use super::*;
use crate::test_folder::TestFolder;

fn event(id: usize, time: &str) -> String {
    format!(
        "{{\"auditID\":\"{id}\",\"stage\":\"ResponseComplete\",\"user\":{{\"username\":\"a,b\",\"groups\":[\"x\",\"y\"]}},\
         \"requestObject\":{{\"s\":\"{id}\"}},\"stageTimestamp\":\"{time}\",\"annotations\":{{\"k\":\"v\"}}}}"
    )
}

fn export(
    folder: &Path,
    format: Format,
    parts: &[Part],
    events: &[String],
) -> Result<BTreeMap<String, u64>, ExportError> {
    let mut writer =
        Writer::new(folder, format, parts.to_vec(), "a b/c".to_owned(), Content::Attributes, false);
    for event in events {
        writer.write(&Event::parse(event.as_bytes()).unwrap())?;
    }
    let files = writer.finish()?.into_iter();
    let name = |path: PathBuf| path.strip_prefix(folder).unwrap().display().to_string();
    Ok(files.map(|(path, events)| (name(path), events)).collect())
}

fn files(folder: &Path) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        count += if path.is_dir() { files(&path) } else { 1 };
    }
    count
}

#[test]
fn events_go_into_the_folders_of_their_time() {
    let folder = TestFolder::new();
    let mut events: Vec<String> =
        (0..6).map(|id| event(id, &format!("2026-11-23T0{id}:59:59.999999Z"))).collect();
    // This event is out of order: the file of its hour is already complete.
    events.push(event(7, "2026-11-23T00:00:00.000000Z"));
    events.push(event(8, "nonsense"));
    let parts = [Part::Cluster, Part::Date, Part::Hour];
    let found = export(&folder.path("out"), Format::Ndjson, &parts, &events).unwrap();
    let hour =
        |hour, file| format!("cluster=a%20b%2Fc/date=2026-11-23/hour=0{hour}/events-{file}.ndjson");
    let mut expected: BTreeMap<_, _> = (0..6).map(|id| (hour(id, 0), 1)).collect();
    expected.insert(hour(0, 1), 1);
    let none = "__HIVE_DEFAULT_PARTITION__";
    expected.insert(format!("cluster=a%20b%2Fc/date={none}/hour={none}/events-0.ndjson"), 1);
    assert_eq!(found, expected);
    let text = fs::read_to_string(folder.path("out").join(hour(0, 1))).unwrap();
    assert_eq!(text, events[6].replace("\"requestObject\":{\"s\":\"7\"},", "") + "\n");
}

#[test]
fn nothing_is_replaced_and_nothing_half_is_left() {
    let folder = TestFolder::new();
    let out = folder.path("out");
    let events = [event(1, "2026-11-23T00:00:00.000000Z"), event(2, "2026-11-24T00:00:00.000000Z")];
    let parts = [Part::Date];
    assert_eq!(export(&out, Format::Csv, &parts, &events[1..]).unwrap().len(), 1);
    assert_eq!(files(&out), 1);
    let error = export(&out, Format::Csv, &parts, &events).unwrap_err().to_string();
    assert!(
        error.ends_with("date=2026-11-24/events-0.csv: is there already; --overwrite replaces it"),
        "{error}"
    );
    assert_eq!(files(&out), 1);
    let text = fs::read_to_string(out.join("date=2026-11-24/events-0.csv")).unwrap();
    let (header, row) = text.trim_end().split_once('\n').unwrap();
    assert!(header.starts_with("stage_timestamp,request_received_timestamp,audit_id,level,"));
    assert_eq!(
        row,
        "2026-11-24T00:00:00.000000Z,,2,,ResponseComplete,,,\"a,b\",,\"[\"\"x\"\",\"\"y\"\"]\",,[],,,,,,,,,,,\"{\"\"k\"\":\"\"v\"\"}\""
    );
}

#[test]
fn parquet_files_have_the_events() {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    let folder = TestFolder::new();
    let events: Vec<String> = (0..500).map(|id| event(id, "2026-11-23T01:00:00Z")).collect();
    let found = export(&folder.path("out"), Format::Parquet, &[], &events).unwrap();
    assert_eq!(found, BTreeMap::from([("events-0.parquet".to_owned(), 500)]));
    let file = File::open(folder.path("out/events-0.parquet")).unwrap();
    let reader = SerializedFileReader::new(file).unwrap();
    let rows: Vec<String> =
        reader.get_row_iter(None).unwrap().map(|row| row.unwrap().to_string()).collect();
    assert_eq!(rows.len(), 500);
    for part in [
        "audit_id: \"499\"",
        "username: \"a,b\"",
        "groups: [\"x\", \"y\"]",
        "annotations: {\"k\" -> \"v\"}",
        "stage_timestamp: 2026-11-23 01:00:00",
    ] {
        assert!(rows[499].contains(part), "{part}: {}", rows[499]);
    }
}
