//! Standard output and standard error that are closed, or cannot be opened by name.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Output, Stdio};

use crate::support::proxy::{BINARY, METADATA};
use crate::support::{TempDir, corpus};

/// Returns a pipe without a reader.
fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

fn run(arguments: &[&str], close_stderr: bool) -> Output {
    Command::new("timeout")
        .args(["20", BINARY])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(closed_pipe())
        .stderr(if close_stderr { closed_pipe() } else { Stdio::piped() })
        .output()
        .unwrap()
}

#[test]
fn a_closed_pipe_is_quiet() {
    let dir = TempDir::new();
    let policy = dir.write("policy.yaml", METADATA).display().to_string();
    let bad = dir.write("bad.yaml", "rules: [").display().to_string();
    let key = dir.path("seal.key").display().to_string();
    let keygen = ["log", "keygen", &key];
    let log = dir.write("audit.log", "").display().to_string();
    let verify = ["log", "verify", &log];
    let cases: [(&[&str], &[i32]); 7] = [
        (&["--help"], &[0, 141]),
        (&["serve", "--help"], &[0, 141]),
        (&["--version"], &[0, 141]),
        (&["policy", "check", &policy], &[141]),
        (&keygen, &[141]),
        // Its log is not sealed, which is a separate error.
        (&verify, &[0, 1, 2, 141]),
        (&["demo"], &[0]),
    ];
    for (arguments, codes) in cases {
        if arguments == ["demo"] && !cfg!(feature = "demo") {
            continue;
        }
        let output = run(arguments, false);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(codes.contains(&output.status.code().unwrap_or(-1)), "{arguments:?}: {output:?}");
        assert!(
            !said.contains("panicked") && !said.contains("Broken pipe"),
            "{arguments:?}: {said}"
        );
    }
    for arguments in [&["policy", "check", &bad][..], &["serv"], &["serve", "--config=/nowhere"]] {
        let output = run(arguments, true);
        assert!(matches!(output.status.code(), Some(1 | 2)), "{arguments:?}: {output:?}");
    }
}

#[test]
fn an_output_that_cannot_be_opened_by_name_suggests_the_dash() {
    let dir = TempDir::new();
    let policy = dir.write("policy.yaml", METADATA);
    let pki = |name: &str| corpus::pki(name).display().to_string();
    // If the user may not open it, the error is another one, with the same remedy.
    let (_other, socket) = UnixStream::pair().unwrap();
    let output = Command::new("timeout")
        .args(["20", BINARY, "serve", "--secure-port=0", "--admin-bind-address=127.0.0.1:0"])
        .arg(format!("--tls-cert-file={}", pki("proxy.crt")))
        .arg(format!("--tls-private-key-file={}", pki("proxy.key")))
        .arg(format!("--audit-policy-file={}", policy.display()))
        .args(["--audit-log-path=/dev/stdout", "--upstream-server=http://127.0.0.1:1"])
        .stdin(Stdio::null())
        .stdout(Stdio::from(OwnedFd::from(socket)))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("/dev/stdout")
            && said.contains("--audit-log-path: ")
            && said.contains("give - (in sinks, type: stdout)"),
        "{said}"
    );
}
