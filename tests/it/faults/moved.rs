//! The log file and its directory: removed, moved, truncated, replaced.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::{Scene, events_in, in_each_mode};
use crate::support::{TempDir, wait_for};

/// Returns a directory with a log in a subdirectory.
async fn scene(mode: &'static str) -> (TempDir, Scene) {
    let dir = TempDir::new();
    let scene = Scene::start(&dir.path("logs/audit.log"), mode, &[]).await;
    (dir, scene)
}

#[tokio::test]
async fn a_removed_directory_is_recreated_and_no_event_is_lost() {
    in_each_mode(async |mode| {
        let (dir, mut scene) = scene(mode).await;
        std::fs::remove_dir_all(dir.path("logs")).unwrap();
        // The events were written to a deleted file, and copied from it.
        scene.does_not_care().await;
        let (folder, log) = (dir.path("logs"), scene.log.clone());
        assert_eq!(folder.metadata().unwrap().mode() & 0o777, 0o700);
        scene.proxy.process.logs("reopened the audit log").await;
        rescued(&log);
        scene.ends("folder removed", &[]).await;
    })
    .await;
}

#[tokio::test]
async fn a_file_in_place_of_the_directory_has_the_effect_of_the_mode_until_it_is_removed() {
    in_each_mode(async |mode| {
        let (dir, mut scene) = scene(mode).await;
        std::fs::remove_dir_all(dir.path("logs")).unwrap();
        std::fs::write(dir.path("logs"), "no folder").unwrap();
        scene.fails_for("File exists").await;
        std::fs::remove_file(dir.path("logs")).unwrap();
        scene.heals().await;
        // Events that were written before the deletion was detected are not lost.
        let new: HashSet<_> = events_in(&File::open(&scene.log).unwrap()).into_iter().collect();
        let old = events_in(&scene.first);
        let mut unnoticed = old.into_iter().filter(|(id, _)| !id.starts_with("before"));
        assert!(unnoticed.all(|event| new.contains(&event)), "{mode}");
        scene.ends("folder removed, and its place taken", &[]).await;
    })
    .await;
}

#[tokio::test]
async fn a_deleted_file_is_recreated_and_no_event_is_lost() {
    in_each_mode(async |mode| {
        let (_dir, mut scene) = scene(mode).await;
        std::fs::remove_file(&scene.log).unwrap();
        scene.does_not_care().await;
        rescued(&scene.log);
        scene.ends("file deleted", &[]).await;
    })
    .await;
}

/// Checks that the new file has the lines that were written before the removal was detected.
fn rescued(log: &Path) {
    let events = events_in(&File::open(log).unwrap());
    assert!(events.iter().any(|(id, _)| id == "meanwhile-0"), "{events:?}");
}

#[tokio::test]
async fn logrotate_by_create_is_followed_within_a_second_and_without_a_signal() {
    in_each_mode(async |mode| {
        let (dir, mut scene) = scene(mode).await;
        let rotated = dir.path("logs/audit.log.1");
        std::fs::rename(&scene.log, &rotated).unwrap();
        // Like logrotate's `create 0640`.
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o640).open(&scene.log).unwrap();
        scene.does_not_care().await;
        let metadata = scene.log.metadata().unwrap();
        assert_eq!(metadata.mode() & 0o777, 0o640, "the new file is written as it is");
        let length = rotated.metadata().unwrap().len();
        scene.send("follows", 5).await;
        wait_for("the new file", || {
            (scene.log.metadata().unwrap().len() > metadata.len()).then_some(())
        })
        .await;
        assert_eq!(rotated.metadata().unwrap().len(), length, "the old one is let go of");
        scene.ends("logrotate create", &[rotated]).await;
    })
    .await;
}

#[tokio::test]
async fn logrotate_by_copytruncate_leaves_whole_lines_in_both_files() {
    in_each_mode(async |mode| {
        let (dir, mut scene) = scene(mode).await;
        let rotated = dir.path("logs/audit.log.1");
        let before = scene.log.metadata().unwrap().len();
        std::fs::copy(&scene.log, &rotated).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&scene.log).unwrap();
        file.set_len(0).unwrap();
        scene.does_not_care().await;
        // There is no hole at the beginning: the next line is at the new end.
        let first = std::fs::read(&scene.log).unwrap()[0];
        assert_eq!(first, b'{');
        assert_eq!(rotated.metadata().unwrap().len(), before);
        scene.ends("logrotate copytruncate", &[rotated]).await;
    })
    .await;
}
