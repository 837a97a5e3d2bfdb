//! Requests that leave HTTP: `exec`, `attach` and `port-forward` over SPDY or WebSocket.

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Response, StatusCode, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional_with_sizes;

use super::{LongRunning, ResponseBody, stored};
use crate::audit::record::Record;
use crate::request::headers;
use crate::upstream::UpstreamBody;

/// Bytes in flight in each direction.
const BUFFER: usize = 32 << 10;

/// A client's wish to switch protocols.
pub struct Asked {
    protocol: HeaderValue,
    client: OnUpgrade,
}

/// The request's wish to switch protocols, if it has one.
pub fn asked(parts: &mut Parts) -> Option<Asked> {
    if parts.version != Version::HTTP_11 {
        return None;
    }
    let protocol = headers::upgrade(&parts.headers)?.clone();
    let client = parts.extensions.remove::<OnUpgrade>()?;
    Some(Asked { protocol, client })
}

impl Asked {
    /// Puts the wish into the request to the API server.
    pub fn set_headers(&self, headers: &mut HeaderMap) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, self.protocol.clone());
    }
}

/// Passes the API server's 101 on, and then bytes both ways until one side ends.
pub async fn switch(
    long_running: &LongRunning,
    asked: Asked,
    answer: Response<UpstreamBody>,
    mut record: Record,
) -> Response<ResponseBody> {
    record.answered(StatusCode::SWITCHING_PROTOCOLS.as_u16(), None);
    stored(record.response_started()).await;

    let mut response = Response::new(ResponseBody::known(bytes::Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = answer.headers().clone();
    headers::strip_answer(response.headers_mut());
    let protocol = answer.headers().get(header::UPGRADE).unwrap_or(&asked.protocol).clone();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(header::UPGRADE, protocol);

    let upstream = hyper::upgrade::on(answer);
    let ending = long_running.ending.clone();
    long_running.upgraded.spawn(async move {
        let passing = async {
            let (client, upstream) = tokio::try_join!(asked.client, upstream)
                .inspect_err(|error| tracing::debug!(%error, "an upgrade came to nothing"))
                .ok()?;
            let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
            // Ends with the connection; how, is no matter of the record.
            copy_bidirectional_with_sizes(&mut client, &mut upstream, BUFFER, BUFFER).await.ok()
        };
        tokio::select! {
            _ = passing => {}
            () = ending.cancelled() => {}
        }
        stored(record.complete()).await;
    });
    response
}
