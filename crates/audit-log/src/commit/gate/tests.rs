use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use super::*;
use crate::commit::Progress;

/// Counts how often it was woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Logs, a worker's sequence, and a socket that waits.
struct Rig {
    logs: Vec<Arc<Progress>>,
    sequence: CommitSequence,
    gate: WriteGate,
    woken: Arc<Woken>,
}

fn rig(logs: usize) -> Rig {
    let logs: Vec<Arc<Progress>> = (0..logs).map(|_| Arc::default()).collect();
    let sequence = CommitSequence::here(logs.clone());
    let gate = WriteGate::new(sequence.clone());
    Rig { logs, sequence, gate, woken: Arc::default() }
}

impl Rig {
    fn ask(&mut self, bytes: usize) -> Poll<usize> {
        let waker = Waker::from(self.woken.clone());
        self.gate.poll_writable(bytes, &mut Context::from_waker(&waker))
    }

    fn ask_end(&mut self) -> Poll<()> {
        let waker = Waker::from(self.woken.clone());
        self.gate.poll_end(&mut Context::from_waker(&waker))
    }

    fn woken(&self) -> usize {
        self.woken.0.load(Ordering::SeqCst)
    }
}

#[test]
fn a_gate_without_logs_or_without_a_worker_is_open() {
    for sequence in [CommitSequence::here([]), CommitSequence::detached()] {
        let mut gate = WriteGate::new(sequence);
        let context = &mut Context::from_waker(Waker::noop());
        assert_eq!(gate.poll_writable(10, context), Poll::Ready(10));
        assert_eq!(gate.poll_end(context), Poll::Ready(()));
    }
}

#[test]
fn bytes_pass_when_what_was_accepted_before_is_committed() {
    let mut rig = rig(1);
    assert_eq!(rig.ask(10), Poll::Ready(10), "nothing waits");
    rig.sequence.accept(0);
    rig.sequence.accept(0);
    assert_eq!(rig.ask(0), Poll::Ready(0), "nothing is to be written");
    assert_eq!(rig.ask(10), Poll::Pending);
    rig.logs[0].commit(1);
    assert_eq!(rig.woken(), 1);
    assert_eq!(rig.ask(10), Poll::Pending, "one event is not committed");
    rig.logs[0].commit(1);
    assert_eq!(rig.woken(), 2);
    assert_eq!(rig.ask(20), Poll::Ready(20), "nothing waits any more");
}

#[test]
fn a_socket_does_not_starve_and_what_came_later_waits_for_its_own() {
    let mut rig = rig(1);
    rig.sequence.accept(0);
    assert_eq!(rig.ask(10), Poll::Pending);
    // An event of another request on the same connection.
    rig.sequence.accept(0);
    assert_eq!(rig.ask(25), Poll::Pending);
    rig.logs[0].commit(1);
    assert_eq!(rig.ask(25), Poll::Ready(10));
    assert_eq!(rig.ask(15), Poll::Pending);
    rig.logs[0].commit(1);
    assert_eq!(rig.ask(15), Poll::Ready(15));
}

#[test]
fn the_end_waits_like_bytes_behind_all_others() {
    let mut rig = rig(1);
    rig.sequence.accept(0);
    assert_eq!(rig.ask(10), Poll::Pending);
    rig.sequence.accept(0);
    rig.logs[0].commit(1);
    assert_eq!(rig.ask_end(), Poll::Pending);
    rig.logs[0].commit(1);
    assert_eq!(rig.ask_end(), Poll::Ready(()));
}

#[test]
fn all_logs_are_waited_for_in_whichever_order_they_write() {
    for [first, second] in [[0, 2], [2, 0]] {
        let mut rig = rig(3);
        rig.sequence.accept(first);
        rig.sequence.accept(second);
        assert_eq!(rig.ask(10), Poll::Pending);
        rig.logs[first].commit(1);
        assert_eq!(rig.ask(10), Poll::Pending);
        // Accepted after the wait began, so it does not matter.
        rig.sequence.accept(0);
        rig.logs[second].commit(1);
        assert!(rig.woken() > 0);
        assert_eq!(rig.ask(15), Poll::Ready(10));
    }
}

#[test]
fn a_socket_polled_often_waits_once_with_its_last_waker() {
    let mut rig = rig(1);
    rig.sequence.accept(0);
    for _ in 0..3 {
        let context = &mut Context::from_waker(Waker::noop());
        assert_eq!(rig.gate.poll_writable(10, context), Poll::Pending);
    }
    assert_eq!(rig.ask(10), Poll::Pending);
    assert_eq!(rig.logs[0].waiting(), 1);
    rig.logs[0].commit(1);
    assert_eq!(rig.woken(), 1);
}

#[test]
fn what_other_workers_have_accepted_is_not_waited_for() {
    let mut rig = rig(1);
    CommitSequence::here(rig.logs.clone()).accept(0);
    assert_eq!(rig.ask(10), Poll::Ready(10));
    rig.sequence.accept(0);
    rig.logs[0].commit(1);
    assert_eq!(rig.ask(10), Poll::Pending, "its event is behind the other's");
    rig.logs[0].commit(1);
    assert_eq!(rig.ask(10), Poll::Ready(10));
}

#[tokio::test]
async fn a_request_can_wait_for_the_sequence_itself() {
    let rig = rig(1);
    rig.sequence.committed().await;
    rig.sequence.accept(0);
    let waiting = tokio::spawn({
        let sequence = rig.sequence.clone();
        async move { sequence.committed().await }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    rig.logs[0].commit(1);
    waiting.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_wake_up_is_lost() {
    const SOCKETS: usize = 16;
    const ROUNDS: u64 = 3_000;
    let log = Arc::new(Progress::default());
    // Like the lock of the log's queue: it makes the numbers of the events grow monotonically.
    let queue = Arc::new(std::sync::Mutex::new(()));
    let writer = {
        let log = log.clone();
        std::thread::spawn(move || {
            let mut committed = 0;
            while committed < SOCKETS as u64 * ROUNDS {
                let accepted = log.accepted();
                log.commit(accepted - committed);
                committed = accepted;
                std::thread::yield_now();
            }
        })
    };
    let mut sockets = tokio::task::JoinSet::new();
    for socket in 0..SOCKETS {
        let (log, queue) = (log.clone(), queue.clone());
        // Half of the sockets are on the thread that commits; the others are woken from another
        // thread.
        let sequence = match socket % 2 {
            0 => CommitSequence::here([log.clone()]),
            _ => {
                let runtime = tokio::runtime::Handle::current();
                let elsewhere = std::thread::spawn(|| std::thread::current().id()).join().unwrap();
                CommitSequence::new(elsewhere, runtime, [log.clone()].into_iter())
            }
        };
        sockets.spawn(async move {
            let mut gate = WriteGate::new(sequence.clone());
            for _ in 0..ROUNDS {
                {
                    let _locked = queue.lock().unwrap();
                    sequence.accept(0);
                }
                let accepted = sequence.logs()[0].last();
                let mut rest = 10;
                while rest > 0 {
                    rest -= poll_fn(|context| gate.poll_writable(rest, context)).await;
                }
                assert!(log.is_committed(accepted));
            }
        });
    }
    let all = tokio::time::timeout(Duration::from_secs(60), sockets.join_all());
    all.await.expect("all were woken");
    writer.join().unwrap();
}
