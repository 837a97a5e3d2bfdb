use std::future::poll_fn;
use std::task::Poll;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::{JoinSet, yield_now};

use super::super::tests::*;
use crate::commit::gate::WriteGate;
use crate::commit::writer::*;
use crate::commit::{Commit, CommitLog, CommitSequence};
use crate::output::{Output, Written};
use crate::{Line, LogMetrics, Mode, Plugin};

fn deferred() -> Rig {
    rig_with(Mode::Blocking, true, SyncMode::Off)
}

/// A worker on the current thread, and one of its sockets.
struct Worker {
    sequence: CommitSequence,
    gate: WriteGate,
}

impl Worker {
    fn new(log: &CommitLog) -> Worker {
        Worker::on(log, Handle::current())
    }

    fn on(log: &CommitLog, runtime: Handle) -> Worker {
        let here = std::thread::current().id();
        let sequence = CommitSequence::new(here, runtime, log.progress().cloned().into_iter());
        Worker { gate: WriteGate::new(sequence.clone()), sequence }
    }

    fn submit(&self, rig: &Rig, text: &str) -> Commit {
        rig.log.submit(format!("{text}\n").into_bytes().into(), &self.sequence)
    }

    async fn pass(&mut self) {
        poll_fn(|context| self.gate.poll_end(context)).await;
    }

    async fn is_shut(&mut self) -> bool {
        poll_fn(|context| Poll::Ready(self.gate.poll_end(context).is_pending())).await
    }
}

#[tokio::test]
async fn events_of_one_turn_are_one_write_and_sockets_wait_for_it() {
    let rig = deferred();
    let mut worker = Worker::new(&rig.log);
    assert!(!worker.is_shut().await);
    for text in ["a", "b", "c"] {
        assert!(!pending(&mut worker.submit(&rig, text)), "only the sockets wait");
    }
    assert_eq!(rig.metrics.queue_length(), 3);
    assert!(worker.is_shut().await);
    rig.act(Act::Write);
    worker.pass().await;
    assert_eq!(rig.call(), ["a", "b", "c"]);
    assert_eq!(rig.metrics.queue_length(), 0);
    rig.act(Act::Write);
    drop(worker.submit(&rig, "d"));
    worker.pass().await;
    assert_eq!(rig.call(), ["d"]);
    rig.log.shutdown().await;
    assert_eq!(rig.lost(), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_does_not_pass_before_the_write_has_returned() {
    let rig = deferred();
    let mut worker = Worker::new(&rig.log);
    // The writer thread writes it.
    drop(worker.submit(&rig, "slow"));
    assert_eq!(rig.call(), ["slow"]);
    assert!(worker.is_shut().await);
    rig.act(Act::Write);
    worker.pass().await;
    rig.log.shutdown().await;
}

#[tokio::test]
async fn a_line_that_cannot_be_written_is_counted_before_the_socket_goes_on() {
    for act in [Act::FailAfter(0), Act::Panic] {
        let rig = deferred();
        let mut worker = Worker::new(&rig.log);
        drop(worker.submit(&rig, "lost"));
        rig.act(act);
        worker.pass().await;
        assert_eq!((rig.call(), rig.lost()), (vec!["lost".to_owned()], (1, 0)));
        // Until the log is healthy again, requests wait for their own events only.
        let mut commit = worker.submit(&rig, "next");
        assert!(pending(&mut commit) && !worker.is_shut().await);
        rig.act(Act::Write);
        commit.await.unwrap();
        rig.log.shutdown().await;
    }
}

#[tokio::test]
async fn a_slow_log_is_the_threads_and_order_is_kept() {
    let rig = deferred();
    let mut worker = Worker::new(&rig.log);
    drop(worker.submit(&rig, "accepted"));
    rig.log.writer().reopen();
    let mut commit = worker.submit(&rig, "awaited");
    yield_now().await;
    let mut seen = rig.call();
    rig.act(Act::Write);
    if seen.len() == 1 {
        // The writer thread took the first event before the second was queued.
        seen.extend(rig.call());
        rig.act(Act::Write);
    }
    worker.pass().await;
    assert_eq!(seen, ["accepted", "awaited"]);
    (&mut commit).await.unwrap();
    rig.log.shutdown().await;
}

#[test]
fn what_no_task_writes_is_written_all_the_same() {
    // One runtime ends, the other does not run.
    for ends in [true, false] {
        let rig = deferred();
        let runtime = Builder::new_current_thread().build().unwrap();
        let worker = Worker::on(&rig.log, runtime.handle().clone());
        drop(worker.submit(&rig, "one"));
        drop(worker.submit(&rig, "two"));
        rig.act(Act::Write);
        if ends {
            drop(runtime);
        }
        assert_eq!(rig.call(), ["one", "two"], "by the thread");
        Runtime::new().unwrap().block_on(rig.log.shutdown());
        assert_eq!(rig.lost(), (0, 0));
    }
}

#[test]
fn without_a_worker_the_request_writes_and_waits() {
    let rig = deferred();
    rig.act(Act::Write);
    let mut commit = rig.submit("one");
    assert_eq!(rig.calls.try_recv().unwrap(), ["one"], "at once");
    assert!(!pending(&mut commit));
    // A sequence of another log.
    let other = deferred();
    let runtime = Builder::new_current_thread().build().unwrap();
    let worker = Worker::on(&other.log, runtime.handle().clone());
    rig.act(Act::Write);
    drop(worker.submit(&rig, "two"));
    assert_eq!(rig.calls.try_recv().unwrap(), ["two"], "at once");
}

#[tokio::test]
async fn a_closed_log_rejects_events_without_blocking() {
    let rig = deferred();
    let mut worker = Worker::new(&rig.log);
    rig.log.shutdown().await;
    worker.submit(&rig, "late").await.expect("in blocking the request goes on");
    assert!(!worker.is_shut().await);
    assert_eq!(rig.lost(), (1, 0));
}

/// Counts its writes, and keeps the lines.
#[derive(Clone, Default)]
struct Counting(Arc<Mutex<(usize, Vec<String>)>>);

impl Output for Counting {
    fn is_quick(&self) -> bool {
        true
    }

    fn write(&mut self, lines: &[Line]) -> Written {
        let mut counted = self.0.lock().unwrap();
        counted.0 += 1;
        counted.1.extend(lines.iter().map(|line| String::from_utf8(line.to_vec()).unwrap()));
        Written { whole: lines.len(), error: None }
    }
}

/// Runs requests that each wait for their event. Returns the number of events and of writes.
async fn many_requests() -> (usize, usize) {
    const REQUESTS: usize = 64;
    const ROUNDS: usize = 100;
    let (output, metrics) = (Counting::default(), Arc::new(LogMetrics::default()));
    let log = {
        let (output, mode) = (Box::new(output.clone()), Mode::Blocking);
        CommitLog::start(output, "audit.log", &mode, SyncMode::Off, None, metrics.clone())
    };
    let log = Arc::new(log.unwrap());
    // A multi-threaded runtime with as many workers.
    let workers = [Worker::new(&log), Worker::new(&log)].map(|worker| worker.sequence);
    let threads = Handle::current().metrics().num_workers();
    let mut requests = JoinSet::new();
    for request in 0..REQUESTS {
        let (log, output) = (log.clone(), output.clone());
        let sequence = workers[request % threads].clone();
        requests.spawn(async move {
            let mut worker = Worker { gate: WriteGate::new(sequence.clone()), sequence };
            for round in 0..ROUNDS {
                let line = format!("{request} {round}\n");
                log.submit(line.clone().into_bytes().into(), &worker.sequence).await.unwrap();
                worker.pass().await;
                assert!(output.0.lock().unwrap().1.contains(&line));
            }
        });
    }
    requests.join_all().await;
    log.shutdown().await;
    let (writes, lines) = std::mem::take(&mut *output.0.lock().unwrap());
    assert_eq!((lines.len(), metrics.backend.lost(Plugin::Log)), (REQUESTS * ROUNDS, 0));
    (lines.len(), writes)
}

#[tokio::test]
async fn requests_of_a_worker_share_writes() {
    let (lines, writes) = many_requests().await;
    assert!(writes < lines / 32, "{writes} writes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_threads_do_each_event_is_written_before_it_is_told() {
    many_requests().await;
}
