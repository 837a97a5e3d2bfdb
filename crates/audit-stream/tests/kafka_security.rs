//! The Kafka destination with TLS and SASL: against a Tansu broker behind a server that terminates
//! TLS and implements the broker's side of SASL, which Tansu does not offer in this build.
#![cfg(feature = "kafka")]
#![allow(clippy::unwrap_used)]

mod sasl;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use audit_log::{Batch, DeliveryError, Destination};
use audit_stream::kafka::{Kafka, KafkaSettings, PasswordMechanism, SaslSettings, TlsSettings};
use krafka::admin::{NewTopic, OffsetSpec, TopicPartition};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::PrivateKeyDer;
use test_support::TempDir;
use test_support::servers::{self, Server};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use self::sasl::Accounts;

const USER: &str = "proxy,of=audit";
const SECRET: &str = "correct horse=battery,staple";

/// What the front server demands of the next connections.
#[derive(Clone, Default)]
struct Demands {
    tls: Option<TlsAcceptor>,
    sasl: Option<Arc<Accounts>>,
}

/// A broker that tells its clients the address of the front server.
struct Broker {
    front: SocketAddr,
    demands: Arc<Mutex<Demands>>,
    _server: Server,
}

impl Broker {
    /// Starts a broker with a topic.
    async fn start() -> Option<Broker> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let front = listener.local_addr().unwrap();
        let address = servers::free_address();
        let server = Server::start(servers::tansu(address, front)?, address);
        let demands = Arc::<Mutex<Demands>>::default();
        let current = Arc::clone(&demands);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Demands { tls, sasl } = current.lock().unwrap().clone();
                tokio::spawn(async move {
                    match tls {
                        None => pass(client, sasl, address).await,
                        Some(tls) => {
                            let Ok(client) = tls.accept(client).await else { return };
                            pass(client, sasl, address).await;
                        }
                    }
                });
            }
        });
        let broker = Broker { front, demands, _server: server };
        let topic = NewTopic::new("audit", 1, 1).unwrap();
        let created = broker.open().await.admin().create_topics([topic], Default::default()).await;
        assert!(created.unwrap().into_values().all(|topic| topic.is_ok()));
        Some(broker)
    }

    fn demand(&self, demands: Demands) {
        *self.demands.lock().unwrap() = demands;
    }

    /// A client of the test's own, while nothing is demanded.
    async fn open(&self) -> krafka::Kafka {
        krafka::Kafka::builder(self.front.to_string()).connect().await.unwrap()
    }

    /// Returns the number of records in the topic; nothing is demanded from then on.
    async fn records(&self) -> i64 {
        self.demand(Demands::default());
        let end = [(TopicPartition::new("audit", 0), OffsetSpec::Latest)];
        let ends = self.open().await.admin().list_offsets(end, Default::default()).await.unwrap();
        ends.into_values().map(|end| end.unwrap().offset).sum()
    }

    fn settings(&self) -> KafkaSettings {
        KafkaSettings::new(vec![self.front.to_string()], "audit".to_owned())
    }
}

/// Authenticates a client and connects it to the broker.
async fn pass(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    sasl: Option<Arc<Accounts>>,
    broker: SocketAddr,
) {
    if let Some(accounts) = sasl
        && sasl::authenticate(&mut client, &accounts).await.is_none()
    {
        return;
    }
    let Ok(mut server) = TcpStream::connect(broker).await else { return };
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}

fn batch() -> Batch {
    let line = r#"{"kind":"Event","auditID":"a","stage":"ResponseComplete"}"#;
    Batch { number: 1, lines: format!("{line}\n").into(), events: 1 }
}

/// Delivers a batch that must not be accepted. Returns the reason.
async fn refused(settings: KafkaSettings) -> String {
    let error = Kafka::new(settings).unwrap().deliver(batch()).await.unwrap_err();
    assert!(matches!(error, DeliveryError::Unavailable { .. }), "it waits: {error:?}");
    error.to_string()
}

/// A CA and the files that it has issued.
struct Pki {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
    ca: rcgen::Certificate,
}

impl Pki {
    fn new() -> Pki {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).unwrap();
        let pki = Pki { dir: TempDir::new(), issuer: Issuer::new(params, key), ca };
        pki.write("ca.crt", &pki.ca.pem());
        pki
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// Issues a client certificate into files.
    fn client(&self) -> (PathBuf, PathBuf) {
        let (certificate, key) = self.issue("proxy");
        let certificate = self.write("client.crt", &certificate.pem());
        (certificate, self.write("client.key", &key.serialize_pem()))
    }

    /// A server with a certificate for this name, which demands one of its clients.
    fn server(&self, name: &str) -> TlsAcceptor {
        let (certificate, key) = self.issue(name);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.der().clone()).unwrap();
        let roots = Arc::new(roots);
        let clients = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients.build().unwrap())
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            )
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

#[tokio::test]
async fn connections_are_encrypted_and_both_sides_are_verified() {
    let Some(broker) = Broker::start().await else { return };
    let (pki, other) = (Pki::new(), Pki::new());
    let demand = |name: &str| {
        broker.demand(Demands { tls: Some(pki.server(name)), sasl: None });
    };
    let tls = |change: fn(&mut TlsSettings, &Pki)| {
        let mut settings = broker.settings();
        let mut tls = TlsSettings {
            ca_file: Some(pki.path("ca.crt")),
            client_certificate: Some(pki.client()),
            server_name: None,
        };
        change(&mut tls, &other);
        settings.tls = Some(tls);
        settings
    };
    demand("127.0.0.1");
    Kafka::new(tls(|_, _| {})).unwrap().deliver(batch()).await.unwrap();
    let error = refused(tls(|tls, other| tls.ca_file = Some(other.path("ca.crt")))).await;
    assert!(error.to_lowercase().contains("certificate"), "{error}");
    refused(tls(|tls, _| tls.client_certificate = None)).await;
    refused(tls(|tls, other| tls.client_certificate = Some(other.client()))).await;
    refused(broker.settings()).await;

    // The broker's certificate has another name.
    demand("kafka.example.com");
    refused(tls(|_, _| {})).await;
    let named = tls(|tls, _| tls.server_name = Some("kafka.example.com".to_owned()));
    Kafka::new(named).unwrap().deliver(batch()).await.unwrap();
    assert_eq!(broker.records().await, 2);
}

#[tokio::test]
async fn certificates_that_change_are_used_without_a_restart() {
    let Some(broker) = Broker::start().await else { return };
    let (pki, other) = (Pki::new(), Pki::new());
    broker.demand(Demands { tls: Some(pki.server("127.0.0.1")), sasl: None });
    let ca_file = pki.write("trusted.crt", &other.ca.pem());
    let mut settings = broker.settings();
    settings.tls = Some(TlsSettings {
        ca_file: Some(ca_file),
        client_certificate: Some(pki.client()),
        server_name: None,
    });
    let kafka = Kafka::new(settings).unwrap();
    kafka.deliver(batch()).await.unwrap_err();
    pki.write("trusted.crt", &pki.ca.pem());
    let delivering = async { while kafka.deliver(batch()).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(30), delivering).await.unwrap();
    assert_eq!(broker.records().await, 1);
}

#[tokio::test]
async fn all_mechanisms_authenticate_and_wrong_secrets_wait() {
    let Some(broker) = Broker::start().await else { return };
    let dir = TempDir::new();
    let file = dir.path().join("secret");
    for (mechanism, password) in [
        ("PLAIN", Some(PasswordMechanism::Plain)),
        ("SCRAM-SHA-256", Some(PasswordMechanism::ScramSha256)),
        ("SCRAM-SHA-512", Some(PasswordMechanism::ScramSha512)),
        ("OAUTHBEARER", None),
    ] {
        let sasl = match password {
            Some(mechanism) => SaslSettings::Password {
                mechanism,
                username: USER.to_owned(),
                password_file: file.clone(),
            },
            None => SaslSettings::Token {
                token_file: file.clone(),
                extensions: [("logicalCluster".to_owned(), "lkc-1".to_owned())].into(),
            },
        };
        let username = match password {
            Some(PasswordMechanism::Plain) | None => USER,
            // As it is on the wire.
            Some(_) => "proxy=2Cof=3Daudit",
        };
        let secret = if password.is_some() { SECRET } else { "a.token.of-the-test" };
        let accounts = |mechanism| Some(Arc::new(Accounts { mechanism, username, secret }));
        broker.demand(Demands { tls: None, sasl: accounts(mechanism) });
        let settings = || KafkaSettings { sasl: Some(sasl.clone()), ..broker.settings() };

        std::fs::write(&file, "a-wrong-secret\n").unwrap();
        let kafka = Kafka::new(settings()).unwrap();
        let error = kafka.deliver(batch()).await.unwrap_err();
        assert!(matches!(error, DeliveryError::Unavailable { .. }), "{mechanism}: {error:?}");
        let error = error.to_string();
        assert!(error.contains("check"), "{mechanism}: {error}");
        assert!(!error.contains("wrong-secret"), "{mechanism}: {error}");
        // Corrected without a restart.
        std::fs::write(&file, format!("{secret}\n")).unwrap();
        let delivering = async { while kafka.deliver(batch()).await.is_err() {} };
        tokio::time::timeout(Duration::from_secs(30), delivering).await.expect(mechanism);

        // The broker supports another mechanism only.
        broker.demand(Demands { tls: None, sasl: accounts("GSSAPI") });
        let error = refused(settings()).await;
        assert!(error.contains("sasl-mechanism"), "{mechanism}: {error}");
    }
    assert_eq!(broker.records().await, 4);
}
