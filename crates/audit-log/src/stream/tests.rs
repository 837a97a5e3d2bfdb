use std::collections::VecDeque;
use std::fs;
use std::path::Path;

use futures_util::future::BoxFuture;

use super::*;
use crate::test_folder::TestFolder;
use crate::{Batch, BatchFile, DeliveryError};

/// The reaction of the fake destination to a batch.
#[derive(Debug, Clone)]
enum Reply {
    Accept,
    Unavailable,
    Reject,
    /// It rejects it, and forbids to send it again.
    Forbid,
    /// No response.
    Hang,
}

/// A fake destination. Accepts batches, unless a test has set other replies for the next ones.
#[derive(Debug, Default)]
struct FakeDestination {
    replies: SyncMutex<VecDeque<Reply>>,
    /// The reply to every batch after these.
    always: SyncMutex<Option<Reply>>,
    accepted: SyncMutex<Vec<(u64, String)>>,
    attempts: std::sync::atomic::AtomicU64,
    /// Maximum length of a batch in bytes.
    limit: Option<usize>,
    as_files: bool,
}

impl FakeDestination {
    async fn take(&self, number: u64, lines: &[u8], events: u64) -> Result<(), DeliveryError> {
        self.attempts.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let text = String::from_utf8(lines.to_vec()).unwrap();
        assert_eq!(text.lines().count() as u64, events);
        if self.limit.is_some_and(|limit| lines.len() > limit) {
            return Err(DeliveryError::TooLarge("too large".to_owned()));
        }
        let next = self.replies.lock().unwrap().pop_front();
        let reply = next.or_else(|| self.always.lock().unwrap().clone());
        match reply.unwrap_or(Reply::Accept) {
            Reply::Accept => self.accepted.lock().unwrap().push((number, text)),
            Reply::Unavailable => {
                let reason = "connection refused".to_owned();
                return Err(DeliveryError::Unavailable { reason, retry_after: None });
            }
            Reply::Reject => return Err(DeliveryError::Rejected("no such table".to_owned())),
            Reply::Forbid => return Err(DeliveryError::Final("not an event".to_owned())),
            Reply::Hang => std::future::pending().await,
        }
        Ok(())
    }

    fn text(&self) -> String {
        self.accepted.lock().unwrap().iter().map(|(_, text)| text.as_str()).collect()
    }

    fn numbers(&self) -> Vec<u64> {
        self.accepted.lock().unwrap().iter().map(|(number, _)| *number).collect()
    }

    fn attempts(&self) -> u64 {
        self.attempts.load(std::sync::atomic::Ordering::SeqCst)
    }
}

impl Destination for FakeDestination {
    fn address(&self) -> String {
        "fake://".to_owned()
    }

    fn deliver(&self, batch: Batch) -> BoxFuture<'_, Result<(), DeliveryError>> {
        assert!(!self.as_files);
        Box::pin(async move { self.take(batch.number, &batch.lines, batch.events).await })
    }

    fn takes_files(&self) -> bool {
        self.as_files
    }

    fn deliver_file(&self, batch: BatchFile) -> BoxFuture<'_, Result<(), DeliveryError>> {
        let mut lines = vec![0; batch.bytes as usize];
        std::os::unix::fs::FileExt::read_exact_at(&*batch.file, &mut lines, 0).unwrap();
        Box::pin(async move { self.take(batch.number, &lines, batch.events).await })
    }

    fn check(&self) -> BoxFuture<'_, Result<(), DeliveryError>> {
        Box::pin(async { Ok(()) })
    }
}

fn config(dir: &Path) -> StreamConfig {
    StreamConfig {
        mode: StreamMode::Blocking,
        buffer_size: 100,
        segment_max_size: 1 << 20,
        segment_max_age: Duration::from_secs(3600),
        spool: SpoolConfig { dir: dir.to_owned(), max_size: 1 << 20 },
    }
}

struct Rig {
    backend: StreamBackend,
    destination: Arc<FakeDestination>,
    metrics: Arc<DeliveryMetrics>,
}

fn rig(config: StreamConfig, destination: FakeDestination) -> Rig {
    let (destination, metrics) = (Arc::new(destination), Arc::new(DeliveryMetrics::default()));
    let backend = StreamBackend::start(config, destination.clone(), metrics.clone()).unwrap();
    Rig { backend, destination, metrics }
}

impl Rig {
    async fn submit(&self, line: &str) {
        self.backend.submit(format!("{line}\n").into_bytes()).await.unwrap();
    }

    async fn until(&self, condition: impl Fn(&Rig) -> bool) {
        let waited = async {
            while !condition(self) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waited).await.expect("it happens");
    }

    async fn shutdown(&self) {
        self.backend.shutdown(&CancellationToken::new()).await;
    }

    fn lost(&self, plugin: Plugin) -> u64 {
        self.metrics.backend.lost(plugin)
    }
}

fn files(dir: &Path, extension: &str) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    files.sort();
    files
}

#[tokio::test]
async fn segments_close_by_size_and_arrive_in_order() {
    let dir = TestFolder::new();
    let small = StreamConfig { segment_max_size: 10, ..config(dir.path()) };
    let rig = rig(small, FakeDestination::default());
    for line in ["1234", "5678", "a line that is too long for any segment", "9", "10"] {
        rig.submit(line).await;
    }
    rig.shutdown().await;
    let accepted = rig.destination.accepted.lock().unwrap().clone();
    let texts: Vec<&str> = accepted.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(
        texts,
        ["1234\n5678\n", "a line that is too long for any segment\n", "9\n10\n"],
        "full segments, and the rest at the shutdown"
    );
    assert!(rig.destination.numbers().is_sorted());
    assert_eq!((rig.metrics.events.get(), rig.metrics.spool_bytes.get()), (5, 0));
    assert!(files(dir.path(), "ndjson").is_empty(), "they are deleted");
    assert_eq!(rig.backend.submit(b"late\n".to_vec()).await.map_err(|_| ()), Ok(()));
    assert_eq!(rig.lost(Plugin::Buffered), 1, "after the shutdown");
}

#[tokio::test]
async fn a_segment_closes_by_age() {
    let dir = TestFolder::new();
    let young = StreamConfig { segment_max_age: Duration::from_millis(20), ..config(dir.path()) };
    let rig = rig(young, FakeDestination::default());
    rig.submit("only").await;
    rig.until(|rig| rig.destination.text() == "only\n").await;
    assert!(rig.metrics.last_success.get() > 0);
}

#[tokio::test]
async fn batch_mode_never_waits_and_counts_its_overflow() {
    let dir = TestFolder::new();
    let batch = StreamConfig { mode: StreamMode::Batch, buffer_size: 3, ..config(dir.path()) };
    let rig = rig(batch, FakeDestination::default());
    // Nothing else runs on this thread meanwhile.
    for number in 0..5 {
        let line = format!("{number}\n").into_bytes();
        assert!(futures_util::FutureExt::now_or_never(rig.backend.submit(line)).is_some());
    }
    rig.shutdown().await;
    assert_eq!(rig.destination.text(), "0\n1\n2\n");
    assert_eq!(rig.lost(Plugin::Buffered), 2);
}

#[tokio::test]
async fn what_a_killed_process_wrote_is_delivered_but_for_a_partial_line() {
    let dir = TestFolder::new();
    fs::write(dir.path().join("00000000000000000007.open"), "one\ntwo\nthr").unwrap();
    fs::write(dir.path().join("00000000000000000009.open"), "fou").unwrap();
    let rig1 = rig(config(dir.path()), FakeDestination::default());
    rig1.submit("new").await;
    rig1.shutdown().await;
    assert_eq!(rig1.destination.text(), "one\ntwo\nnew\n");
    assert_eq!(rig1.destination.numbers(), [7, 9]);
    assert_eq!(rig1.lost(Plugin::Stream), 2, "partial lines");
    drop(rig1);

    // The spool is empty, numbers continue, and nothing is counted again.
    let rig2 = rig(config(dir.path()), FakeDestination::default());
    rig2.submit("newer").await;
    rig2.shutdown().await;
    assert_eq!((rig2.destination.numbers(), rig2.lost(Plugin::Stream)), (vec![10], 0));
}

#[tokio::test]
async fn a_segment_in_an_open_file_survives_without_being_closed() {
    let dir = TestFolder::new();
    let rig1 = rig(config(dir.path()), FakeDestination::default());
    rig1.submit("written").await;
    let open = files(dir.path(), "open");
    assert_eq!(fs::read_to_string(&open[0]).unwrap(), "written\n", "before it is closed");
    // Copies the files to another directory, as they are after a kill.
    let copy = TestFolder::new();
    fs::copy(&open[0], copy.join(open[0].file_name().unwrap().to_str().unwrap())).unwrap();
    let rig2 = rig(config(copy.path()), FakeDestination::default());
    rig2.until(|rig| rig.destination.text() == "written\n").await;
}

#[tokio::test]
async fn a_segment_killed_before_its_deletion_is_redelivered_with_its_number() {
    let dir = TestFolder::new();
    let down = FakeDestination { always: SyncMutex::new(Some(Reply::Hang)), ..Default::default() };
    let small = StreamConfig { segment_max_size: 1, ..config(dir.path()) };
    let rig1 = rig(small.clone(), down);
    rig1.submit("one").await;
    rig1.until(|rig| rig.destination.attempts() == 1).await;
    let closed = files(dir.path(), "ndjson");
    let copy = TestFolder::new();
    fs::copy(&closed[0], copy.join(closed[0].file_name().unwrap().to_str().unwrap())).unwrap();
    let spool = SpoolConfig { dir: copy.path().to_owned(), max_size: 1 << 20 };
    let rig2 = rig(StreamConfig { spool, ..small }, FakeDestination::default());
    rig2.until(|rig| rig.destination.text() == "one\n").await;
    let name = closed[0].file_name().unwrap().to_str().unwrap().to_owned();
    assert!(name.starts_with(&format!("{:020}.", rig2.destination.numbers()[0])), "{name}");
}

#[tokio::test(start_paused = true)]
async fn an_outage_costs_nothing_but_disk() {
    let dir = TestFolder::new();
    let down = FakeDestination {
        replies: SyncMutex::new(
            [Reply::Unavailable, Reply::Unavailable, Reply::Unavailable].into(),
        ),
        ..FakeDestination::default()
    };
    let small = StreamConfig { segment_max_size: 1, ..config(dir.path()) };
    let rig = rig(small, down);
    for number in 0..50 {
        rig.submit(&number.to_string()).await;
    }
    rig.until(|rig| rig.metrics.failures.get() == 1).await;
    let reason = BackendState::Failing(
        "the destination does not accept events: connection refused".to_owned(),
    );
    assert_eq!((rig.backend.state(), rig.metrics.healthy.get()), (reason, 0));
    assert_eq!(rig.backend.check(), Ok(()), "requests wait for the spool only");
    rig.until(|rig| rig.metrics.events.get() == 50).await;
    let expected: String = (0..50).map(|number| format!("{number}\n")).collect();
    assert_eq!((rig.destination.text(), rig.backend.state()), (expected, BackendState::Ok));
    assert_eq!(rig.lost(Plugin::Stream), 0);
}

#[tokio::test]
async fn a_full_spool_loses_the_newest_and_counts_them() {
    let dir = TestFolder::new();
    let down = FakeDestination { always: SyncMutex::new(Some(Reply::Hang)), ..Default::default() };
    let spool = SpoolConfig { dir: dir.path().to_owned(), max_size: 10 };
    let mode = StreamMode::BlockingStrict;
    let full = StreamConfig { spool, mode, segment_max_size: 5, ..config(dir.path()) };
    let rig = rig(full, down);
    rig.submit("1234").await;
    rig.submit("5678").await;
    assert!(rig.backend.is_writable());
    let error = rig.backend.submit(b"9\n".to_vec()).await.unwrap_err().to_string();
    assert_eq!(error, "the spool is full; raise spool-max-size");
    assert_eq!(rig.lost(Plugin::Stream), 1);
    assert!(!rig.backend.is_writable());
    assert_eq!(rig.backend.check(), Err(error));
}

#[tokio::test]
async fn too_large_segments_are_halved_and_what_is_left_over_is_set_aside() {
    let dir = TestFolder::new();
    let limited = FakeDestination { limit: Some(6), ..FakeDestination::default() };
    let rig = rig(StreamConfig { segment_max_size: 25, ..config(dir.path()) }, limited);
    for line in ["12", "34", "56", "too large by itself"] {
        rig.submit(line).await;
    }
    rig.shutdown().await;
    assert_eq!(rig.destination.text(), "12\n34\n56\n");
    let aside = files(dir.path(), "rejected");
    assert_eq!(fs::read_to_string(&aside[0]).unwrap(), "too large by itself\n");
    assert_eq!((rig.lost(Plugin::Stream), rig.metrics.rejected_events.get()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn rejected_files_are_set_aside_whole_and_the_next_ones_are_sent() {
    let dir = TestFolder::new();
    let rejecting = FakeDestination {
        replies: SyncMutex::new(vec![Reply::Reject; 5].into()),
        as_files: true,
        ..FakeDestination::default()
    };
    let rig = rig(StreamConfig { segment_max_size: 1, ..config(dir.path()) }, rejecting);
    rig.submit("bad").await;
    rig.submit("good").await;
    rig.until(|rig| rig.destination.text() == "good\n").await;
    let aside = files(dir.path(), "rejected");
    assert_eq!(fs::read_to_string(&aside[0]).unwrap(), "bad\n");
    assert_eq!(rig.lost(Plugin::Stream), 1);
}

#[tokio::test(start_paused = true)]
async fn what_must_not_be_sent_again_is_set_aside_at_once() {
    let dir = TestFolder::new();
    let forbidding = FakeDestination {
        replies: SyncMutex::new(vec![Reply::Forbid].into()),
        ..FakeDestination::default()
    };
    let rig = rig(StreamConfig { segment_max_size: 1, ..config(dir.path()) }, forbidding);
    rig.submit("bad").await;
    rig.submit("good").await;
    rig.until(|rig| rig.destination.text() == "good\n").await;
    assert_eq!(fs::read_to_string(&files(dir.path(), "rejected")[0]).unwrap(), "bad\n");
    assert_eq!((rig.destination.attempts(), rig.lost(Plugin::Stream)), (2, 1));
}

#[tokio::test]
async fn a_file_that_was_changed_is_set_aside() {
    let dir = TestFolder::new();
    let name = "00000000000000000001.00000000000000000000000000000000-1.ndjson";
    fs::write(dir.path().join(name), "changed\n").unwrap();
    let files_only = FakeDestination { as_files: true, ..FakeDestination::default() };
    let rig = rig(config(dir.path()), files_only);
    rig.submit("next").await;
    rig.shutdown().await;
    assert_eq!(rig.destination.text(), "next\n");
    assert_eq!((rig.lost(Plugin::Stream), files(dir.path(), "rejected").len()), (1, 1));
}

#[tokio::test]
async fn a_spool_has_one_owner() {
    let dir = TestFolder::new();
    let _first = rig(config(dir.path()), FakeDestination::default());
    let second =
        StreamBackend::start(config(dir.path()), Arc::<FakeDestination>::default(), Arc::default());
    let error = second.unwrap_err();
    assert_eq!(error.setting(), "spool-dir");
    assert!(error.to_string().contains(" is in use: "), "{error}");
}

#[tokio::test]
async fn a_directory_that_is_deleted_costs_no_event_that_is_not_closed() {
    let dir = TestFolder::new();
    let path = dir.join("spool");
    let rig = rig(config(&path), FakeDestination::default());
    rig.submit("one").await;
    fs::remove_dir_all(&path).unwrap();
    rig.submit("two").await;
    rig.shutdown().await;
    assert_eq!(rig.destination.text(), "one\ntwo\n");
    assert_eq!(rig.lost(Plugin::Stream), 0);
}
