use std::future::poll_fn;
use std::task::Poll;

use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinSet, yield_now};

use super::super::tests::*;
use crate::sink::barrier::{Barrier, Gate};
use crate::sink::output::{Output, Written};
use crate::sink::writer::*;
use crate::sink::{Line, Mode, Sink};
use crate::sink::{LogMetrics, Plugin};

fn lenient() -> Rig {
    rig_with(Mode::Blocking, true, SyncMode::Off)
}

fn gate(sink: &Sink) -> Gate {
    let barrier = Barrier::default();
    barrier.hold_for(sink.owed().into_iter());
    Gate::new(barrier)
}

async fn pass(gate: &mut Gate) {
    poll_fn(|context| gate.poll_end(context)).await;
}

async fn is_shut(gate: &mut Gate) -> bool {
    poll_fn(|context| Poll::Ready(gate.poll_end(context).is_pending())).await
}

#[tokio::test]
async fn lines_of_one_turn_are_one_write_and_sockets_wait_for_it() {
    let rig = lenient();
    let mut gate = gate(&rig.sink);
    assert!(!is_shut(&mut gate).await);
    for text in ["a", "b", "c"] {
        assert!(!pending(&mut rig.submit(text)), "nobody waits but the sockets");
    }
    assert_eq!(rig.metrics.queue_length(), 3);
    assert!(is_shut(&mut gate).await);
    rig.act(Act::Write);
    pass(&mut gate).await;
    assert_eq!(rig.call(), ["a", "b", "c"]);
    assert_eq!(rig.metrics.queue_length(), 0);
    rig.act(Act::Write);
    drop(rig.submit("d"));
    pass(&mut gate).await;
    assert_eq!(rig.call(), ["d"]);
    rig.sink.shutdown().await;
    assert_eq!(rig.lost(), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_does_not_pass_before_the_write_has_returned() {
    let rig = lenient();
    let mut gate = gate(&rig.sink);
    // Another thread writes it.
    drop(rig.submit("slow"));
    assert_eq!(rig.call(), ["slow"]);
    assert!(is_shut(&mut gate).await);
    rig.act(Act::Write);
    pass(&mut gate).await;
    rig.sink.shutdown().await;
}

#[tokio::test]
async fn a_line_that_cannot_be_written_is_counted_before_the_socket_goes_on() {
    for act in [Act::FailAfter(0), Act::Panic] {
        let rig = lenient();
        let mut gate = gate(&rig.sink);
        drop(rig.submit("lost"));
        rig.act(act);
        pass(&mut gate).await;
        assert_eq!((rig.call(), rig.lost()), (vec!["lost".to_owned()], (1, 0)));
        // Until it is well again requests wait, and others do not wait for theirs.
        let mut ack = rig.submit("next");
        assert!(pending(&mut ack) && !is_shut(&mut gate).await);
        rig.act(Act::Write);
        ack.await.unwrap();
        rig.sink.shutdown().await;
    }
}

#[tokio::test]
async fn a_slow_log_is_the_threads_and_order_is_kept() {
    let rig = lenient();
    let mut gate = gate(&rig.sink);
    drop(rig.submit("accepted"));
    rig.sink.reopen();
    let mut ack = rig.submit("awaited");
    yield_now().await;
    let mut seen = rig.call();
    rig.act(Act::Write);
    if seen.len() == 1 {
        // The thread was quicker than the second.
        seen.extend(rig.call());
        rig.act(Act::Write);
    }
    pass(&mut gate).await;
    assert_eq!(seen, ["accepted", "awaited"]);
    (&mut ack).await.unwrap();
    rig.sink.shutdown().await;
}

#[test]
fn what_no_runtime_flushes_is_written_all_the_same() {
    // A runtime that ends, one that does not run, and none.
    for runtime in [true, false].map(|ends| (ends, Builder::new_current_thread().build().unwrap()))
    {
        let rig = lenient();
        let (ends, runtime) = runtime;
        {
            let _entered = runtime.enter();
            drop(rig.submit("one"));
            drop(rig.submit("two"));
        }
        rig.act(Act::Write);
        if ends {
            drop(runtime);
            assert_eq!(rig.call(), ["one", "two"], "by the thread");
        }
        Runtime::new().unwrap().block_on(rig.sink.shutdown());
        assert_eq!(rig.calls.try_iter().flatten().count(), if ends { 0 } else { 2 });
        assert_eq!(rig.lost(), (0, 0));
    }
    let rig = lenient();
    rig.act(Act::Write);
    drop(rig.submit("one"));
    assert_eq!(rig.calls.try_recv().unwrap(), ["one"], "at once");
}

#[test]
fn a_flush_that_does_not_come_is_made_up_for_by_the_thread() {
    let rig = lenient();
    let runtime = Builder::new_current_thread().build().unwrap();
    let entered = runtime.enter();
    drop(rig.submit("one"));
    rig.act(Act::Write);
    assert_eq!(rig.call(), ["one"]);
    drop(entered);
}

#[tokio::test]
async fn after_its_end_a_log_refuses_and_holds_up_nobody() {
    let rig = lenient();
    let mut gate = gate(&rig.sink);
    rig.sink.shutdown().await;
    assert!(matches!(rig.submit("late").await, Err(WriteError::ShutDown)));
    assert!(!is_shut(&mut gate).await);
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

/// Requests that each see their line written before they go on; gives lines and writes.
async fn many_requests() -> (usize, usize) {
    const REQUESTS: usize = 64;
    const ROUNDS: usize = 100;
    let (output, metrics) = (Counting::default(), Arc::new(LogMetrics::default()));
    let sink = {
        let (output, mode) = (Box::new(output.clone()), Mode::Blocking);
        Sink::start(output, "audit.log", mode, SyncMode::Off, None, metrics.clone()).unwrap()
    };
    let mut requests = JoinSet::new();
    for request in 0..REQUESTS {
        let (sink, output) = (sink.clone(), output.clone());
        requests.spawn(async move {
            let mut gate = gate(&sink);
            for round in 0..ROUNDS {
                let line = format!("{request} {round}\n");
                sink.submit(line.clone().into_bytes()).await.unwrap();
                pass(&mut gate).await;
                assert!(output.0.lock().unwrap().1.contains(&line));
            }
        });
    }
    requests.join_all().await;
    sink.shutdown().await;
    let (writes, lines) = std::mem::take(&mut *output.0.lock().unwrap());
    assert_eq!((lines.len(), metrics.backend.lost(Plugin::Log)), (REQUESTS * ROUNDS, 0));
    (lines.len(), writes)
}

#[tokio::test]
async fn requests_of_a_thread_share_writes() {
    let (lines, writes) = many_requests().await;
    assert!(writes < lines / 32, "{writes} writes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_threads_do_each_line_is_written_before_it_is_told() {
    many_requests().await;
}
