use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use test_support::TempDir;

fn policy(rules: usize) -> String {
    let rules = "- level: Metadata\n".repeat(rules);
    format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n{rules}")
}

struct Followed {
    dir: TempDir,
    path: PathBuf,
    handle: PolicyHandle,
    reloader: Reloader<PolicyReload>,
    metrics: Arc<ReloadMetrics>,
}

impl Followed {
    fn new() -> Followed {
        let dir = TempDir::new();
        let path = dir.write("policy.yaml", &policy(1));
        let (file, _) = PolicyFile::open(&path).unwrap();
        Followed::of(dir, path, file)
    }

    fn of(dir: TempDir, path: PathBuf, file: PolicyFile) -> Followed {
        let metrics = Arc::new(ReloadMetrics::default());
        Followed {
            dir,
            path,
            handle: file.handle(),
            reloader: file.reloader(metrics.clone()),
            metrics,
        }
    }

    fn poll(&mut self, forced: bool) {
        self.reloader.poll(forced);
    }

    /// Rules and generation of the active policy, then the numbers of successful and failed
    /// reloads.
    fn state(&self) -> (usize, u64, u64, u64) {
        let reloads = |succeeded| self.metrics.count(Reloaded::Policy, succeeded);
        let rules = self.handle.current().rule_count();
        (rules, self.handle.generation(), reloads(true), reloads(false))
    }
}

#[test]
fn a_new_policy_is_active_after_the_next_poll_however_the_file_was_replaced() {
    let mut it = Followed::new();
    let handle = it.handle.clone();
    it.poll(false);
    assert_eq!(it.state(), (1, 1, 0, 0));
    it.dir.write("policy.yaml", &policy(2));
    it.poll(false);
    assert_eq!(it.state(), (2, 2, 1, 0));
    fs::rename(it.dir.write("new.yaml", &policy(3)), &it.path).unwrap();
    it.poll(false);
    assert_eq!(it.state(), (3, 3, 2, 0));
    it.poll(false);
    it.poll(false);
    assert_eq!(it.state(), (3, 3, 2, 0));
    assert_eq!(handle.borrow().rule_count(), 3);
}

#[test]
fn a_config_map_s_links_are_followed() {
    let dir = TempDir::new();
    dir.write("..1/policy.yaml", &policy(1));
    dir.write("..2/policy.yaml", &policy(2));
    symlink("..1", dir.path().join("..data")).unwrap();
    let path = dir.path().join("policy.yaml");
    symlink("..data/policy.yaml", &path).unwrap();
    let (file, _) = PolicyFile::open(&path).unwrap();
    symlink("..2", dir.path().join("..data_tmp")).unwrap();
    fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
    let mut it = Followed::of(dir, path, file);
    it.poll(false);
    assert_eq!(it.state(), (2, 2, 1, 0));
}

#[test]
fn a_bad_file_keeps_the_last_good_policy_and_counts_once() {
    let mut it = Followed::new();
    it.dir.write("policy.yaml", "rules: [");
    it.poll(false);
    it.poll(false);
    it.poll(false);
    assert_eq!(it.state(), (1, 1, 0, 1));
    it.dir.write("policy.yaml", "rules: [}");
    it.poll(false);
    assert_eq!(it.state(), (1, 1, 0, 2));
    it.dir.write("policy.yaml", &policy(2));
    it.poll(false);
    assert_eq!(it.state(), (2, 2, 1, 2));
}

#[test]
fn restoring_the_active_policy_is_not_a_reload() {
    let mut it = Followed::new();
    it.dir.write("policy.yaml", "rules: [");
    it.poll(false);
    it.dir.write("policy.yaml", &policy(1));
    it.poll(false);
    it.poll(false);
    assert_eq!(it.state(), (1, 1, 0, 1));
}

#[test]
fn a_missing_file_keeps_the_policy_until_it_is_back() {
    let mut it = Followed::new();
    fs::remove_file(&it.path).unwrap();
    it.poll(false);
    it.poll(false);
    assert_eq!(it.state(), (1, 1, 0, 1));
    it.dir.write("policy.yaml", &policy(2));
    it.poll(false);
    assert_eq!(it.state(), (2, 2, 1, 1));
}

#[test]
fn forcing_reloads_the_same_content() {
    let mut it = Followed::new();
    it.poll(true);
    assert_eq!(it.state(), (1, 2, 1, 0));
}

async fn until(condition: impl Fn() -> bool) {
    let poll = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), poll).await.unwrap();
}

#[tokio::test]
async fn a_file_that_never_rests_is_loaded_all_the_same() {
    let dir = TempDir::new();
    let path = dir.write("policy.yaml", &policy(1));
    let (file, _) = PolicyFile::open(&path).unwrap();
    let handle = file.handle();
    let (_force, forced) = watch::channel(());
    let metrics = Arc::new(ReloadMetrics::default());
    let interval = Duration::from_millis(100);
    let watching = tokio::spawn(file.watch(metrics.clone(), forced, interval));
    let started = std::time::Instant::now();
    let mut rules = 1;
    while handle.generation() < 4 {
        rules += 1;
        // Different lengths, so that each write is a change whatever the clock's resolution is.
        dir.write("policy.yaml", &policy(2 + rules % 50));
        tokio::time::sleep(Duration::from_millis(3)).await;
        assert!(started.elapsed() < Duration::from_secs(20), "never loaded");
    }
    watching.abort();
}

#[tokio::test]
async fn watching_polls_and_can_be_forced() {
    let dir = TempDir::new();
    let path = dir.write("policy.yaml", &policy(1));
    let metrics = Arc::new(ReloadMetrics::default());
    let sink = PolicyMetrics::default();
    let (file, _) = PolicyFile::open(&path).unwrap();
    let file = file.of_sinks(vec![sink.clone()]);
    assert_eq!(sink.generation.get(), 1);
    let handle = file.handle();
    let (force, forced) = watch::channel(());
    let watching = tokio::spawn(file.watch(metrics.clone(), forced, Duration::from_millis(10)));

    dir.write("policy.yaml", &policy(2));
    until(|| handle.generation() == 2).await;
    assert_eq!(handle.current().rule_count(), 2);
    until(|| sink.generation.get() == 2).await;

    force.send(()).unwrap();
    until(|| handle.generation() == 3).await;

    fs::rename(dir.write("new.yaml", &policy(3)), &path).unwrap();
    until(|| handle.current().rule_count() == 3).await;

    drop(force);
    watching.await.unwrap();
}
