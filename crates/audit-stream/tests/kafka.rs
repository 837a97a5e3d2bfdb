//! The Kafka destination against a Tansu broker.
#![cfg(feature = "kafka")]
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::time::Duration;

use audit_log::{Batch, DeliveryError, Destination};
use audit_stream::kafka::{Compression, Kafka, KafkaSettings, Partitioner};
use krafka::admin::NewTopic;
use krafka::consumer::{AutoOffsetReset, ConsumerRecord};
use krafka::producer::murmur2;
use test_support::servers::{self, Server};

const TOPIC: &str = "audit";
const PARTITIONS: i32 = 4;

fn start() -> Option<Server> {
    let address = servers::free_address();
    Some(Server::start(servers::tansu(address, address)?, address))
}

async fn cluster(broker: &Server) -> krafka::Kafka {
    krafka::Kafka::builder(broker.address().to_string()).connect().await.unwrap()
}

async fn create_topic(broker: &Server) {
    let topic = NewTopic::new(TOPIC, PARTITIONS, 1).unwrap();
    let created = cluster(broker).await.admin().create_topics([topic], Default::default()).await;
    assert!(created.unwrap().into_values().all(|topic| topic.is_ok()));
}

/// Reads so many records from the beginning.
async fn read(broker: &Server, count: usize) -> Vec<ConsumerRecord> {
    let consumer = cluster(broker).await.consumer_without_group();
    let consumer = consumer.auto_offset_reset(AutoOffsetReset::Earliest).build().await.unwrap();
    consumer.assign(TOPIC, (0..PARTITIONS).collect()).await.unwrap();
    let mut records = Vec::new();
    let reading = async {
        while records.len() < count {
            records.extend(consumer.poll(Duration::from_secs(1)).await.unwrap());
        }
    };
    tokio::time::timeout(Duration::from_secs(30), reading).await.expect("all records");
    consumer.close().await.unwrap();
    records
}

fn event(id: &str, stage: &str, padding: usize) -> String {
    format!(
        "{{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"level\":\"Metadata\",\"auditID\":\"{id}\",\
         \"stage\":\"{stage}\",\"requestURI\":\"/{}\",\"stageTimestamp\":\"2026-01-02T03:04:05.006007Z\"}}\n",
        "x".repeat(padding)
    )
}

fn batch(number: u64, events: &[String]) -> Batch {
    Batch { number, lines: events.concat().into(), events: events.len() as u64 }
}

fn destination(broker: &Server, change: impl FnOnce(&mut KafkaSettings)) -> Kafka {
    let mut settings = KafkaSettings::new(vec![broker.address().to_string()], TOPIC.to_owned());
    settings.cluster = "test".to_owned();
    settings.node = "node-1".to_owned();
    change(&mut settings);
    Kafka::new(settings).unwrap()
}

fn header<'a>(record: &'a ConsumerRecord, name: &str) -> &'a [u8] {
    let header = record.headers.iter().find(|(key, _)| key == name).unwrap();
    header.1.as_deref().unwrap()
}

#[tokio::test]
async fn records_arrive_in_the_order_of_their_request() {
    let Some(broker) = start() else { return };
    create_topic(&broker).await;
    for compression in [
        Compression::Zstd,
        Compression::Gzip,
        Compression::Lz4,
        Compression::Snappy,
        Compression::None,
    ] {
        let kafka = destination(&broker, |settings| settings.compression = compression);
        kafka.check().await.unwrap();
        let ids: Vec<_> = (0..50).map(|id| format!("{compression:?}-{id}")).collect();
        let stages = ["RequestReceived", "ResponseStarted", "ResponseComplete"];
        let events: Vec<_> = stages
            .iter()
            .flat_map(|stage| ids.iter().map(move |id| event(id, stage, 100)))
            .collect();
        kafka.deliver(batch(1, &events)).await.unwrap();
    }
    let records = read(&broker, 5 * 150).await;
    assert_eq!(records.len(), 5 * 150);
    let mut stages: HashMap<Vec<u8>, Vec<Vec<u8>>> = HashMap::new();
    for record in &records {
        let key = record.key.as_deref().unwrap();
        let expected = (murmur2(key) & 0x7fff_ffff) % PARTITIONS as u32;
        assert_eq!(record.partition, expected as i32, "like Java's producer");
        let stage = header(record, "stage");
        stages.entry(key.to_vec()).or_default().push(stage.to_vec());
        let value = String::from_utf8(record.value.as_deref().unwrap().to_vec()).unwrap();
        let id = String::from_utf8(key.to_vec()).unwrap();
        let stage = String::from_utf8(stage.to_vec()).unwrap();
        assert_eq!(format!("{value}\n"), event(&id, &stage, 100));
        assert_eq!(header(record, "cluster"), b"test");
        assert_eq!(header(record, "node"), b"node-1");
        assert_eq!(record.timestamp, 1_767_323_045_006);
    }
    assert_eq!(stages.len(), 250);
    for of_request in stages.values() {
        assert_eq!(of_request, &[&b"RequestReceived"[..], b"ResponseStarted", b"ResponseComplete"]);
    }
}

#[tokio::test]
async fn partitioners_may_ignore_the_key() {
    let Some(broker) = start() else { return };
    create_topic(&broker).await;
    let events: Vec<_> = (0..8).map(|_| event("same", "ResponseComplete", 0)).collect();
    let kafka = destination(&broker, |settings| settings.partitioner = Partitioner::RoundRobin);
    kafka.deliver(batch(1, &events)).await.unwrap();
    let mut per_partition = [0; PARTITIONS as usize];
    for record in read(&broker, 8).await {
        per_partition[record.partition as usize] += 1;
    }
    assert_eq!(per_partition, [2; PARTITIONS as usize]);

    let kafka = destination(&broker, |settings| settings.partitioner = Partitioner::Fixed(2));
    kafka.deliver(batch(2, &events)).await.unwrap();
    let records = read(&broker, 16).await;
    assert_eq!(records.iter().filter(|record| record.partition == 2).count(), 2 + 8);

    let kafka = destination(&broker, |settings| settings.partitioner = Partitioner::Fixed(9));
    let error = kafka.deliver(batch(3, &events)).await.unwrap_err();
    assert!(matches!(error, DeliveryError::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains('9'), "{error}");
}

#[tokio::test]
async fn a_topic_must_exist_and_is_found_when_it_is_created() {
    let Some(broker) = start() else { return };
    let kafka = destination(&broker, |_| {});
    let events = [event("1", "ResponseComplete", 0)];
    for error in
        [kafka.check().await.unwrap_err(), kafka.deliver(batch(1, &events)).await.unwrap_err()]
    {
        assert!(matches!(error, DeliveryError::Unavailable { .. }), "{error:?}");
        assert!(error.to_string().contains("topic audit does not exist; create it"), "{error}");
    }
    create_topic(&broker).await;
    kafka.deliver(batch(1, &events)).await.unwrap();
    kafka.check().await.unwrap();
    assert_eq!(read(&broker, 1).await.len(), 1);
}

#[tokio::test]
async fn an_event_that_is_too_large_is_rejected_alone() {
    let Some(broker) = start() else { return };
    create_topic(&broker).await;
    let kafka = destination(&broker, |settings| {
        settings.max_request_size = 20_000;
        settings.compression = Compression::None;
    });
    let small = event("small", "ResponseComplete", 100);
    let large = event("large", "ResponseComplete", 30_000);
    // More than one request, but each event fits into one.
    let many: Vec<_> =
        (0..40).map(|id| event(&format!("{id}"), "ResponseComplete", 2_000)).collect();
    kafka.deliver(batch(1, &many)).await.unwrap();
    let error = kafka.deliver(batch(2, &[small.clone(), large.clone()])).await.unwrap_err();
    assert!(matches!(error, DeliveryError::TooLarge(_)), "{error:?}");
    let error = kafka.deliver(batch(2, &[large])).await.unwrap_err();
    assert!(matches!(error, DeliveryError::Rejected(_)), "{error:?}");
    assert!(error.to_string().contains("max-request-size, 20000 bytes"), "{error}");
    kafka.deliver(batch(3, &[small])).await.unwrap();
}

#[tokio::test]
async fn a_broker_that_is_down_is_unavailable_until_it_is_back() {
    let Some(mut broker) = start() else { return };
    create_topic(&broker).await;
    let kafka = destination(&broker, |_| {});
    let events = [event("1", "ResponseComplete", 0)];
    kafka.deliver(batch(1, &events)).await.unwrap();
    broker.kill();
    let error = kafka.check().await.unwrap_err();
    assert!(matches!(error, DeliveryError::Unavailable { .. }), "{error:?}");
    // This broker has lost everything, with it the producer's ID.
    broker.restart();
    create_topic(&broker).await;
    let delivering = async { while kafka.deliver(batch(2, &events)).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(60), delivering).await.unwrap();
    assert_eq!(read(&broker, 1).await.len(), 1);
}
