//! The cryptography of all TLS connections.

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, kx_group};

/// Returns aws-lc-rs with the key exchange groups of this program: X25519MLKEM768, X25519, P-256
/// and P-384, in this order, for the listener and for connections to other servers.
///
/// It is the order of Go since 1.24, and so of kube-apiserver 1.33 and later and of kubectl. The
/// hybrid group protects recorded traffic, such as tokens and Secrets, from a future quantum
/// computer. A peer without it costs no round trip: rustls as a client offers the X25519 half of
/// its hybrid key share on its own as well, and as a server it takes the first group of this list
/// for which the client has sent a key share.
///
/// The groups are listed here because the order of rustls' own list depends on a Cargo feature that
/// any dependency can enable (`prefer-post-quantum`; krafka does). Every TLS configuration must be
/// built with this provider.
pub fn crypto_provider() -> CryptoProvider {
    CryptoProvider {
        kx_groups: vec![
            kx_group::X25519MLKEM768,
            kx_group::X25519,
            kx_group::SECP256R1,
            kx_group::SECP384R1,
        ],
        ..aws_lc_rs::default_provider()
    }
}

/// Makes [`crypto_provider`] the one that libraries get which build TLS configurations themselves.
/// Without effect if the process has one already.
pub fn install_crypto_provider() {
    let _ = crypto_provider().install_default();
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::crypto::SupportedKxGroup;
    use rustls::{
        ClientConfig, ClientConnection, HandshakeKind, NamedGroup, RootCertStore, ServerConfig,
        ServerConnection,
    };

    use super::*;

    const CLASSICAL: [&dyn SupportedKxGroup; 2] = [kx_group::X25519, kx_group::SECP256R1];

    fn with_groups(groups: &[&'static dyn SupportedKxGroup]) -> Arc<CryptoProvider> {
        Arc::new(CryptoProvider { kx_groups: groups.to_vec(), ..crypto_provider() })
    }

    /// Returns the group of a handshake, and whether it took a round trip more than needed.
    fn handshake(client: Arc<CryptoProvider>, server: Arc<CryptoProvider>) -> (NamedGroup, bool) {
        let issued = rcgen::generate_simple_self_signed(["server".to_owned()]).unwrap();
        let key = issued.signing_key.serialize_der().try_into().unwrap();
        let server = ServerConfig::builder_with_provider(server)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![issued.cert.der().clone()], key)
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(issued.cert.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(client)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = "server".try_into().unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
        let mut server = ServerConnection::new(Arc::new(server)).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut sent = Vec::new();
            client.write_tls(&mut sent).unwrap();
            server.read_tls(&mut &sent[..]).unwrap();
            server.process_new_packets().unwrap();
            sent.clear();
            server.write_tls(&mut sent).unwrap();
            client.read_tls(&mut &sent[..]).unwrap();
            client.process_new_packets().unwrap();
        }
        let group = server.negotiated_key_exchange_group().unwrap().name();
        (group, server.handshake_kind() == Some(HandshakeKind::FullWithHelloRetryRequest))
    }

    #[test]
    fn key_exchange_groups_have_the_order_of_go() {
        let names: Vec<_> = crypto_provider().kx_groups.iter().map(|group| group.name()).collect();
        assert_eq!(
            names,
            [
                NamedGroup::X25519MLKEM768,
                NamedGroup::X25519,
                NamedGroup::secp256r1,
                NamedGroup::secp384r1,
            ]
        );
    }

    #[test]
    fn peers_without_the_hybrid_group_cost_no_round_trip() {
        let own = || Arc::new(crypto_provider());
        assert_eq!(handshake(own(), own()), (NamedGroup::X25519MLKEM768, false));
        assert_eq!(handshake(with_groups(&CLASSICAL), own()), (NamedGroup::X25519, false));
        assert_eq!(handshake(own(), with_groups(&CLASSICAL)), (NamedGroup::X25519, false));
        // A server with NIST curves alone needs one, whatever the order.
        let nist = with_groups(&[kx_group::SECP384R1]);
        assert_eq!(handshake(own(), nist), (NamedGroup::secp384r1, true));
    }
}
