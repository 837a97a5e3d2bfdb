//! Recordings of sessions: every protocol, with and without a terminal, and the annotations of the
//! audit event.

mod carrier;
mod failures;

use std::path::{Path, PathBuf};
use std::process::Command;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use session_recording::channel::encode_message;
use session_recording::read::{Item, Recording, summary};
use session_recording::{Codec, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use self::carrier::{CARRIERS, Carrier};
use crate::support::audit_log::Event;
use crate::support::http1::{self, Connection, Head};
use crate::support::proxy::{BINARY, Builder, Proxy};
use crate::support::upstream::{Answered, FakeUpstream, Protocols, empty};
use crate::support::{in_time, wait_for};

const TTY: &str = "/api/v1/namespaces/team-a/pods/p1/exec?command=sh&command=-l&container=c1&stdin=true&tty=true&stdout=true";
const PLAIN: &str =
    "/api/v1/namespaces/team-a/pods/p1/exec?command=sh&stdin=true&stdout=true&stderr=true";
/// Accepts every upgrade like an API server, reads `expected` bytes, sends `answer`, and ends.
async fn answering(mut request: Request<Incoming>, expected: usize, answer: Vec<u8>) -> Answered {
    let mut response = Response::builder().status(101).header("connection", "Upgrade");
    for name in [
        "upgrade",
        "sec-websocket-protocol",
        "x-stream-protocol-version",
        "sec-websocket-extensions",
    ] {
        if let Some(value) = request.headers().get(name) {
            let value = value.to_str()?.replace("; client_max_window_bits", "");
            response = response.header(name, value);
        }
    }
    tokio::spawn(async move {
        let upgraded = hyper::upgrade::on(&mut request).await.unwrap();
        let (mut reader, mut writer) = tokio::io::split(TokioIo::new(upgraded));
        let mut bytes = vec![0; expected];
        if reader.read_exact(&mut bytes).await.is_err() {
            return;
        }
        let _ = writer.write_all(&answer).await;
        let _ = writer.shutdown().await;
        let _ = reader.read_to_end(&mut bytes).await;
    });
    Ok(response.body(empty())?)
}

async fn open(
    addr: std::net::SocketAddr,
    id: &str,
    target: &str,
    carrier: Carrier,
) -> (Connection, Head) {
    let mut connection = Connection::open(addr, Some("admin")).await.unwrap();
    let mut lines = carrier.request();
    lines.push(format!("Audit-ID: {id}"));
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let method = if carrier == Carrier::Spdy { "POST" } else { "GET" };
    connection.send(&http1::request(method, target, &lines, b"")).await.unwrap();
    let head = in_time("the response to the upgrade", connection.head()).await.unwrap();
    (connection, head)
}

/// Runs one complete session. Returns what the client received.
async fn session(
    proxy: &Proxy,
    id: &str,
    target: &str,
    carrier: Carrier,
    client: &[u8],
) -> Vec<u8> {
    let (mut connection, head) = open(proxy.addr, id, target, carrier).await;
    assert_eq!(head.status, 101, "{carrier:?}: {head:?}");
    connection.send(client).await.unwrap();
    in_time("the end of the session", connection.read_to_end()).await.unwrap()
}

fn recording_proxy(upstream: &FakeUpstream, flags: &[&str]) -> Builder {
    let builder = Builder::new(upstream.addr);
    let dir = builder.dir().path("sessions").display().to_string();
    let builder = builder.flag(&format!("--session-recording-dir={dir}"));
    flags.iter().fold(builder, |builder, flag| builder.flag(flag))
}

fn annotation<'a>(event: &'a Event, name: &str) -> &'a str {
    event
        .at(&format!("/annotations/kube-audit-proxy~1{name}"))
        .and_then(|v| v.as_str())
        .unwrap_or("")
}

fn file(proxy: &Proxy, event: &Event) -> PathBuf {
    proxy.dir.path("sessions").join(annotation(event, "session-recording"))
}

#[derive(Debug, Default, PartialEq)]
struct Content {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    stdin: Vec<u8>,
    sizes: Vec<(u16, u16)>,
}

fn content(path: &Path) -> Content {
    let mut recording = Recording::open(path).unwrap();
    let mut content = Content::default();
    while let Some(item) = recording.next_item().unwrap() {
        match item {
            Item::Output { stream: Stream::Stderr, bytes, .. } => content.stderr.extend(bytes),
            Item::Output { bytes, .. } => content.stdout.extend(bytes),
            Item::Input { bytes, .. } => content.stdin.extend(bytes),
            Item::Resize { columns, rows, .. } => content.sizes.push((columns, rows)),
            _ => {}
        }
    }
    content
}

fn sha256(path: &Path) -> String {
    hex_sha256(&std::fs::read(path).unwrap())
}

fn hex_sha256(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Every protocol, with and without a terminal, with and without input, plain and compressed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_recorded_whatever_carries_them() {
    const TYPED: &[u8] = b"echo \xe2\x82\xac\r";
    const SHOWN: &[u8] = b"\x1b[1m$\x1b[0m echo \xe2\x82\xac\r\n\xe2\x82\xac\xff\r\n";
    for carrier in CARRIERS {
        let (tty, plain) = (
            carrier.server(&[(Stream::Stdout, &SHOWN[..11]), (Stream::Stdout, &SHOWN[11..])]),
            carrier.server(&[(Stream::Stdout, b"out\n"), (Stream::Stderr, b"err\n")]),
        );
        let client = carrier.client(TYPED);
        let (answers, expected) = ((tty.clone(), plain.clone()), client.len());
        let upstream = FakeUpstream::start(Protocols::Http2, move |request| {
            let is_tty = request.uri().query().is_some_and(|query| query.contains("tty"));
            let answer = if is_tty { answers.0.clone() } else { answers.1.clone() };
            answering(request, expected, answer)
        })
        .await;
        let flags = ["--session-recording-mode=strict", "--session-recording-input"];
        let with_input = recording_proxy(&upstream, &flags).start();
        let packed = recording_proxy(&upstream, &["--session-recording-compress"]).start();
        let (with_input, packed) = tokio::join!(with_input, packed);
        assert_eq!(session(&with_input, "tty", TTY, carrier, &client).await, tty, "{carrier:?}");
        assert_eq!(session(&packed, "plain", PLAIN, carrier, &client).await, plain, "{carrier:?}");

        let end = with_input.audit_log().wait_end("tty").await.pop().unwrap();
        let path = file(&with_input, &end);
        let seen = content(&path);
        assert_eq!(seen.stdout, SHOWN, "{carrier:?}");
        assert_eq!(seen.stdin, TYPED, "{carrier:?}");
        assert_eq!((seen.stderr.as_slice(), seen.sizes.as_slice()), (&b""[..], &[(132, 43)][..]));
        assert_eq!(annotation(&end, "session-sha256"), sha256(&path));
        assert_eq!(annotation(&end, "session-bytes-in"), TYPED.len().to_string());
        assert_eq!(annotation(&end, "session-bytes-out"), SHOWN.len().to_string());
        assert_eq!(annotation(&end, "session-exit-code"), "7");
        assert_eq!(annotation(&end, "session-recording-error"), "");
        let description = Recording::open(&path).unwrap().header.description;
        assert_eq!(description.audit_id, "tty");
        assert_eq!(description.user.username, "kubernetes-admin");
        assert_eq!((description.pod.as_str(), description.container.as_str()), ("p1", "c1"));
        assert_eq!((description.command, description.tty), (vec!["sh".into(), "-l".into()], true));

        let end = packed.audit_log().wait_end("plain").await.pop().unwrap();
        let path = file(&packed, &end);
        assert!(path.extension().is_some_and(|extension| extension == "zst"));
        let seen = content(&path);
        assert_eq!(
            (seen.stdout.as_slice(), seen.stderr.as_slice()),
            (&b"out\n"[..], &b"err\n"[..])
        );
        assert_eq!(seen.stdin, b"", "input is not recorded unless that is asked for");
        assert_eq!(annotation(&end, "session-sha256"), sha256(&path));
        let summary = summary(&path).unwrap().unwrap();
        assert_eq!((summary.exit_code, summary.bytes_in), (Some(7), TYPED.len() as u64));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn archives_are_recorded_by_size_and_hash_unless_all_content_is() {
    let mut tar = vec![0; 10_240];
    tar[..9].copy_from_slice(b"etc/shado");
    let carrier = CARRIERS[0];
    let answer = carrier.server(&[(Stream::Stdout, &tar)]);
    let upstream = FakeUpstream::start(Protocols::Http2, {
        move |request| answering(request, 0, answer.clone())
    })
    .await;
    let sparse = recording_proxy(&upstream, &[]).start().await;
    session(&sparse, "cp", PLAIN, carrier, b"").await;
    let end = sparse.audit_log().wait_end("cp").await.pop().unwrap();
    let path = file(&sparse, &end);
    assert!(http1::find(&std::fs::read(&path).unwrap(), b"shado").is_none());
    let stdout = summary(&path).unwrap().unwrap().stdout.unwrap();
    assert_eq!(
        (stdout.bytes, stdout.sha256, stdout.recorded.as_str()),
        (10_240, Some(hex_sha256(&tar)), "none")
    );
    assert_eq!(annotation(&end, "session-omitted-streams"), "stdout");

    let all = recording_proxy(&upstream, &["--session-recording-content=all"]).start().await;
    session(&all, "cp", PLAIN, carrier, b"").await;
    let end = all.audit_log().wait_end("cp").await.pop().unwrap();
    let output =
        Command::new(BINARY).args(["session", "show", "--raw"]).arg(file(&all, &end)).output();
    assert_eq!(output.unwrap().stdout, tar);
}

/// Binary data affects only the recording of its own stream, and the recording shows that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn binary_data_switches_only_its_own_stream_off() {
    let carrier = CARRIERS[0];
    let (text, binary) = (b"some text, which is there before\n".as_slice(), [0; 1000].as_slice());
    let client = carrier.client(binary);
    let quiet = carrier.server(&[(Stream::Stdout, text)]);
    let turning = carrier.server(&[
        (Stream::Stdout, text),
        (Stream::Stdout, binary),
        (Stream::Stderr, text),
        (Stream::Stdout, text),
    ]);
    let upstream = FakeUpstream::start(Protocols::Http2, {
        let (turning, expected) = (turning.clone(), client.len());
        move |request| {
            let is_turning = request.uri().query().is_some_and(|query| query.contains("turn"));
            let answer = if is_turning { turning.clone() } else { quiet.clone() };
            answering(request, expected, answer)
        }
    })
    .await;
    let proxy = recording_proxy(&upstream, &["--session-recording-input"]).start().await;
    session(&proxy, "input", PLAIN, carrier, &client).await;
    let end = proxy.audit_log().wait_end("input").await.pop().unwrap();
    assert_eq!(annotation(&end, "session-omitted-streams"), "stdin");
    assert_eq!(content(&file(&proxy, &end)).stdout, text);

    let turn = format!("{PLAIN}&turn");
    session(&proxy, "output", &turn, carrier, &carrier.client(&[b'a'; 1000])).await;
    let end = proxy.audit_log().wait_end("output").await.pop().unwrap();
    assert_eq!(annotation(&end, "session-omitted-streams"), "stdout");
    let path = file(&proxy, &end);
    let seen = content(&path);
    assert_eq!((seen.stdout.as_slice(), seen.stderr.as_slice()), (text, text));
    assert_eq!(seen.stdin, [b'a'; 1000]);
    let mut recording = Recording::open(&path).unwrap();
    let mut markers = Vec::new();
    while let Some(item) = recording.next_item().unwrap() {
        if let Item::Marker(_, marker) = item {
            markers.push(marker);
        }
    }
    assert_eq!(
        markers,
        ["stdout is not text: its size and SHA-256 are recorded, its content is not"]
    );
    let stdout = summary(&path).unwrap().unwrap().stdout.unwrap();
    let all = [text, binary, text].concat();
    assert_eq!((stdout.bytes, stdout.recorded.as_str()), (all.len() as u64, "part"));
    assert_eq!(stdout.sha256, Some(hex_sha256(&all)));
    let list = Command::new(BINARY).args(["session", "list"]).arg(path.parent().unwrap()).output();
    let list = String::from_utf8(list.unwrap().stdout).unwrap();
    let omitted: Vec<_> =
        list.lines().map(|line| line.split_whitespace().rev().nth(1).unwrap()).collect();
    assert_eq!(omitted, ["OMITTED", "stdin", "stdout"], "{list}");

    let strict = recording_proxy(&upstream, &["--session-recording-mode=strict"]).start().await;
    session(&strict, "strict", &turn, carrier, &client).await;
    let end = strict.audit_log().wait_end("strict").await.pop().unwrap();
    assert_eq!(annotation(&end, "session-omitted-streams"), "");
    let path = file(&strict, &end);
    let raw = Command::new(BINARY).args(["session", "show", "--raw"]).arg(path).output();
    let raw = raw.unwrap().stdout;
    assert!(raw.windows(binary.len()).any(|part| part == binary), "{raw:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_choose_sessions_and_are_reloaded() {
    let upstream =
        FakeUpstream::start(Protocols::Http2, |request| answering(request, 0, Vec::new())).await;
    let builder = recording_proxy(&upstream, &[]);
    let rules = builder.dir().write("rules.yaml", "rules: [{record: false, pods: ['p*']}]");
    let flag = format!("--session-recording-rules={}", rules.display());
    let proxy = builder.flag(&flag).start().await;
    session(&proxy, "first", TTY, CARRIERS[0], b"").await;
    let end = proxy.audit_log().wait_end("first").await.pop().unwrap();
    assert_eq!(annotation(&end, "session-recording"), "");
    std::fs::write(&rules, "rules: [{record: false, pods: ['q*']}]").unwrap();
    proxy.process.logs("reloaded what=SessionRecordingRules").await;
    session(&proxy, "second", TTY, CARRIERS[0], b"").await;
    let end = proxy.audit_log().wait_end("second").await.pop().unwrap();
    assert_ne!(annotation(&end, "session-recording"), "");
}

/// The log names the recording, so a change of the recording is detected.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_verify_finds_a_changed_recording() {
    let answer = CARRIERS[0].server(&[(Stream::Stdout, b"rm -rf /\r\n")]);
    let upstream = FakeUpstream::start(Protocols::Http2, {
        move |request| answering(request, 0, answer.clone())
    })
    .await;
    let builder = recording_proxy(&upstream, &["--audit-log-seal"]);
    let key = builder.dir().path("seal.key");
    assert!(Command::new(BINARY).args(["log", "keygen"]).arg(&key).status().unwrap().success());
    let flag = format!("--audit-log-seal-key-file={}", key.display());
    let mut proxy = builder.flag(&flag).start().await;
    session(&proxy, "sealed", TTY, CARRIERS[0], b"").await;
    let end = proxy.audit_log().wait_end("sealed").await.pop().unwrap();
    assert!(proxy.stop().await.success());
    let verify = || {
        let output = Command::new(BINARY)
            .args(["log", "verify", "--public-key"])
            .arg(key.with_extension("key.pub"))
            .arg(&proxy.log)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, text) = verify();
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("session recordings intact: 1 as recorded"), "{text}");
    let path = file(&proxy, &end);
    let recording = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, recording.replace("rm -rf", "ls -al")).unwrap();
    let (code, text) = verify();
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("its SHA-256 differs from that in event sealed"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recordings_are_listed_shown_and_played() {
    let shown: &[u8] = b"$ ls\r\nold\rnew\r\n\x1b[31mred\x1b[0m\r\n";
    let answer = CARRIERS[0].server(&[(Stream::Stdout, shown)]);
    let upstream = FakeUpstream::start(Protocols::Http2, {
        move |request| answering(request, 0, answer.clone())
    })
    .await;
    let proxy = recording_proxy(&upstream, &[]).start().await;
    session(&proxy, "shown", TTY, CARRIERS[0], b"").await;
    proxy.audit_log().wait_end("shown").await;
    let dir = proxy.dir.path("sessions").display().to_string();
    let run = |arguments: &[&str]| {
        let output = Command::new(BINARY).arg("session").args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    let list = String::from_utf8(run(&["list", &dir])).unwrap();
    assert!(list.contains("kubernetes-admin") && list.contains("team-a/p1"), "{list}");
    assert!(list.contains("sh -l") && list.contains("  7  "), "{list}");
    let text = run(&["show", "--dir", &dir, "shown"]);
    assert_eq!(String::from_utf8(text).unwrap(), "$ ls\nnew\nred\n");
    assert_eq!(run(&["show", "--raw", "--dir", &dir, "shown"]), shown);
    assert_eq!(run(&["play", "--speed=100", "--idle-limit=0.1", "--dir", &dir, "shown"]), shown);
}
