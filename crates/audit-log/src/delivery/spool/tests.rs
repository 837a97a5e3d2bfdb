use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::test_folder::TestFolder;
use crate::webhook::WebhookError;

fn open(dir: &Path, max_size: u64) -> Result<Arc<Spool>, WebhookError> {
    let config = SpoolConfig { dir: dir.to_owned(), max_size };
    let about = &crate::webhook::SPOOL;
    let opened = Spool::open(&config, about, Arc::default()).map(Arc::new);
    opened.map_err(|error| WebhookError::spool(dir.to_owned(), error))
}

async fn push(spool: &Arc<Spool>, content: &str, events: u64) -> Result<(), SpoolError> {
    spool.push(content.as_bytes().to_vec(), events, &CancellationToken::new()).await
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    files.sort();
    files
}

#[tokio::test]
async fn existing_batches_come_first_and_those_beyond_the_limit_are_rejected() {
    let dir = TestFolder::new();
    let path = dir.path().join("spool");
    let spool = open(&path, 10).unwrap();
    push(&spool, "first", 2).await.unwrap();
    assert!(matches!(push(&spool, "second", 1).await, Err(SpoolError::Full(_))));
    push(&spool, "third", 3).await.unwrap();
    drop(spool);

    // The next start ignores a batch that was being written, and files of other programs.
    fs::write(path.join("new.tmp"), "half a ba").unwrap();
    fs::write(path.join("readme.json"), "").unwrap();
    // A batch of an earlier version, and a file that only has the name of a batch.
    fs::write(path.join("00000000000000000007-5.json"), "old").unwrap();
    fs::create_dir(path.join("00000000000000000009-5.json")).unwrap();
    let spool = open(&path, 100).unwrap();
    assert!(!path.join("new.tmp").exists());
    push(&spool, "fourth", 4).await.unwrap();
    spool.close();
    let mut found = Vec::new();
    while let Some(batch) = spool.oldest().await {
        let content = batch.directory.read(&batch.name.file_name(Kind::Pending)).unwrap();
        found.push((String::from_utf8(content).unwrap(), batch.name.events));
        spool.forget(&batch);
    }
    let expected = [("first", 2), ("third", 3), ("old", 5), ("fourth", 4)];
    assert_eq!(found, expected.map(|(text, events)| (text.to_owned(), events)));
    assert_eq!(spool.metrics.spool_bytes.get(), 0);
}

#[tokio::test]
async fn a_pause_ends_when_the_spool_is_closed() {
    let dir = TestFolder::new();
    let spool = open(dir.path(), 10).unwrap();
    assert!(spool.wait(Duration::from_millis(1)).await);
    spool.close();
    assert!(!spool.wait(Duration::from_secs(3600)).await);
}

#[tokio::test]
async fn a_spool_has_one_owner() {
    let dir = TestFolder::new();
    let _first = open(dir.path(), 10).unwrap();
    let error = open(&dir.path().join("."), 10).unwrap_err();
    assert_eq!(error.setting(), "spool-dir");
    let error = error.to_string();
    assert!(error.contains(" is in use: another process, or another backend"), "{error}");
}

#[tokio::test]
async fn a_missing_directory_is_recreated_and_a_restored_one_is_used() {
    let dir = TestFolder::new();
    let (path, away) = (dir.path().join("spool"), dir.path().join("away"));
    let spool = open(&path, 100).unwrap();
    push(&spool, "first", 1).await.unwrap();
    fs::rename(&path, &away).unwrap();
    push(&spool, "second", 1).await.unwrap();
    assert_eq!((files(&path, "json").len(), files(&away, "json").len()), (1, 1));
    // Batches in the moved directory can still be sent.
    let batch = spool.oldest().await.unwrap();
    let name = batch.name.file_name(Kind::Pending);
    assert_eq!(batch.directory.read(&name).unwrap(), b"first");
    fs::remove_dir_all(&away).unwrap();
    assert!(batch.directory.read(&name).is_err());
    // The new directory at the path has a copy of the batch.
    fs::remove_dir_all(&path).unwrap();
    fs::create_dir(&path).unwrap();
    fs::write(path.join(&name), "first").unwrap();
    push(&spool, "third", 1).await.unwrap();
    let batch = spool.oldest().await.unwrap();
    assert_eq!(batch.directory.read(&name).unwrap(), b"first");
}

#[tokio::test]
async fn a_failed_write_is_retried_until_the_shutdown_times_out() {
    let dir = TestFolder::new();
    let path = dir.path().join("spool");
    let spool = open(&path, 100).unwrap();
    // A file is in the place of the directory.
    fs::remove_dir(&path).unwrap();
    fs::write(&path, "").unwrap();
    let give_up = CancellationToken::new();
    let (pushing, ending) = (spool.clone(), give_up.clone());
    let pushing = tokio::spawn(async move { pushing.push(b"a".to_vec(), 1, &ending).await });
    while spool.state() == BackendState::Ok {
        tokio::task::yield_now().await;
    }
    let BackendState::Failing(reason) = spool.state() else { panic!("it fails") };
    assert!(reason.starts_with("cannot write to the webhook's spool"), "{reason}");
    assert!(!pushing.is_finished());
    fs::remove_file(&path).unwrap();
    pushing.await.unwrap().unwrap();
    assert_eq!((spool.state(), files(&path, "json").len()), (BackendState::Ok, 1));

    fs::remove_dir_all(&path).unwrap();
    fs::write(&path, "").unwrap();
    let (pushing, ending) = (spool.clone(), give_up.clone());
    let pushing = tokio::spawn(async move { pushing.push(b"b".to_vec(), 1, &ending).await });
    while spool.state() == BackendState::Ok {
        tokio::task::yield_now().await;
    }
    give_up.cancel();
    assert!(matches!(pushing.await.unwrap(), Err(SpoolError::Io(..))));
}
