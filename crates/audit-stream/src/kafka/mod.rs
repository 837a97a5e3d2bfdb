//! Kafka: each event is a record.
//!
//! - Key: the audit ID. All events of a request are in one partition, in the order in which they
//!   were recorded, unless the [`Partitioner`] is another one.
//! - Value: the event as it stands in the log, without the newline.
//! - Headers: `stage`, and `cluster` and `node` where they are configured.
//! - Timestamp: when the stage was reached (`stageTimestamp`).
//!
//! The producer is idempotent and waits for all in-sync replicas (`acks=all`). A batch counts as
//! delivered when the brokers have acknowledged all of its records. If some of them are not, the
//! whole batch is sent again with a new producer, so records may be there twice: those with the
//! same audit ID and stage are the same event.
//!
//! The client reads certificates, password and token when it connects. Changed files are noticed
//! before the next batch, which then uses a new client.

mod errors;
mod secrets;
mod settings;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use audit_log::{Batch, DeliveryError, Destination};
use audit_query::event::Event;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use krafka::admin::DescribeTopicsOptions;
use krafka::producer::{Acks, Producer, RoundRobinPartitioner};
use krafka::{
    CloseOptions, Compression as Codec, Headers, Kafka as Cluster, KrafkaError, ProtocolErrorKind,
    Record,
};

pub use self::settings::{
    Compression, DEFAULT_CLIENT_ID, DEFAULT_MAX_REQUEST_SIZE, KafkaSettings, Partitioner,
    PasswordMechanism, SaslSettings, TlsSettings,
};

use self::errors::{Step, delivery_error};
use self::secrets::Secrets;
use crate::SettingsError;
use crate::lines::lines;

/// The time in which a broker accepts a TCP connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The time in which a broker responds to a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// The time in which a record is acknowledged, with all attempts of the client's own.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a batch of one partition before compression.
const PRODUCER_BATCH_SIZE: usize = 512 << 10;
/// Bytes of records that have not been acknowledged, at most, unless one is larger.
const BUFFER_MEMORY: usize = 32 << 20;
/// Maximum time for a broker to describe the topic.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(5);
/// Minimum interval between reloads of the files with secrets.
const SECRETS_AGE: Duration = Duration::from_secs(1);

/// A topic of a Kafka cluster.
pub struct Kafka {
    settings: KafkaSettings,
    address: String,
    state: Mutex<State>,
}

/// What connects to the brokers, and the secrets it was made with.
struct State {
    secrets: Arc<Secrets>,
    secrets_read: Instant,
    /// Whether the last look at the files failed; a lasting failure is logged once.
    are_secrets_failing: bool,
    client: Option<Arc<Client>>,
}

struct Client {
    cluster: Cluster,
    producer: Producer,
}

impl fmt::Debug for Kafka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kafka").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Kafka {
    /// Checks the settings and reads the files that they name. Connects with the first batch.
    ///
    /// # Errors
    /// The first field or file that cannot be used.
    pub fn new(settings: KafkaSettings) -> Result<Kafka, SettingsError> {
        settings.validate()?;
        let secrets = Arc::new(Secrets::read(&settings)?);
        let address = format!("kafka://{}/{}", settings.brokers.join(","), settings.topic);
        if settings.exposes_secret() {
            tracing::warn!(
                destination = %address,
                "the connection to Kafka is not encrypted; the SASL password or token is sent in \
                 plain text"
            );
        }
        let state = Mutex::new(State {
            secrets,
            secrets_read: Instant::now(),
            are_secrets_failing: false,
            client: None,
        });
        Ok(Kafka { settings, address, state })
    }

    /// Returns the client; connects if there is none, or if its secrets have changed.
    async fn client(&self) -> Result<Arc<Client>, KrafkaError> {
        let (client, secrets, outdated) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let outdated = if self.reread_secrets(&mut state) { state.client.take() } else { None };
            (state.client.clone(), Arc::clone(&state.secrets), outdated)
        };
        if let Some(outdated) = outdated {
            abandon(&outdated).await;
        }
        if let Some(client) = client {
            return Ok(client);
        }
        let client = Arc::new(self.connect(&secrets).await?);
        let former = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.client.replace(Arc::clone(&client))
        };
        // `check` and `deliver` may have connected at the same time.
        if let Some(former) = former {
            abandon(&former).await;
        }
        Ok(client)
    }

    async fn connect(&self, secrets: &Secrets) -> Result<Client, KrafkaError> {
        let settings = &self.settings;
        let cluster = Cluster::builder(settings.brokers.join(","))
            .client_id(&settings.client_id)
            .security(secrets.security(settings))
            .connect_timeout(CONNECT_TIMEOUT)
            .request_timeout(REQUEST_TIMEOUT)
            .connect()
            .await?;
        // A producer would wait for a topic that does not exist.
        self.describe_topic(&cluster).await?;
        let producer = cluster
            .producer()
            .acks(Acks::All)
            .idempotent(true)
            .compression(match settings.compression {
                Compression::Zstd => Codec::Zstd,
                Compression::Gzip => Codec::Gzip,
                Compression::Lz4 => Codec::Lz4,
                Compression::Snappy => Codec::Snappy,
                Compression::None => Codec::None,
            })
            .batch_size(PRODUCER_BATCH_SIZE.min(settings.max_request_size))
            .max_request_size(settings.max_request_size)
            .buffer_memory(BUFFER_MEMORY.max(2 * settings.max_request_size))
            .delivery_timeout(DELIVERY_TIMEOUT)
            .max_block(DELIVERY_TIMEOUT)
            .metrics_push(false);
        let producer = match settings.partitioner {
            Partitioner::RoundRobin => producer.partitioner(RoundRobinPartitioner::new()),
            Partitioner::Key | Partitioner::Fixed(_) => producer,
        };
        Ok(Client { producer: producer.build().await?, cluster })
    }

    /// Checks that the topic exists and that this user may see it.
    async fn describe_topic(&self, cluster: &Cluster) -> Result<(), KrafkaError> {
        let topic = &*self.settings.topic;
        let options = DescribeTopicsOptions::default().timeout(DESCRIBE_TIMEOUT);
        let mut topics = cluster.admin().describe_topics([topic], options).await?;
        topics.remove(topic).map_or(Ok(()), |described| described.map(|_| ()))
    }

    /// Reads the files again, unless they were read just now. Returns whether they have changed. If
    /// one cannot be used, such as a certificate whose key has not been written yet, the former
    /// contents stay active.
    fn reread_secrets(&self, state: &mut State) -> bool {
        if state.secrets_read.elapsed() < SECRETS_AGE {
            return false;
        }
        state.secrets_read = Instant::now();
        let read = Secrets::read(&self.settings);
        let failed_before = std::mem::replace(&mut state.are_secrets_failing, read.is_err());
        match read {
            Ok(secrets) if secrets != *state.secrets => {
                tracing::info!(destination = %self.address, "Kafka certificates or credentials reloaded");
                state.secrets = Arc::new(secrets);
                true
            }
            Ok(_) => false,
            Err(error) => {
                if !failed_before {
                    tracing::warn!(
                        destination = %self.address,
                        %error,
                        "Kafka certificates or credentials not reloaded, the current ones stay active"
                    );
                }
                false
            }
        }
    }

    /// Drops the client, so that the next attempt opens a new connection.
    async fn discard(&self, client: &Arc<Client>) {
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.client.take_if(|current| Arc::ptr_eq(current, client));
        }
        abandon(client).await;
    }

    async fn send(&self, batch: Batch) -> Result<(), DeliveryError> {
        let failed = |step, error: &KrafkaError| {
            Err(delivery_error(error, step, &self.settings, batch.events))
        };
        let client = match self.client().await {
            Ok(client) => client,
            Err(error) => return failed(Step::Connect, &error),
        };
        match self.send_with(&client.producer, &batch.lines).await {
            Ok(()) => Ok(()),
            Err(error) => {
                // Later records of the batch must not be written before the failed ones.
                self.discard(&client).await;
                failed(Step::Produce, &error)
            }
        }
    }

    async fn send_with(&self, producer: &Producer, batch: &Bytes) -> Result<(), KrafkaError> {
        let mut unacknowledged = Vec::new();
        for line in lines(batch) {
            let record = self.record(line);
            if record.estimated_size() > self.settings.max_request_size {
                let (kind, size) = (ProtocolErrorKind::FrameTooLarge, record.estimated_size());
                return Err(KrafkaError::protocol_kind(kind, format!("{size} bytes")));
            }
            unacknowledged.push(producer.enqueue(record).await?);
        }
        // In order: a record is only acknowledged after those before it in its partition.
        for record in unacknowledged {
            let _ = record.await?;
        }
        Ok(())
    }

    fn record(&self, line: Bytes) -> Record {
        let event = Event::parse(&line).unwrap_or_default();
        let audit_id =
            event.audit_id.is_some().then(|| Bytes::from(event.audit_id.bytes().into_owned()));
        let stage = event.stage.is_some().then(|| event.stage.bytes().into_owned());
        let time = event.time();
        let mut headers = Headers::with_capacity(3);
        let mut header = |name: &str, value: Bytes| {
            if !value.is_empty() {
                headers.push((name.to_owned(), Some(value)));
            }
        };
        header("stage", stage.unwrap_or_default().into());
        header("cluster", Bytes::copy_from_slice(self.settings.cluster.as_bytes()));
        header("node", Bytes::copy_from_slice(self.settings.node.as_bytes()));
        let mut record = Record::new(&*self.settings.topic, line);
        record.key = audit_id;
        record.headers = headers;
        record.timestamp = time.map(|micros| micros.div_euclid(1000));
        if let Partitioner::Fixed(partition) = self.settings.partitioner {
            record.partition = Some(partition);
        }
        record
    }
}

/// Gives up the records that the client has not sent yet.
async fn abandon(client: &Client) {
    // The only error: some records were given up.
    let _ = client.producer.close_with(CloseOptions::new().timeout(Duration::ZERO)).await;
}

impl Destination for Kafka {
    fn address(&self) -> String {
        self.address.clone()
    }

    fn deliver(&self, batch: Batch) -> BoxFuture<'_, Result<(), DeliveryError>> {
        self.send(batch).boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), DeliveryError>> {
        async {
            let failed =
                |step, error: &KrafkaError| Err(delivery_error(error, step, &self.settings, 1));
            let client = match self.client().await {
                Ok(client) => client,
                Err(error) => return failed(Step::Connect, &error),
            };
            match self.describe_topic(&client.cluster).await {
                Ok(()) => Ok(()),
                Err(error) => failed(Step::Describe, &error),
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kafka(settings: impl FnOnce(&mut KafkaSettings)) -> Kafka {
        let mut all = KafkaSettings::new(vec!["kafka:9092".to_owned()], "audit".to_owned());
        settings(&mut all);
        Kafka::new(all).unwrap()
    }

    fn header<'a>(record: &'a Record, name: &str) -> Option<&'a [u8]> {
        let mut values = record.headers.iter().filter(|(key, _)| key == name);
        let value = values.next().and_then(|(_, value)| value.as_deref());
        assert!(values.next().is_none(), "{name} is there twice");
        value
    }

    const LINE: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"a\u002d1","stage":"ResponseComplete","requestURI":"/api","verb":"get","user":{"username":"u"},"requestReceivedTimestamp":"2026-01-02T03:04:05.000006Z","stageTimestamp":"2026-01-02T03:04:05.999999Z"}"#;

    #[test]
    fn a_record_has_the_events_identity() {
        let kafka = kafka(|settings| {
            settings.cluster = "prod".to_owned();
            settings.node = "control-1".to_owned();
        });
        let record = kafka.record(Bytes::from_static(LINE.as_bytes()));
        assert_eq!(record.key.as_deref(), Some(&b"a-1"[..]), "decoded");
        assert_eq!(record.value.as_deref(), Some(LINE.as_bytes()), "not changed");
        assert_eq!(record.timestamp, Some(1_767_323_045_999));
        assert_eq!(record.partition, None);
        assert_eq!(header(&record, "stage"), Some(&b"ResponseComplete"[..]));
        assert_eq!(header(&record, "cluster"), Some(&b"prod"[..]));
        assert_eq!(header(&record, "node"), Some(&b"control-1"[..]));
        assert_eq!(kafka.address(), "kafka://kafka:9092/audit");
    }

    #[test]
    fn what_is_not_known_is_not_in_the_record() {
        let kafka = kafka(|settings| settings.partitioner = Partitioner::Fixed(3));
        let record = kafka.record(Bytes::from_static(b"not an event"));
        assert_eq!((record.key, record.timestamp, record.partition), (None, None, Some(3)));
        assert_eq!(record.value.as_deref(), Some(&b"not an event"[..]));
        assert!(record.headers.is_empty());
    }
}
