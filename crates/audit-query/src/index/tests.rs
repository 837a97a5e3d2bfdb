use std::fmt::Write as _;
use std::fs::{self, File, FileTimes};
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::*;
use crate::event::Event;
use crate::filter::{Filter, FilterArgs};
use crate::input;
use crate::output::Field;
use crate::scan::{Place, Progress, Records, Scan, Stages, Summary, Visitor};
use crate::test_folder::{TestFolder, seekable};

/// Delivers fields of each event: from an index if its columns are sufficient.
struct Fields(Vec<Field>, bool);

impl Visitor for Fields {
    fn visit(&mut self, event: &Event<'_>, place: Place<'_>, records: &mut Records) {
        records.push(|out| {
            for field in &self.0 {
                let present = field.push(event, place, out);
                out.extend_from_slice(if present { b"|" } else { b"-|" });
            }
            out.extend_from_slice(format!("{} {}", place.offset, event.length()).as_bytes());
        });
    }

    fn columns(&self) -> Option<Columns> {
        let all = self.0.iter().map(Field::columns);
        all.fold(self.1.then(Columns::default), |all, columns| Some(all?.and(columns?)))
    }
}

pub(super) fn run(path: &Path, scan: &dyn Fn() -> Scan, columns: bool) -> (Vec<String>, Summary) {
    run_inputs(input::resolve(&[path.to_owned()]).unwrap(), scan, columns)
}

pub(super) fn run_inputs(
    inputs: Vec<input::Input>,
    scan: &dyn Fn() -> Scan,
    columns: bool,
) -> (Vec<String>, Summary) {
    let names = "time,received,level,stage,audit-id,verb,who,user,groups,impersonated,source-ip,\
                 source-ips,user-agent,object,resource,api-group,subresource,namespace,name,uri,path,\
                 command,code,reason,latency,date,hour,annotations.a,annotations.b";
    let fields: Vec<Field> = names.split(',').map(|name| name.parse().unwrap()).collect();
    let scan = Scan { inputs, ..scan() };
    let mut found = Vec::new();
    let make = || Fields(fields.clone(), columns);
    let (_, summary) = scan
        .run(&Progress::default(), make, |record| {
            found.push(String::from_utf8_lossy(record).into_owned());
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    (found, summary)
}

/// Returns a pseudo-random number.
fn mixed(index: usize, salt: usize) -> usize {
    (index.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(salt * 7919) >> 13) % 1009
}

/// Appends the two or three events of a request, some of them in an unusual spelling.
pub(super) fn request(index: usize, out: &mut String) {
    let of = |all: &[&str], salt| all[mixed(index, salt) % all.len()].to_owned();
    let uuid = format!("{index:08x}-0000-4000-8000-{:012x}", mixed(index, 1));
    let id = match index % 97 {
        5 => format!("client-{index}"),
        6 => uuid.to_uppercase(),
        _ => uuid,
    };
    let time = |more: usize| {
        let micros = index * 90_001 + more;
        format!(
            "2026-11-2{}T{:02}:{:02}:{:02}.{:06}Z",
            3 + micros / 86_400_000_000 % 7,
            micros / 3_600_000_000 % 24,
            micros / 60_000_000 % 60,
            micros / 1_000_000 % 60,
            micros % 1_000_000
        )
    };
    let verb = of(&["get", "list", "watch", "delete", "create"], 2);
    let user =
        of(&["alice", "bob", "system:anonymous", "CORP\\\\carol", "d\\u0061ve", "\u{e9}ve"], 3);
    let resource = of(&["secrets", "pods", "deployments", "nodes"], 4);
    let groups = of(&["[\"dev\",\"system:authenticated\"]", "[]", "[\"ops\", 3]", "null"], 5);
    let ips =
        of(&["[\"10.1.2.3\"]", "[\"192.168.0.9\",\"10.0.0.1\"]", "[]", "[7,\"10.9.9.9\"]"], 6);
    let annotations = of(
        &[
            "{\"a\":\"1\"}",
            "{\"a\":\"x\\\"y\",\"b\":\"2\"}",
            "{}",
            "{\"a\":\"1\",\"a\":\"2\"}",
            "{\"b\":5}",
        ],
        7,
    );
    let code = of(&["200", "403", "500", "99999999999"], 8);
    let name =
        if index % 250 == 249 { "needle".to_owned() } else { format!("n-{}", mixed(index, 9)) };
    let mut stages = Vec::new();
    if index.is_multiple_of(3) {
        stages.push("RequestReceived");
    }
    if verb == "watch" {
        stages.push("ResponseStarted");
    }
    if verb != "watch" || index.is_multiple_of(2) {
        stages.push("ResponseComplete");
    }
    let received = if index % 89 == 1 { "2026-11-23T05:08:42Z".to_owned() } else { time(0) };
    for (number, stage) in stages.into_iter().enumerate() {
        let space = if index % 101 == 7 { "  " } else { "" };
        let _ = write!(
            out,
            "{space}{{\"kind\":\"Event\",\"level\":\"{}\",\"auditID\":\"{id}\",\"stage\":\"{stage}\",\
             \"requestURI\":\"/api/v1/x?fieldManager=m{}&command=ls\",\"verb\":\"{verb}\",\
             \"user\":{{\"username\":\"{user}\",\"groups\":{groups}}}",
            of(&["Metadata", "Request"], 10),
            index % 3
        );
        match index % 11 {
            0 => out.push_str(",\"impersonatedUser\":{\"username\":\"root\"}"),
            1 => out.push_str(",\"impersonatedUser\":{}"),
            _ => {}
        }
        let _ = write!(
            out,
            ",\"sourceIPs\":{ips},\"userAgent\":\"kubectl/{}\",\"objectRef\":{{\"resource\":\"{resource}\",\
             \"namespace\":\"{}\",\"name\":\"{name}\",\"apiVersion\":\"v1\"}}",
            index % 4,
            of(&["prod", "dev", ""], 11)
        );
        if stage != "RequestReceived" {
            let _ = write!(
                out,
                ",\"responseStatus\":{{\"code\":{code},\"reason\":\"{}\"}},\"requestObject\":{{\"n\":{index}}}",
                of(&["Forbidden", "NotFound"], 12)
            );
        }
        let _ = writeln!(
            out,
            ",\"requestReceivedTimestamp\":\"{received}\",\"stageTimestamp\":\"{}\",\"annotations\":{annotations}}}",
            time(number * 7777)
        );
    }
    match index % 401 {
        17 => out.push_str("not JSON\n\n{\"kind\":\"Event\"}\n"),
        18 => out.push_str("{\"kind\":\"EventList\",\"items\":[{\"auditID\":\"i1\",\"verb\":\"get\"}, {\"auditID\":\"i2\",\"user\":{\"username\":\"alice\"}}]}\n"),
        _ => {}
    }
}

fn text(range: std::ops::Range<usize>) -> Vec<u8> {
    let mut text = String::new();
    // Some requests end long after others began, possibly in another file.
    for index in range.clone() {
        request(index, &mut text);
    }
    let mut bytes = text.into_bytes();
    let at = bytes.windows(5).position(|part| part == b"alice").unwrap();
    // A user name that is not UTF-8.
    bytes[at + 1] = 0xff;
    bytes
}

/// A log with indexed rotated files: plain, gzip, and zstd with and without a seek table.
fn folder() -> TestFolder {
    let folder = TestFolder::new();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&text(600..700)).unwrap();
    for (name, bytes) in [
        ("audit-2026-11-23T00-00-00.000.log", text(0..600)),
        ("audit-2026-11-23T01-00-00.000.log.gz", gzip.finish().unwrap()),
        ("audit-2026-11-23T02-00-00.000.log.zst", seekable(&text(700..1000), 100_000)),
        (
            "audit-2026-11-23T03-00-00.000.log.zst",
            zstd::encode_all(&text(1000..1050)[..], 1).unwrap(),
        ),
        ("audit-2026-11-23T04-00-00.000.log", Vec::new()),
    ] {
        let path = folder.write(name, bytes);
        write(&path, &|| false).unwrap();
        assert!(verify(&path).is_ok(), "{name}: {:?}", verify(&path));
    }
    folder.write("audit.log", text(1050..1100));
    folder
}

pub(super) fn filters() -> Vec<FilterArgs> {
    let all = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
    let default = FilterArgs::default;
    vec![
        default(),
        FilterArgs { name: all(&["needle"]), ..default() },
        FilterArgs { name: all(&["needle"]), verb: all(&["delete"]), ..default() },
        FilterArgs { name: all(&["nothing-like-it"]), ..default() },
        FilterArgs { name: all(&["!needle"]), code: all(&["200"]), ..default() },
        FilterArgs { audit_id: all(&["00000123-*", "client-102"]), ..default() },
        FilterArgs { audit_id: all(&["i2"]), ..default() },
        FilterArgs { user: all(&["alice"]), failed: true, ..default() },
        FilterArgs { user: all(&["CORP\\carol", "dave", "\u{e9}ve"]), ..default() },
        FilterArgs { anonymous: true, forbidden: true, ..default() },
        FilterArgs { human: true, source_ip: all(&["10.0.0.0/8"]), ..default() },
        FilterArgs { group: all(&["ops"]), ..default() },
        FilterArgs { impersonated: all(&["*"]), ..default() },
        FilterArgs { annotation: all(&["a=2", "b"]), ..default() },
        FilterArgs { annotation: all(&["!a"]), ..default() },
        FilterArgs { namespace: all(&[""]), ..default() },
        FilterArgs { resource: all(&["secrets."]), ..default() },
        FilterArgs { resource: all(&["deployments.apps"]), ..default() },
        FilterArgs { code: all(&[">=500"]), ..default() },
        FilterArgs {
            since: Some("2026-11-23T00:03:00Z".to_owned()),
            until: Some("2026-11-23T00:05:00Z".to_owned()),
            ..default()
        },
        FilterArgs { min_latency: Some("10ms".to_owned()), ..default() },
        FilterArgs { field_manager: all(&["m1"]), level: all(&["Request"]), ..default() },
        FilterArgs { condition: all(&["requestObject.n == 699 || auditID == 'i1'"]), ..default() },
        FilterArgs { condition: all(&["verb == 'delete'"]), name: all(&["needle"]), ..default() },
        FilterArgs { user_agent: all(&["kubectl/3"]), uri: all(&["*m2*"]), ..default() },
    ]
}

#[test]
fn with_and_without_an_index_the_same_is_found() {
    let folder = folder();
    let now = "2026-11-23T11:00:00+00:00[UTC]".parse().unwrap();
    for args in filters() {
        let filter = Filter::new(&args, &now).unwrap();
        for stages in [Stages::Last, Stages::All, Stages::Only(vec!["ResponseStarted".to_owned()])]
        {
            for reverse in [false, true] {
                if reverse && stages != Stages::Last {
                    continue;
                }
                let scan = |index| Scan {
                    inputs: Vec::new(),
                    filter: filter.clone(),
                    stages: stages.clone(),
                    reverse,
                    threads: 2,
                    index,
                };
                let path = folder.path("audit.log");
                let (expected, summary) = run(&path, &|| scan(false), false);
                for columns in [false, true] {
                    let (found, with) = run(&path, &|| scan(true), columns);
                    let context = format!("{args:?} {stages:?} {reverse} {columns}");
                    assert_eq!(found.len(), expected.len(), "{context}");
                    let differs = found.iter().zip(&expected).find(|(a, b)| a != b);
                    assert_eq!(differs, None, "{context}");
                    assert_eq!(with.notes, [""; 0], "{context}");
                    if filter.needle().is_none() {
                        assert_eq!(with.skipped, summary.skipped, "{context}");
                    }
                }
            }
        }
    }
}

/// Changes bytes in the middle of a file, and restores its modification time.
fn tamper(path: &Path, find: &[u8], by: &[u8]) {
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    let text = fs::read(path).unwrap();
    let at = text.len() / 3;
    let at = at + text[at..].windows(find.len()).position(|part| part == find).unwrap();
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(by, at as u64).unwrap();
    file.set_times(FileTimes::new().set_modified(modified)).unwrap();
}

fn count(path: &Path, args: &FilterArgs, columns: bool) -> (usize, Vec<String>) {
    let now = "2026-11-23T11:00:00+00:00[UTC]".parse().unwrap();
    let scan = || Scan {
        inputs: Vec::new(),
        filter: Filter::new(args, &now).unwrap(),
        stages: Stages::All,
        reverse: false,
        threads: 1,
        index: true,
    };
    let (found, summary) = run(path, &scan, columns);
    (found.len(), summary.notes)
}

fn user(name: &str) -> FilterArgs {
    FilterArgs { user: vec![name.to_owned()], ..FilterArgs::default() }
}

#[test]
fn what_the_index_has_is_not_read_from_the_log_and_what_is_read_is_compared() {
    let folder = TestFolder::new();
    let line = |index: usize| {
        format!(
            "{{\"auditID\":\"{index:08x}-0000-4000-8000-000000000000\",\"user\":{{\"username\":\"bob\"}},\
             \"objectRef\":{{\"name\":\"{}\"}}}}\n",
            if index == 500 { "needle" } else { "x" }
        )
    };
    let path =
        folder.write("audit-2026-11-23T00-00-00.000.log", (0..999).map(line).collect::<String>());
    write(&path, &|| false).unwrap();
    let (before, _) = count(&path, &user("bob"), true);
    tamper(&path, b"\"bob\"", b"\"eve\"");
    // The columns still have the old value.
    assert_eq!(count(&path, &user("bob"), true), (before, vec![]));
    // The event that is read from the log no longer matches.
    let text = fs::read_to_string(&path).unwrap();
    let number = text.lines().position(|line| line.contains("eve")).unwrap();
    let audit_id = vec![format!("{number:08x}-0000-4000-8000-000000000000")];
    let renamed = FilterArgs { audit_id, ..user("bob") };
    assert_eq!(count(&path, &renamed, true).0, 1);
    assert_eq!(count(&path, &renamed, false), (0, vec![]));
    assert!(
        matches!(verify(&path), Err(IndexError::Differs(what)) if what.starts_with("username of the"))
    );
    // An event with another ID is not the indexed event, so the log is read instead.
    let needle = FilterArgs { name: vec!["needle".to_owned()], ..FilterArgs::default() };
    let (found, _) = count(&path, &needle, false);
    let text = fs::read(&path).unwrap();
    let at = text.windows(8).position(|part| part == b"\"needle\"").unwrap();
    let line = text[..at].iter().rposition(|byte| *byte == b'\n').unwrap();
    let id = line + text[line..].windows(9).position(|part| part == b"\"auditID\"").unwrap() + 11;
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"f", id as u64).unwrap();
    file.set_times(FileTimes::new().set_modified(modified)).unwrap();
    let (again, notes) = count(&path, &needle, false);
    assert_eq!(again, found);
    assert!(notes[0].contains("does not match the log at byte"), "{notes:?}");
}

#[test]
fn an_index_of_another_state_is_not_used() {
    let folder = TestFolder::new();
    let name = "audit-2026-11-23T00-00-00.000.log";
    let fresh = || {
        let path = folder.write(name, text(0..200));
        write(&path, &|| false).unwrap();
        path
    };
    let (events, notes) = count(&fresh(), &user("bob"), true);
    assert_eq!(notes, [""; 0]);
    type Change = fn(&Path);
    let changes: [(Change, &str); 6] = [
        (
            |log| File::options().append(true).open(log).unwrap().write_all(b"\n").unwrap(),
            "its size differs",
        ),
        (
            |log| {
                File::open(log)
                    .unwrap()
                    .set_times(FileTimes::new().set_modified(std::time::UNIX_EPOCH))
                    .unwrap()
            },
            "another time",
        ),
        (
            |log| {
                let modified = fs::metadata(log).unwrap().modified().unwrap();
                let file = File::options().write(true).open(log).unwrap();
                file.write_all_at(b" ", 1).unwrap();
                file.write_all_at(b"{", 0).unwrap();
                let mut first = vec![0; 10];
                file_read(log, &mut first);
                file.write_all_at(b"[", 3).unwrap();
                file.set_times(FileTimes::new().set_modified(modified)).unwrap();
            },
            "first or last bytes",
        ),
        (|log| fs::write(path(log), "PAR1 nonsense PAR1").unwrap(), "the index file is not used"),
        (|log| fs::write(path(log), "").unwrap(), "the index file is not used"),
        (
            |log| {
                // The footer is intact, the pages are not.
                let index = path(log);
                let mut bytes = fs::read(&index).unwrap();
                bytes[4..2000].fill(0xa5);
                fs::write(index, bytes).unwrap();
            },
            "cannot be read",
        ),
    ];
    for (change, expected) in changes {
        let log = fresh();
        change(&log);
        let (found, notes) = count(&log, &user("bob"), true);
        assert!(found == events || found + 1 == events, "{expected}: {found} {events}");
        assert!(notes[0].contains(expected), "{expected}: {notes:?}");
        assert!(verify(&log).is_err());
    }
    let log = fresh();
    fs::remove_file(path(&log)).unwrap();
    assert_eq!(count(&log, &user("bob"), true), (events, vec![]));
}

fn file_read(path: &Path, into: &mut [u8]) {
    File::open(path).unwrap().read_exact_at(into, 0).unwrap();
}

#[test]
fn index_files_have_the_mode_of_their_log_and_appear_whole() {
    use std::os::unix::fs::PermissionsExt;
    let folder = TestFolder::new();
    let log = folder.write("a.log.zst", seekable(&text(0..100), 10_000));
    fs::set_permissions(&log, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(write(&log, &|| true), Err(IndexError::Interrupted)));
    assert_eq!(fs::read_dir(folder.path("")).unwrap().count(), 1);
    let written = write(&log, &|| false).unwrap();
    assert_eq!(written.path, folder.path("a.log.parquet"));
    let bytes = fs::read(&written.path).unwrap();
    assert_eq!((written.size, written.text), (bytes.len() as u64, text(0..100).len() as u64));
    assert_eq!(fs::metadata(&written.path).unwrap().permissions().mode() & 0o777, 0o640);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
    assert_eq!(written.sha256, identity::hex(digest.as_ref()));
    let document: PathBuf = folder.write("pretty.json", "{\n \"auditID\": \"1\"\n}\n");
    assert!(matches!(write(&document, &|| false), Err(IndexError::NotLines)));
}
