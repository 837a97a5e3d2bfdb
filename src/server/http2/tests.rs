use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Context;

use h2::client::SendRequest;
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::io::{DuplexStream, ReadBuf};
use tokio::sync::Semaphore;

use super::super::shutdown::Shutdown;
use super::*;
use audit_log::CommitSequence;

/// Responds with what the path selects; `/wait` never responds.
#[derive(Clone)]
struct Answers {
    waiting: Arc<Semaphore>,
    dropped: Arc<Semaphore>,
}

impl Answers {
    fn new() -> Answers {
        Answers { waiting: Arc::new(Semaphore::new(0)), dropped: Arc::new(Semaphore::new(0)) }
    }
}

struct OnDrop(Arc<Semaphore>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

impl Handler for Answers {
    type Body = Full<Bytes>;

    async fn handle(
        self,
        _: Arc<Connection>,
        request: Request<ClientBody>,
    ) -> Response<Full<Bytes>> {
        let mut response = match request.uri().path() {
            "/wait" => {
                let _gone = OnDrop(self.dropped);
                self.waiting.add_permits(1);
                std::future::pending().await
            }
            "/echo" => {
                let body = request.into_body().collect().await.expect("a whole body");
                Response::new(Full::from(body.to_bytes()))
            }
            "/early" => Response::new(Full::from("early")),
            "/nothing" => Response::new(Full::default()),
            path => Response::new(Full::from(path.to_owned())),
        };
        response.headers_mut().insert("x-test", HeaderValue::from_static("yes"));
        response
    }
}

/// Counts the writes of the server.
struct Counting {
    stream: DuplexStream,
    writes: Arc<AtomicUsize>,
}

impl AsyncRead for Counting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Counting {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

struct Served {
    client: SendRequest<Bytes>,
    answers: Answers,
    driver: tokio::task::JoinHandle<Result<(), h2::Error>>,
    writes: Arc<AtomicUsize>,
    shutdown: Shutdown,
}

async fn served() -> Served {
    let (near, far) = tokio::io::duplex(1 << 20);
    let (answers, writes) = (Answers::new(), Arc::new(AtomicUsize::new(0)));
    let (shutdown, running) = Shutdown::new();
    let connection = Arc::new(Connection::new(
        ([127, 0, 0, 1], 1).into(),
        Vec::new(),
        CommitSequence::detached(),
    ));
    let io = Counting { stream: far, writes: writes.clone() };
    tokio::spawn(serve(io, connection, answers.clone(), running));
    let (client, driver) = h2::client::handshake(near).await.unwrap();
    let driver = tokio::spawn(driver);
    Served { client: client.ready().await.unwrap(), answers, driver, writes, shutdown }
}

impl Served {
    fn ask(&mut self, path: &str) -> h2::client::ResponseFuture {
        let request = Request::get(format!("https://localhost{path}")).body(()).unwrap();
        self.client.send_request(request, true).unwrap().0
    }
}

async fn text(mut body: h2::RecvStream) -> String {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        all.extend_from_slice(&data);
    }
    String::from_utf8(all).unwrap()
}

#[tokio::test]
async fn responses_have_a_length_and_a_date() {
    let mut served = served().await;
    let response = served.ask("/hello").await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["x-test"], "yes");
    assert_eq!(response.headers()[CONTENT_LENGTH], "6");
    assert!(response.headers()[DATE].to_str().unwrap().ends_with(" GMT"));
    assert_eq!(text(response.into_body()).await, "/hello");
    let response = served.ask("/nothing").await.unwrap();
    assert!(response.body().is_end_stream());
    assert!(!response.headers().contains_key(CONTENT_LENGTH));
}

#[tokio::test]
async fn long_bodies_pass_both_ways_whatever_the_windows_are() {
    let mut served = served().await;
    // More than the stream's window, and more than is handed to h2 immediately.
    let long = "0123456789abcdef".repeat(STREAM_WINDOW as usize / 8);
    let request =
        Request::builder().method(Method::POST).uri("https://localhost/echo").body(()).unwrap();
    let (response, mut stream) = served.client.send_request(request, false).unwrap();
    let send = async {
        let mut rest = Bytes::from(long.clone());
        while !rest.is_empty() {
            stream.reserve_capacity(rest.len());
            let room = poll_fn(|context| stream.poll_capacity(context)).await.unwrap().unwrap();
            stream.send_data(rest.split_to(room.min(rest.len())), rest.is_empty()).unwrap();
        }
    };
    let (response, ()) = tokio::join!(response, send);
    let response = response.unwrap();
    assert_eq!(response.headers()[CONTENT_LENGTH], long.len().to_string());
    assert!(text(response.into_body()).await == long);
}

#[tokio::test]
async fn a_request_that_the_client_gives_up_is_dropped() {
    let mut served = served().await;
    let asked = served.ask("/wait");
    served.answers.waiting.acquire().await.unwrap().forget();
    drop(asked);
    served.answers.dropped.acquire().await.unwrap().forget();
    assert_eq!(text(served.ask("/still-here").await.unwrap().into_body()).await, "/still-here");
    // All streams of a connection end when the client disconnects.
    let asked = [served.ask("/wait"), served.ask("/wait")];
    served.answers.waiting.acquire_many(2).await.unwrap().forget();
    served.driver.abort();
    served.answers.dropped.acquire_many(2).await.unwrap().forget();
    drop(asked);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_not_waited_for() {
    // Both before the first response to a PING and after it.
    for is_known in [false, true] {
        let (near, far) = tokio::io::duplex(1 << 20);
        let (_shutdown, running) = Shutdown::new();
        let connection = Arc::new(Connection::new(
            ([127, 0, 0, 1], 1).into(),
            Vec::new(),
            CommitSequence::detached(),
        ));
        let serving = tokio::spawn(serve(far, connection, Answers::new(), running));
        let begun = tokio::time::Instant::now();
        let _client = match is_known {
            // The driver of this connection does not run.
            true => Ok(h2::client::handshake::<_>(near).await.unwrap()),
            false => Err(near),
        };
        assert!(matches!(serving.await.unwrap(), Err(HttpError::KeepAliveTimeout)));
        let waited = begun.elapsed().as_secs();
        assert!(if is_known { waited >= 45 } else { waited == 10 }, "{waited} s");
    }
}

#[tokio::test]
async fn responses_that_are_ready_together_are_written_together() {
    let mut served = served().await;
    text(served.ask("/warm-up").await.unwrap().into_body()).await;
    let before = served.writes.load(Ordering::SeqCst);
    // Longer than what h2 itself collects.
    let path = format!("/{}", "x".repeat(500));
    let asked: Vec<_> = (0..20).map(|_| served.ask(&path)).collect();
    for asked in asked {
        assert_eq!(text(asked.await.unwrap().into_body()).await, path);
    }
    let writes = served.writes.load(Ordering::SeqCst) - before;
    assert!(writes < 10, "{writes} writes for 20 answers");
}

#[tokio::test]
async fn draining_continues_requests_and_ending_stops_them() {
    let mut served = served().await;
    let mut waiting = pin!(served.ask("/wait"));
    served.answers.waiting.acquire().await.unwrap().forget();
    served.shutdown.drain();
    // A GOAWAY arrives, and no new request is accepted.
    while served.client.clone().ready().await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context).is_pending())).await);
    assert_eq!(served.answers.dropped.available_permits(), 0);
    served.shutdown.end();
    served.shutdown.all_ended().await;
    assert_eq!(served.answers.dropped.available_permits(), 1);
    assert!(waiting.await.is_err());
}

/// Posts to `/early`, which responds without reading, and sends a first part of the body.
async fn early(served: &mut Served) -> (h2::SendStream<Bytes>, h2::client::ResponseFuture) {
    let request = Request::post("https://localhost/early").body(()).unwrap();
    let (response, mut stream) = served.client.send_request(request, false).unwrap();
    stream.send_data(Bytes::from(vec![b'x'; 10_000]), false).unwrap();
    (stream, response)
}

#[tokio::test(start_paused = true)]
async fn an_early_response_does_not_reset_what_is_still_sent() {
    let mut served = served().await;
    let (mut stream, response) = early(&mut served).await;
    assert_eq!(text(response.await.unwrap().into_body()).await, "early");
    // More than the stream's window: all of it is sent only if the server extends the window.
    for _ in 0..2 * STREAM_WINDOW as usize / 10_000 {
        stream.send_data(Bytes::from(vec![b'x'; 10_000]), false).unwrap();
    }
    stream.send_data(Bytes::new(), true).unwrap();
    // The stream ends with what the client has sent, without a reset, however long that takes.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let reset = poll_fn(|context| Poll::Ready(stream.poll_reset(context))).await;
    assert!(reset.is_pending(), "{reset:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_on_after_an_early_response_is_stopped() {
    let mut served = served().await;
    let began = tokio::time::Instant::now();
    let (mut stream, response) = early(&mut served).await;
    assert_eq!(text(response.await.unwrap().into_body()).await, "early");
    let reset = poll_fn(|context| stream.poll_reset(context)).await.unwrap();
    assert_eq!(reset, Reason::NO_ERROR);
    let elapsed = began.elapsed();
    assert!((1000..1100).contains(&elapsed.as_millis()), "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_thrown_away_after_an_early_response_is_bounded() {
    let mut served = served().await;
    let (mut stream, response) = early(&mut served).await;
    assert_eq!(text(response.await.unwrap().into_body()).await, "early");
    let mut sent = 10_000;
    loop {
        stream.reserve_capacity(10_000);
        match poll_fn(|context| stream.poll_capacity(context)).await {
            Some(Ok(room)) => {
                stream.send_data(Bytes::from(vec![b'x'; room]), false).unwrap();
                sent += room;
            }
            _ => break,
        }
    }
    assert!(sent > 1 << 20, "{sent} bytes");
    assert!(sent <= (1 << 20) + 2 * STREAM_WINDOW as usize, "{sent} bytes");
}
