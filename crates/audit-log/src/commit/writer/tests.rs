use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::mpsc::{self, Receiver, Sender};
use std::task::{Context, Waker};

use tokio::runtime::Runtime;

use super::*;
use crate::commit::{Commit, CommitLog, CommitSequence};
use crate::output::Written;
use crate::{Line, LogMetrics, Mode, Plugin, Throttle};

/// The behavior of the fake output in one call.
pub(super) enum Act {
    Write,
    /// Writes this many lines and fails at the next one.
    FailAfter(usize),
    Panic,
}

/// Announces each call and waits for the result that the test supplies.
struct Fake {
    calls: Sender<Vec<String>>,
    acts: Receiver<Act>,
    synced: Sender<()>,
    quick: bool,
    sync_fails: bool,
}

impl Output for Fake {
    fn is_quick(&self) -> bool {
        self.quick
    }

    fn write(&mut self, lines: &[Line]) -> Written {
        let text = |line: &Line| String::from_utf8(line.to_vec()).unwrap().trim_end().to_owned();
        self.calls.send(lines.iter().map(text).collect()).unwrap();
        let (whole, error) = match self.acts.recv().unwrap_or(Act::Write) {
            Act::Write => (lines.len(), None),
            Act::FailAfter(whole) => (whole, Some(io::ErrorKind::StorageFull.into())),
            Act::Panic => panic!("as the test wants it"),
        };
        Written { whole, error }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.synced.send(()).unwrap();
        if self.sync_fails { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

/// A log with a fake output, and the channels through which the test controls it.
pub(super) struct Rig {
    pub(super) log: Arc<CommitLog>,
    pub(super) metrics: Arc<LogMetrics>,
    pub(super) calls: Receiver<Vec<String>>,
    acts: Sender<Act>,
    synced: Receiver<()>,
}

fn rig(mode: Mode) -> Rig {
    rig_with(mode, false, SyncMode::Off)
}

/// Creates a log whose output is `quick`, so that requests write to it themselves, or not.
pub(super) fn rig_with(mode: Mode, quick: bool, sync: SyncMode) -> Rig {
    let metrics = Arc::new(LogMetrics::default());
    let (calls_in, calls) = mpsc::channel();
    let (acts, acts_out) = mpsc::channel();
    let (synced_in, synced) = mpsc::channel();
    // Syncs fail in the tests of `SyncMode::Always` with a quick output.
    let sync_fails = sync == SyncMode::Always && quick;
    let output =
        Box::new(Fake { calls: calls_in, acts: acts_out, synced: synced_in, quick, sync_fails });
    let log = CommitLog::start(output, "audit.log", &mode, sync, None, metrics.clone());
    Rig { log: Arc::new(log.unwrap()), metrics, calls, acts, synced }
}

pub(super) fn submit(log: &CommitLog, text: &str) -> Commit {
    log.submit(format!("{text}\n").into_bytes().into(), &CommitSequence::detached())
}

impl Rig {
    /// Submits an event that belongs to no worker.
    pub(super) fn submit(&self, text: &str) -> Commit {
        submit(&self.log, text)
    }

    /// Returns the lines of the writer's next call, which then waits for [`Rig::act`].
    pub(super) fn call(&self) -> Vec<String> {
        self.calls.recv_timeout(Duration::from_secs(30)).expect("the writer writes")
    }

    pub(super) fn act(&self, act: Act) {
        self.acts.send(act).unwrap();
    }

    pub(super) fn lost(&self) -> (u64, u64) {
        (self.metrics.backend.lost(Plugin::Log), self.metrics.backend.lost(Plugin::Buffered))
    }
}

fn batch(buffer_size: usize, max_size: usize) -> Mode {
    Mode::Batch { buffer_size, max_size, max_wait: Duration::from_secs(3600), throttle: None }
}

pub(super) fn pending(commit: &mut Commit) -> bool {
    pin!(commit).poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

#[tokio::test]
async fn a_write_that_does_not_return_shows() {
    let rig = rig(Mode::Blocking);
    let commit = rig.submit("first");
    assert_eq!(rig.call(), ["first"]);
    assert_eq!(rig.log.writer().state(), BackendState::Ok);
    let later = rig.log.writer().state_at(Instant::now() + Duration::from_secs(7));
    let expected = "a write to audit.log has not returned for 7 s";
    assert_eq!(later, BackendState::Failing(expected.to_owned()));
    rig.act(Act::Write);
    commit.await.unwrap();
    rig.log.shutdown().await;
    assert_eq!(
        rig.log.writer().state_at(Instant::now() + Duration::from_secs(7)),
        BackendState::Ok
    );
}

#[tokio::test]
async fn what_gathers_during_a_write_is_written_together() {
    let rig = rig(Mode::Blocking);
    let mut first = rig.submit("first");
    assert_eq!(rig.call(), ["first"]);
    let mut others: Vec<_> = (0..10).map(|index| rig.submit(&index.to_string())).collect();
    assert!(pending(&mut first), "the write has not returned");
    assert_eq!(rig.metrics.queue_length(), 10);
    rig.act(Act::Write);
    first.await.unwrap();
    assert_eq!(rig.call(), ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    assert!(others.iter_mut().all(pending));
    rig.act(Act::Write);
    for commit in others {
        commit.await.unwrap();
    }
    assert_eq!(rig.metrics.backend.events.get(), 11);
    assert_eq!(rig.lost(), (0, 0));
}

#[tokio::test]
async fn a_lone_submitter_writes_its_line_itself() {
    let rig = rig_with(Mode::BlockingStrict, true, SyncMode::Off);
    for text in ["one", "two"] {
        rig.act(Act::Write);
        let mut commit = rig.submit(text);
        assert!(!pending(&mut commit), "no thread was waited for");
        assert_eq!(rig.call(), [text]);
    }
    rig.log.shutdown().await;
    assert_eq!(rig.lost(), (0, 0));
}

#[tokio::test]
async fn with_always_an_event_counts_when_it_is_synced_and_a_group_needs_one_sync() {
    let rig = rig_with(Mode::Blocking, false, SyncMode::Always);
    let first = rig.submit("first");
    rig.call();
    let others = [rig.submit("a"), rig.submit("b"), rig.submit("c")];
    rig.act(Act::Write);
    first.await.unwrap();
    rig.synced.try_recv().expect("synced before it is acknowledged");
    assert_eq!(rig.call(), ["a", "b", "c"]);
    rig.act(Act::Write);
    for commit in others {
        commit.await.unwrap();
    }
    assert_eq!(rig.synced.try_iter().count(), 1);
}

#[tokio::test]
async fn what_cannot_be_synced_is_lost() {
    let rig = rig_with(Mode::BlockingStrict, true, SyncMode::Always);
    let commit = rig.submit("one");
    assert_eq!(rig.call(), ["one"], "the thread writes, for a sync takes long");
    rig.act(Act::Write);
    commit.await.unwrap_err();
    assert_eq!(rig.lost(), (1, 0));
}

#[tokio::test]
async fn one_request_probes_a_log_that_only_a_write_can_show_to_work() {
    let rig = rig(Mode::BlockingStrict);
    assert!(rig.log.writer().is_writable());
    let commit = rig.submit("one");
    rig.call();
    rig.act(Act::FailAfter(0));
    commit.await.unwrap_err();
    // The thread publishes the state after it has resolved the commit, and probes after a while.
    let started = Instant::now();
    while rig.log.writer().state() == BackendState::Ok {
        assert!(started.elapsed() < Duration::from_secs(30));
    }
    while !rig.log.writer().is_writable() {
        assert!(started.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(matches!(rig.log.writer().state(), BackendState::Failing(_)), "nothing is known yet");
    let commit = rig.submit("two");
    rig.call();
    rig.act(Act::Write);
    commit.await.unwrap();
    rig.log.shutdown().await;
    assert!(rig.log.writer().is_writable());
}

#[test]
fn who_has_the_output_writes_what_others_submit() {
    let rig = rig_with(Mode::BlockingStrict, true, SyncMode::Off);
    std::thread::scope(|scope| {
        let log = rig.log.clone();
        scope.spawn(move || drop(submit(&log, "first")));
        assert_eq!(rig.call(), ["first"]);
        // The first write is in progress, and these requests do not wait for it.
        let mut others = [rig.submit("a"), rig.submit("b")];
        assert!(others.iter_mut().all(pending));
        rig.act(Act::Write);
        assert_eq!(rig.call(), ["a", "b"]);
        assert!(others.iter_mut().all(pending));
        rig.act(Act::FailAfter(1));
        let [a, b] = others.map(|commit| Runtime::new().unwrap().block_on(commit));
        a.unwrap();
        b.unwrap_err();
    });
    assert_eq!(rig.lost(), (1, 0));
}

#[tokio::test]
async fn after_a_very_slow_write_or_some_slow_ones_the_thread_writes() {
    for pauses in [&[VERY_SLOW][..], &[SLOW; SLOW_IN_A_ROW as usize]] {
        let rig = rig_with(Mode::Blocking, true, SyncMode::Off);
        for pause in pauses {
            std::thread::scope(|scope| {
                let log = rig.log.clone();
                let slow = scope.spawn(move || drop(submit(&log, "slow")));
                rig.call();
                std::thread::sleep(*pause);
                rig.act(Act::Write);
                slow.join().unwrap();
            });
        }
        // The write hangs, and the submitting thread does not.
        let mut commit = rig.submit("next");
        assert_eq!(rig.call(), ["next"]);
        assert!(pending(&mut commit));
        rig.act(Act::Write);
        commit.await.unwrap();
        rig.log.shutdown().await;
    }
}

#[tokio::test]
async fn an_event_whose_commit_is_dropped_is_written() {
    let rig = rig(Mode::Blocking);
    drop(rig.submit("unwatched"));
    assert_eq!(rig.call(), ["unwatched"]);
    rig.act(Act::Write);
    rig.log.shutdown().await;
    assert_eq!(rig.lost(), (0, 0));
}

#[tokio::test]
async fn only_the_line_that_failed_is_lost() {
    let rig = rig(Mode::BlockingStrict);
    let first = rig.submit("first");
    assert_eq!(rig.call(), ["first"]);
    let commits: Vec<_> = ["a", "b", "c"].into_iter().map(|text| rig.submit(text)).collect();
    rig.act(Act::Write);
    assert_eq!(rig.call(), ["a", "b", "c"]);
    rig.act(Act::FailAfter(1));
    assert_eq!(rig.call(), ["c"], "the failure of one does not stop the rest");
    rig.act(Act::FailAfter(0));
    first.await.unwrap();
    let [a, b, c] = commits.try_into().unwrap();
    a.await.unwrap();
    let error = b.await.unwrap_err();
    assert!(matches!(error, WriteError::Io { .. }));
    assert!(error.to_string().starts_with("cannot write to the audit log audit.log: "), "{error}");
    c.await.unwrap_err();
    assert_eq!(rig.lost(), (2, 0));

    let next = rig.submit("next");
    assert_eq!(rig.call(), ["next"]);
    // The writer publishes the outcome of one group before it writes another.
    assert_eq!(rig.log.writer().state(), BackendState::Failing(error.to_string()));
    rig.act(Act::Write);
    next.await.unwrap();
    rig.log.shutdown().await;
    assert_eq!(rig.log.writer().state(), BackendState::Ok);
}

#[tokio::test]
async fn a_panic_costs_one_group() {
    for mode in [Mode::BlockingStrict, Mode::Blocking, batch(10, 1)] {
        let strict = mode == Mode::BlockingStrict;
        let rig = rig(mode);
        let first = rig.submit("first");
        rig.call();
        rig.act(Act::Panic);
        let second = rig.submit("second");
        assert_eq!(rig.call(), ["second"]);
        rig.act(Act::Write);
        assert_eq!(matches!(first.await, Err(WriteError::Panicked)), strict);
        second.await.unwrap();
        assert_eq!(rig.lost(), (1, 0));
    }
}

#[tokio::test]
async fn shutdown_writes_what_is_queued_syncs_and_refuses_the_rest() {
    let modes = [(Mode::Blocking, (1, 0)), (Mode::BlockingStrict, (1, 0)), (batch(10, 10), (0, 1))];
    for (mode, lost) in modes {
        let rig = rig(mode.clone());
        let commits = [rig.submit("one"), rig.submit("two")];
        let mut shutdown = Box::pin(rig.log.shutdown());
        assert!(shutdown.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let mut seen = rig.call();
        // The output is slow: it has not finished, so neither has the shutdown.
        assert!(shutdown.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        rig.act(Act::Write);
        if seen.len() == 1 {
            // In a blocking mode the writer may have taken the first event before the second was
            // queued.
            seen.extend(rig.call());
            rig.act(Act::Write);
        }
        assert_eq!(seen, ["one", "two"]);
        shutdown.await;
        rig.synced.try_recv().expect("synced before shutdown returns");
        for commit in commits {
            commit.await.unwrap();
        }
        let late = rig.submit("late").await;
        let is_refused = matches!(late, Err(WriteError::ShutDown));
        assert_eq!(is_refused, mode == Mode::BlockingStrict, "{late:?}");
        assert_eq!(rig.lost(), lost);
        assert_eq!(rig.metrics.backend.events.get(), 3);
        rig.log.shutdown().await;
    }
}

#[tokio::test]
async fn a_full_queue_drops_the_newest_and_only_counts_it() {
    let rig = rig(batch(1, 1));
    drop(rig.submit("being written"));
    rig.call();
    let mut kept = rig.submit("kept");
    let mut dropped = rig.submit("dropped");
    assert!(!pending(&mut kept) && !pending(&mut dropped), "batch mode waits for nothing");
    dropped.await.unwrap();
    assert_eq!(rig.lost(), (0, 1));
    assert_eq!(rig.metrics.backend.events.get(), 3);
    rig.act(Act::Write);
    assert_eq!(rig.call(), ["kept"]);
    rig.act(Act::Write);
    rig.log.shutdown().await;
    assert_eq!(rig.lost(), (0, 1));
}

#[tokio::test]
async fn a_batch_waits_until_it_is_full() {
    let rig = rig(batch(10, 3));
    ["one", "two"].iter().for_each(|text| drop(rig.submit(text)));
    assert!(rig.calls.try_recv().is_err());
    drop(rig.submit("three"));
    assert_eq!(rig.call(), ["one", "two", "three"]);
    rig.act(Act::Write);
    rig.log.shutdown().await;
}

#[tokio::test]
async fn a_batch_is_written_when_its_time_has_come() {
    let max_wait = Duration::from_millis(20);
    let rig = rig(Mode::Batch { buffer_size: 10, max_size: 3, max_wait, throttle: None });
    let started = Instant::now();
    drop(rig.submit("one"));
    assert_eq!(rig.call(), ["one"]);
    assert!(started.elapsed() >= max_wait);
    rig.act(Act::Write);
    rig.log.shutdown().await;
}

#[tokio::test]
async fn a_throttle_makes_batches_of_at_most_max_size() {
    let throttle = Some(Throttle { qps: 1000.0, burst: 1 });
    let rig = rig(Mode::Batch { buffer_size: 10, max_size: 2, max_wait: Duration::ZERO, throttle });
    drop(rig.submit("0"));
    assert_eq!(rig.call(), ["0"]);
    for text in ["1", "2", "3"] {
        drop(rig.submit(text));
    }
    rig.act(Act::Write);
    assert_eq!(rig.call(), ["1", "2"]);
    rig.act(Act::Write);
    assert_eq!(rig.call(), ["3"]);
    rig.act(Act::Write);
    rig.log.shutdown().await;
}

#[tokio::test]
async fn five_events_in_batches_of_one_arrive() {
    let rig = rig(batch(10, 1));
    // The results are supplied in advance, because the output is quick.
    (0..5).for_each(|_| rig.act(Act::Write));
    let texts = ["1", "2", "3", "4", "5"];
    texts.iter().for_each(|text| drop(rig.submit(text)));
    rig.log.shutdown().await;
    assert_eq!(rig.calls.try_iter().flatten().collect::<VecDeque<_>>(), texts);
}

#[test]
fn the_last_handle_closes_the_log() {
    let rig = rig(Mode::Blocking);
    drop(rig.submit("last"));
    let Rig { log, calls, acts, synced, .. } = rig;
    drop(log);
    acts.send(Act::Write).unwrap();
    synced.recv_timeout(Duration::from_secs(30)).expect("the writer ends");
    assert_eq!(calls.try_iter().flatten().collect::<Vec<_>>(), ["last"]);
}
