//! Buffers request bodies until they are complete, so that ambiguous ones can be refused.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body;
use http_body_util::BodyExt;

use crate::audit::record::AuditContext;
use crate::body::{BODY_DEADLINE, BodyError, ClientBody, RequestBody, Tap};
use audit_body::Reservation;
use k8s_audit::status::Status;

/// kube-apiserver's limit (`--max-resource-write-bytes`). Longer bodies are refused without
/// buffering the rest.
const MAX_BODY: usize = 3 << 20;

/// Why a body could not be buffered completely.
#[derive(Debug)]
enum BufferError {
    TooLong,
    NoMemory,
    BrokenOff(BodyError),
}

/// Buffers and decodes the body of a request before anything is forwarded, and returns it if its
/// meaning is unambiguous.
///
/// # Errors
/// Returns the Status to respond with: 400 if the body is ambiguous, 413 if it exceeds
/// kube-apiserver's limit, 429 if the client's share of the memory for bodies is used up, 504 if
/// the deadline passes before the body is complete.
pub(super) async fn buffer(
    record: &mut AuditContext,
    headers: &HeaderMap,
    body: ClientBody,
    mut tap: Box<dyn Tap>,
) -> Result<RequestBody, Box<Status>> {
    let mut memory = record.reservation();
    let body = match tokio::time::timeout(BODY_DEADLINE, read_all(body, &mut memory)).await {
        Ok(body) => body.map_err(|error| Box::new(error.status()))?,
        Err(_) => {
            return Err(Box::new(Status::timeout(
                "request did not complete within the allotted timeout",
            )));
        }
    };
    tap.data(&body);
    tap.end();
    let ambiguities = record.ambiguities(headers, &body).await;
    if !ambiguities.is_empty() {
        record.refused_for(ambiguities);
        return Err(Box::new(Status::bad_request(ambiguities.explain())));
    }
    Ok(RequestBody::from(body))
}

async fn read_all(
    mut body: impl Body<Data = Bytes, Error = BodyError> + Unpin,
    memory: &mut Reservation,
) -> Result<Bytes, BufferError> {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        // Trailers are not validated like headers; Kubernetes has none in requests.
        let Ok(data) = frame.map_err(BufferError::BrokenOff)?.into_data() else { break };
        let length = first.len() + all.len() + data.len();
        if length > MAX_BODY {
            return Err(BufferError::TooLong);
        }
        if !memory.hold(length) {
            return Err(BufferError::NoMemory);
        }
        match (first.is_empty(), all.is_empty()) {
            (true, true) => first = data,
            _ => {
                if all.is_empty() {
                    all.extend_from_slice(&std::mem::take(&mut first));
                }
                all.extend_from_slice(&data);
            }
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

impl BufferError {
    fn status(self) -> Status {
        match self {
            BufferError::TooLong => Status::too_large(MAX_BODY),
            BufferError::NoMemory => {
                let message = "the request bodies of this user that are being audited occupy too \
                               much memory, try again later";
                Status::too_many_requests(message, 1)
            }
            BufferError::BrokenOff(error) => {
                tracing::debug!(%error, "a client broke off its request");
                Status::client_gone()
            }
        }
    }
}

#[cfg(test)]
mod tests;
