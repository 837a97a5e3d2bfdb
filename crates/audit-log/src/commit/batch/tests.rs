use super::*;

const WAIT: Duration = Duration::from_secs(30);

fn batcher(
    buffer_size: usize,
    max_size: usize,
    throttle: Option<Throttle>,
    now: Instant,
) -> Batcher {
    let mode = Mode::Batch { buffer_size, max_size, max_wait: WAIT, throttle };
    Batcher::new(&mode, CommitStrategy::Queued, now)
}

fn wait(until: Instant, wake_at: usize) -> Step {
    Step::Wait { until: Some(until), wake_at: Some(wake_at) }
}

#[test]
fn a_blocking_write_returns_what_is_available() {
    let now = Instant::now();
    let mut blocking = Batcher::new(&Mode::BlockingStrict, CommitStrategy::Queued, now);
    assert_eq!(blocking.step(0, None, false, now), Step::Wait { until: None, wake_at: Some(1) });
    assert_eq!(blocking.step(7, None, false, now), Step::Take(7));
    assert!(!blocking.is_on_call());
}

#[test]
fn where_others_write_no_event_wakes_the_thread() {
    let now = Instant::now();
    for strategy in [CommitStrategy::Inline, CommitStrategy::Deferred] {
        let mut on_call = Batcher::new(&Mode::Blocking, strategy, now);
        assert!(on_call.is_on_call());
        assert_eq!(on_call.step(0, None, false, now), Step::Wait { until: None, wake_at: None });
        assert_eq!(on_call.step(7, None, false, now), Step::Take(7), "when it is called");
    }
}

#[test]
fn a_batch_is_complete_when_full_or_old_or_at_the_end() {
    let now = Instant::now();
    let step = |length, age, closing| {
        batcher(100, 10, None, now).step(length, Some(now), closing, now + age)
    };
    assert_eq!(step(0, WAIT, true), Step::Wait { until: None, wake_at: Some(1) }, "no empty batch");
    assert_eq!(step(9, Duration::ZERO, false), wait(now + WAIT, 10));
    assert_eq!(step(10, Duration::ZERO, false), Step::Take(10), "full");
    assert_eq!(step(3, WAIT, false), Step::Take(3), "the timer fires");
    assert_eq!(step(3, Duration::ZERO, true), Step::Take(3), "stop");
}

#[test]
fn batches_of_one_have_no_timer() {
    let now = Instant::now();
    assert_eq!(batcher(100, 1, None, now).step(1, Some(now), false, now), Step::Take(1));
}

#[test]
fn the_timer_without_end_has_no_end() {
    let now = Instant::now();
    let mode = Mode::Batch { buffer_size: 9, max_size: 2, max_wait: Duration::MAX, throttle: None };
    let step = Batcher::new(&mode, CommitStrategy::Queued, now).step(1, Some(now), false, now);
    assert_eq!(step, Step::Wait { until: None, wake_at: Some(2) });
}

#[test]
fn a_batch_larger_than_the_buffer_is_complete_when_the_buffer_is_full() {
    let now = Instant::now();
    assert_eq!(batcher(5, 10, None, now).step(5, Some(now), false, now), Step::Take(5));
}

#[test]
fn the_writer_rests_unless_the_queue_is_half_full() {
    let now = Instant::now();
    let mut batcher = batcher(100, 1, None, now);
    assert_eq!(batcher.step(1, Some(now), false, now), Step::Take(1));
    assert_eq!(batcher.step(1, Some(now), false, now), wait(now + REST, 50));
    assert_eq!(batcher.step(50, Some(now), false, now), Step::Take(50));
    assert_eq!(batcher.step(1, Some(now), true, now), Step::Take(1), "stop");
    assert_eq!(batcher.step(1, Some(now), false, now + REST), Step::Take(1));
}

#[test]
fn each_batch_needs_a_token() {
    let now = Instant::now();
    let mut batcher = batcher(100, 10, Some(Throttle { qps: 2.0, burst: 2 }), now);
    let mut step = |after: u64, closing| {
        batcher.step(25, Some(now), closing, now + Duration::from_millis(after))
    };
    assert_eq!(step(0, false), Step::Take(10));
    assert_eq!(step(0, false), Step::Take(10), "the burst");
    let Step::Wait { until: Some(until), wake_at: None } = step(0, false) else {
        panic!("it needs a token");
    };
    assert_eq!(step(0, true), Step::Take(10), "not at the end");
    let next = until.duration_since(now);
    assert!((500..501).contains(&next.as_millis()), "{next:?}");
    assert!(matches!(step(499, false), Step::Wait { .. }));
    assert_eq!(step(501, false), Step::Take(10));
    assert!(matches!(step(501, false), Step::Wait { .. }));
    assert_eq!(step(60_000, false), Step::Take(10));
    assert_eq!(step(60_000, false), Step::Take(10));
    assert!(matches!(step(60_000, false), Step::Wait { .. }), "no more than the burst is saved");
}
