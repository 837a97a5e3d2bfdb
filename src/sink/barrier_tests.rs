use std::future::poll_fn;
use std::sync::atomic::AtomicUsize;
use std::task::Wake;
use std::time::Duration;

use super::*;

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Sinks, and a socket that waits for them.
struct Rig {
    sinks: Vec<Arc<Owed>>,
    gate: Gate,
    woken: Arc<Woken>,
}

fn rig(sinks: usize) -> Rig {
    let sinks: Vec<Arc<Owed>> = (0..sinks).map(|_| Arc::default()).collect();
    let barrier = Barrier::default();
    barrier.hold_for(sinks.iter().cloned());
    Rig { sinks, gate: Gate::new(barrier), woken: Arc::default() }
}

impl Rig {
    fn ask(&mut self, bytes: usize) -> Poll<usize> {
        let waker = Waker::from(self.woken.clone());
        self.gate.poll_pass(bytes, &mut Context::from_waker(&waker))
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
fn a_barrier_without_sinks_is_open() {
    let mut gate = Gate::new(Barrier::default());
    let context = &mut Context::from_waker(Waker::noop());
    assert_eq!(gate.poll_pass(10, context), Poll::Ready(10));
    assert_eq!(gate.poll_end(context), Poll::Ready(()));
}

#[test]
fn bytes_pass_when_what_was_accepted_before_is_done() {
    let mut rig = rig(1);
    assert_eq!(rig.ask(10), Poll::Ready(10), "nothing waits");
    rig.sinks[0].accept();
    rig.sinks[0].accept();
    assert_eq!(rig.ask(0), Poll::Ready(0), "nothing is to be written");
    assert_eq!(rig.ask(10), Poll::Pending);
    rig.sinks[0].done(1);
    assert_eq!(rig.woken(), 1);
    assert_eq!(rig.ask(10), Poll::Pending, "one line is not done");
    rig.sinks[0].done(1);
    assert_eq!(rig.woken(), 2);
    assert_eq!(rig.ask(20), Poll::Ready(20), "nothing waits any more");
}

#[test]
fn a_socket_does_not_starve_and_what_came_later_waits_for_its_own() {
    let mut rig = rig(1);
    rig.sinks[0].accept();
    assert_eq!(rig.ask(10), Poll::Pending);
    // Of another request, on the same connection.
    rig.sinks[0].accept();
    assert_eq!(rig.ask(25), Poll::Pending);
    rig.sinks[0].done(1);
    assert_eq!(rig.ask(25), Poll::Ready(10));
    assert_eq!(rig.ask(15), Poll::Pending);
    rig.sinks[0].done(1);
    assert_eq!(rig.ask(15), Poll::Ready(15));
}

#[test]
fn the_end_waits_like_bytes_behind_all_others() {
    let mut rig = rig(1);
    rig.sinks[0].accept();
    assert_eq!(rig.ask(10), Poll::Pending);
    rig.sinks[0].accept();
    rig.sinks[0].done(1);
    assert_eq!(rig.ask_end(), Poll::Pending);
    rig.sinks[0].done(1);
    assert_eq!(rig.ask_end(), Poll::Ready(()));
}

#[test]
fn all_sinks_are_waited_for_in_whichever_order_they_write() {
    for [first, second] in [[0, 2], [2, 0]] {
        let mut rig = rig(3);
        rig.sinks[first].accept();
        rig.sinks[second].accept();
        assert_eq!(rig.ask(10), Poll::Pending);
        rig.sinks[first].done(1);
        assert_eq!(rig.ask(10), Poll::Pending);
        // Later than what is waited for.
        rig.sinks[0].accept();
        rig.sinks[second].done(1);
        assert!(rig.woken() > 0);
        assert_eq!(rig.ask(15), Poll::Ready(10));
    }
}

#[test]
fn a_socket_that_asks_often_waits_once_with_its_last_waker() {
    let mut rig = rig(1);
    rig.sinks[0].accept();
    for _ in 0..3 {
        let context = &mut Context::from_waker(Waker::noop());
        assert_eq!(rig.gate.poll_pass(10, context), Poll::Pending);
    }
    assert_eq!(rig.ask(10), Poll::Pending);
    assert_eq!(rig.sinks[0].lock().sockets.len(), 1);
    rig.sinks[0].done(1);
    assert_eq!(rig.woken(), 1);
}

#[test]
fn what_other_threads_have_accepted_is_not_waited_for() {
    let mut rig = rig(1);
    let owed = rig.sinks[0].clone();
    std::thread::spawn(move || owed.accept()).join().unwrap();
    assert_eq!(rig.ask(10), Poll::Ready(10));
    rig.sinks[0].accept();
    rig.sinks[0].done(1);
    assert_eq!(rig.ask(10), Poll::Pending, "its line is behind the other's");
    rig.sinks[0].done(1);
    assert_eq!(rig.ask(10), Poll::Ready(10));
}

// Each task stays on its thread until it waits, and remembers then what it waits for.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_wake_up_is_lost() {
    const SOCKETS: usize = 16;
    const ROUNDS: u64 = 3_000;
    let owed = Arc::new(Owed::default());
    let barrier = Barrier::default();
    barrier.hold_for([owed.clone()].into_iter());
    let writer = {
        let owed = owed.clone();
        std::thread::spawn(move || {
            let mut done = 0;
            while done < SOCKETS as u64 * ROUNDS {
                let accepted = owed.accepted.load(Ordering::Acquire);
                owed.done(accepted - done);
                done = accepted;
                std::thread::yield_now();
            }
        })
    };
    let mut sockets = tokio::task::JoinSet::new();
    for _ in 0..SOCKETS {
        let (owed, mut gate) = (owed.clone(), Gate::new(barrier.clone()));
        sockets.spawn(async move {
            for _ in 0..ROUNDS {
                owed.accept();
                let accepted = owed.accepted_here();
                let mut rest = 10;
                while rest > 0 {
                    rest -= poll_fn(|context| gate.poll_pass(rest, context)).await;
                }
                assert!(owed.is_done(accepted));
            }
        });
    }
    let all = tokio::time::timeout(Duration::from_secs(60), sockets.join_all());
    all.await.expect("all were woken");
    writer.join().unwrap();
}
