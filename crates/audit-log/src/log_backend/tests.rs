use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::*;
use crate::config::{Compress, Rotation, Throttle};
use crate::file::tests::limited;
use crate::metrics::Plugin;
use crate::test_folder::TestFolder;

fn config(path: &Path, mode: Mode) -> LogConfig {
    let path = LogPath::File(path.to_owned());
    LogConfig { path, mode, rotation: Rotation::default(), sync: SyncMode::Off, seal: None }
}

fn batch(buffer_size: usize, max_size: usize, throttle: Option<Throttle>) -> Mode {
    Mode::Batch { buffer_size, max_size, max_wait: Duration::ZERO, throttle }
}

/// Waits for something that must happen within the writer's interval; the time limit is much
/// longer, for busy machines.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(30), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn events_are_in_the_file_when_acknowledged() {
    let folder = TestFolder::new();
    let path = folder.join("logs/audit.log");
    let sink = LogBackend::open(config(&path, Mode::BlockingStrict), Arc::default()).unwrap();
    assert!(path.exists(), "the file is there before the first event");
    assert!(sink.is_awaited() && sink.progress().is_none());
    sink.submit(b"one\n".to_vec(), &CommitSequence::detached()).await.unwrap();
    assert_eq!(folder.read("logs/audit.log"), "one\n");
    sink.submit(b"two\n".to_vec(), &CommitSequence::detached()).await.unwrap();
    assert_eq!(folder.read("logs/audit.log"), "one\ntwo\n");
    assert_eq!(sink.state(), BackendState::Ok);
    sink.shutdown().await;
}

#[tokio::test]
async fn a_deleted_file_is_recreated_without_a_write() {
    let folder = TestFolder::new();
    let path = folder.join("audit.log");
    let sink = LogBackend::open(config(&path, batch(10, 1, None)), Arc::default()).unwrap();
    fs::remove_file(&path).unwrap();
    eventually("the file is recreated", || path.exists()).await;
    sink.shutdown().await;
}

#[tokio::test]
async fn the_state_shows_that_the_log_is_missing_and_restored() {
    let folder = TestFolder::new();
    let path = folder.join("logs/audit.log");
    let sink = LogBackend::open(config(&path, Mode::BlockingStrict), Arc::default()).unwrap();
    assert!(sink.is_strict());
    fs::remove_dir_all(folder.join("logs")).unwrap();
    fs::write(folder.join("logs"), "in the way").unwrap();
    eventually("it fails", || matches!(sink.state(), BackendState::Failing(_))).await;
    let BackendState::Failing(reason) = sink.state() else { unreachable!() };
    assert!(reason.contains(path.to_str().unwrap()), "{reason}");
    sink.submit(b"lost\n".to_vec(), &CommitSequence::detached()).await.unwrap_err();
    fs::remove_file(folder.join("logs")).unwrap();
    eventually("it recovers", || sink.state() == BackendState::Ok).await;
    sink.submit(b"written\n".to_vec(), &CommitSequence::detached()).await.unwrap();
    assert!(folder.read("logs/audit.log").ends_with("written\n"));
    sink.shutdown().await;
}

#[tokio::test]
async fn reopen_creates_a_new_file_at_once() {
    let folder = TestFolder::new();
    let path = folder.join("audit.log");
    let sink = LogBackend::open(config(&path, Mode::BlockingStrict), Arc::default()).unwrap();
    sink.submit(b"old\n".to_vec(), &CommitSequence::detached()).await.unwrap();
    fs::rename(&path, folder.join("audit.log.1")).unwrap();
    sink.reopen();
    sink.submit(b"new\n".to_vec(), &CommitSequence::detached()).await.unwrap();
    assert_eq!(folder.read("audit.log.1"), "old\n");
    assert_eq!(folder.read("audit.log"), "new\n");
    sink.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_nothing_is_lost_and_each_submitters_order_kept() {
    const THREADS: usize = 8;
    const EVENTS: usize = 4000;
    let folder = TestFolder::new();
    let metrics = Arc::new(LogMetrics::default());
    let log = limited(&folder.join("audit.log"), 8000, Clock::system(), metrics.clone());
    let sink = {
        let (mode, sync) = (Mode::Blocking, SyncMode::Interval(Duration::from_millis(1)));
        let log = CommitLog::start(Box::new(log), "audit.log", &mode, sync, None, metrics.clone());
        LogBackend::writing(log.unwrap())
    };
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let sink = &sink;
            let logs = sink.progress().into_iter();
            let sequence = CommitSequence::new(thread::current().id(), Handle::current(), logs);
            scope.spawn(move || {
                for event in 0..EVENTS {
                    let padding = "x".repeat(event % 97);
                    let line = format!("{thread} {event} {padding}\n").into_bytes();
                    drop(sink.submit(line, &sequence));
                }
            });
        }
    });
    sink.shutdown().await;

    let mut next = [0; THREADS];
    // By name the current file comes last, because `-` sorts before `.`.
    for name in folder.names() {
        let text = folder.read(&name);
        assert!(text.len() <= 8000, "{name} has {} bytes", text.len());
        for line in text.lines() {
            let mut fields = line.split(' ');
            let mut number = || fields.next().unwrap().parse::<usize>().unwrap();
            let (thread, event) = (number(), number());
            assert_eq!(event, next[thread], "thread {thread} in {name}");
            assert_eq!(fields.next().unwrap().len(), event % 97);
            next[thread] += 1;
        }
    }
    assert_eq!(next, [EVENTS; THREADS]);
    assert_eq!(metrics.backend.events.get(), (THREADS * EVENTS) as u64);
    assert_eq!(metrics.rotations.get(), folder.names().len() as u64 - 1);
    assert_eq!((metrics.backend.lost(Plugin::Log), metrics.backend.lost(Plugin::Buffered)), (0, 0));
}

#[tokio::test]
async fn backups_are_cleaned_up_behind_the_writer() {
    let folder = TestFolder::new();
    for day in 1..4 {
        fs::write(folder.join(&format!("audit-2026-01-0{day}T00-00-00.000.log")), "old\n").unwrap();
    }
    let rotation =
        Rotation { max_backups: 2, compress: Compress::Gzip, max_size_mib: 1, ..Rotation::NEVER };
    let path = LogPath::File(folder.join("audit.log"));
    let config =
        LogConfig { path, mode: Mode::Blocking, rotation, sync: SyncMode::Off, seal: None };
    let sink = LogBackend::open(config, Arc::default()).unwrap();
    let names = [
        "audit-2026-01-02T00-00-00.000.log.gz",
        "audit-2026-01-03T00-00-00.000.log.gz",
        "audit.log",
    ];
    eventually("the oldest is deleted, the others compressed", || folder.names() == names).await;
    sink.shutdown().await;
}

#[tokio::test]
async fn an_observer_sees_each_event() {
    let folder = TestFolder::new();
    let (sender, mut observer) = tokio::sync::mpsc::unbounded_channel();
    let open =
        LogBackend::open(config(&folder.join("audit.log"), Mode::BlockingStrict), Arc::default());
    let sink = open.unwrap().with_observer(sender.clone());
    sink.submit(b"one\n".to_vec(), &CommitSequence::detached()).await.unwrap();
    assert_eq!(observer.recv().await.unwrap(), b"one\n");
    assert_eq!(folder.read("audit.log"), "one\n");
    sink.shutdown().await;

    let sink = LogBackend::channel(sender);
    sink.submit(b"two\n".to_vec(), &CommitSequence::detached()).await.unwrap();
    assert_eq!(observer.recv().await.unwrap(), b"two\n");
    drop(observer);
    sink.submit(b"unseen\n".to_vec(), &CommitSequence::detached()).await.unwrap();
}

#[tokio::test]
async fn without_a_log_there_is_nothing_to_wait_for() {
    let sink = LogBackend::discard();
    assert!(!sink.is_awaited() && !sink.is_strict());
    sink.submit(b"one\n".to_vec(), &CommitSequence::detached()).await.unwrap();
    assert_eq!(sink.state(), BackendState::Ok);
    sink.reopen();
    sink.shutdown().await;
}

#[test]
fn batch_settings_must_be_positive() {
    let folder = TestFolder::new();
    let throttle = |qps, burst| Some(Throttle { qps, burst });
    for (mode, setting) in [
        (batch(0, 1, None), "batch-buffer-size"),
        (batch(1, 0, None), "batch-max-size"),
        (batch(1, 1, throttle(0.0, 1)), "batch-throttle-qps"),
        (batch(1, 1, throttle(-1.0, 1)), "batch-throttle-qps"),
        (batch(1, 1, throttle(f32::NAN, 1)), "batch-throttle-qps"),
        (batch(1, 1, throttle(1.0, 0)), "batch-throttle-burst"),
    ] {
        let error = LogBackend::open(config(&folder.join("audit.log"), mode), Arc::default());
        assert_eq!(error.unwrap_err().setting(), setting);
    }
    assert!(folder.names().is_empty(), "nothing is created before all checks succeed");
}
