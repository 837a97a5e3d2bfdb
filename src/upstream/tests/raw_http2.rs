//! Server behavior that hyper does not offer: refusing streams, and leaving with a chosen last
//! stream.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::server::TlsStream;

use super::*;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const NO_ERROR: [u8; 4] = [0; 4];
const REFUSED_STREAM: [u8; 4] = [0, 0, 0, 7];
const INTERNAL_ERROR: [u8; 4] = [0, 0, 0, 2];

/// The server's side of one connection, frame by frame.
pub(super) struct Raw(TlsStream<TcpStream>);

impl Raw {
    pub(super) async fn accept(listener: &Listener) -> Raw {
        Raw::accept_with(listener, 100).await
    }

    async fn accept_with(listener: &Listener, max_streams: u8) -> Raw {
        let mut stream = listener.accept().await;
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.unwrap();
        let mut raw = Raw(stream);
        // Room for 1 MiB of body on a stream and on the connection.
        raw.send(SETTINGS, 0, 0, &[0, 4, 0, 16, 0, 0, 0, 3, 0, 0, 0, max_streams]).await;
        raw.send(WINDOW_UPDATE, 0, 0, &(1u32 << 20).to_be_bytes()).await;
        raw.send(SETTINGS, 1, 0, &[]).await;
        raw
    }

    pub(super) async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.0.write_all(&frame).await.unwrap();
        self.0.flush().await.unwrap();
    }

    /// The next frame: its kind, flags, stream and payload.
    pub(super) async fn frame(&mut self) -> (u8, u8, u32, Vec<u8>) {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).await.unwrap();
        (head[3], head[4], stream, payload)
    }

    /// The next request: its stream and its body.
    pub(super) async fn request(&mut self) -> (u32, Vec<u8>) {
        let mut body = Vec::new();
        loop {
            let (kind, flags, stream, payload) = self.frame().await;
            if kind == DATA {
                body.extend(payload);
            }
            if (kind == DATA || kind == HEADERS) && flags & END_STREAM != 0 {
                return (stream, body);
            }
        }
    }

    /// Returns the stream of the next request, whose body may go on.
    pub(super) async fn request_head(&mut self) -> u32 {
        self.reach(HEADERS).await.0
    }

    /// Stream and payload of the next frame of a kind.
    pub(super) async fn reach(&mut self, wanted: u8) -> (u32, Vec<u8>) {
        loop {
            let (kind, _, stream, payload) = self.frame().await;
            if kind == wanted {
                return (stream, payload);
            }
        }
    }

    /// A 200 with `body`.
    pub(super) async fn answer(&mut self, stream: u32, body: &[u8]) {
        self.send(HEADERS, END_HEADERS, stream, &[0x88]).await;
        self.send(DATA, END_STREAM, stream, body).await;
    }

    /// The head of a 200 whose body does not end.
    pub(super) async fn begin(&mut self, stream: u32) {
        self.send(HEADERS, END_HEADERS, stream, &[0x88]).await;
    }

    /// Refuses a stream.
    pub(super) async fn refuse(&mut self, stream: u32) {
        self.send(RST_STREAM, 0, stream, &REFUSED_STREAM).await;
    }

    /// Says that the streams after `last` will not be processed.
    pub(super) async fn leave(&mut self, last: u32) {
        self.go_away(last, NO_ERROR).await;
    }

    async fn go_away(&mut self, last: u32, reason: [u8; 4]) {
        let mut payload = last.to_be_bytes().to_vec();
        payload.extend(reason);
        self.send(GOAWAY, 0, 0, &payload).await;
    }
}

#[tokio::test]
async fn a_refused_stream_is_retried() {
    let listener = Listener::new(&["h2"]).await;
    let (upstream, metrics) = listener.client();
    let server = tokio::spawn(async move {
        let mut raw = Raw::accept(&listener).await;
        for _ in 0..2 {
            let (refused, _) = raw.request().await;
            raw.send(RST_STREAM, 0, refused, &REFUSED_STREAM).await;
            let (stream, body) = raw.request().await;
            raw.answer(stream, &body).await;
        }
        raw
    });
    let known = RequestBody::from(Bytes::from_static(b"known"));
    assert_eq!(text(upstream.send(post("/", known)).await.unwrap()).await, "known");
    let streamed = clients_body(&["stre", "amed"], true).await;
    assert_eq!(text(upstream.send(post("/", streamed)).await.unwrap()).await, "streamed");
    assert_eq!(metrics.errors.get(), 0);
    server.await.unwrap();
}

#[tokio::test]
async fn a_server_that_refuses_for_ever_is_given_up() {
    let listener = Listener::new(&["h2"]).await;
    let (upstream, metrics) = listener.client();
    let server = tokio::spawn(async move {
        let mut raw = Raw::accept(&listener).await;
        for _ in 0..4 {
            let (refused, _) = raw.request().await;
            raw.send(RST_STREAM, 0, refused, &REFUSED_STREAM).await;
        }
        raw
    });
    let error = upstream.send(get("/")).await.unwrap_err();
    assert!(matches!(error, SendError::NotProcessed { .. }), "{error}");
    assert!(error.retry_safe());
    assert_eq!(metrics.errors.get(), 1);
    server.await.unwrap();
}

#[tokio::test]
async fn a_leaving_server_is_not_noticed_by_clients() {
    let listener = Listener::new(&["h2"]).await;
    let (upstream, metrics) = listener.client();
    let server = tokio::spawn(async move {
        let mut first = Raw::accept(&listener).await;
        let (stream, _) = first.request().await;
        first.answer(stream, b"one").await;
        // This one is above the last stream that will be processed, so it must come again.
        let (_, body) = first.request().await;
        assert_eq!(body, b"body");
        first.go_away(stream, NO_ERROR).await;
        let mut second = Raw::accept(&listener).await;
        let (stream, body) = second.request().await;
        second.answer(stream, &body).await;
        // Leaves while idle.
        second.go_away(stream, NO_ERROR).await;
        drop(second);
        let mut third = Raw::accept(&listener).await;
        let (stream, _) = third.request().await;
        third.answer(stream, b"three").await;
        (first, third)
    });
    assert_eq!(text(upstream.send(get("/")).await.unwrap()).await, "one");
    let streamed = clients_body(&["bo", "dy"], true).await;
    assert_eq!(text(upstream.send(post("/", streamed)).await.unwrap()).await, "body");
    assert_eq!(text(upstream.send(get("/")).await.unwrap()).await, "three");
    assert_eq!(metrics.errors.get(), 0);
    server.await.unwrap();
}

#[tokio::test]
async fn a_server_that_leaves_all_connections_is_not_noticed_by_clients() {
    const CONNECTIONS: usize = 12;
    let listener = Listener::new(&["h2"]).await;
    let (upstream, metrics) = listener.client();
    let (left, all_left) = oneshot::channel();
    let server = tokio::spawn(async move {
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut raw = Raw::accept_with(&listener, 2).await;
            let (first, _) = raw.request().await;
            raw.send(HEADERS, END_HEADERS, first, &[0x88]).await;
            let (second, _) = raw.request().await;
            raw.send(HEADERS, END_HEADERS, second, &[0x88]).await;
            connections.push((raw, second));
        }
        for (raw, watch) in &mut connections {
            // An event after the GOAWAY shows the client's side that it was read.
            raw.go_away(*watch, NO_ERROR).await;
            raw.send(DATA, 0, *watch, b"event").await;
        }
        left.send(()).unwrap();
        let mut fresh = Raw::accept(&listener).await;
        let (stream, _) = fresh.request().await;
        fresh.answer(stream, b"fresh").await;
        (connections, fresh)
    });
    let mut watches = Vec::new();
    for _ in 0..CONNECTIONS {
        // Two fill a connection; the first of them ends, so that it seems to have a place.
        let first = upstream.send(get("/watch")).await.unwrap();
        watches.push((first, upstream.send(get("/watch")).await.unwrap().into_body()));
    }
    all_left.await.unwrap();
    for (_, watch) in &mut watches {
        assert_eq!(watch.frame().await.unwrap().unwrap().into_data().unwrap(), "event");
    }
    let _watches: Vec<_> = watches.into_iter().map(|(_, watch)| watch).collect();
    assert_eq!(text(upstream.send(get("/")).await.unwrap()).await, "fresh");
    assert_eq!(metrics.errors.get(), 0);
    server.await.unwrap();
}

#[tokio::test]
async fn requests_that_may_have_been_processed_are_not_retried() {
    for how in ["closed", "goaway, then closed", "reset"] {
        let listener = Listener::new(&["h2"]).await;
        let (upstream, metrics) = listener.client();
        tokio::spawn(async move {
            let mut raw = Raw::accept(&listener).await;
            let (stream, _) = raw.request().await;
            match how {
                "reset" => raw.send(RST_STREAM, 0, stream, &INTERNAL_ERROR).await,
                "goaway, then closed" => raw.go_away(stream, NO_ERROR).await,
                _ => {}
            }
            drop(raw);
            let mut again = Raw::accept(&listener).await;
            let (stream, _) = again.request().await;
            again.answer(stream, b"twice").await;
        });
        let sent = upstream.send(post("/", RequestBody::EMPTY)).await;
        let error = sent.map(|_| ()).expect_err(how);
        assert!(matches!(error, SendError::Interrupted { .. }), "{how}: {error}");
        assert_eq!(metrics.errors.get(), 1);
    }
}

#[tokio::test]
async fn a_body_too_large_to_keep_is_not_resent() {
    const LARGE: &str = {
        const BYTES: &[u8] = &[b'x'; 40 << 10];
        match std::str::from_utf8(BYTES) {
            Ok(text) => text,
            Err(_) => panic!("it is ASCII"),
        }
    };
    let listener = Listener::new(&["h2"]).await;
    let (upstream, _) = listener.client();
    let server = tokio::spawn(async move {
        let mut raw = Raw::accept(&listener).await;
        let (refused, body) = raw.request().await;
        assert_eq!(body.len(), 80 << 10);
        raw.send(RST_STREAM, 0, refused, &REFUSED_STREAM).await;
        raw
    });
    let streamed = clients_body(&[LARGE, LARGE], true).await;
    let error = upstream.send(post("/", streamed)).await.unwrap_err();
    assert!(matches!(error, SendError::NotProcessed { .. }), "{error}");
    server.await.unwrap();
}
