//! Request bodies that are held until they are complete, since an ambiguous one is refused.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::BodyExt;

use crate::audit::record::Record;
use crate::body::{BODY_DEADLINE, BodyError, ClientBody, RequestBody, Tap};
use crate::status::Status;
use audit_body::Reservation;

/// kube-apiserver's limit (`--max-resource-write-bytes`). A longer body is not held but refused, as
/// it is there.
const MAX_BODY: usize = 3 << 20;

/// Why a body is not there as a whole.
enum NotHeld {
    TooLong,
    NoMemory,
    BrokenOff(BodyError),
}

/// Reads the whole body of a request, has it decoded, and returns it if its meaning is not
/// ambiguous. Nothing has been forwarded then.
///
/// # Errors
/// The Status to answer with: 400 for an ambiguous body, 413 for one that is longer than
/// kube-apiserver takes, 429 if the client's share of the memory for bodies is taken, 504 if it is
/// not complete in time.
pub(super) async fn hold(
    record: &mut Record,
    headers: &HeaderMap,
    body: ClientBody,
    mut tap: Box<dyn Tap>,
) -> Result<RequestBody, Box<Status>> {
    let mut memory = record.reservation();
    let held = match tokio::time::timeout(BODY_DEADLINE, whole(body, &mut memory)).await {
        Ok(held) => held.map_err(|error| Box::new(error.status()))?,
        Err(_) => {
            return Err(Box::new(Status::timeout(
                "request did not complete within the allotted timeout",
            )));
        }
    };
    tap.data(&held);
    tap.end();
    let ambiguities = record.ambiguities(headers, &held).await;
    if !ambiguities.is_empty() {
        record.refused_for(ambiguities);
        return Err(Box::new(Status::bad_request(ambiguities.explain())));
    }
    Ok(RequestBody::from(held))
}

async fn whole(mut body: ClientBody, memory: &mut Reservation) -> Result<Bytes, NotHeld> {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        // Trailers are not validated like headers; Kubernetes has none in requests.
        let Ok(data) = frame.map_err(NotHeld::BrokenOff)?.into_data() else { break };
        let length = first.len() + all.len() + data.len();
        if length > MAX_BODY {
            return Err(NotHeld::TooLong);
        }
        if !memory.hold(length) {
            return Err(NotHeld::NoMemory);
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

impl NotHeld {
    fn status(self) -> Status {
        match self {
            NotHeld::TooLong => Status::too_large(MAX_BODY),
            NotHeld::NoMemory => {
                let message = "the request bodies of this user that are being audited occupy too \
                               much memory, try again later";
                Status::too_many_requests(message, 1)
            }
            NotHeld::BrokenOff(error) => {
                tracing::debug!(%error, "a client broke off its request");
                Status::client_gone()
            }
        }
    }
}
