//! Errors of requests to the API server: their cause, and whether the request may be repeated.

use std::io;
use std::sync::Arc;

use pki::describe_tls_error;

/// A request that got no response.
///
/// Cheap to clone, because requests that wait for one connection share its failure. Never contains
/// a token or a header.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SendError {
    /// No connection could be opened. Nothing was sent.
    #[error("cannot connect to {upstream}: {source}")]
    Connect {
        /// Host and port.
        upstream: Arc<str>,
        /// The cause.
        source: Arc<io::Error>,
    },
    /// The TLS handshake failed: an unknown CA, a wrong name, a refused client certificate. Nothing
    /// was sent.
    #[error("TLS handshake with {upstream} failed: {}", describe_tls_error(&**source))]
    Tls {
        /// Host and port.
        upstream: Arc<str>,
        /// The cause.
        source: Arc<io::Error>,
    },
    /// The API server has certainly not processed the request: it responded so, or nothing was
    /// sent.
    #[error("the API server did not accept the request: {source}")]
    NotProcessed {
        /// The cause.
        source: Arc<ConnectionError>,
    },
    /// The connection or the stream broke after the request may have been processed.
    #[error("the connection was lost before the API server responded: {source}")]
    Interrupted {
        /// The cause.
        source: Arc<ConnectionError>,
    },
    /// A response arrived that is not valid HTTP or exceeds the limits of this proxy. The request
    /// may have been processed.
    #[error("the API server's response cannot be parsed: {source}")]
    Unreadable {
        /// The fault of the response.
        source: Arc<ConnectionError>,
    },
    /// The client did not send its body completely.
    #[error("the client's request body ended early")]
    BodyFromClient,
    /// A step took too long.
    #[error("timed out: {waiting_for}")]
    Timeout {
        /// The step that took too long.
        waiting_for: &'static str,
        /// Whether the request may have reached the API server.
        sent: bool,
    },
}

impl SendError {
    /// Returns whether the API server has certainly not processed the request, so that repeating it
    /// has no effect twice.
    pub fn retry_safe(&self) -> bool {
        match self {
            SendError::Connect { .. } | SendError::Tls { .. } | SendError::NotProcessed { .. } => {
                true
            }
            SendError::Timeout { sent, .. } => !sent,
            SendError::Interrupted { .. }
            | SendError::Unreadable { .. }
            | SendError::BodyFromClient => false,
        }
    }

    /// Returns whether the API server may have processed the request although there is no response.
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(
            self,
            SendError::Interrupted { .. }
                | SendError::Unreadable { .. }
                | SendError::Timeout { sent: true, .. }
        )
    }

    /// Returns whether a connection broke, unlike one that could not be opened or was too slow.
    pub fn is_reset(&self) -> bool {
        match self {
            SendError::NotProcessed { .. } | SendError::Interrupted { .. } => true,
            SendError::Connect { source, .. } | SendError::Tls { source, .. } => {
                source.kind() == io::ErrorKind::ConnectionReset
            }
            SendError::BodyFromClient
            | SendError::Unreadable { .. }
            | SendError::Timeout { .. } => false,
        }
    }

    /// Returns whether the client aborted the request, and not the API server.
    pub fn is_clients_fault(&self) -> bool {
        matches!(self, SendError::BodyFromClient)
    }
}

/// How a connection to the API server, or one of its streams, failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// An error of HTTP/1.1.
    #[error("{0}")]
    Http1(#[from] hyper::Error),
    /// An error of HTTP/2.
    #[error("{0}")]
    Http2(#[from] h2::Error),
    /// A stream was closed without an error, but before the end of the response.
    #[error("the API server ended the stream before its response")]
    Unfinished,
    /// The API server sent nothing more, and did not respond to a PING.
    #[error("the API server did not respond to a PING")]
    KeepAliveTimeout,
}
