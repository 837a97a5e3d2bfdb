//! The request's body: decoded once, for all events and for the decision to forward it.

use std::borrow::Cow;

use bytes::Bytes;
use http::HeaderMap;

use super::AuditContext;
use super::annotations::AMBIGUOUS;
use crate::audit::view::TakenRequest;
use audit_body::MediaType;
use audit_body::RequestBodyKind;
use audit_body::decode::{self, Ambiguities, DecodeError, Decoded, Format};
use k8s_audit::event::ObjectMetadata;
use k8s_audit::request::RequestInfo;

/// The result of decoding a body before it was forwarded.
pub(super) struct DecodedBody(Result<OwnedBody, DecodeError>);

struct OwnedBody {
    /// `None` if the body is JSON itself.
    json: Option<Vec<u8>>,
    metadata: Option<ObjectMetadata>,
    ambiguities: Ambiguities,
    note: Option<String>,
}

impl DecodedBody {
    /// Returns `None` if keeping the result would take much more memory than the body, which is
    /// accounted for.
    fn new(decoded: Result<Decoded<'_>, DecodeError>, length: usize) -> Option<DecodedBody> {
        let Decoded { json, metadata, ambiguities, note } = match decoded {
            Ok(decoded) => decoded,
            Err(error) => return Some(DecodedBody(Err(error))),
        };
        let json = match json {
            Cow::Borrowed(_) => None,
            Cow::Owned(json) if json.len() <= 2 * length => Some(json),
            Cow::Owned(_) => return None,
        };
        Some(DecodedBody(Ok(OwnedBody { json, metadata, ambiguities, note })))
    }

    fn of(self, body: &[u8]) -> Result<Decoded<'_>, DecodeError> {
        let OwnedBody { json, metadata, ambiguities, note } = self.0?;
        let json = json.map_or(Cow::Borrowed(body), Cow::Owned);
        Ok(Decoded { json, metadata, ambiguities, note })
    }
}

fn decode_body<'b>(
    info: &RequestInfo,
    (kind, format): (RequestBodyKind, Format),
    body: &'b [u8],
) -> Result<Decoded<'b>, DecodeError> {
    let resource = decode::Resource {
        group: info.group(),
        version: info.version(),
        resource: info.resource(),
        subresource: info.subresource(),
    };
    decode::decode(&decode::Request { format, kind, resource }, body)
}

fn ambiguities(decoded: &Result<Decoded<'_>, DecodeError>) -> Ambiguities {
    match decoded {
        Ok(decoded) => decoded.ambiguities,
        // kube-apiserver rejects it with its own message.
        Err(error) => error.ambiguities,
    }
}

impl AuditContext {
    /// Decodes a complete request body with these headers, and returns its ambiguities. A long body
    /// is decoded on another thread.
    pub async fn ambiguities(&mut self, headers: &HeaderMap, body: &Bytes) -> Ambiguities {
        let kind = RequestBodyKind::of(&self.facts.info).unwrap_or(RequestBodyKind::Object);
        let how = (kind, Format::of_request(headers, kind));
        let (info, body) = (self.facts.info.clone(), body.clone());
        let heavy = body.len() > audit_body::heavy_from(MediaType::of(headers));
        let decode = move || {
            let decoded = decode_body(&info, how, &body);
            (ambiguities(&decoded), DecodedBody::new(decoded, body.len()))
        };
        let (found, held) = if heavy {
            let user = self.user.as_ref().map_or("", |user| &user.username);
            let running = self.recorder.converter().run(user, decode.clone());
            running.await.unwrap_or_else(|_| decode())
        } else {
            decode()
        };
        self.held = held;
        found
    }

    /// Records the request's body, decoded once for all views.
    pub(super) fn read_request(&mut self) {
        let Some(status) = self.hidden.as_ref().or(self.status.as_ref()) else { return };
        let metrics = &self.recorder.metrics.bodies;
        let (mut first, mut others) = (None, Vec::new());
        for (index, view) in self.views.iter_mut().enumerate() {
            let Some(how) = view.request.as_ref().map(|request| (request.kind, request.format))
            else {
                continue;
            };
            let Some(TakenRequest { capture, body }) = view.take_request(status) else { continue };
            match body {
                None => {
                    self.in_part = true;
                    view.request_in_part(capture, metrics);
                }
                Some(body) if first.is_none() => first = Some((index, how, capture, body)),
                Some(_) => others.push((index, capture)),
            }
        }
        let Some((index, how, capture, body)) = first else { return };
        if how.0 == RequestBodyKind::DeleteOptions && body.is_empty() {
            // No view records it.
            return;
        }
        let mut decoded = match self.held.take() {
            Some(held) => held.of(&body),
            None => decode_body(&self.facts.info, how, &body),
        };
        if let Ok(decoded) = &mut decoded
            && self.metadata.is_none()
        {
            self.metadata = decoded.metadata.take();
        }
        for (index, capture) in std::iter::once((index, capture)).chain(others) {
            if let Some(view) = self.views.iter_mut().nth(index) {
                view.request_decoded(how.0, (capture, &body), &decoded, metrics);
            }
        }
        let ambiguities = ambiguities(&decoded);
        if !ambiguities.is_empty() {
            self.annotate(AMBIGUOUS, &ambiguities.names());
        }
    }
}
