//! Requests that are refused since the meaning of their body is ambiguous.

use bytes::Bytes;
use http::HeaderMap;

use super::{AMBIGUOUS, Record};
use crate::audit::body::{self, Reservation};
use crate::audit::decode::{self, Ambiguities};
use crate::audit::object::MediaType;
use crate::audit::recording::RequestBodyKind;

impl Record {
    /// Whether a recorded body is to be held until it is complete and has been decoded, since it is
    /// refused if its meaning is ambiguous.
    pub fn refuses_ambiguous(&self) -> bool {
        self.recorder.refuses_ambiguous()
    }

    /// Returns the memory that a held body may occupy, nothing yet.
    pub fn reservation(&self) -> Reservation {
        self.recorder.sinks()[0].bodies.budget.reservation(self.account())
    }

    /// Decodes a complete request body with these headers, and returns what makes its meaning
    /// ambiguous. A long one is decoded on another thread.
    pub fn ambiguities(
        &self,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> impl Future<Output = Ambiguities> + Send + use<> {
        let kind = RequestBodyKind::of(&self.facts.info).unwrap_or(RequestBodyKind::Object);
        let format = decode::Format::of_request(headers, kind);
        let (info, body) = (self.facts.info.clone(), body.clone());
        let heavy = body.len() > body::heavy_from(MediaType::of(headers));
        let decode = move || {
            let resource = decode::Resource {
                group: info.group(),
                version: info.version(),
                resource: info.resource(),
                subresource: info.subresource(),
            };
            match decode::decode(&decode::Request { format, kind, resource }, &body) {
                Ok(decoded) => decoded.ambiguities,
                // kube-apiserver refuses it in its own words.
                Err(error) => error.ambiguities,
            }
        };
        let running = heavy.then(|| {
            let user = self.user.as_ref().map_or("", |user| &user.username);
            self.recorder.converter().run(user, decode.clone())
        });
        async move {
            match running {
                None => decode(),
                Some(running) => running.await.unwrap_or_else(|_| decode()),
            }
        }
    }

    /// Refuses the request since its body is ambiguous: the body is recorded as it came.
    pub fn refused_for(&mut self, ambiguities: Ambiguities) {
        for view in self.views.iter_mut() {
            view.refuse_request(&self.recorder.metrics.bodies);
        }
        self.annotate(AMBIGUOUS, &ambiguities.names());
        self.recorder.metrics.bodies.ambiguous_rejected.inc();
    }
}
