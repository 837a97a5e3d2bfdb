//! Why a request has no response.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use pki::describe_tls_error;

use crate::exec::CredentialError;

/// A request that got no usable response. Cheap to clone; never shows a token or a header.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{kind}")]
pub struct RequestError {
    /// Host and port of the server.
    pub peer: Arc<str>,
    /// The failed step.
    #[source]
    pub kind: RequestErrorKind,
}

/// The step that failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RequestErrorKind {
    /// No connection could be opened. Nothing was sent.
    #[error("cannot connect to {peer}: {reason}")]
    Connect {
        /// Host and port.
        peer: Arc<str>,
        /// The cause.
        reason: Arc<str>,
        /// The server or a middlebox reset the connection.
        is_reset: bool,
    },
    /// The TLS handshake failed: an unknown CA, another name, a rejected client certificate.
    /// Nothing was sent.
    #[error("TLS handshake with {peer} failed: {reason}")]
    Tls {
        /// Host and port.
        peer: Arc<str>,
        /// The cause.
        reason: Arc<str>,
    },
    /// The connection broke after the request may have been processed.
    #[error("the connection to {peer} broke before the response: {reason}")]
    Interrupted {
        /// Host and port.
        peer: Arc<str>,
        /// The cause.
        reason: Arc<str>,
        /// The whole connection was lost, and not only the stream of this request reset.
        is_connection_lost: bool,
    },
    /// The response did not arrive in time.
    #[error("no response from {peer} in {timeout:?}")]
    Timeout {
        /// Host and port.
        peer: Arc<str>,
        /// How long was waited.
        timeout: Duration,
    },
    /// The response is longer than accepted.
    #[error("the response of {peer} is longer than {limit} bytes")]
    TooLarge {
        /// Host and port.
        peer: Arc<str>,
        /// The limit in bytes.
        limit: usize,
    },
    /// The URL cannot be requested.
    #[error("{url}: {reason}")]
    Url {
        /// The URL.
        url: Arc<str>,
        /// The cause.
        reason: &'static str,
    },
    /// The proxy has no valid credential, so the request was not sent.
    #[error(transparent)]
    Credential(#[from] CredentialError),
}

impl RequestError {
    pub(super) fn new(peer: &Arc<str>, kind: RequestErrorKind) -> RequestError {
        RequestError { peer: Arc::clone(peer), kind }
    }

    /// Returns the error of a connection attempt.
    pub(super) fn connect(peer: &Arc<str>, error: &(dyn Error + 'static)) -> RequestError {
        let peer_name = Arc::clone(peer);
        let kind = match find::<rustls::Error>(error) {
            Some(_) => {
                let reason = describe_tls_error(error).into();
                RequestErrorKind::Tls { peer: peer_name, reason }
            }
            None => {
                let io = find::<io::Error>(error);
                let is_reset =
                    io.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionReset);
                let reason = io.map_or_else(|| innermost(error), |error| error.to_string()).into();
                RequestErrorKind::Connect { peer: peer_name, reason, is_reset }
            }
        };
        RequestError::new(peer, kind)
    }

    /// Returns the error of a request on an open connection.
    pub(super) fn interrupted(peer: &Arc<str>, error: &(dyn Error + 'static)) -> RequestError {
        let (name, reason) = (Arc::clone(peer), innermost(error).into());
        let is_connection_lost = !find::<h2::Error>(error).is_some_and(h2::Error::is_reset);
        let kind = RequestErrorKind::Interrupted { peer: name, reason, is_connection_lost };
        RequestError::new(peer, kind)
    }

    /// Returns whether a new connection may help at once: the connection was lost, unlike a server
    /// that resets the stream of one request.
    pub(super) fn is_connection_lost(&self) -> bool {
        match &self.kind {
            RequestErrorKind::Interrupted { is_connection_lost, .. } => *is_connection_lost,
            _ => self.is_reset(),
        }
    }

    /// Returns whether no connection could be opened, so that nothing was sent.
    pub(super) fn is_connect(&self) -> bool {
        matches!(self.kind, RequestErrorKind::Connect { .. } | RequestErrorKind::Tls { .. })
    }

    /// Returns whether a connection broke, unlike one that could not be opened or was too slow.
    pub fn is_reset(&self) -> bool {
        match &self.kind {
            RequestErrorKind::Interrupted { .. } => true,
            RequestErrorKind::Connect { is_reset, .. } => *is_reset,
            _ => false,
        }
    }
}

/// Finds an error of this type among the causes of `error`.
fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        // `io::Error` shows its inner error, but `source` skips it.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
