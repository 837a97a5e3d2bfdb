use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::*;
use test_support::TempDir;

/// Applies a file unless it contains "bad", and remembers the outcomes.
struct Text {
    path: PathBuf,
    /// Why each content is rejected, if a file that it refers to is the reason.
    reason: Arc<Mutex<Option<String>>>,
    seen: Arc<Mutex<Vec<String>>>,
    /// Runs while the file is read.
    while_read: Box<dyn FnMut() + Send>,
}

impl Text {
    fn push(&self, entry: String) {
        self.seen.lock().unwrap().push(entry);
    }
}

impl Reload for Text {
    type Content = String;
    type Error = String;

    fn read(&mut self, _: &FileWatcher) -> Result<String, String> {
        let text = fs::read_to_string(&self.path).map_err(|_| "unreadable".to_owned());
        (self.while_read)();
        text
    }

    fn apply(&mut self, content: &String, _: bool) -> Result<(), String> {
        if let Some(reason) = &*self.reason.lock().unwrap() {
            return Err(reason.clone());
        }
        match content.contains("bad") {
            true => Err("invalid".to_owned()),
            false => {
                self.push(content.clone());
                Ok(())
            }
        }
    }

    fn report(&mut self, outcome: Outcome<'_, String>) {
        self.push(format!("{outcome:?}"));
    }
}

struct Followed {
    dir: TempDir,
    path: PathBuf,
    reason: Arc<Mutex<Option<String>>>,
    seen: Arc<Mutex<Vec<String>>>,
    reloader: Reloader<Text>,
}

impl Followed {
    fn new() -> Followed {
        let dir = TempDir::new();
        let path = dir.write("file", "first");
        let reason = Arc::<Mutex<Option<String>>>::default();
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let text = Text {
            path: path.clone(),
            reason: reason.clone(),
            seen: seen.clone(),
            while_read: Box::new(|| {}),
        };
        let files = FileWatcher::new(vec![path.clone()]);
        let reloader = Reloader::new(files, "first".to_owned(), text);
        Followed { dir, path, reason, seen, reloader }
    }

    /// Returns what was applied and reported since the last call.
    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    fn poll(&mut self) -> Vec<String> {
        self.reloader.poll(false);
        self.seen()
    }
}

const INVALID: &str = "Rejected(\"invalid\")";
const RELOADED: &str = "Reloaded { is_changed: true }";

#[test]
fn changed_content_is_applied_once() {
    let mut it = Followed::new();
    assert!(it.poll().is_empty());
    it.dir.write("file", "second");
    assert_eq!(it.poll(), ["second", RELOADED]);
    assert!(it.poll().is_empty());
    // Another file with the same content.
    fs::rename(it.dir.write("new", "second"), &it.path).unwrap();
    assert!(it.poll().is_empty());
}

#[test]
fn a_forced_reload_applies_unchanged_content() {
    let mut it = Followed::new();
    it.reloader.poll(true);
    assert_eq!(it.seen(), ["first", "Reloaded { is_changed: false }"]);
    assert!(it.poll().is_empty());
}

#[test]
fn rejections_are_reported_once_for_each_content_and_reason() {
    let mut it = Followed::new();
    it.dir.write("file", "bad");
    assert_eq!(it.poll(), [INVALID]);
    assert!(it.poll().is_empty());
    it.dir.write("file", "also bad");
    assert_eq!(it.poll(), [INVALID]);
    fs::remove_file(&it.path).unwrap();
    assert_eq!(it.poll(), ["Rejected(\"unreadable\")"]);
    assert!(it.poll().is_empty());
    it.reloader.poll(true);
    assert_eq!(it.seen(), ["Rejected(\"unreadable\")"]);
    it.dir.write("file", "good");
    assert_eq!(it.poll(), ["good", RELOADED]);
}

#[test]
fn the_active_content_may_come_back() {
    let mut it = Followed::new();
    it.dir.write("file", "bad");
    assert_eq!(it.poll(), [INVALID]);
    it.dir.write("file", "first");
    assert_eq!(it.poll(), ["Restored"]);
    assert!(it.poll().is_empty());
}

#[test]
fn rejected_files_are_tried_again_even_if_they_seem_unchanged() {
    let mut it = Followed::new();
    it.dir.write("file", "bad");
    for _ in 0..3 {
        it.poll();
    }
    it.dir.write("file", "good");
    // A change that a coarse time stamp hides.
    assert!(it.reloader.files.changed());
    it.reloader.look(Look { changed: false, forced: false, lenient: false });
    assert_eq!(it.seen(), ["good", RELOADED]);

    // A file that this one refers to.
    *it.reason.lock().unwrap() = Some("no certificate".to_owned());
    it.dir.write("file", "other");
    assert_eq!(it.poll(), ["Rejected(\"no certificate\")"]);
    assert!(it.poll().is_empty());
    *it.reason.lock().unwrap() = Some("no key".to_owned());
    assert_eq!(it.poll(), ["Rejected(\"no key\")"]);
    *it.reason.lock().unwrap() = None;
    assert_eq!(it.poll(), ["other", RELOADED]);
}

#[test]
fn a_second_change_with_the_same_time_stamp_is_noticed() {
    let mut it = Followed::new();
    it.dir.write("file", "second");
    assert_eq!(it.poll(), ["second", RELOADED]);
    it.dir.write("file", "third");
    assert!(it.reloader.files.changed());
    it.reloader.look(Look { changed: false, forced: false, lenient: false });
    assert_eq!(it.seen(), ["third", RELOADED]);
    it.dir.write("file", "fourth");
    assert!(it.reloader.files.changed());
    it.reloader.look(Look { changed: false, forced: false, lenient: false });
    assert!(it.seen().is_empty(), "one poll later the time stamp is another one");
}

#[test]
fn files_in_motion_are_only_taken_if_they_are_whole() {
    let mut it = Followed::new();
    let lenient = Look { changed: true, forced: false, lenient: true };
    it.dir.write("file", "bad");
    assert!(it.reloader.files.changed());
    assert!(!it.reloader.look(lenient), "invalid: it may be half of a file");
    let (path, mut writes) = (it.path.clone(), ["goo", "good"].iter());
    it.reloader.reload.while_read = Box::new(move || {
        if let Some(text) = writes.next() {
            fs::write(&path, text).unwrap();
        }
    });
    assert!(!it.reloader.look(lenient), "written while it was read");
    assert!(!it.reloader.look(lenient), "written while it was read");
    fs::remove_file(&it.path).unwrap();
    assert!(!it.reloader.look(lenient), "it may be about to be renamed");
    assert!(it.seen().is_empty());
    it.dir.write("file", "good");
    assert!(it.reloader.files.changed());
    assert!(it.reloader.look(lenient));
    assert_eq!(it.seen(), ["good", RELOADED]);
}

#[test]
fn continuous_change_is_reported_once_until_it_ends() {
    let mut it = Followed::new();
    for is_in_motion in [false, true, true, false, true] {
        it.reloader.note_motion(is_in_motion);
    }
    assert_eq!(it.seen(), ["InMotion", "InMotion"]);
}

#[tokio::test]
async fn files_are_followed_until_the_sender_is_dropped() {
    let it = Followed::new();
    let (force, forced) = watch::channel(());
    let (dir, seen) = (it.dir, it.seen);
    let following = tokio::spawn(it.reloader.follow(forced, Duration::from_millis(10)));
    let until = |expected: &'static [&str]| {
        let seen = seen.clone();
        async move {
            while *seen.lock().unwrap() != expected {
                sleep(Duration::from_millis(1)).await;
            }
            seen.lock().unwrap().clear();
        }
    };
    dir.write("file", "second");
    until(&["second", RELOADED]).await;
    force.send_replace(());
    until(&["second", "Reloaded { is_changed: false }"]).await;
    drop(force);
    following.await.unwrap();
}
