//! Token and certificate files that are reloaded on demand, as on SIGHUP.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic, too")]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use api_client::{ClientConfig, Credentials, Endpoint, Pem, Target, Trust};
use tokio::runtime::Handle;

/// A directory that is removed at the end of the test.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let path = std::env::temp_dir().join(format!("api-client-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Dir(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn ca() -> String {
    rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem()
}

fn token(target: &Target) -> String {
    let header = target.credential().unwrap().header.unwrap();
    header.to_str().unwrap().to_owned()
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect(what);
}

#[tokio::test]
async fn files_are_reloaded_on_demand_and_bad_ones_change_nothing() {
    let dir = Dir::new("files");
    let (ca_file, token_file) = (dir.write("ca.crt", &ca()), dir.write("token", "first"));
    let mut config = ClientConfig::new(Endpoint::parse("https://localhost", "server").unwrap());
    config.trust = Trust::Ca(Pem::file("ca", &ca_file));
    config.credentials = Some(Credentials::token_file(&token_file, "token").unwrap());
    let target = Target::new(config).unwrap();
    let changes = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&changes);
    // A change between reading the files and following them is noticed, too.
    dir.write("token", "second");
    let files = target.follow(&Handle::current(), move || {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    until("the second token", || token(&target) == "Bearer second").await;
    assert_eq!(changes.load(Ordering::SeqCst), 0, "the CA is the same");

    let tls = target.tls.as_ref().unwrap();
    let before = tls.generation();
    dir.write("ca.crt", "half a certificate");
    dir.write("token", "third");
    files.reload();
    until("the third token", || token(&target) == "Bearer third").await;
    dir.write("ca.crt", &ca());
    dir.write("token", "two\nlines");
    files.reload();
    until("the new CA", || changes.load(Ordering::SeqCst) == 1).await;
    assert_eq!(tls.generation(), before + 1);
    assert_eq!(token(&target), "Bearer third");
}
