//! X.509 certificates, verified as Go's crypto/x509 does, and so kubectl and kube-apiserver.
//!
//! [`Roots`] are the trusted CAs. Client certificates are verified when a request is authenticated,
//! those of servers by [`ServerVerifier`], both through `verify`. Below it: `certificate`
//! (parsing), `names` and `name_constraints`, `policies`, `revocation`, and `signature`, which asks
//! webpki. webpki itself does not verify the chains, as it refuses certificates that are common in
//! enterprise PKIs: CA certificates as end entities, and critical certificate policies.

mod certificate;
mod der;
mod error;
mod key;
mod name_constraints;
mod names;
mod policies;
mod provider;
mod revocation;
mod roots;
mod server;
mod signature;
mod verify;

pub use certificate::Certificate;
pub use der::Malformed;
pub use error::{Reason, VerifyError};
pub use key::{KeyError, certified_key, is_encrypted_key};
pub use provider::{crypto_provider, install_crypto_provider};
pub use revocation::RevocationList;
pub use roots::{Roots, UnreadableCertificate};
pub use server::readable;
pub use server::{ServerVerifier, describe_tls_error};
pub use signature::{verify_tls12, verify_tls13};
pub use verify::Usage;
pub use verify::Verification;

#[cfg(test)]
mod tests;
