//! What can go wrong on the way to the API server: whose fault, and whether to try again.

use std::io;
use std::sync::Arc;

use crate::pki::describe_tls_error;

/// A request that got no answer.
///
/// Cheap to clone, because requests that wait for one connection share its failure. Never shows a
/// token or a header.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SendError {
    /// No connection could be made. Nothing was sent.
    #[error("cannot connect to {upstream}: {source}")]
    Connect {
        /// Host and port.
        upstream: Arc<str>,
        /// Why.
        source: Arc<io::Error>,
    },
    /// The TLS handshake failed: an unknown CA, a wrong name, a refused client certificate. Nothing
    /// was sent.
    #[error("TLS handshake with {upstream} failed: {}", describe_tls_error(&**source))]
    Tls {
        /// Host and port.
        upstream: Arc<str>,
        /// Why.
        source: Arc<io::Error>,
    },
    /// The API server said, or it is certain, that it has not looked at the request.
    #[error("the API server did not take the request: {source}")]
    NotProcessed {
        /// Why.
        source: Arc<ConnectionError>,
    },
    /// The connection or the stream broke after the request may have been processed.
    #[error("the connection broke before the API server answered: {source}")]
    Interrupted {
        /// Why.
        source: Arc<ConnectionError>,
    },
    /// A response came, but it is not one that HTTP allows or that this proxy can hold. The request
    /// may have been processed.
    #[error("the API server's response cannot be parsed: {source}")]
    Unreadable {
        /// What is wrong with it.
        source: Arc<ConnectionError>,
    },
    /// The client did not send its body to the end.
    #[error("the client's request body ended early")]
    BodyFromClient,
    /// Time ran out.
    #[error("timed out: {waiting_for}")]
    Timeout {
        /// What did not happen in time.
        waiting_for: &'static str,
        /// Whether the request may have reached the API server.
        sent: bool,
    },
}

impl SendError {
    /// Whether the API server certainly has not acted on the request, so that sending it again
    /// cannot do anything twice.
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

    /// Whether a connection broke, as against one that could not be made or was too slow.
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

    /// Whether it was the client that broke off, and not the API server.
    pub fn is_clients_fault(&self) -> bool {
        matches!(self, SendError::BodyFromClient)
    }
}

/// How a connection to the API server failed, or one stream of it.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// In HTTP/1.1.
    #[error("{0}")]
    Http1(#[from] hyper::Error),
    /// In HTTP/2.
    #[error("{0}")]
    Http2(#[from] h2::Error),
    /// A stream was closed without an error, but before the answer's end.
    #[error("the API server ended the stream before its response")]
    Unfinished,
    /// Nothing came from the API server any more, not even the answer to a PING.
    #[error("the API server answered no PING")]
    Silent,
}
