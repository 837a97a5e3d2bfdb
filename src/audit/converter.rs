//! Threads that convert large bodies, so that no worker thread, and with it no other client, waits
//! for that.
//!
//! Each user has a queue and at most one conversion under way at a time; users take turns. So
//! whoever sends many or hostile bodies waits for himself only. The threads have a low priority,
//! are few, and are started when the first large body comes.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::sync::{Notify, oneshot};

/// The nice value of the threads, so that requests come before conversions.
const NICENESS: i32 = 5;

/// Runs conversions. The threads end when this is dropped and nothing is left to do.
pub(super) struct Converter(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    /// Told when nothing is left to do.
    idle: Notify,
    most_threads: usize,
}

#[derive(Default)]
struct State {
    /// The queue of each user who has something to do.
    queues: HashMap<Arc<str>, Queue>,
    /// Users whose next conversion can begin, in turn.
    turns: VecDeque<Arc<str>>,
    threads: usize,
    /// Threads that wait.
    waiting: usize,
    closed: bool,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    is_running: bool,
}

type Job = Box<dyn FnOnce() + Send>;

impl Converter {
    /// Starts no thread yet. There will be half as many as processors, but at least two, so that
    /// two users can convert at the same time.
    pub(super) fn new() -> Converter {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        Converter(Arc::new(Shared {
            state: Mutex::default(),
            wake: Condvar::new(),
            idle: Notify::new(),
            most_threads: (processors / 2).max(2),
        }))
    }

    /// Has `convert` run in the queue of `user`. What it returns comes through the receiver, which
    /// fails if it panics.
    pub(super) fn run<T: Send + 'static>(
        &self,
        user: &str,
        convert: impl FnOnce() -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (sender, receiver) = oneshot::channel();
        let job: Job = Box::new(move || {
            // If no request waits for the result any more, dropping it ends the record in it.
            drop(sender.send(convert()));
        });
        if let Err(job) = self.0.submit(user, job) {
            // There is no thread. It is late then, but not lost.
            job();
        }
        receiver
    }

    /// Returns when nothing is left to do.
    pub(super) async fn finished(&self) {
        loop {
            let idle = self.0.idle.notified();
            if self.0.lock().queues.is_empty() {
                return;
            }
            idle.await;
        }
    }
}

impl Drop for Converter {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.wake.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No job runs while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the job back if there is no thread to run it.
    fn submit(self: &Arc<Self>, user: &str, job: Job) -> Result<(), Job> {
        let mut state = self.lock();
        if state.waiting == 0 && state.threads < self.most_threads {
            let shared = self.clone();
            let name = "audit-convert".to_owned();
            match thread::Builder::new().name(name).spawn(move || shared.work()) {
                Ok(_) => state.threads += 1,
                Err(error) if state.threads == 0 => {
                    tracing::warn!(%error, "cannot start a thread to convert bodies");
                    return Err(job);
                }
                Err(_) => {}
            }
        }
        state.enqueue(user, job);
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    fn work(&self) {
        // A lower priority is a courtesy; where it is not allowed, conversions have the usual one.
        let _ = rustix::process::setpriority_process(None, NICENESS);
        let mut state = self.lock();
        loop {
            let Some((user, job)) = state.next() else {
                if state.closed {
                    return;
                }
                state.waiting += 1;
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.waiting -= 1;
                continue;
            };
            drop(state);
            // A panic has written what is left of its record.
            let _ = catch_unwind(AssertUnwindSafe(job));
            state = self.lock();
            state.done(user);
            if state.queues.is_empty() {
                self.idle.notify_waiters();
            }
        }
    }
}

impl State {
    fn enqueue(&mut self, user: &str, job: Job) {
        let user: Arc<str> = match self.queues.get_key_value(user) {
            Some((known, _)) => known.clone(),
            None => user.into(),
        };
        let queue = self.queues.entry(user.clone()).or_default();
        queue.jobs.push_back(job);
        if !queue.is_running && queue.jobs.len() == 1 {
            self.turns.push_back(user);
        }
    }

    fn next(&mut self) -> Option<(Arc<str>, Job)> {
        let user = self.turns.pop_front()?;
        let queue = self.queues.get_mut(&user)?;
        let job = queue.jobs.pop_front()?;
        queue.is_running = true;
        Some((user, job))
    }

    fn done(&mut self, user: Arc<str>) {
        let Some(queue) = self.queues.get_mut(&user) else { return };
        queue.is_running = false;
        if queue.jobs.is_empty() {
            self.queues.remove(&user);
        } else {
            self.turns.push_back(user);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_user_waits_only_for_its_own_conversions() {
        let converter = Converter::new();
        let (release, released) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        let first = {
            let tell = tell.clone();
            converter.run("hostile", move || {
                let _ = released.recv();
                tell.send("first").unwrap();
            })
        };
        let others: Vec<_> = (0..50)
            .map(|_| {
                let tell = tell.clone();
                converter.run("hostile", move || tell.send("later").unwrap())
            })
            .collect();
        // It neither waits for the one that is stuck nor for the fifty behind it.
        assert_eq!(converter.run("other", || 7).await, Ok(7));
        assert!(told.try_recv().is_err(), "one conversion of a user at a time");
        release.send(()).unwrap();
        first.await.unwrap();
        for other in others {
            other.await.unwrap();
        }
        converter.finished().await;
        assert_eq!(told.try_iter().next(), Some("first"), "in order");
    }

    #[tokio::test]
    async fn a_panic_ends_its_conversion_only() {
        let converter = Converter::new();
        let failed = converter.run("a", || panic!("on purpose"));
        assert!(failed.await.is_err());
        assert_eq!(converter.run("a", || 1).await, Ok(1));
    }

    #[tokio::test]
    async fn a_started_review_completes_without_a_waiting_request() {
        let converter = Converter::new();
        let (tell, told) = mpsc::channel();
        drop(converter.run("a", move || tell.send(()).unwrap()));
        drop(converter);
        told.recv().unwrap();
    }
}
