//! The body of a client's request, and what remains of it if the response starts first.
//!
//! The response can start before the request's body has been read, for example a 401 to a large
//! object. `h2` then resets the stream when its body is dropped (RFC 9113, section 8.1), and
//! clients such as curl 7.88 report an error instead of the response that they have already
//! received. So the rest is read for a limited time.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::ReceiveBody;

/// How long the client may continue to send after the response.
const PATIENCE: Duration = Duration::from_secs(1);
/// Maximum number of bytes that are read and discarded. Then flow control stops the client.
const DISCARD_LIMIT: usize = 1 << 20;

/// The body of a client's request. If it is dropped before its end, the rest is read and discarded
/// for up to one second after the response was sent, and up to 1 MiB.
pub(crate) struct RequestStream {
    /// `None` only while dropping.
    body: Option<ReceiveBody>,
    /// `None` for requests without a body, and after the body failed.
    responded: Option<Arc<Notify>>,
}

/// Held until the response to a request with a body has been sent.
pub(crate) struct Responding(Arc<Notify>);

impl Drop for Responding {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl RequestStream {
    /// Returns the body of a request, and the guard to hold until its response has been sent.
    pub(crate) fn new(body: ReceiveBody) -> (RequestStream, Option<Responding>) {
        if body.is_end_stream() {
            return (RequestStream { body: Some(body), responded: None }, None);
        }
        let responded = Arc::new(Notify::new());
        let responding = Responding(Arc::clone(&responded));
        (RequestStream { body: Some(body), responded: Some(responded) }, Some(responding))
    }

    fn body(&self) -> &ReceiveBody {
        self.body.as_ref().expect("it is only taken when this is dropped")
    }
}

impl Body for RequestStream {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(context));
        if matches!(frame, Some(Err(_))) {
            self.responded = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body().size_hint()
    }
}

impl Drop for RequestStream {
    fn drop(&mut self) {
        let (Some(body), Some(responded)) = (self.body.take(), self.responded.take()) else {
            return;
        };
        if !body.is_end_stream()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(discard(body, responded));
        }
    }
}

/// Reads and discards the rest of `body`, within limits.
async fn discard(mut body: ReceiveBody, responded: Arc<Notify>) {
    let reading = async {
        let mut left = DISCARD_LIMIT;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return };
            let length = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(length) {
                Some(less) => left = less,
                None => std::future::pending().await,
            }
        }
    };
    let patience = async {
        responded.notified().await;
        tokio::time::sleep(PATIENCE).await;
    };
    tokio::select! {
        () = reading => {}
        () = patience => {}
    }
}
