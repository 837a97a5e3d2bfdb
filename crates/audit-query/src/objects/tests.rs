use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Mutex;

use super::*;
use crate::cli::{Command, ExportArgs};
use crate::filter::FilterArgs;
use crate::input::{self, InputError};
use crate::test_folder::TestFolder;

/// The keys and ranges of all reads.
type Reads = Arc<Mutex<Vec<(String, Range<u64>)>>>;

/// Buckets that are subdirectories of a directory.
#[derive(Debug)]
pub(crate) struct FolderStores {
    root: PathBuf,
    /// What was read.
    pub(crate) reads: Reads,
}

impl FolderStores {
    pub(crate) fn new(folder: &TestFolder) -> FolderStores {
        FolderStores { root: folder.path(""), reads: Arc::default() }
    }
}

impl Stores for FolderStores {
    fn open(&self, bucket: &str) -> io::Result<Arc<dyn Store>> {
        let root = self.root.join(bucket.strip_prefix("s3://").unwrap());
        match root.is_dir() {
            true => Ok(Arc::new(FolderStore { root, reads: self.reads.clone() })),
            false => Err(io::Error::other("there is no such bucket")),
        }
    }
}

#[derive(Debug)]
struct FolderStore {
    root: PathBuf,
    reads: Reads,
}

impl FolderStore {
    fn entry(&self, path: &Path) -> io::Result<Entry> {
        let metadata = fs::metadata(path)?;
        let key = path.strip_prefix(&self.root).unwrap().to_str().unwrap().to_owned();
        Ok(Entry { key, size: metadata.len(), modified: metadata.mtime() * 1_000_000 })
    }
}

impl Store for FolderStore {
    fn list(&self, folder: &str, recursive: bool) -> io::Result<Listing> {
        let mut listing = Listing::default();
        let Ok(entries) = fs::read_dir(self.root.join(folder)) else { return Ok(listing) };
        for entry in entries {
            let path = entry?.path();
            if !path.is_dir() {
                listing.objects.push(self.entry(&path)?);
                continue;
            }
            let key = self.entry(&path)?.key;
            match recursive {
                true => listing.objects.extend(self.list(&key, true)?.objects),
                false => listing.folders.push(key),
            }
        }
        Ok(listing)
    }

    fn get(&self, key: &str) -> io::Result<Option<Entry>> {
        let path = self.root.join(key);
        path.is_file().then(|| self.entry(&path)).transpose()
    }

    fn read(&self, key: &str, range: Range<u64>) -> io::Result<Bytes> {
        self.reads.lock().unwrap().push((key.to_owned(), range.clone()));
        let content = fs::read(self.root.join(key))?;
        if content.starts_with(b"unreachable") {
            return Err(io::Error::other("cannot reach the store"));
        }
        Ok(Bytes::from(content).slice(range.start as usize..range.end as usize))
    }

    fn create(&self, key: &str, file: &Path) -> io::Result<bool> {
        let (path, content) = (self.root.join(key), fs::read(file)?);
        if let Ok(found) = fs::read(&path) {
            return match found == content {
                true => Ok(false),
                false => Err(io::ErrorKind::AlreadyExists.into()),
            };
        }
        fs::create_dir_all(path.parent().unwrap())?;
        fs::write(path, content)?;
        Ok(true)
    }
}

fn event(id: usize, time: &str) -> String {
    format!(
        "{{\"kind\":\"Event\",\"auditID\":\"{id}\",\"stage\":\"ResponseComplete\",\"verb\":\"get\",\
         \"requestReceivedTimestamp\":\"{time}\",\"stageTimestamp\":\"{time}\"}}\n"
    )
}

/// A bucket of two days and two clusters, and a log.
fn folder() -> TestFolder {
    let folder = TestFolder::new();
    for (key, id, time) in [
        ("logs/cluster=b/date=2026-11-23/hour=04/n-1.json.zst", 4, "2026-11-23T04:10:00.000000Z"),
        ("logs/cluster=a/date=2026-11-23/hour=05/n-2.json.zst", 5, "2026-11-23T05:10:00.000000Z"),
        ("logs/cluster=a/date=2026-11-24/hour=00/n-3.json.zst", 24, "2026-11-24T00:10:00.000000Z"),
        ("logs/cluster=a/date=2026-11-24/hour=00/n-4.json.zst", 25, "2026-11-24T00:20:00.000000Z"),
    ] {
        let path = folder.path("bucket").join(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, zstd::encode_all(event(id, time).as_bytes(), 1).unwrap()).unwrap();
    }
    folder.write("bucket/logs/notes.txt", "notes");
    folder.write("audit.log", event(1, "2026-11-22T00:00:00.000000Z"));
    folder
}

const HOUR: i64 = 3_600_000_000;
/// 2026-11-23
const DAY: i64 = 20_780 * 24 * HOUR;

fn names(
    folder: &TestFolder,
    url: &str,
    period: (Option<i64>, Option<i64>),
) -> Result<Vec<String>, InputError> {
    let stores = FolderStores::new(folder);
    let inputs = input::resolve_all(&[PathBuf::from(url)], Some(&stores), period)?;
    let name = |input: input::Input| {
        assert!(input.path.to_str().unwrap().starts_with("s3://bucket/logs/"));
        let name = input.path.file_name().unwrap().to_str().unwrap();
        name.split('.').next().unwrap().to_owned()
    };
    Ok(inputs.into_iter().map(name).collect())
}

#[test]
fn objects_come_in_the_order_of_their_hours() {
    let folder = folder();
    let all = (None, None);
    let of = |url| names(&folder, url, all).unwrap();
    for url in
        ["s3://bucket", "s3://bucket/", "s3://bucket/logs", "s3://bucket/logs/", "s3://bucket/lo"]
    {
        assert_eq!(of(url), ["n-1", "n-2", "n-3", "n-4"], "{url}");
    }
    assert_eq!(of("s3://bucket/logs/cluster=a"), ["n-2", "n-3", "n-4"]);
    assert_eq!(of("s3://bucket/logs/cluster=a/date=2026-11-24"), ["n-3", "n-4"]);
    assert_eq!(of("s3://bucket/logs/cluster=a/date=2026-11-2"), ["n-2", "n-3", "n-4"]);
    assert_eq!(of("s3://bucket/logs/cluster=a/date=2026-11-24/hour=00/n-4.json.zst"), ["n-4"]);
}

#[test]
fn a_period_excludes_hours_and_older_objects() {
    let folder = folder();
    let of = |since, until| names(&folder, "s3://bucket/logs", (since, until)).unwrap();
    assert_eq!(of(None, Some(DAY + 4 * HOUR)), ["n-1"], "as clocks may be set back");
    assert_eq!(of(None, Some(DAY + 3 * HOUR)), [""; 0]);
    assert_eq!(of(None, Some(DAY + 5 * HOUR)), ["n-1", "n-2"]);
    // Events of long requests are in the hour in which they began.
    assert_eq!(of(Some(DAY + 24 * HOUR), None), ["n-1", "n-2", "n-3", "n-4"]);
    assert_eq!(of(Some(DAY + 29 * HOUR), None), ["n-2", "n-3", "n-4"]);
    assert_eq!(of(Some(DAY + 29 * HOUR), Some(DAY + 23 * HOUR)), ["n-2"]);
    // What was stored before cannot have later events.
    let old = folder.path("bucket/logs/cluster=a/date=2026-11-23/hour=05/n-2.json.zst");
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_micros((DAY + 6 * HOUR) as u64);
    fs::File::options().write(true).open(old).unwrap().set_modified(time).unwrap();
    assert_eq!(of(Some(DAY + 6 * HOUR), None), ["n-1", "n-2", "n-3", "n-4"]);
    assert_eq!(of(Some(DAY + 7 * HOUR), None), ["n-1", "n-3", "n-4"]);
}

#[test]
fn what_cannot_be_found_is_an_error() {
    let folder = folder();
    let error = |url| names(&folder, url, (None, None)).unwrap_err().to_string();
    assert_eq!(
        error("s3://bucket/other"),
        "s3://bucket/other: no such object, and no objects below it"
    );
    assert!(error("s3://bucket/logs/notes.txt").contains("no audit logs among these objects"));
    assert_eq!(error("s3://other"), "s3://other: there is no such bucket");
    let error = input::resolve(&["s3://bucket/logs".into()]).unwrap_err().to_string();
    assert!(error.contains("this command reads files only"), "{error}");
}

fn export(folder: &TestFolder, from: &[&str], to: &str) -> Result<bool, String> {
    let path = |from: &&str| match from.starts_with("s3://") {
        true => PathBuf::from(from),
        false => folder.path(from),
    };
    let mut paths: Vec<PathBuf> = from.iter().map(path).collect();
    paths.push(PathBuf::from(to));
    let args = ExportArgs {
        filter: FilterArgs::default(),
        paths,
        stage: vec!["all".to_owned()],
        threads: 1,
        no_index: false,
        format: crate::export::Format::Ndjson,
        partition: None,
        cluster: None,
        bodies: true,
        events: false,
        overwrite: false,
        stores: Some(Arc::new(FolderStores::new(folder))),
    };
    args.execute().map_err(|error| error.to_string())
}

#[test]
fn files_and_objects_are_exported_to_a_bucket_and_nothing_is_replaced() {
    let folder = folder();
    fs::create_dir(folder.path("archive")).unwrap();
    let all = ["audit.log", "s3://bucket/logs"];
    assert_eq!(export(&folder, &all, "s3://archive/x"), Ok(true));
    let stored = |key: &str| fs::read_to_string(folder.path("archive").join(key)).unwrap();
    let late = "x/date=2026-11-24/hour=00/events-0.ndjson";
    let expected =
        event(24, "2026-11-24T00:10:00.000000Z") + &event(25, "2026-11-24T00:20:00.000000Z");
    assert_eq!(stored(late), expected);
    assert_eq!(
        stored("x/date=2026-11-22/hour=00/events-0.ndjson"),
        event(1, "2026-11-22T00:00:00.000000Z")
    );
    // The same again changes nothing; another content is an error, and nothing is stored.
    assert_eq!(export(&folder, &all, "s3://archive/x"), Ok(true));
    fs::remove_file(folder.path("archive/x/date=2026-11-22/hour=00/events-0.ndjson")).unwrap();
    fs::write(folder.path("archive").join(late), "other").unwrap();
    let error = export(&folder, &all, "s3://archive/x").unwrap_err();
    assert!(error.contains(late) && error.contains("choose another prefix"), "{error}");
    assert_eq!(stored(late), "other");
    assert!(!folder.path("archive/x/date=2026-11-22/hour=00/events-0.ndjson").exists());
    let temporary = fs::read_dir(std::env::temp_dir()).unwrap().flatten();
    let own = format!("kube-audit-proxy-export-{}-", std::process::id());
    let left = temporary.filter(|entry| entry.file_name().to_string_lossy().starts_with(&own));
    assert_eq!(left.count(), 0);
}

#[test]
fn a_store_that_fails_ends_the_scan() {
    let folder = TestFolder::new();
    fs::create_dir(folder.path("bucket")).unwrap();
    (0..50).for_each(|index| {
        folder.write(&format!("bucket/{index:02}.log"), "unreachable");
    });
    let stores = FolderStores::new(&folder);
    let reads = stores.reads.clone();
    let inputs = input::resolve_all(&["s3://bucket".into()], Some(&stores), (None, None)).unwrap();
    let scan = crate::scan::Scan {
        inputs,
        filter: crate::filter::Filter::default(),
        stages: crate::scan::Stages::All,
        reverse: false,
        threads: 1,
        index: true,
    };
    struct Nothing;
    impl crate::scan::Visitor for Nothing {
        fn visit(
            &mut self,
            _: &crate::event::Event<'_>,
            _: crate::scan::Place<'_>,
            _: &mut crate::scan::Records,
        ) {
        }
    }
    let progress = Progress::default();
    let flow = |_: &[u8]| std::ops::ControlFlow::Continue(());
    let (_, summary) = scan.run(&progress, || Nothing, flow).unwrap();
    assert_eq!(summary.faults.len(), 1, "{:?}", summary.faults);
    assert!(summary.faults[0].to_string().contains("cannot reach the store"));
    assert_eq!(reads.lock().unwrap().len(), 1);
}
