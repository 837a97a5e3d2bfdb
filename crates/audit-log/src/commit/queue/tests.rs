use super::*;
use crate::commit::{Commit, WhenFailed};

#[test]
fn an_inline_write_comes_after_queued_lines() {
    let metrics = Arc::new(LogMetrics::default());
    let queue = Queue::new(WhenFull::Wait, metrics.clone());
    let (commit, _) = Commit::waiting(WhenFailed::Refuse);
    let first = b"first\n".to_vec().into();
    queue.push(first, Some(Waiter::Request(commit)), Wake::ForBatch).unwrap();
    assert_eq!(metrics.queue_length(), 1);
    let mut group = Group::default();
    queue.take_with(b"second\n".to_vec().into(), &mut group).unwrap();
    let lines: Vec<&[u8]> = group.lines.iter().map(|line| &**line).collect();
    assert_eq!((lines, group.waiters.len()), (vec![&b"first\n"[..], b"second\n"], 1));
    assert_eq!(metrics.queue_length(), 0, "nothing waits any more");
    queue.close();
    assert!(queue.take_with(b"third\n".to_vec().into(), &mut Group::default()).is_err());
}
