//! The state of a client's connection.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::request::source::Peer;
use audit_log::CommitSequence;
use kube_authn::ClientCertificates;

/// A client's connection, shared by its requests.
pub struct Connection {
    /// Identifies the connection.
    pub(super) number: u64,
    pub(super) peer: SocketAddr,
    pub(super) forwarded_for: Peer,
    /// The commit sequence of the worker that serves the connection.
    pub(super) sequence: CommitSequence,
    pub(crate) certificates: Option<ClientCertificates>,
    pub(super) upgraded: AtomicBool,
}

impl Connection {
    /// Creates the state of a connection from `peer`, which presented these certificates (its own
    /// first) and is served by the worker with this sequence.
    pub fn new(
        peer: SocketAddr,
        certificates: Vec<rustls_pki_types::CertificateDer<'static>>,
        sequence: CommitSequence,
    ) -> Connection {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let certificates = ClientCertificates::new(certificates);
        let forwarded_for = Peer::new(peer);
        let upgraded = AtomicBool::new(false);
        Connection { number, peer, forwarded_for, sequence, certificates, upgraded }
    }

    /// Returns whether the connection has switched to another protocol.
    pub fn is_upgraded(&self) -> bool {
        self.upgraded.load(Ordering::Relaxed)
    }

    /// Returns the client's address.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }
}
