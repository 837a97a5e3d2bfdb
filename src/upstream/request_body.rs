//! The body of the outgoing request. A small body is kept until the API server responds, so that a
//! request that was certainly not processed can be sent again.

use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::body::{BodyError, RequestBody};

/// Maximum size of a streamed body that is kept. Nearly all bodies of clients are smaller; larger
/// ones cannot be sent again.
pub(super) const KEPT: usize = 64 << 10;

/// The source of the bodies of all attempts at a request.
pub(super) enum BodySource {
    Known(Option<Bytes>),
    Streamed(Arc<Mutex<Streamed>>),
}

/// The body of one attempt.
pub(super) enum Outgoing {
    Known(Option<Bytes>),
    Streamed { shared: Arc<Mutex<Streamed>>, attempt: u32, next: usize },
}

/// A client's body and what is kept of it.
pub(super) struct Streamed {
    body: RequestBody,
    /// All frames so far; `None` if they are too large or no longer needed.
    kept: Option<Vec<Bytes>>,
    kept_bytes: usize,
    /// Only this attempt may read more frames from the client.
    attempt: u32,
    ended: bool,
    failed: bool,
}

impl BodySource {
    pub(super) fn new(body: RequestBody) -> BodySource {
        match body {
            RequestBody::Known(bytes) => BodySource::Known(bytes),
            // A body without bytes need not be kept.
            body if body.is_end_stream() => BodySource::Known(None),
            body => BodySource::Streamed(Arc::new(Mutex::new(Streamed {
                body,
                kept: Some(Vec::new()),
                kept_bytes: 0,
                attempt: 0,
                ended: false,
                failed: false,
            }))),
        }
    }

    /// Returns the body from its beginning, if everything that was read of it is still available.
    pub(super) fn attempt(&self) -> Option<Outgoing> {
        match self {
            BodySource::Known(bytes) => Some(Outgoing::Known(bytes.clone())),
            BodySource::Streamed(shared) => {
                let mut streamed = lock(shared);
                if streamed.kept.is_none() || streamed.failed {
                    return None;
                }
                streamed.attempt += 1;
                let attempt = streamed.attempt;
                drop(streamed);
                Some(Outgoing::Streamed { shared: Arc::clone(shared), attempt, next: 0 })
            }
        }
    }

    /// Returns whether [`BodySource::attempt`] would return a body.
    pub(super) fn can_repeat(&self) -> bool {
        match self {
            BodySource::Known(_) => true,
            BodySource::Streamed(shared) => {
                let streamed = lock(shared);
                streamed.kept.is_some() && !streamed.failed
            }
        }
    }

    /// Drops the kept frames: there is a response, so the body is not needed again.
    pub(super) fn settle(self) {
        if let BodySource::Streamed(shared) = self {
            let mut streamed = lock(&shared);
            // Frames that an attempt has yet to replay must stay. There are none once it got a
            // response, unless the response came before the body was read.
            if streamed.attempt == 1 {
                streamed.kept = None;
            }
        }
    }

    /// Returns whether the client aborted the body.
    pub(super) fn failed(&self) -> bool {
        match self {
            BodySource::Known(_) => false,
            BodySource::Streamed(shared) => lock(shared).failed,
        }
    }
}

fn lock(shared: &Mutex<Streamed>) -> MutexGuard<'_, Streamed> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Streamed {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => match frame.data_ref() {
                Some(data) => self.keep(data),
                // Trailers are not kept, so the rest is not kept either.
                None => self.kept = None,
            },
            Some(Err(_)) => self.failed = true,
            None => self.ended = true,
        }
        Poll::Ready(frame)
    }

    fn keep(&mut self, data: &Bytes) {
        self.kept_bytes += data.len();
        if self.kept_bytes > KEPT {
            self.kept = None;
        } else if let Some(kept) = &mut self.kept {
            kept.push(data.clone());
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Outgoing::Known(bytes) => Poll::Ready(mem::take(bytes).map(|b| Ok(Frame::data(b)))),
            Outgoing::Streamed { shared, attempt, next } => {
                let mut streamed = lock(shared);
                if streamed.attempt != *attempt {
                    return Poll::Ready(Some(Err("the request is being sent again".into())));
                }
                if let Some(data) = streamed.kept.as_ref().and_then(|kept| kept.get(*next)) {
                    *next += 1;
                    return Poll::Ready(Some(Ok(Frame::data(data.clone()))));
                }
                let frame = ready!(streamed.poll(context));
                *next += 1;
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Outgoing::Known(bytes) => bytes.is_none(),
            Outgoing::Streamed { shared, next, .. } => {
                let streamed = lock(shared);
                let replayed = streamed.kept.as_ref().is_none_or(|kept| *next >= kept.len());
                replayed && (streamed.ended || streamed.body.is_end_stream())
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Outgoing::Known(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
            Outgoing::Streamed { shared, next, .. } => {
                let streamed = lock(shared);
                let replayed: u64 = streamed
                    .kept
                    .iter()
                    .flat_map(|kept| kept.iter().skip(*next))
                    .map(|data| data.len() as u64)
                    .sum();
                let rest = streamed.body.size_hint();
                let mut hint = SizeHint::new();
                hint.set_lower(rest.lower() + replayed);
                if let Some(upper) = rest.upper() {
                    hint.set_upper(upper + replayed);
                }
                hint
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    /// Returns a body in frames, which `RequestBody` can only have from a connection.
    fn streamed(frames: &[&'static str]) -> BodySource {
        BodySource::Streamed(Arc::new(Mutex::new(Streamed {
            body: RequestBody::EMPTY,
            kept: Some(frames.iter().map(|f| Bytes::from_static(f.as_bytes())).collect()),
            kept_bytes: 0,
            attempt: 0,
            ended: false,
            failed: false,
        })))
    }

    #[tokio::test]
    async fn each_attempt_starts_from_the_beginning_and_only_the_last_continues() {
        let source = streamed(&["a", "b"]);
        let mut first = source.attempt().unwrap();
        assert_eq!(first.size_hint().exact(), Some(2));
        assert_eq!(first.frame().await.unwrap().unwrap().into_data().unwrap(), "a");
        let mut second = source.attempt().unwrap();
        assert!(first.frame().await.unwrap().is_err());
        assert_eq!(second.frame().await.unwrap().unwrap().into_data().unwrap(), "a");
        assert!(!second.is_end_stream());
        assert_eq!(second.size_hint().exact(), Some(1));
        // A response in the middle of the body does not affect the rest.
        source.settle();
        assert_eq!(second.frame().await.unwrap().unwrap().into_data().unwrap(), "b");
        assert!(second.is_end_stream());
        assert!(second.frame().await.is_none());
    }

    #[test]
    fn too_much_is_not_kept() {
        let BodySource::Streamed(shared) = streamed(&[]) else { unreachable!() };
        let half = Bytes::from(vec![0; KEPT / 2]);
        lock(&shared).keep(&half);
        lock(&shared).keep(&half);
        let source = BodySource::Streamed(Arc::clone(&shared));
        assert!(source.can_repeat());
        lock(&shared).keep(&Bytes::from_static(b"1"));
        assert!(!source.can_repeat() && source.attempt().is_none());
    }
}
