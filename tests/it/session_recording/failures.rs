//! Sessions that cannot be recorded, or not to their end.

use super::*;

/// A session that must be recorded is recorded or rejected.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strict_refuses_what_cannot_be_recorded() {
    let upstream =
        FakeUpstream::start(Protocols::Http2, |request| answering(request, 0, Vec::new())).await;
    let proxy = recording_proxy(&upstream, &["--session-recording-mode=strict"]).start().await;
    let unknown = Carrier::WebSocket("mqtt", Codec::Raw);
    let (_, head) = open(proxy.addr, "mqtt", TTY, unknown).await;
    assert_eq!(head.status, 500);
    assert!(upstream.seen().is_empty(), "the API server was asked");
    let end = proxy.audit_log().wait_end("mqtt").await.pop().unwrap();
    assert_eq!(end.code(), 500);
    let why = annotation(&end, "session-recording-error");
    assert!(why.contains("subprotocol \"mqtt\""), "{why}");

    // The fake agrees to any extension.
    let mut connection = Connection::open(proxy.addr, Some("admin")).await.unwrap();
    let mut lines = CARRIERS[0].request();
    lines.extend(["Sec-WebSocket-Extensions: x-mux".into(), "Audit-ID: mux".into()]);
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    connection.send(&http1::request("GET", TTY, &lines, b"")).await.unwrap();
    assert_eq!(connection.head().await.unwrap().status, 500);
    let end = proxy.audit_log().wait_end("mux").await.pop().unwrap();
    assert_eq!((end.code(), annotation(&end, "session-recording")), (500, ""));

    std::fs::remove_dir_all(proxy.dir.path("sessions")).unwrap();
    let (_, head) = open(proxy.addr, "gone", TTY, CARRIERS[0]).await;
    assert_eq!(head.status, 500);
    assert_eq!(proxy.metric("kube_audit_proxy_session_recordings_refused_total").await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn best_effort_goes_on_and_says_so() {
    let answer = b"\x82\x03\x01hi".to_vec();
    let expected = answer.clone();
    let upstream = FakeUpstream::start(Protocols::Http2, {
        move |request| answering(request, 0, answer.clone())
    })
    .await;
    let proxy = recording_proxy(&upstream, &[]).start().await;
    let unknown = Carrier::WebSocket("mqtt", Codec::Raw);
    assert_eq!(session(&proxy, "mqtt", TTY, unknown, b"").await, expected);
    let end = proxy.audit_log().wait_end("mqtt").await.pop().unwrap();
    assert!(annotation(&end, "session-recording-error").contains("mqtt"));
    assert_ne!(annotation(&end, "session-sha256"), "");
    std::fs::remove_dir_all(proxy.dir.path("sessions")).unwrap();
    assert_eq!(session(&proxy, "gone", TTY, CARRIERS[0], b"").await, expected);
    let end = proxy.audit_log().wait_end("gone").await.pop().unwrap();
    assert!(annotation(&end, "session-recording-error").contains("cannot be written"));
}

/// If the API server rejects the upgrade, there is no session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_session_leaves_no_recording() {
    let upstream = FakeUpstream::start(Protocols::Http2, |_| async {
        crate::support::upstream::json(403, "{}")
    })
    .await;
    let proxy = recording_proxy(&upstream, &[]).start().await;
    let (_, head) = open(proxy.addr, "no", TTY, CARRIERS[0]).await;
    assert_eq!(head.status, 403);
    let dir = proxy.dir.path("sessions");
    wait_for("the recording to go", || {
        (std::fs::read_dir(&dir).unwrap().count() == 0).then_some(())
    })
    .await;
}

/// At the maximum size the recorded content ends; in strict mode, the session does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strict_ends_a_session_that_is_too_large_with_a_message() {
    let carrier = CARRIERS[0];
    let lines = "a line of output, again and again\r\n".repeat(4_000);
    let mut answer = Vec::new();
    for chunk in lines.as_bytes().chunks(1_000) {
        encode_message(Codec::Raw, 1, chunk, &mut answer);
    }
    let upstream = FakeUpstream::start(Protocols::Http2, move |mut request| {
        let answer = answer.clone();
        async move {
            let response = Response::builder().status(101).header("connection", "Upgrade");
            let response = response.header("upgrade", "websocket");
            tokio::spawn(async move {
                let upgraded = hyper::upgrade::on(&mut request).await.unwrap();
                let mut upgraded = TokioIo::new(upgraded);
                // It continues until the connection is closed.
                while upgraded.write_all(&answer).await.is_ok() {}
            });
            Ok(response.body(empty())?)
        }
    })
    .await;
    let flags = ["--session-recording-mode=strict", "--session-recording-max-size=1"];
    let proxy = recording_proxy(&upstream, &flags).start().await;
    let received = session(&proxy, "large", TTY, carrier, b"").await;
    let farewell = &received[received.len() - 400..];
    let text = String::from_utf8_lossy(farewell);
    assert!(text.contains("kube-audit-proxy: session ended: the recording has reached"), "{text}");
    let end = proxy.audit_log().wait_end("large").await.pop().unwrap();
    assert!(annotation(&end, "session-recording-error").contains("maximum size"));
    let path = file(&proxy, &end);
    assert!(content(&path).stdout.len() > 900_000);
    assert_eq!(annotation(&end, "session-sha256"), sha256(&path));
}

/// The hash of the content beyond the maximum size is recorded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_too_large_goes_on_and_is_hashed() {
    let lines = "a line of output, again and again\r\n".repeat(60_000).into_bytes();
    let carrier = CARRIERS[0];
    let chunks: Vec<_> = lines.chunks(20_000).map(|chunk| (Stream::Stdout, chunk)).collect();
    let answer = carrier.server(&chunks);
    let upstream = FakeUpstream::start(Protocols::Http2, {
        let answer = answer.clone();
        move |request| answering(request, 0, answer.clone())
    })
    .await;
    let proxy = recording_proxy(&upstream, &["--session-recording-max-size=1"]).start().await;
    assert!(session(&proxy, "large", TTY, carrier, b"").await == answer);
    let end = proxy.audit_log().wait_end("large").await.pop().unwrap();
    assert!(annotation(&end, "session-recording-error").contains("maximum size"));
    assert_eq!(annotation(&end, "session-omitted-streams"), "stdout");
    let path = file(&proxy, &end);
    let recorded = content(&path).stdout;
    assert!(recorded.len() > 900_000 && lines.starts_with(&recorded));
    let stdout = summary(&path).unwrap().unwrap().stdout.unwrap();
    assert_eq!((stdout.bytes, stdout.recorded.as_str()), (lines.len() as u64, "part"));
    assert_eq!(stdout.rest_sha256, Some(hex_sha256(&lines[recorded.len()..])));
}

/// `kill -9` during 20 sessions: everything older than a second is in the salvaged recordings.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recordings_are_salvaged_after_a_crash() {
    const SESSIONS: usize = 20;
    let upstream = FakeUpstream::start(Protocols::Http2, |mut request| async move {
        let response = Response::builder().status(101).header("connection", "Upgrade");
        let response = response.header("upgrade", "websocket");
        tokio::spawn(async move {
            let upgraded = hyper::upgrade::on(&mut request).await.unwrap();
            let mut upgraded = TokioIo::new(upgraded);
            upgraded.write_all(b"\x82\x07\x01before").await.unwrap();
            let _ = upgraded.read_to_end(&mut Vec::new()).await;
        });
        Ok(response.body(empty())?)
    })
    .await;
    for flag in ["--session-recording-compress=false", "--session-recording-compress=true"] {
        let builder = recording_proxy(&upstream, &[flag]);
        let dir = builder.dir().path("sessions");
        let mut proxy = builder.start().await;
        let mut connections = Vec::new();
        for number in 0..SESSIONS {
            let id = format!("crash-{number}");
            let (mut connection, head) = open(proxy.addr, &id, TTY, CARRIERS[0]).await;
            assert_eq!(head.status, 101);
            connection.exactly(9).await.unwrap();
            connections.push(connection);
        }
        // All recordings are flushed once a second.
        let flushed = || {
            let files = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
            let outputs = files.filter(|path| {
                let Ok(mut recording) = Recording::open(path) else { return false };
                matches!(recording.next_item(), Ok(Some(Item::Output { .. })))
            });
            (outputs.count() == SESSIONS).then_some(())
        };
        wait_for("the recordings to be flushed", flushed).await;
        proxy.process.signal("KILL");
        proxy.process.wait().await;
        let again = Builder::new(upstream.addr)
            .flag(&format!("--session-recording-dir={}", dir.display()))
            .start()
            .await;
        assert_eq!(again.metric("kube_audit_proxy_session_recordings_salvaged_total").await, 20);
        let files: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()).collect();
        assert_eq!(files.len(), SESSIONS);
        for path in files {
            assert_eq!(content(&path).stdout, b"before", "{}", path.display());
            assert!(summary(&path).unwrap().unwrap().salvaged);
        }
    }
}
