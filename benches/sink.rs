//! Measures what writing events costs a request: CPU time of the whole process per event, including
//! the writer thread, minus that of the same work without a log.
//!
//! Run with `cargo bench --bench sink`, or `cargo bench --bench sink -- always` for one case. Linux
//! only: CPU time is read from `/proc`.

#![allow(unreachable_pub, reason = "a program has no public interface")]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use audit_log::seal::{SealConfig, SealKey};
use audit_log::{CommitSequence, LogBackend, LogConfig, LogPath, Mode, Rotation, SyncMode};
use tokio::runtime::Handle;

/// The size of a typical event of level Metadata.
const LINE: usize = 900;
const EVENTS: usize = 200_000;
/// The number of events if each may wait for the disk. With many tasks it is multiplied by 16, so
/// that a round takes some seconds and has several seals.
const SYNCED_EVENTS: usize = 4_000;
/// Iterations of a loop between two events: some microseconds of work.
const WORK: u32 = 10_000;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
    let runtime = runtime.expect("a runtime");
    let folder =
        std::env::temp_dir().join(format!("kube-audit-proxy-bench-{}", std::process::id()));
    // Cargo adds `--bench`.
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let mut group = "";
    println!("{:<12} {:>6} {:>12} {:>12}", "mode", "tasks", "CPU µs/event", "events/s");
    for tasks in [1, 64] {
        let (without, _) = runtime.block_on(measure(LogBackend::discard(), tasks, EVENTS));
        for (name, mode, sync, sealed) in [
            ("blocking", Mode::Blocking, SyncMode::Off, false),
            ("  sealed", Mode::Blocking, SyncMode::Off, true),
            ("strict", Mode::BlockingStrict, SyncMode::Off, false),
            ("  sealed", Mode::BlockingStrict, SyncMode::Off, true),
            ("interval", Mode::Blocking, SyncMode::Interval(Duration::from_secs(1)), false),
            ("  sealed", Mode::Blocking, SyncMode::Interval(Duration::from_secs(1)), true),
            ("always", Mode::Blocking, SyncMode::Always, false),
            ("  sealed", Mode::Blocking, SyncMode::Always, true),
            ("batch", batch(), SyncMode::Off, false),
            ("  sealed", batch(), SyncMode::Off, true),
        ] {
            if !sealed {
                group = name;
            }
            if only.as_deref().is_some_and(|only| only != group) {
                continue;
            }
            let path = LogPath::File(folder.join("audit.log"));
            std::fs::create_dir_all(&folder).expect("a folder");
            let seal = sealed.then(|| seal(&folder));
            let config = LogConfig { path, mode, rotation: Rotation::NEVER, sync, seal };
            let sink = LogBackend::open(config, Arc::default()).expect("a log");
            let events =
                if sync == SyncMode::Always { SYNCED_EVENTS * tasks.min(16) } else { EVENTS };
            let (with, rate) = runtime.block_on(measure(sink, tasks, events));
            println!("{name:<12} {tasks:>6} {:>12.2} {rate:>12.0}", with - without);
            let _ = std::fs::remove_dir_all(&folder);
        }
    }
}

fn seal(folder: &Path) -> SealConfig {
    let key_file = folder.join("key.pem");
    let key = SealKey::generate().and_then(|key| key.to_pem()).expect("a key");
    std::fs::write(&key_file, key).expect("a disk with room");
    SealConfig { key_file, checkpoint_file: None, head_interval: Duration::from_secs(60) }
}

fn batch() -> Mode {
    Mode::Batch { buffer_size: 1 << 20, max_size: 1, max_wait: Duration::ZERO, throttle: None }
}

/// CPU time per event in microseconds, and events per second; the best of three rounds.
async fn measure(sink: LogBackend, tasks: usize, events: usize) -> (f64, f64) {
    let mut best = (f64::INFINITY, 0.0_f64);
    for _ in 0..3 {
        let (started, cpu) = (Instant::now(), cpu_time());
        // One sequence per thread of the runtime, as for workers.
        let sequence = |_| {
            let (thread, runtime) = (std::thread::current().id(), Handle::current());
            CommitSequence::of_worker(thread, runtime, [&sink])
        };
        let sequences: [CommitSequence; 2] = std::array::from_fn(sequence);
        let running: Vec<_> = (0..tasks)
            .map(|task| {
                let (sink, sequence) = (sink.clone(), sequences[task % 2].clone());
                tokio::spawn(async move {
                    for _ in 0..events / tasks {
                        work();
                        let mut line = vec![b'x'; LINE];
                        line.push(b'\n');
                        sink.submit(line, &sequence).await.expect("a disk with room");
                        // In `blocking` mode, the submitter does not wait, but the task that writes
                        // must be able to run.
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        for task in running {
            task.await.expect("no panic");
        }
        let used = (cpu_time() - cpu).as_secs_f64() * 1e6 / events as f64;
        let rate = events as f64 / started.elapsed().as_secs_f64();
        best = (best.0.min(used), best.1.max(rate));
    }
    sink.shutdown().await;
    best
}

fn work() {
    for turn in 0..WORK {
        black_box(turn);
    }
}

/// User and system time of all threads.
fn cpu_time() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux");
    let nanos = tasks.flatten().filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum::<u64>())
}
